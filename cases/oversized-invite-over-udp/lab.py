"""A contact centre whose signed INVITEs no longer fit into one datagram, and a firewall that drops later fragments.

    [agents] -- [switch] -- [firewall] -- [carrier]
    [border] ------|

Agents and the called party are SIPp, the border element and the carrier's proxy kamailio. The border element adds a
signed Identity header to each call; the carrier challenges each INVITE with 407. Agents have an old profile (one
codec) or the new one (six). ``broken``: the firewall drops fragments without ports. ``fragments-pass``: it does
not. ``trimmed``: it does, and the new profile has two codecs and compact names. ``fixed``: it does, and what is
longer than 1300 bytes goes over TCP. The border element gives up after 8 s in place of 32 s, and the carrier's
kernel stops waiting for fragments after 6 s in place of 30 s. No audio is carried.
"""

from __future__ import annotations

import base64
import json
import time
from contextlib import ExitStack
from functools import partial

from netdiag.lab import kamailio, sipp
from netdiag.lab.scenario import CALLER, End, expect, pause, request, response, scenario
from netdiag.lab.topology import Lab, Node

AGENTS, BORDER, CARRIER = "192.0.2.21", "192.0.2.10", "198.51.100.10"
DOMAIN = "carrier.example"
USER, PASSWORD = "contact-centre-4471@carrier.example", "lab"
GIVE_UP_S, REASSEMBLY_S, PROBE_S = 8, 6, 1
CALLED = 5080

# No state and no reassembly: later fragments have no ports, and the last rule of the filter is for them.
FIREWALL = f"""
table ip packet_filter {{
    chain forward {{
        type filter hook forward priority filter; policy drop
        ip protocol icmp icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} accept
        ip saddr {BORDER} ip daddr {CARRIER} meta l4proto {{ tcp, udp }} th dport 5060 accept
        ip saddr {CARRIER} ip daddr {BORDER} meta l4proto {{ tcp, udp }} th sport 5060 accept
        ip saddr {CARRIER} ip daddr {BORDER} meta l4proto {{ tcp, udp }} th dport 5060 accept
        %s
    }}
}}
"""
LATER_FRAGMENTS = "ip frag-off & 0x1fff != 0 accept"

PROFILE = """v=0
o=agent 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
"""
OLD = PROFILE + """m=audio 41000 RTP/AVP 8 101
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16"""
TRIMMED = PROFILE + """m=audio 41000 RTP/AVP 111 8 101
a=rtpmap:111 opus/48000/2
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16"""
NEW = PROFILE + """m=audio 41000 RTP/AVP 111 9 8 0 18 97 101
a=rtpmap:111 opus/48000/2
a=fmtp:111 maxaveragebitrate=40000;useinbandfec=1;usedtx=1
a=rtpmap:9 G722/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:18 G729/8000
a=fmtp:18 annexb=no
a=rtpmap:97 iLBC/8000
a=fmtp:97 mode=20
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=maxptime:60
a=sendrecv"""
ANSWER = """v=0
o=called 1 1 IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio 42000 RTP/AVP 8 101
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000"""

AGENT = End(CALLER.sender, "<sip:[number]@[domain]>")
ALLOW = "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE"
COMPACT = (("Contact:", "m:"), ("Content-Type:", "c:"), ("Content-Length:", "l:"))
# As the INVITE, with its branch (RFC 3261 §9.1, §17.1.1.3).
AS_INVITE = """<send><![CDATA[
{method} sip:[number]@[domain] SIP/2.0
{via}
Max-Forwards: 70
{sender}
{receiver}
Call-ID: [call_id]
CSeq: {cseq} {method}
Content-Length: 0

]]></send>
"""
TIMED_OUT, CANCELLED, ANSWERED = "408 to the agent", "cancelled by the agent", "answered"


PROXY = """\
debug=1
log_stderror=yes
children=2
tcp_children=2
auto_aliases=no
dns=no
rev_dns=no
server_signature=no
listen=udp:{address}:5060
{own}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
{modules}

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    force_rport();
    if (is_method("OPTIONS") && !has_totag()) {{ sl_send_reply("200", "OK"); exit; }}
    if (is_method("CANCEL")) {{
        if (t_check_trans()) {{ t_relay(); }} else {{ sl_send_reply("481", "Call/Transaction Does Not Exist"); }}
        exit;
    }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
        sl_send_reply("404", "Not here");
        exit;
    }}
    {admit}
    if (!t_newtran()) {{ exit; }}
    send_reply("100", "Trying");
    record_route();
    $du = "sip:{next}";
    t_relay();
}}
"""

# A CANCEL is sent on although no provisional response came (cancel_b_method 2), which RFC 3261 §9.1 forbids.
BORDER_MODULES = f"""
loadmodule "dispatcher.so"
modparam("tm", "fr_timer", {1000 * GIVE_UP_S})
modparam("tm", "cancel_b_method", 2)
modparam("dispatcher", "list_file", "%s")
modparam("dispatcher", "ds_ping_interval", {PROBE_S})
modparam("dispatcher", "ds_probing_mode", 1)
modparam("dispatcher", "ds_ping_from", "sip:border@contact-centre.example")
"""
SIGN = 'append_hf("Identity: {identity}\\r\\n");'
LARGE_OVER_TCP = f"""
listen=tcp:{BORDER}:5060
udp_mtu=1300
udp_mtu_try_proto=TCP
"""
CARRIER_MODULES = """
loadmodule "auth.so"
modparam("auth", "qop", "auth")
"""
CHALLENGE = f"""
    if (!pv_proxy_authenticate("{DOMAIN}", "{PASSWORD}", "0")) {{ proxy_challenge("{DOMAIN}", "1"); exit; }}
    consume_credentials();
"""


def identity() -> str:
    """The value of an Identity header: a PASSporT (RFC 8225, RFC 8588) signed with a key made for it."""
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA256

    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    url = "https://cert.example/sti.pem"
    header = {"alg": "ES256", "ppt": "shaken", "typ": "passport", "x5u": url}
    claims = {
        "attest": "A",
        "dest": {"tn": ["12155550177"]},
        "iat": int(time.time()),
        "orig": {"tn": "12155550134"},
        "origid": "7d1f8f7e-2b1c-4b7e-9a55-3d0c6c2a9f10",
    }
    signed = ".".join(encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    r, s = utils.decode_dss_signature(ec.generate_private_key(ec.SECP256R1()).sign(signed.encode(), ec.ECDSA(SHA256())))
    signature = encoded(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    return f"{signed}.{signature};info=<{url}>;alg=ES256;ppt=shaken"


def ack(cseq: int) -> str:
    """The ACK to a response that is not 2xx."""
    return AS_INVITE.format(method="ACK", via="[last_Via:]", sender="[last_From:]", receiver="[last_To:]", cseq=cseq)


def agent(offer: str, end: str) -> str:
    """A call of an agent: INVITE, 407, INVITE with credentials, and what then happens."""
    credentials = f"[authentication username={USER} password={PASSWORD}]"
    first = request(AGENT, "INVITE", 1, ALLOW, sdp=offer, initial=True)
    second = request(AGENT, "INVITE", 2, ALLOW, credentials, sdp=offer, initial=True)
    if offer == TRIMMED:
        for name, compact in COMPACT:
            first, second = first.replace(name, compact), second.replace(name, compact)
    via = "Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch-3]"
    cancel = AS_INVITE.format(
        method="CANCEL", via=via, sender=f"From: {AGENT.sender}", receiver=f"To: {AGENT.receiver}", cseq=2)
    ends = {
        ANSWERED: [expect(200, rrs="true"), request(CALLER, "ACK", 2), pause(0.6), request(CALLER, "BYE", 3),
                   expect(200)],
        TIMED_OUT: [expect(408), ack(2)],
        CANCELLED: [pause(5), cancel, expect(200), expect(487), ack(2)],
    }
    return scenario(first, expect(100), expect(407, auth="true"), ack(1), second, expect(100), *ends[end])


def callee() -> str:
    """The called party answers at once."""
    return scenario(expect("INVITE", rrs="true"), response("200 OK", sdp=ANSWER, tag=True), expect("ACK"),
                    expect("BYE"), response("200 OK"))


def network(lab: Lab, variant: str) -> dict[str, Node]:
    """Build the nodes; agents, border element and firewall are on one switch."""
    nodes = {name: lab.node(name, forward=name == "firewall") for name in (
        "agents", "border", "switch", "firewall", "carrier")}
    switch, firewall = nodes["switch"], nodes["firewall"]
    switch.run(["ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])
    switch.sysctl("net/ipv6/conf/br0/disable_ipv6", 1)
    for number, (name, iface, address) in enumerate((
        ("agents", "eth0", AGENTS), ("border", "eth0", BORDER), ("firewall", "lan", "192.0.2.1")), 1):
        lab.link(nodes[name], iface, f"{address}/24", switch, f"port{number}", f"192.0.2.{200 + number}/24")
        switch.run(["ip", "address", "flush", "dev", f"port{number}"])
        switch.run(["ip", "link", "set", "dev", f"port{number}", "master", "br0"])
    switch.run(["ip", "link", "set", "dev", "br0", "up"])
    lab.link(firewall, "wan", "198.51.100.1/24", nodes["carrier"], "eth0", f"{CARRIER}/24")
    nodes["agents"].route("default", "192.0.2.1")
    nodes["border"].route("default", "192.0.2.1")
    nodes["carrier"].route("default", "198.51.100.1")
    firewall.nft(FIREWALL % (LATER_FRAGMENTS if variant == "fragments-pass" else "drop"))
    nodes["carrier"].sysctl("net.ipv4.ipfrag_time", REASSEMBLY_S)
    return nodes


def run(lab: Lab, variant: str) -> None:
    """One call with the old profile and two with the new one, all at about the same time."""
    nodes = network(lab, variant)
    broken, over_tcp = variant == "broken", variant == "fixed"
    targets = lab.workdir / "targets"
    targets.write_text(f"1 sip:{CARRIER}:5060\n")
    kamailio.start(nodes["carrier"], lab.workdir / "carrier", PROXY.format(
        address=CARRIER, own=f"listen=tcp:{CARRIER}:5060", modules=CARRIER_MODULES, admit=CHALLENGE,
        next=f"{CARRIER}:{CALLED}"))
    # Who took the capture at the firewall chose the port of SIP; the last time, nothing.
    lab.capture(nodes["border"], "eth0", "border")
    lab.capture(nodes["firewall"], "lan", "firewall", "" if over_tcp else "udp port 5060")
    lab.capture(nodes["carrier"], "eth0", "carrier")
    kamailio.start(nodes["border"], lab.workdir / "border", PROXY.format(
        address=BORDER, own=LARGE_OVER_TCP if over_tcp else "disable_tcp=yes", modules=BORDER_MODULES % targets,
        admit=SIGN.format(identity=identity()), next=f"{CARRIER}:5060"))
    profile = TRIMMED if variant == "trimmed" else NEW
    calls = {"old": (OLD, ANSWERED), "patient": (profile, TIMED_OUT if broken else ANSWERED),
             "impatient": (profile, CANCELLED if broken else ANSWERED)}
    with ExitStack() as agents:
        called = agents.enter_context(sipp.uas(
            nodes["carrier"], lab.workdir, "callee", callee(), local=(CARRIER, CALLED), calls=1 if broken else 3,
            keys={"user": "12155550177"}))
        start = partial(sipp.uac, nodes["agents"], lab.workdir, remote=(BORDER, 5060),
                        keys={"user": "12155550134", "number": "12155550177", "domain": DOMAIN})
        running = [agents.enter_context(start(name, scenario=agent(offer, end), local=(AGENTS, 5060 + 2 * number)))
                   for number, (name, (offer, end)) in enumerate(calls.items(), 1)]
        for call in running:
            call.wait(timeout=GIVE_UP_S + 12)
        called.wait(timeout=10)
