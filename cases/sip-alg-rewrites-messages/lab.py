"""Two desk phones behind a small router that edits their SIP messages, and a provider that can deal with NAT.

    [phone1], [phone2] -- br-lan [router] wan -- [core] -- eth0 [provider] eth1 -- [office]

Phones are SIPp, the provider is kamailio. ``helper``: the router runs the Linux kernel's own ALG, nf_conntrack_sip.
``broken``: a hop of sixty lines stands in its place and imitates what is told of faulty ones; nothing else here is an
imitation. ``other-port``: that hop is there, and the phones talk to port 5070. ``fixed``: no ALG. The provider gives
up a BYE after 4 s in place of 32 s. No audio is carried.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

from netdiag.lab import kamailio, sipp
from netdiag.lab.scenario import CALLED, CALLER, expect, invited, label, pause, request, response, scenario
from netdiag.lab.topology import Lab, Node

PHONES = {"2101": "192.168.10.21", "2102": "192.168.10.22"}
LAN, PUBLIC, PROVIDER, OFFICE = "192.168.10.1", "203.0.113.27", "198.51.100.20", "192.0.2.51"
DOMAIN = "provider.example"
GIVE_UP_S = 4
# A phone repeats its REGISTER three times (RFC 3261 §17.1.2.2), and the other one is there as long.
PATIENCE_MS, HELD_MS = 4500, 6500

ROUTER = """
table ip router {
    %s
    chain out {
        type nat hook postrouting priority srcnat
        oifname "wan" masquerade
    }
    chain to_lan {
        type filter hook forward priority filter
        iifname "wan" ct state new drop
    }
}
"""
KERNEL_HELPER = """
    ct helper sip-5060 {
        type "sip" protocol udp
    }
    chain watch {
        type filter hook prerouting priority filter
        udp dport 5060 ct helper set "sip-5060"
    }
"""
TO_HOP = f"""
    chain catch {{
        type nat hook prerouting priority dstnat
        iifname "br-lan" ip daddr {PROVIDER} udp dport 5060 redirect to :5060
    }}
"""

# Three faults of the kinds that users tell of ALGs, in a combination of our own: Via with the public address and
# 5060, without rport, whichever port the packet leaves from; Contact only where a dialog or registration begins; SDP
# counted, and copied, up to the second m= line.
HOP = r'''
import re, select, socket, sys
LAN, PUBLIC, PROVIDER = sys.argv[1:]

def bound(address, *ports):
    for port in ports:
        s = socket.socket(type=socket.SOCK_DGRAM)
        try:
            s.bind((address, port))
            return s
        except OSError:
            s.close()

def edited(data, phone, port):
    head, _, body = data.decode("latin-1").partition("\r\n\r\n")
    start, *headers = head.split("\r\n")
    asked = not start.startswith("SIP/2.0")
    begins = not asked or not re.search(r"^To:.*;tag=", head, re.M)
    via = True
    public, private = f"{PUBLIC}:{port}", f"{phone[0]}:{phone[1]}"
    for i, header in enumerate(headers):
        if header.startswith("Via:") and asked and via:
            headers[i] = re.sub(r"UDP [^;]+", f"UDP {PUBLIC}:5060", header.replace(";rport", ""))
            via = False
        elif header.startswith("Contact:") and begins:
            headers[i] = header.replace(private, public)
    if body:
        second = body.find("m=", body.find("m=") + 2)
        body = body[:second] if second > 0 else body
        body = body.replace(phone[0], PUBLIC, 2)
        headers = [re.sub(r"^Content-Length: *\d+", f"Content-Length: {len(body)}", h) for h in headers]
    return ("\r\n".join([start, *headers]) + "\r\n\r\n" + body).encode("latin-1")

inside, outside, phones = bound(LAN, 5060), {}, {}
print("ready")
while True:
    for s in select.select([inside, *phones], [], [])[0]:
        data, peer = s.recvfrom(65535)
        if s is not inside:
            port = s.getsockname()[1]
            phone = phones[s]
            data = data.replace(f"{PUBLIC}:{port}".encode(), f"{phone[0]}:{phone[1]}".encode())
            inside.sendto(data, phone)
            continue
        if peer not in outside:
            outside[peer] = bound(PUBLIC, peer[1], *range(1024, 1100))
            phones[outside[peer]] = peer
        out = outside[peer]
        out.sendto(edited(data, peer, out.getsockname()[1]), (PROVIDER, 5060))
'''

PROVIDER_PROXY = f"""\
debug=1
log_stderror=yes
children=2
auto_aliases=no
disable_tcp=yes
dns=no
rev_dns=no
server_signature=no
listen=udp:{PROVIDER}:5060
listen=udp:{PROVIDER}:5070
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
modparam("nathelper|registrar", "received_avp", "$avp(received)")
modparam("rr", "append_fromtag", 0)
modparam("tm", "fr_timer", {1000 * GIVE_UP_S})

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    # 1: the Contact is private; 2: the Via names another address than the packet's source.
    if (nat_uac_test("3")) {{
        force_rport();
        setflag(1);
    }}
    if (is_method("REGISTER")) {{
        if (isflagset(1)) {{ fix_nated_register(); }}
        if (!save("location")) {{ sl_reply_error(); }}
        exit;
    }}
    if (is_method("CANCEL")) {{
        if (t_check_trans()) {{ t_relay(); }}
        exit;
    }}
    if (has_totag()) {{
        if (loose_route()) {{
            # Whether a side is behind NAT was found out when the dialog began.
            if (is_method("INVITE")) {{ record_route(); }}
            if (check_route_param("nat=yes")) {{
                add_rr_param(";nat=yes");
                if (isflagset(1)) {{ set_contact_alias(); }}
            }}
            handle_ruri_alias();
            t_on_reply("REPLY");
            t_relay();
        }} else if (is_method("ACK")) {{
            if (t_check_trans()) {{ t_relay(); }}
        }} else {{
            sl_send_reply("404", "Not here");
        }}
        exit;
    }}
    if (!t_newtran()) {{ exit; }}
    if (is_method("INVITE")) {{ send_reply("100", "Trying"); }}
    record_route();
    if (isflagset(1)) {{
        set_contact_alias();
        add_rr_param(";nat=yes");
    }}
    if ($rU =~ "^22") {{
        $du = "sip:{OFFICE}:" + "50" + $(rU{{s.substr,-2,2}});
    }} else if (!lookup("location")) {{
        t_reply("404", "Not Found");
        exit;
    }}
    t_on_reply("REPLY");
    t_relay();
}}

onreply_route[REPLY] {{
    if (nat_uac_test("1")) {{ set_contact_alias(); }}
}}
"""

AUDIO = """v=0
o=- {version} {version} IN IP4 [local_ip]
s=-
c=IN IP4 [local_ip]
t=0 0
m=audio 40000 RTP/AVP 8
a=rtpmap:8 PCMA/8000
a={direction}"""
VIDEO = """
m=video 40002 RTP/AVP 31
c=IN IP4 [local_ip]
a=rtpmap:31 H261/90000
a=sendrecv"""


def sdp(version: int, direction: str, video: bool = False) -> str:
    """A description; with ``video`` it has a second media line."""
    return AUDIO.format(version=version, direction=direction) + (VIDEO if video else "")


def rport(step: str) -> str:
    """The step, with rport in its Via (RFC 3581 §3)."""
    return step.replace("branch=[branch]", "branch=[branch];rport")


REGISTER = rport(request(CALLER, "REGISTER", 1, "Expires: 3600", initial=True)).replace(
    "[number]@[domain] SIP", "[domain] SIP")
OPENS = (rport(request(CALLER, "INVITE", 1, sdp=sdp(1, "sendrecv"), initial=True)), expect(100),
         expect(200, rrs="true"), rport(request(CALLER, "ACK", 1)), pause(0.3))
TRYING = expect(100, optional=True)
HANGS_UP = (rport(request(CALLER, "BYE", 3)), expect(200))
ANSWERS = (invited(), response("200 OK", sdp=sdp(1, "sendrecv"), tag=True), expect("ACK"))

PHONE_REGISTERS = scenario(REGISTER, expect(200, timeout=PATIENCE_MS, ontimeout=1), label(1), pause(0.1))
PHONE_IS_CALLED = scenario(*ANSWERS, expect("BYE"), response("200 OK"))
PHONE_HOLDS = scenario(
    *OPENS, rport(request(CALLER, "INVITE", 2, sdp=sdp(2, "sendonly"))), TRYING, expect(200),
    rport(request(CALLER, "ACK", 2)), expect("BYE", timeout=HELD_MS, ontimeout=1), response("200 OK"),
    label(1), pause(0.1))
PHONE_ADDS_VIDEO = scenario(
    *OPENS, rport(request(CALLER, "INVITE", 2, sdp=sdp(2, "sendrecv", video=True))), TRYING, expect(200),
    rport(request(CALLER, "ACK", 2)), pause(0.3), *HANGS_UP)

# Each INVITE renews the remote target (RFC 3261 §12.2.2); SIPp itself keeps the first one.
REFRESHED = ('<recv request="INVITE"><action><ereg regexp="sip:[^&gt;]*" search_in="hdr" header="Contact:" '
             'assign_to="target"/></action></recv>\n')
OFFICE_CALLS = scenario(*OPENS, *HANGS_UP)
OFFICE_IS_HELD = scenario(
    *ANSWERS, REFRESHED, response("200 OK", sdp=sdp(2, "recvonly")), expect("ACK"), pause(0.5),
    request(CALLED, "BYE", 1).replace("[next_url]", "[$target]"), expect(200, optional=True, next=2), expect(408),
    label(2), pause(0.1))
OFFICE_ANSWERS_LINES = scenario(
    *ANSWERS,
    '<recv request="INVITE" next="3" test="two"><action>'
    '<ereg regexp="m=video" search_in="body" assign_to="two"/></action></recv>\n',
    response("200 OK", sdp=sdp(2, "sendrecv")).replace("<send", '<send next="4"', 1),
    label(3), response("200 OK", sdp=sdp(2, "sendrecv", video=True)), label(4),
    expect("ACK"), expect("BYE"), response("200 OK"))


def network(lab: Lab, variant: str) -> dict[str, Node]:
    """Build the nodes; the network between drops what goes to private addresses."""
    names = ("phone1", "phone2", "router", "core", "provider", "office")
    nodes = {name: lab.node(name, forward=name in ("router", "core", "provider")) for name in names}
    router, core, provider = nodes["router"], nodes["core"], nodes["provider"]
    for number, address in enumerate(PHONES.values(), 1):
        inner = f"192.168.10.{number + 1}/24"  # until the bridge takes the port
        lab.link(nodes[f"phone{number}"], "eth0", f"{address}/24", router, f"lan{number}", inner)
    lab.link(router, "wan", f"{PUBLIC}/24", core, "site", "203.0.113.1/24")
    lab.link(core, "edge", "198.51.100.1/24", provider, "eth0", f"{PROVIDER}/24")
    lab.link(provider, "eth1", "192.0.2.1/24", nodes["office"], "eth0", f"{OFFICE}/24")
    router.run(["ip", "link", "add", "br-lan", "type", "bridge", "mcast_snooping", "0"])
    router.sysctl("net/ipv6/conf/br-lan/disable_ipv6", 1)
    for port in ("lan1", "lan2"):
        router.run(["ip", "address", "flush", "dev", port])
        router.run(["ip", "link", "set", "dev", port, "master", "br-lan"])
    router.run(["ip", "address", "add", f"{LAN}/24", "dev", "br-lan"])
    router.run(["ethtool", "-K", "br-lan", "tx", "off"])
    router.run(["ip", "link", "set", "dev", "br-lan", "up"])
    if Path("/proc/sys/net/bridge").exists():
        # Else IP rules are asked inside the bridge as well, and its interface shows packets that are changed already.
        router.sysctl("net.bridge.bridge-nf-call-iptables", 0)
    for name, via in (("phone1", LAN), ("phone2", LAN), ("router", "203.0.113.1"), ("provider", "198.51.100.1"),
                      ("office", "192.0.2.1")):
        nodes[name].route("default", via)
    core.run(["ip", "route", "add", "blackhole", "192.168.0.0/16"])
    hop = variant in ("broken", "other-port")
    router.nft(ROUTER % (TO_HOP if hop else KERNEL_HELPER if variant == "helper" else ""))
    if hop:
        router.python(HOP, LAN, PUBLIC, PROVIDER, name="hop", ready="ready")
    return nodes


def run(lab: Lab, variant: str) -> None:
    """Phone 1 registers, is called, holds a call, adds video to another; meanwhile phone 2 registers."""
    nodes = network(lab, variant)
    kamailio.start(nodes["provider"], lab.workdir, PROVIDER_PROXY)
    lab.capture(nodes["router"], "br-lan", "lan")
    lab.capture(nodes["router"], "any" if variant in ("broken", "helper") else "wan", "router")
    lab.capture(nodes["provider"], "eth0", "provider")
    remote = (PROVIDER, 5070 if variant == "other-port" else 5060)
    to_2101, to_2102, to_2201, to_2202 = (
        {"user": user, "number": number, "domain": DOMAIN}
        for user, number in (("2101", "2101"), ("2102", "2102"), ("2101", "2201"), ("2101", "2202")))
    phone1 = (PHONES["2101"], 5060)
    phone = partial(sipp.uac, nodes["phone1"], lab.workdir, local=phone1, remote=remote)
    office = partial(sipp.uas, nodes["office"], lab.workdir, keys={"user": "2201"})
    with ExitStack() as agents:
        phone("registers", scenario=PHONE_REGISTERS, keys=to_2101).wait()
        called = agents.enter_context(
            sipp.uas(nodes["phone1"], lab.workdir, "called", PHONE_IS_CALLED, local=phone1, keys={"user": "2101"}))
        sipp.uac(nodes["office"], lab.workdir, "calls", OFFICE_CALLS, local=(OFFICE, 5060), remote=(PROVIDER, 5060),
                 keys={**to_2101, "user": "2201"}).wait()
        called.wait()
        held = agents.enter_context(office("held", OFFICE_IS_HELD, local=(OFFICE, 5001)))
        lines = agents.enter_context(office("lines", OFFICE_ANSWERS_LINES, local=(OFFICE, 5002)))
        holding = agents.enter_context(phone("holds", scenario=PHONE_HOLDS, keys=to_2201))
        second = agents.enter_context(sipp.uac(
            nodes["phone2"], lab.workdir, "second", PHONE_REGISTERS, local=(PHONES["2102"], 5060), remote=remote,
            keys=to_2102))
        for agent in (holding, held, second):
            agent.wait()
        phone("adds-video", scenario=PHONE_ADDS_VIDEO, keys=to_2202).wait()
        lines.wait()
