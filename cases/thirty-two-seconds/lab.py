"""A PBX in a container, an edge proxy on its host, and a carrier whose ACK does not find the way back.

    [pbx] -- docker0 [edge] eth0 -- [core] -- [carrier]
                                      |-- caller, callee

The PBX is two softphones in one node, a queue and a clerk. Phones are baresip, both proxies kamailio. The edge host
forwards the container's RTP ports and writes its public address into the SDP, so that audio never depends on
what is wrong here. ``broken``: the edge proxy does not record its route. ``one-record-route``: one header, with the
address at which the request came in. ``published``: none, but the Contact names a port that leads to the
container. ``fixed``: one header for either side. In ``prack`` and ``prack-fixed``, which have the proxy of ``broken``
and of ``fixed``, the queue plays an announcement before it answers, and wants that 183 acknowledged; these two ends
are SIPp, as the softphones know no 100rel. No timer is shortened.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from netdiag.lab import baresip, kamailio, sipp
from netdiag.lab.scenario import CALLER as CALLING
from netdiag.lab.scenario import Packet, expect, label, pause, play, request, response, scenario, write_rtp
from netdiag.lab.topology import Lab, Node

EDGE, BRIDGE, PBX = "198.51.100.10", "172.17.0.1", "172.17.0.2"
CARRIER, CALLER, CALLEE = "192.0.2.10", "203.0.113.20", "203.0.113.40"
PUBLISHED = 5080
INSIDE, OUTSIDE = "pbx.example", "carrier.example"
QUEUE, CLERK = "5550100", "5550101"
# 16 kbit/s and 60 ms a packet keep the recordings small; nothing depends on either.
CODEC = "g726"
AUDIO = ";audio_codecs=G726-16/8000/1;ptime=60"
# Where a call could be cut, its caller would hang up well after 64 times T1 (RFC 3261 Table 4).
TALK_S = {"broken": 36, "one-record-route": 6, "published": 6, "fixed": 36}
# Who ends the outgoing call: seconds after which clerk and callee hang up.
HANG_UP_S = {"broken": (4, None), "one-record-route": (7, 4), "published": (4, None), "fixed": (6, 4)}

# What a container engine sets up: masquerading outwards, published ports inwards.
CONTAINER_NAT = f"""
table ip container {{
    chain in {{
        type nat hook prerouting priority dstnat
        iifname "eth0" udp dport {PUBLISHED} dnat to {PBX}:5060
        iifname "eth0" udp dport 16384-16584 dnat to {PBX}
    }}
    chain out {{
        type nat hook postrouting priority srcnat
        oifname "eth0" ip saddr 172.17.0.0/16 masquerade
    }}
}}
"""

PROXY = """\
debug=1
log_stderror=yes
children=2
auto_aliases=no
disable_tcp=yes
dns=no
rev_dns=no
server_signature=no
mhomed=1
{listen}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "nathelper.so"
modparam("rr", "enable_double_rr", {double})

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    force_rport();
    if (is_method("REGISTER")) {{
        if (!save("location")) {{ sl_reply_error(); }}
        exit;
    }}
    if (is_method("CANCEL")) {{
        if (t_check_trans()) {{ t_relay(); }}
        exit;
    }}
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
        sl_send_reply("404", "Not here");
        exit;
    }}
    if (!t_newtran()) {{ exit; }}
    if (is_method("INVITE")) {{ send_reply("100", "Trying"); }}
    {record}
    {destination}
    if ($du == $null && !lookup("location")) {{ t_reply("404", "Not Found"); exit; }}
    t_on_reply("REPLY");
    t_relay();
}}

onreply_route[REPLY] {{
    {reply}
}}
"""

TO_CARRIER = f"""if (src_ip == {PBX}) {{
        fix_nated_sdp("2", "{EDGE}");
        $du = "sip:{CARRIER}:5060";
    }}"""
TO_QUEUE = f"""
    else {{ $du = "sip:{PBX}:5060"; }}"""
PUBLIC_MEDIA = f"""if (src_ip == {PBX} && has_body("application/sdp")) {{ fix_nated_sdp("2", "{EDGE}"); }}"""
PUBLIC_CONTACT = f"""
    subst_hf("Contact", "/@{PBX}:5060/@{EDGE}:{PUBLISHED}/", "f");"""
TO_EDGE = f"""if ($rU == "{QUEUE}") {{ $rd = "{INSIDE}"; $du = "sip:{EDGE}:5060"; }}"""

# The ends of a call with 100rel (RFC 3262). Between two sends of the reliable 183: T1, doubled without a limit, until
# 64 times T1 are over (§3).
WAITS_S = (0.5, 1, 2, 4, 8, 16, 0.5)
RSEQ = 4711
ANNOUNCEMENT_S = 6.0
SDP = """
v=0
o=- 1 1 IN IP4 [media_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 3
a=rtpmap:3 GSM/8000
a=ptime:20
a=sendrecv
"""
# A GSM 06.10 frame of silence: what its encoder gives for zero samples.
GSM_SILENCE = bytes.fromhex("d820a2e15a50004924924924500049249249245000492492492450004924924924")
# The caller's host reads audio with no program: without this it would answer it with ICMP port unreachable.
SINK = """
table ip sink {
    chain in {
        type filter hook input priority filter
        udp dport 16000-16100 drop
    }
}
"""
# The INVITE comes with every header up to Max-Forwards that its answers repeat, and a PRACK may follow it.
INVITED = """<recv request="INVITE"><action>
<ereg regexp="SIP/2.0[[:space:]]+(.*)Max-Forwards" search_in="msg" assign_to="all,way"/>
<ereg regexp=".*" search_in="hdr" header="From:" assign_to="from"/>
<ereg regexp=".*" search_in="hdr" header="To:" assign_to="to"/>
</action></recv>
<Reference variables="all"/>
"""
ANSWER = """<send retrans="500"><![CDATA[
SIP/2.0 200 OK
[$way]From: [$from]
To: [$to];tag=[pid]b[call_number]
Call-ID: [call_id]
CSeq: 1 INVITE
Contact: <sip:[user]@[local_ip]:[local_port]>
Content-Length: 0

]]></send>
"""
ACK_REFUSED = """<send><![CDATA[
ACK sip:[number]@[domain] SIP/2.0
[last_Via:]
Max-Forwards: 70
[last_From:]
[last_To:]
Call-ID: [call_id]
CSeq: 1 ACK
Content-Length: 0

]]></send>
"""


def once(step: str) -> str:
    """The same step without SIPp's own repetition."""
    return step.replace(' retrans="500"', "")


def calls_with_100rel() -> str:
    """The caller: it repeats its PRACK with each repetition of the 183, and waits for what the queue decides."""
    return scenario(
        request(CALLING, "INVITE", 1, "Supported: 100rel", sdp=SDP, initial=True), expect(100, optional=True),
        expect(183, rrs="true"), once(request(CALLING, "PRACK", 2, f"RAck: {RSEQ} 1 INVITE")),
        expect(408, optional=True), expect(504, optional=True, next=1), expect(200),
        expect(200), request(CALLING, "ACK", 1), pause(1), request(CALLING, "BYE", 3), expect(200, next=2),
        label(1), ACK_REFUSED, label(2), pause(0.1),
    )


def queue_with_100rel(audio: Path) -> str:
    """The queue: it answers as soon as a PRACK comes, and refuses the call when none has come after 32 s."""
    progress = once(response("183 Session Progress", "Require: 100rel", f"RSeq: {RSEQ}", sdp=SDP, tag=True))
    steps = [INVITED, progress, play(audio)]
    for number, wait_s in enumerate(WAITS_S, 1):
        steps += [expect("PRACK", timeout=round(1000 * wait_s), ontimeout=number, next=8), label(number)]
        steps += [progress] if number < len(WAITS_S) else []
    return scenario(
        *steps, response("504 Server Time-out", tag=True), expect("ACK", next=9),
        label(8), response("200 OK"), pause(ANNOUNCEMENT_S), ANSWER, expect("ACK"), expect("BYE"), response("200 OK"),
        label(9), pause(0.1),
    )


def edge_config(variant: str) -> str:
    """The edge proxy: what differs is Record-Route, and in ``published`` the Contact of the PBX's replies."""
    return PROXY.format(
        listen=f"listen=udp:{BRIDGE}:5060\nlisten=udp:{EDGE}:5060",
        double=int(variant in ("fixed", "prack-fixed")),
        record="record_route();" if variant in ("one-record-route", "fixed", "prack-fixed") else "",
        destination=TO_CARRIER + (TO_QUEUE if variant.startswith("prack") else ""),
        reply=PUBLIC_MEDIA + (PUBLIC_CONTACT if variant == "published" else ""),
    )


def carrier_config() -> str:
    """The carrier's proxy: registers its phones, records its route, sends the PBX's number to the edge."""
    return PROXY.format(
        listen=f"listen=udp:{CARRIER}:5060", double=1, record="record_route();", destination=TO_EDGE, reply="return;"
    )


def network(lab: Lab) -> dict[str, Node]:
    """Build the nodes; the core network drops what goes to private addresses, without a word."""
    names = ("pbx", "edge", "core", "carrier", "caller", "callee")
    nodes = {name: lab.node(name, forward=name in ("edge", "core")) for name in names}
    edge, core = nodes["edge"], nodes["core"]
    lab.link(nodes["pbx"], "eth0", f"{PBX}/16", edge, "docker0", f"{BRIDGE}/16")
    lab.link(edge, "eth0", f"{EDGE}/24", core, "edge", "198.51.100.1/24")
    lab.link(nodes["carrier"], "eth0", f"{CARRIER}/24", core, "trunk", "192.0.2.1/24")
    lab.link(nodes["caller"], "eth0", f"{CALLER}/28", core, "caller", "203.0.113.17/28")
    lab.link(nodes["callee"], "eth0", f"{CALLEE}/28", core, "callee", "203.0.113.33/28")
    for name, via in (
        ("pbx", BRIDGE),
        ("edge", "198.51.100.1"),
        ("carrier", "192.0.2.1"),
        ("caller", "203.0.113.17"),
        ("callee", "203.0.113.33"),
    ):
        nodes[name].route("default", via)
    core.run(["ip", "route", "add", "blackhole", "172.16.0.0/12"])
    edge.nft(CONTAINER_NAT)
    return nodes


def run(lab: Lab, variant: str) -> None:
    """Start both proxies and the captures, and make the calls of the variant."""
    with suppress(PermissionError):
        # Softphones that wait for a busy processor send uneven audio, and netdiag would rightly say so.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    nodes = network(lab)
    kamailio.start(nodes["edge"], lab.workdir / "edge", edge_config(variant))
    kamailio.start(nodes["carrier"], lab.workdir / "carrier", carrier_config())
    lab.capture(nodes["edge"], "docker0", "inside")
    lab.capture(nodes["edge"], "eth0", "outside")
    lab.capture(nodes["carrier"], "eth0", "carrier")
    if variant.startswith("prack"):
        call_with_100rel(lab, nodes)
    else:
        two_calls(lab, nodes, variant)


def call_with_100rel(lab: Lab, nodes: dict[str, Node]) -> None:
    """One incoming call to the queue, which plays an announcement before it answers."""
    nodes["caller"].nft(SINK)
    voice = (Packet(n * 0.02, 3, 160 * n, GSM_SILENCE, n == 0) for n in range(int(ANNOUNCEMENT_S * 50)))
    audio = write_rtp(lab.workdir / "announcement.pcap", voice, 0x5EED0001)
    with sipp.uas(
        nodes["pbx"], lab.workdir, "queue", queue_with_100rel(audio), local=(PBX, 5060), media_addr=PBX,
        media_port=16400, keys={"user": QUEUE},
    ) as queue, sipp.uac(
        nodes["caller"], lab.workdir, "caller", calls_with_100rel(), local=(CALLER, 5060), remote=(CARRIER, 5060),
        media_addr=CALLER, media_port=16000, keys={"user": "5550199", "number": QUEUE, "domain": OUTSIDE},
    ) as caller:
        caller.wait(timeout=45)
        queue.wait(timeout=5)


def two_calls(lab: Lab, nodes: dict[str, Node], variant: str) -> None:
    """An outgoing call of the clerk, then an incoming one to the queue, which its caller would hang up."""
    clerk_s, callee_s = HANG_UP_S[variant]
    extension = partial(
        baresip.start, nodes["pbx"], lab.workdir, address=PBX, domain=INSIDE, proxy=f"{BRIDGE}:5060", codec=CODEC
    )
    phone = partial(baresip.start, workdir=lab.workdir, domain=OUTSIDE, proxy=f"{CARRIER}:5060", codec=CODEC)
    answers = f";answermode=auto{AUDIO}"
    extension(QUEUE, account=answers)
    phone(nodes["callee"], user="5550177", address=CALLEE, account=answers, seconds=callee_s)
    clerk = extension(
        CLERK, port=5070, rtp_ports="16500-16584", account=AUDIO, seconds=clerk_s,
        commands=[f"/dial sip:5550177@{OUTSIDE}"],
    )
    clerk.wait(timeout=clerk_s + 10, check=False)
    caller = phone(
        nodes["caller"], user="5550199", address=CALLER, account=AUDIO, seconds=TALK_S[variant],
        commands=[f"/dial sip:{QUEUE}@{OUTSIDE}"],
    )
    caller.wait(timeout=TALK_S[variant] + 10, check=False)
