"""Phones with modern codecs and a trunk with old ones, joined by a border controller that edits their SDP.

    [phones] eth0 -- inside [sbc] outside -- eth0 [trunk]

The border controller is kamailio; media passes its host, and is only routed. The phones are baresip. On the trunk are
a gateway (baresip) and three that have payload numbers of their own (SIPp): an IVR, one for G.726, one that is called
with video. ``broken``: the desk phone has Opus and G.722 only. ``numbers-reused``: answers of the trunk get the numbers
of the phones' offers. ``video-line-removed``: offers lose their video line, and the answer stays short. ``fixed``:
the desk phone has G.711 too, and SDP is left alone. No timer is shortened.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from netdiag.lab import baresip, kamailio, process, sipp
from netdiag.lab.process import Process
from netdiag.lab.scenario import Packet, expect, invited, pause, play, response, scenario, write_rtp
from netdiag.lab.topology import Lab, Node

PHONES, INSIDE = "203.0.113.10", "203.0.113.1"
OUTSIDE, TRUNK = "198.51.100.10", "198.51.100.30"
DOMAIN = "trunk.example"
GATEWAY, IVR, CORDLESS, VIDEO = "5550162", "5550164", "5550166", "5550168"
"""Numbers; the last two digits select the port on the trunk."""
DIGITS = "4711"
TYPE = """
import socket, sys, time
console = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for key in sys.argv[1]:
    for code in (key.encode(), b"\\x04"):
        console.sendto(code, ("127.0.0.1", 5555))
        time.sleep(0.12)
"""
"""Keys pressed and released (4) at baresip's console."""

SBC = """
debug=1
log_stderror=yes
children=2
auto_aliases=no
disable_tcp=yes
dns=no
rev_dns=no
server_signature=no
mhomed=1
listen=udp:{inside}:5060
listen=udp:{outside}:5060
{modules}

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    force_rport();
    if (has_totag()) {{
        if (loose_route()) {{ t_relay(); exit; }}
        if (is_method("ACK")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
        sl_send_reply("404", "Not here");
        exit;
    }}
    if (!t_newtran()) {{ exit; }}
    send_reply("100", "Trying");
    record_route();
    $du = "sip:{trunk}:50" + $(rU{{s.substr,-2,2}});
    {offer}
    t_relay();
}}

reply_route {{
    if (src_ip == {trunk} && has_body("application/sdp")) {{ {answer} }}
}}
"""
MODULES = ("tm", "sl", "rr", "pv", "maxfwd", "textops", "textopsx", "siputils", "sdpops")

# What the phones call 101 and 96 is 96 and 102 to the trunk.
NUMBERS_OF_THE_OFFER = r"""
        subst_body('/(m=audio [0-9]+ RTP.AVP [0-9 ]*)96/\1101/');
        subst_body('/(rtpmap|fmtp):96 /\1:101 /g');
        msg_apply_changes();
        subst_body('/(m=audio [0-9]+ RTP.AVP )102/\196/');
        subst_body('/rtpmap:102 /rtpmap:96 /');
        return 1;
    """
WITHOUT_VIDEO = 'sdp_remove_media("video");'

# SIPp plays audio from raw sockets and opens no port for what it receives.
SINK = """
table ip sink {
    chain in {
        type filter hook input priority filter
        udp dport 16000-16100 drop
    }
}
"""

SDP = """
v=0
o=[user] 1 1 IN IP4 [media_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP {formats}
{attributes}
a=rtpmap:96 telephone-event/8000
a=fmtp:96 0-15
a=sendrecv
"""
A_LAW = SDP.format(formats="8 96", attributes="a=rtpmap:8 PCMA/8000\na=ptime:30")
G726 = SDP.format(formats="102 96", attributes="a=rtpmap:102 G726-32/8000")
NO_VIDEO = A_LAW + "m=video 0 RTP/AVP 96\na=rtpmap:96 VP8/90000\n"


def audio(kind: int, size: int, packet_ms: int, *spells: tuple[float, float]) -> Iterator[Packet]:
    """Silence in packets of ``size`` bytes, in spells from one moment to another (s)."""
    for begin, end in spells:
        for i in range(round((end - begin) * 1000 / packet_ms)):
            at = begin + i * packet_ms / 1000
            yield Packet(at, kind, round(8000 * at), b"\xd5" * size, marker=i == 0)


def network(lab: Lab) -> dict[str, Node]:
    nodes = {name: lab.node(name, forward=name == "sbc") for name in ("phones", "sbc", "trunk")}
    lab.link(nodes["phones"], "eth0", f"{PHONES}/24", nodes["sbc"], "inside", f"{INSIDE}/24")
    lab.link(nodes["trunk"], "eth0", f"{TRUNK}/24", nodes["sbc"], "outside", f"{OUTSIDE}/24")
    nodes["phones"].route("default", INSIDE)
    nodes["trunk"].route("default", OUTSIDE)
    nodes["trunk"].nft(SINK)
    return nodes


def start_border(lab: Lab, sbc: Node, variant: str) -> None:
    """kamailio, with the help of the variant."""
    text = SBC.format(
        inside=INSIDE, outside=OUTSIDE, trunk=TRUNK, modules="\n".join(f'loadmodule "{name}.so"' for name in MODULES),
        offer=WITHOUT_VIDEO if variant == "video-line-removed" else "",
        answer=NUMBERS_OF_THE_OFFER if variant == "numbers-reused" else "return;",
    )
    kamailio.start(sbc, lab.workdir, text)


def run(lab: Lab, variant: str) -> None:
    """The calls that the fault of the variant concerns, and one that it does not; all of them in ``fixed``."""
    nodes = network(lab)
    start_border(lab, nodes["sbc"], variant)
    lab.capture(nodes["sbc"], "inside", "inside")
    lab.capture(nodes["sbc"], "outside", "outside")

    def phone(
        user: str, number: str, port: int, seconds: int, codecs: tuple[str, ...], *more: str, only: str = ""
    ) -> Process:
        """A phone that calls ``number``; ``only`` is the one codec of its modules that it offers."""
        account = f";ptime=60;audio_codecs={only}" if only else ";ptime=60"
        return baresip.start(
            nodes["phones"], lab.workdir, user, address=PHONES, domain=DOMAIN, proxy=f"{INSIDE}:5060", port=port,
            rtp_ports=f"{port + 12000}-{port + 12008}", codec=codecs[0], modules=(*codecs[1:], *more),
            registration_s=0, account=account, commands=[f"/dial sip:{number}@{DOMAIN}"], seconds=seconds,
        )

    with ExitStack() as agents:
        def gateway(name: str, number: str, sdp: str, *packets: Packet) -> None:
            sound = write_rtp(lab.workdir / f"{name}.pcap", packets, 0x5EED0000 + int(number))
            steps = scenario(
                invited(), response("180 Ringing", tag=True), pause(0.3), response("200 OK", sdp=sdp, tag=True),
                expect("ACK"), play(sound), expect("BYE"), response("200 OK"),
            )
            calls.append(agents.enter_context(sipp.uas(
                nodes["trunk"], lab.workdir, name, steps, local=(TRUNK, 5000 + int(number[-2:])),
                keys={"user": number}, media_addr=TRUNK, media_port=16000 + int(number[-2:]) * 2 - 120,
            )))

        calls: list[sipp.Agent] = []
        phones: list[Process] = []
        desk = ("opus", "g722") if variant == "broken" else ("opus", "g722", "g711")
        if variant in ("broken", "fixed"):
            baresip.start(
                nodes["trunk"], lab.workdir, GATEWAY, address=TRUNK, domain=DOMAIN, proxy=f"{OUTSIDE}:5060", port=5062,
                codec="g711", registration_s=0, account=";answermode=auto;audio_codecs=PCMA/8000/1;ptime=60",
            )
            phones.append(phone("201", GATEWAY, 5061, 2, desk))
        if variant == "broken":
            phones.append(phone("205", GATEWAY, 5071, 2, ("g711",)))
        if variant in ("video-line-removed", "fixed"):
            sdp = NO_VIDEO if variant == "fixed" else A_LAW
            gateway("video", VIDEO, sdp, *audio(8, 240, 30, (0, 0.6)))
            phones.append(phone("203", VIDEO, 5065, 2, ("g711",), "vp8", "fakevideo"))
        if variant in ("numbers-reused", "fixed"):
            gateway("cordless", CORDLESS, G726, *audio(96, 240, 60, (0, 1.2)))
            phones.append(phone("202", CORDLESS, 5063, 3, ("g726",), only="G726-32/8000/1"))
            prompts = [(0, 0.6)] if variant == "fixed" else [(0, 0.6), (2.9, 3.5)]
            gateway("ivr", IVR, A_LAW, *audio(8, 240, 30, *prompts))
            caller = phone("204", IVR, 5067, 4, desk, "cons")
            process.wait_until(lambda: "established" in caller.output(), "call to the IVR")
            time.sleep(0.8)
            nodes["phones"].run([sys.executable, "-c", TYPE, DIGITS])
            phones.append(caller)
        for softphone in phones:
            softphone.wait(check=False)
        for call in calls:
            call.wait(timeout=10)
