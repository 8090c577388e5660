"""Two desk phones register for an hour through a firewall that forgets UDP flows after five seconds.

    phone1, phone2 -- br-lan [fw] wan -- [isp] -- eth0 [registrar]
                                           \\-- caller

Phones and caller are SIPp, the registrar is kamailio. ``broken``: nothing is sent between two REGISTERs.
``fixed``: the registrar sends OPTIONS every two seconds to contacts behind NAT. Three things are shorter than
in the field, in proportion: the UDP timeout (5 s for 60 s), the wait of the proxy for an answer (8 s for 32 s:
five INVITEs instead of seven), and the silence before the call. No audio is carried.

``tcp`` and ``tcp-keepalive``: the phones are baresip and register over TCP for two hours. In ``tcp`` nothing is sent,
in ``tcp-keepalive`` the registrar's kernel probes the connection. Calls ring and are cancelled.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

from netdiag.lab import baresip, kamailio, sipp
from netdiag.lab.process import Process, wait_until
from netdiag.lab.topology import Lab, Node

DOMAIN = "registrar.example"
REGISTRAR = "198.51.100.20"
CALLER = "192.0.2.50"
PUBLIC = "203.0.113.66"
PHONES = {"2101": "10.30.0.21", "2102": "10.30.0.22"}
UDP_TIMEOUT_S = 5
SILENCE_S = 6.5
INVITE_TIMEOUT_S = 8
# The group that registers over TCP: the firewall forgets first, the registrar closes later.
# kamailio closes about 8 s later than it is told, when its processes have handed the connection back.
TCP_TIMEOUT_S, TCP_LIFETIME_S, TCP_EXPIRES_S = 8, 2, 7200
TCP_SILENCE_S = 13
# Between the end of a failed call and the phone's restart.
AWAY_S = 3.5
# A phone without power sends nothing; the kernel of its node would still close connections.
UNPLUGGED = """
table ip unplugged {
    chain out {
        type filter hook output priority filter
        tcp flags & (fin | rst) != 0 drop
    }
}
"""

FIREWALL = """
table ip store {
    chain out {
        type nat hook postrouting priority srcnat
        oifname "wan" masquerade fully-random
    }
    chain to_firewall {
        type filter hook input priority filter
        iifname "wan" ct state new drop
    }
    chain to_lan {
        type filter hook forward priority filter
        iifname "wan" ct state new drop
    }
}
"""

PINGS: list[tuple[str, str, str | int]] = [
    ("usrloc", "nat_bflag", 6),
    ("nathelper", "sipping_bflag", 7),
    ("nathelper", "sipping_from", f"sip:keepalive@{DOMAIN}"),
    ("nathelper", "natping_interval", 2),
    ("nathelper", "ping_nated_only", 1),
]

REGISTER = """
  <send retrans="500"><![CDATA[
    REGISTER sip:[domain] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
    Max-Forwards: 70
    From: <sip:[user]@[domain]>;tag=[pid]reg[call_number]
    To: <sip:[user]@[domain]>
    Call-ID: [call_id]
    CSeq: [cseq] REGISTER
    Contact: <sip:[user]@[local_ip]:[local_port]>
    Expires: 3600
    User-Agent: SIPp desk phone
    Content-Length: 0

  ]]></send>
  <recv response="200"/>
"""

PHONE = f"""<?xml version="1.0" encoding="UTF-8"?>
<scenario name="phone">
{REGISTER}
  <pause/>
{REGISTER}
  <pause milliseconds="20000"/>
</scenario>
"""

# What the phone does with a request that reaches it: OPTIONS gets 200, an INVITE is answered.
ON_REQUEST = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="phone, incoming">
  <recv request="OPTIONS" optional="true" next="ping"/>
  <recv request="INVITE" rrs="true"/>
  <send><![CDATA[
    SIP/2.0 180 Ringing
    [last_Via:]
    [last_From:]
    [last_To:];tag=[pid]in[call_number]
    [last_Call-ID:]
    [last_CSeq:]
    [last_Record-Route:]
    Contact: <sip:[user]@[local_ip]:[local_port]>
    Content-Length: 0

  ]]></send>
  <pause milliseconds="200"/>
  <send retrans="500"><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:];tag=[pid]in[call_number]
    [last_Call-ID:]
    [last_CSeq:]
    [last_Record-Route:]
    Contact: <sip:[user]@[local_ip]:[local_port]>
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=phone 1 1 IN IP4 [public]
    s=-
    c=IN IP4 [public]
    t=0 0
    m=audio 40000 RTP/AVP 0
    a=rtpmap:0 PCMU/8000

  ]]></send>
  <recv request="ACK"/>
  <recv request="BYE"/>
  <send next="over"><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:]
    [last_Call-ID:]
    [last_CSeq:]
    Content-Length: 0

  ]]></send>
  <label id="ping"/>
  <send><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:];tag=[pid]in[call_number]
    [last_Call-ID:]
    [last_CSeq:]
    Content-Length: 0

  ]]></send>
  <label id="over"/>
</scenario>
"""

INVITE = """<?xml version="1.0" encoding="UTF-8"?>
<scenario name="caller">
  <send retrans="500"><![CDATA[
    INVITE sip:[number]@[domain] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
    Max-Forwards: 70
    From: <sip:5550199@[local_ip]>;tag=[pid]out[call_number]
    To: <sip:[number]@[domain]>
    Call-ID: [call_id]
    CSeq: 1 INVITE
    Contact: <sip:5550199@[local_ip]:[local_port]>
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=caller 1 1 IN IP4 [local_ip]
    s=-
    c=IN IP4 [local_ip]
    t=0 0
    m=audio 42000 RTP/AVP 0
    a=rtpmap:0 PCMU/8000

  ]]></send>
  <recv response="100" optional="true"/>
"""

ANSWERED = (
    INVITE
    + """
  <recv response="180" optional="true"/>
  <recv response="200" rrs="true"/>
  <send><![CDATA[
    ACK [next_url] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
    Max-Forwards: 70
    [routes]
    From: <sip:5550199@[local_ip]>;tag=[pid]out[call_number]
    To: <sip:[number]@[domain]>[peer_tag_param]
    Call-ID: [call_id]
    CSeq: 1 ACK
    Content-Length: 0

  ]]></send>
  <pause milliseconds="600"/>
  <send retrans="500"><![CDATA[
    BYE [next_url] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch];rport
    Max-Forwards: 70
    [routes]
    From: <sip:5550199@[local_ip]>;tag=[pid]out[call_number]
    To: <sip:[number]@[domain]>[peer_tag_param]
    Call-ID: [call_id]
    CSeq: 2 BYE
    Content-Length: 0

  ]]></send>
  <recv response="200"/>
</scenario>
"""
)

ACK_FAILED = """
  <send><![CDATA[
    ACK sip:[number]@[domain] SIP/2.0
    [last_Via:]
    Max-Forwards: 70
    From: <sip:5550199@[local_ip]>;tag=[pid]out[call_number]
    To: <sip:[number]@[domain]>[peer_tag_param]
    Call-ID: [call_id]
    CSeq: 1 ACK
    Content-Length: 0

  ]]></send>
</scenario>
"""

UNANSWERED = f"""{INVITE}
  <recv response="408"/>
{ACK_FAILED}"""

RINGS = f"""{INVITE}
  <recv response="180"/>
  <pause milliseconds="300"/>
  <send retrans="500"><![CDATA[
    CANCEL sip:[number]@[domain] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch-4];rport
    Max-Forwards: 70
    From: <sip:5550199@[local_ip]>;tag=[pid]out[call_number]
    To: <sip:[number]@[domain]>
    Call-ID: [call_id]
    CSeq: 1 CANCEL
    Content-Length: 0

  ]]></send>
  <recv response="200"/>
  <recv response="487"/>
{ACK_FAILED}"""


def network(lab: Lab) -> dict[str, Node]:
    """Build the nodes; the firewall forgets UDP flows after UDP_TIMEOUT_S and answers nothing unsolicited."""
    names = ("phone1", "phone2", "fw", "isp", "caller", "registrar")
    nodes = {name: lab.node(name, forward=name in ("fw", "isp")) for name in names}
    fw, isp = nodes["fw"], nodes["isp"]
    for number, address in enumerate(PHONES.values(), 1):
        lab.link(nodes[f"phone{number}"], "eth0", f"{address}/24", fw, f"lan{number}", f"10.30.0.{number}/24")
    lab.link(fw, "wan", f"{PUBLIC}/24", isp, "store", "203.0.113.1/24")
    lab.link(isp, "core", "198.51.100.1/24", nodes["registrar"], "eth0", f"{REGISTRAR}/24")
    lab.link(isp, "trunk", "192.0.2.1/24", nodes["caller"], "eth0", f"{CALLER}/24")
    fw.run(["ip", "link", "add", "br-lan", "type", "bridge", "mcast_snooping", "0"])
    fw.sysctl("net/ipv6/conf/br-lan/disable_ipv6", 1)
    for port in ("lan1", "lan2"):
        fw.run(["ip", "address", "flush", "dev", port])
        fw.run(["ip", "link", "set", "dev", port, "master", "br-lan"])
    fw.run(["ip", "address", "add", "10.30.0.1/24", "dev", "br-lan"])
    fw.run(["ip", "link", "set", "dev", "br-lan", "up"])
    for name, via in (
        ("phone1", "10.30.0.1"),
        ("phone2", "10.30.0.1"),
        ("fw", "203.0.113.1"),
        ("registrar", "198.51.100.1"),
        ("caller", "192.0.2.1"),
    ):
        nodes[name].route("default", via)
    fw.nft(FIREWALL)
    fw.sysctl("net.netfilter.nf_conntrack_udp_timeout", UDP_TIMEOUT_S)
    fw.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", UDP_TIMEOUT_S)
    fw.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", TCP_TIMEOUT_S)
    return nodes


def call_both(lab: Lab, caller: Node, stage: str, scenario: str) -> None:
    """Call both phones at once and wait until both calls are over as the scenario says."""
    with ExitStack() as agents:
        calls = [
            agents.enter_context(
                sipp.uac(
                    caller,
                    lab.workdir,
                    f"{stage}-{number}",
                    scenario,
                    local=(CALLER, 5060 + 2 * index),
                    remote=(REGISTRAR, 5060),
                    keys={"number": number, "domain": DOMAIN},
                )
            )
            for index, number in enumerate(PHONES)
        ]
        for call in calls:
            call.wait(timeout=INVITE_TIMEOUT_S + 12)


def run(lab: Lab, variant: str) -> None:
    """Register, call, stay silent for longer than the firewall remembers, call again; then register once more."""
    nodes = network(lab)
    if variant.startswith("tcp"):
        over_tcp(lab, nodes, keepalive=variant == "tcp-keepalive")
        return
    fixed = variant == "fixed"
    text = kamailio.config(
        REGISTRAR,
        modules=["kex"],  # setbflag()
        params=[("tm", "fr_timer", 1000 * INVITE_TIMEOUT_S), *(PINGS if fixed else [])],
        on_register='if (nat_uac_test("19")) { setbflag(6); setbflag(7); }' if fixed else "",
    )
    kamailio.start(nodes["registrar"], lab.workdir, text)
    lab.capture(nodes["fw"], "br-lan", "inside")
    lab.capture(nodes["registrar"], "eth0", "outside")
    # The first call takes about 1.5 s with its start; four seconds of slack keep the order on a busy host.
    again_s = 2.5 + SILENCE_S + (2.5 if fixed else INVITE_TIMEOUT_S + 4.0)
    with ExitStack() as agents:
        for index, (number, address) in enumerate(PHONES.items(), 1):
            phone = sipp.uac(
                nodes[f"phone{index}"],
                lab.workdir,
                f"phone-{number}",
                PHONE,
                other=ON_REQUEST,
                local=(address, 5060),
                remote=(REGISTRAR, 5060),
                keys={"user": number, "domain": DOMAIN, "public": PUBLIC},
                pause_duration=int(1000 * again_s),
            )
            agents.enter_context(phone)
        _registered(lab, 1)
        call_both(lab, nodes["caller"], "first", ANSWERED)
        time.sleep(SILENCE_S)
        call_both(lab, nodes["caller"], "silent", ANSWERED if fixed else UNANSWERED)
        _registered(lab, 2)
        call_both(lab, nodes["caller"], "again", ANSWERED)
        # The phones outlive the recordings: an OPTIONS to a phone that has ended would be refused by its host.
        for recorder in lab.recorders.values():
            recorder.stop()


def over_tcp(lab: Lab, nodes: dict[str, Node], keepalive: bool) -> None:
    """The phones ring once, are silent for longer than the firewall remembers, and are called again."""
    tcp = f"listen=tcp:{REGISTRAR}:5060\ntcp_children=2\n"
    tcp += "tcp_keepidle=1\ntcp_keepintvl=1\n" if keepalive else f"tcp_connection_lifetime={TCP_LIFETIME_S}\n"
    text = kamailio.config(REGISTRAR, params=[
        ("tm", "fr_timer", 1000 * INVITE_TIMEOUT_S), ("registrar", "max_expires", TCP_EXPIRES_S)])
    kamailio.start(nodes["registrar"], lab.workdir, text.replace("disable_tcp=yes", tcp))
    lab.capture(nodes["fw"], "br-lan", "inside")
    lab.capture(nodes["registrar"], "eth0", "outside")

    def register() -> list[Process]:
        return [baresip.start(
            nodes[f"phone{index}"], lab.workdir, number, address=address, domain=DOMAIN,
            proxy=f"{REGISTRAR}:5060;transport=tcp", registration_s=TCP_EXPIRES_S, codec="g711", modules=("uuid",),
        ) for index, (number, address) in enumerate(PHONES.items(), 1)]

    phones = register()
    _registered(lab, 1)
    call_both(lab, nodes["caller"], "first", RINGS)
    time.sleep(TCP_SILENCE_S)
    call_both(lab, nodes["caller"], "silent", RINGS if keepalive else UNANSWERED)
    if keepalive:
        return
    time.sleep(AWAY_S)
    for index, phone in enumerate(phones, 1):
        nodes[f"phone{index}"].nft(UNPLUGGED)
        phone.stop(signal.SIGKILL)
    register()
    _registered(lab, 2)
    call_both(lab, nodes["caller"], "again", RINGS)


def _registered(lab: Lab, times: int) -> None:
    """Wait until each phone has registered so often, as the recording at the registrar shows."""
    recording = lab.recorders["outside"].path
    wait_until(lambda: recording.read_bytes().count(b" REGISTER\r\n") >= 2 * len(PHONES) * times, "registration", 30)
