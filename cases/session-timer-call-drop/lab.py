"""Calls through a border controller that refuses UPDATE, and that releases calls without media even when they are held.

    [pbx] eth0 -- inside [sbc] outside -- eth0 [carrier]

The border controller is kamailio with rtpengine, which tells kamailio of calls it gives up. PBX and carrier are SIPp,
one process a call; one phone at the PBX is baresip. ``broken``: UPDATE gets 405, held calls have the media timer of all
calls, and one gateway of the carrier answers a resume with the direction of the hold. ``update-allowed``: UPDATE
passes. ``fixed``: held calls have a timer of their own too, and the gateway answers what it is asked.

The session interval is the least that RFC 4028 allows, 90 s; the media timer is 20 s for 120 s.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from netdiag.lab import baresip, kamailio, process, sipp
from netdiag.lab.scenario import (
    CALLED,
    CALLER,
    End,
    Packet,
    expect,
    invited,
    label,
    pause,
    play,
    request,
    response,
    scenario,
    write_rtp,
)
from netdiag.lab.topology import Lab, Node

PBX, INSIDE = "10.40.0.10", "10.40.0.1"
OUTSIDE, CARRIER = "198.51.100.10", "198.51.100.20"
DOMAIN = "pbx.example"
INTERVAL_S, REFRESH_S, GIVE_UP_S = 90, 45, 60
"""The session interval, half of it, and it less a third (RFC 4028 §7.2, §10)."""
MEDIA_TIMER_S, HELD_TIMER_S = 20, 3600
LONG_S, AFTER_RESUME_S = 63, 13
HELD = ((0.0, 0.9, 23), (2.7, 1.2, 25), (5.3, 1.5, 28))
"""When these calls begin, how long they talk, and how long they stay on hold when nobody ends them (s)."""
TIMEOUT_S = 100
HOLD = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 5555))"
"""The key for hold, to baresip's console."""

SBC = """
debug=1
log_stderror=yes
children=2
tcp_children=1
auto_aliases=no
dns=no
rev_dns=no
server_signature=no
mhomed=1
tcp_accept_no_cl=yes
listen=udp:{inside}:5060
listen=udp:{outside}:5060
listen=tcp:127.0.0.1:8090
{modules}
modparam("rtpengine", "rtpengine_sock", "udp:127.0.0.1:2223")

request_route {{
    if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
    if (!is_method("{methods}")) {{
        append_to_reply("Allow: {allow}\\r\\n");
        sl_send_reply("405", "Method Not Allowed");
        exit;
    }}
    force_rport();
    if (has_totag()) {{
        if (loose_route()) {{ route(MEDIA); t_on_reply("MEDIA"); t_relay(); exit; }}
        if (is_method("ACK")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
        sl_send_reply("404", "Not here");
        exit;
    }}
    if (!t_newtran()) {{ exit; }}
    send_reply("100", "Trying");
    dlg_manage();
    record_route();
    if (src_ip == {pbx}) {{ $du = "sip:{carrier}:50" + $(rU{{s.substr,-2,2}}); }}
    else {{ $du = "sip:{pbx}:50" + $(rU{{s.substr,-2,2}}); }}
    route(MEDIA);
    t_on_reply("MEDIA");
    t_relay();
}}

onreply_route[MEDIA] {{ route(MEDIA); }}

route[MEDIA] {{
    if (is_request() && is_method("BYE")) {{ rtpengine_delete(); return; }}
    if (!has_body("application/sdp")) {{ return; }}
    $var(way) = "direction=outside direction=inside";
    if (src_ip == {pbx}) {{ $var(way) = "direction=inside direction=outside"; }}
    if (is_request()) {{ rtpengine_offer("replace-origin replace-session-connection ICE=remove $var(way)"); }}
    else {{ rtpengine_answer("replace-origin replace-session-connection ICE=remove"); }}
    return;
}}

# rtpengine says in XML-RPC which call it has given up: the strings are Call-ID, From tag and To tag.
event_route[xhttp:request] {{
    $var(call) = $(rb{{s.select,8,>}}{{s.select,0,<}});
    $var(from) = $(rb{{s.select,14,>}}{{s.select,0,<}});
    $var(to) = $(rb{{s.select,20,>}}{{s.select,0,<}});
    jsonrpc_exec('{{"jsonrpc": "2.0", "id": 1, "method": "dlg.terminate_dlg",
        "params": ["$var(call)", "$var(from)", "$var(to)"]}}');
    xhttp_reply("200", "OK", "text/xml", "<?xml version='1.0'?>
        <methodResponse><params><param><value><string>OK</string></value></param></params></methodResponse>");
}}
"""
MODULES = ("tm", "sl", "rr", "pv", "maxfwd", "textops", "siputils", "dialog", "xhttp", "jsonrpcs", "rtpengine")
METHODS = ("INVITE", "ACK", "CANCEL", "BYE", "OPTIONS")

# SIPp plays audio from raw sockets and opens no port for what it receives.
SINK = """
table ip sink {
    chain in {
        type filter hook input priority filter
        udp dport 16000-16200 drop
    }
}
"""

SDP = """
v=0
o=[user] 1 {version} IN IP4 [media_ip]
s=-
c=IN IP4 [media_ip]
t=0 0
m=audio [media_port] RTP/AVP 3 13
a=rtpmap:3 GSM/8000
a=rtpmap:13 CN/8000
a={direction}
"""
BY_CALLED = f"Session-Expires: {INTERVAL_S};refresher=uas"
BY_CALLER = f"Session-Expires: {INTERVAL_S};refresher=uac"
ALLOW = "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE"
TIMER = ("Supported: timer", ALLOW)
GRANTED = ("Require: timer", BY_CALLED, ALLOW)

# A GSM 06.10 frame of silence: what its encoder gives for zero samples.
GSM_SILENCE = bytes.fromhex("d820a2e15a50004924924924500049249249245000492492492450004924924924")


def voice(speech_s: float, quiet_s: int = 0) -> Iterator[Packet]:
    """GSM packets of 60 ms, then comfort noise every two seconds (RFC 3389)."""
    count = round(speech_s / 0.06)
    for i in range(count):
        yield Packet(0.06 * i, 3, 480 * i, 3 * GSM_SILENCE, marker=i == 0)
    for i in range(0, quiet_s, 2):
        yield Packet(0.06 * count + i, 13, 480 * count + 8000 * i, b"\x40")


def sdp(version: int = 1, direction: str = "sendrecv") -> str:
    return SDP.format(version=version, direction=direction)


def dial() -> list[str]:
    """A call as its caller has it, up to the ACK: it asks the other side to refresh."""
    return [
        request(CALLER, "INVITE", 1, *TIMER, BY_CALLED, sdp=sdp(), initial=True),
        *(expect(status, optional=True) for status in (100, 180)),
        expect(200, rrs="true"),
        request(CALLER, "ACK", 1),
    ]


def answer(granted: tuple[str, ...] = GRANTED) -> list[str]:
    ringing, answered = response("180 Ringing", tag=True), response("200 OK", *granted, sdp=sdp(), tag=True)
    return [invited(), ringing, pause(0.3), answered, expect("ACK")]


def ask(end: End, number: int, *headers: str, body: str) -> list[str]:
    """A re-INVITE."""
    again = request(end, "INVITE", number, *TIMER, *headers, sdp=body)
    return [again, expect(100, optional=True), expect(200), request(end, "ACK", number)]


def told(direction: str, granted: tuple[str, ...] = GRANTED, version: int = 2) -> list[str]:
    """A re-INVITE as its other side has it."""
    return [expect("INVITE"), response("200 OK", *granted, sdp=sdp(version, direction)), expect("ACK")]


def hang_up(end: End, number: int) -> list[str]:
    return [request(end, "BYE", number), expect(200)]


# The border controller sends BYE both ways, and kamailio forgets the second if the first is answered in between.
HUNG_UP = [expect("BYE"), pause(0.1), response("200 OK")]


def outgoing(folder: Path, variant: str) -> Iterator[tuple[str, str, str]]:
    """Calls of the PBX: name, its scenario, and the carrier's."""
    audio = write_rtp(folder / "long.pcap", voice(0.6, LONG_S - 4), 0x5EED0000)
    yield "long", scenario(
        *dial(), play(audio), expect("UPDATE", timeout=1000 * GIVE_UP_S, ontimeout=1),
        response("200 OK", "Require: timer", BY_CALLER), pause(LONG_S - REFRESH_S), label(1), *hang_up(CALLER, 2),
    ), scenario(
        *answer(), play(audio), pause(REFRESH_S), request(CALLED, "UPDATE", 1, *TIMER, BY_CALLER),
        expect(405 if variant == "broken" else 200), *HUNG_UP,
    )
    fixed = variant == "fixed"
    for number, (begin_s, talk_s, held_s) in enumerate(HELD, 1):
        audio = write_rtp(folder / f"held-{number}.pcap", voice(talk_s), 0x5EED0000 + number)
        yield f"held-{number}", scenario(
            pause(begin_s), *dial(), play(audio), pause(talk_s + 0.2),
            *ask(CALLER, 2, BY_CALLED, body=sdp(2, "sendonly")),
            expect("BYE", timeout=1000 * held_s, ontimeout=1), pause(0.1), response("200 OK"), '<nop next="2"/>',
            label(1), *ask(CALLER, 3, BY_CALLED, body=sdp(3)), play(audio), pause(talk_s), *hang_up(CALLER, 4),
            label(2),
        ), scenario(
            *answer(), play(audio), *told("recvonly"), *([*told("sendrecv", version=3), play(audio)] if fixed else []),
            *HUNG_UP,
        )
    audio = write_rtp(folder / "resumed.pcap", voice(0.9), 0x5EED0004)
    after = write_rtp(folder / "after.pcap", voice(0.6, AFTER_RESUME_S - 2), 0x5EED0005)
    resumed = told("sendrecv", version=3) if fixed else told("recvonly")
    yield "resumed", scenario(
        *dial(), play(audio), pause(1.1), *ask(CALLER, 2, BY_CALLED, body=sdp(2, "sendonly")), pause(4),
        *ask(CALLER, 3, BY_CALLED, body=sdp(3)), play(after), pause(AFTER_RESUME_S), *hang_up(CALLER, 4),
    ), scenario(*answer(), play(audio), *told("recvonly"), *resumed, *([play(after)] if fixed else []), *HUNG_UP)


def incoming(folder: Path) -> tuple[str, str]:
    """A call of the carrier that the PBX refreshes with a re-INVITE: the carrier's scenario, and the PBX's."""
    audio = write_rtp(folder / "incoming.pcap", voice(0.6, LONG_S - 4), 0x5EED0006)
    return scenario(
        *dial(), play(audio), *told("sendrecv", ("Require: timer", BY_CALLER), version=1),
        pause(LONG_S - REFRESH_S), *hang_up(CALLER, 2),
    ), scenario(*answer(), play(audio), pause(REFRESH_S), *ask(CALLED, 1, BY_CALLER, body=sdp()), *HUNG_UP)


def network(lab: Lab) -> dict[str, Node]:
    nodes = {name: lab.node(name) for name in ("pbx", "sbc", "carrier")}
    lab.link(nodes["pbx"], "eth0", f"{PBX}/24", nodes["sbc"], "inside", f"{INSIDE}/24")
    lab.link(nodes["carrier"], "eth0", f"{CARRIER}/24", nodes["sbc"], "outside", f"{OUTSIDE}/24")
    for name in ("pbx", "carrier"):
        nodes[name].nft(SINK)
    return nodes


def start_border(lab: Lab, sbc: Node, variant: str) -> None:
    """rtpengine with its two timers, and kamailio with the methods that it lets through."""
    relay = ["rtpengine", "--foreground", "--log-stderr", "--table=-1", "--num-threads=2"]
    relay += [f"--interface=inside/{INSIDE}", f"--interface=outside/{OUTSIDE}", "--listen-ng=127.0.0.1:2223"]
    relay += ["--port-min=30000", "--port-max=30200", f"--timeout={MEDIA_TIMER_S}"]
    relay += [f"--silent-timeout={HELD_TIMER_S if variant == 'fixed' else MEDIA_TIMER_S}"]
    relay += ["--b2b-url=http://127.0.0.1:8090/RPC2", "--xmlrpc-format=2"]
    sbc.start(relay, name="rtpengine", ready=lambda: sbc.listening("udp", 2223))
    methods = METHODS if variant == "broken" else (*METHODS, "UPDATE")
    text = SBC.format(
        inside=INSIDE, outside=OUTSIDE, pbx=PBX, carrier=CARRIER, methods="|".join(methods), allow=", ".join(methods),
        modules="\n".join(f'loadmodule "{name}.so"' for name in MODULES),
    )
    kamailio.start(sbc, lab.workdir, text)


def run(lab: Lab, variant: str) -> None:
    """Seven calls at once: a long one each way, three held without media, one held with RTCP, one taken back."""
    nodes = network(lab)
    start_border(lab, nodes["sbc"], variant)
    lab.capture(nodes["sbc"], "inside", "inside")
    lab.capture(nodes["sbc"], "outside", "outside")
    with ExitStack() as agents:
        calls: list[sipp.Agent] = []

        def start(place: str, name: str, port: int, steps: str, answers: bool) -> None:
            """One end of a call; its port gives its number."""
            address = {"pbx": PBX, "carrier": CARRIER}[place]
            number = f"55501{port % 100}"
            options = {
                "local": (address, port), "media_addr": address, "media_port": 16000 + 10 * (port - 5060),
                "timeout": TIMEOUT_S, "recv_timeout": 1000 * TIMEOUT_S,
                "keys": {"user": number if answers else f"2{port % 100}", "number": number, "domain": DOMAIN},
            }
            where = nodes[place], lab.workdir, f"{place}-{name}", steps
            border = (INSIDE if place == "pbx" else OUTSIDE, 5060)
            agent = sipp.uas(*where, **options) if answers else sipp.uac(*where, remote=border, **options)
            calls.append(agents.enter_context(agent))

        for port, (name, asks, answers) in enumerate(outgoing(lab.workdir, variant), 5062):
            start("carrier", name, port, answers, True)
            start("pbx", name, port, asks, False)
        asks, answers = incoming(lab.workdir)
        start("pbx", "incoming", 5075, answers, True)
        start("carrier", "incoming", 5075, asks, False)
        audio = write_rtp(lab.workdir / "softphone.pcap", voice(1.2), 0x5EED0007)
        start("carrier", "softphone", 5076, scenario(*answer(()), play(audio), *told("recvonly", ()), *HUNG_UP), True)
        softphone = baresip.start(
            nodes["pbx"], lab.workdir, "276", address=PBX, domain=DOMAIN, proxy=f"{INSIDE}:5060", port=5080,
            modules=["cons"], registration_s=0, commands=[f"/dial sip:5550176@{DOMAIN}"], seconds=30,
        )
        process.wait_until(lambda: "established" in softphone.output(), "softphone")
        time.sleep(1.5)
        nodes["pbx"].run([sys.executable, "-c", HOLD])
        for call in calls:
            call.wait(timeout=TIMEOUT_S)
        softphone.wait(check=False)
