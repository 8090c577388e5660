"""Samples of RTP-MOS-LOW: the audio of a phone is rated by what the packets and RTCP tell."""

from _craft.network import Wire
from _craft.rtp import GATEWAY, GATEWAY_PORT, PHONE, PORT, body, call, forth, metrics, report

HIT_FRAMES = {"hit": [6, 50, 58, 140], "hit_loss": [6, 164], "hit_late": [6, 114, 138], "hit_counted": [6, 164, 165],
              "hit_metrics": [6, 164, 165], "hit_told": [6, 138, 139]}
ALSO = ("RTP-LOSS", "RTP-JITTER")
"""The causes have patterns of their own, which explain this one."""
MANY = frozenset(i for i in range(223) if i % 7 in (3, 4))


def _stream(seconds: float = 12.0, offer: str = "", answer: str = "", **options) -> Wire:
    wire = Wire()
    at = call(wire, seconds + 0.5, offer, answer)
    forth(wire, at + 0.02, seconds, **options)
    return wire


def _round_trip(wire: Wire, seconds: float) -> Wire:
    report(wire, 4.0, about=0, ssrc=1, back=False, sent=43, ntp=0x1000)
    report(wire, 4.1 + seconds, about=1, last_sr=0x1000, delay=0.1, highest=1050)
    return wire


def hit():
    """A round trip of 600 ms, no loss."""
    return _round_trip(_stream(), 0.6).sorted()


def hit_loss():
    """28 % of the packets are lost, two at a time."""
    return _stream(20.1, lost=MANY).sorted()


def hit_counted():
    """The same, and the receiver counts it."""
    wire = _stream(20.1, lost=MANY)
    report(wire, 20.4, about=1, lost=60, fraction=0.28, highest=1222)
    return wire.sorted()


def hit_metrics():
    """The same, and the receiver's own VoIP metrics have R 41."""
    wire = _stream(20.1, lost=MANY)
    metrics(wire, 20.4, about=1, r=41, mos=2.1, loss=0.28, discard=0.02)
    return wire.sorted()


def hit_told():
    """All packets of a wide-band codec pass evenly, and the receiver's own metrics have R 52."""
    wire = _stream(offer=body(PHONE, PORT, {9: "G722/8000"}, "sendonly"),
                   answer=body(GATEWAY, GATEWAY_PORT, {9: "G722/8000"}, "recvonly"), payload=lambda i: 9)
    metrics(wire, 12.3, about=1, r=52, mos=2.7, loss=0.0, discard=0.09)
    return wire.sorted()


def near_miss_told_good():
    """Condition: metrics below the limit. The receiver rates R 80."""
    wire = _stream()
    metrics(wire, 12.3, about=1, r=80, mos=4.0)
    return wire.sorted()


def hit_late():
    """Every third packet misses the buffer."""
    return _stream(late=lambda i: 0.13 if i % 3 == 2 else 0.0).sorted()


def near_miss_short_trip():
    """Condition: R below 70. A round trip of 100 ms costs little."""
    return _round_trip(_stream(), 0.1).sorted()


def near_miss_some_loss():
    """Condition: R below 70. 4 % of single losses leave it above."""
    return _stream(lost=frozenset({10, 40, 60, 80, 100})).sorted()


def near_miss_wide_band():
    """Condition: a codec of the narrow-band model. G.722 has another one (G.107.1)."""
    formats = {9: "G722/8000"}
    return _stream(20.1, body(PHONE, PORT, formats, "sendonly"), body(GATEWAY, GATEWAY_PORT, formats, "recvonly"),
                   lost=MANY, payload=lambda i: 9).sorted()


def near_miss_once():
    """Condition: a fifth of the stretches. Here one of six is bad."""
    return _stream(60.0, lost=frozenset(range(130, 160))).sorted()


def near_miss_few_packets():
    """Condition: 50 packets in a stretch. A stream of 40 packets lacks many."""
    return _stream(3.6, lost=MANY).sorted()


def near_miss_lost_by_the_capture():
    """Condition: the receiver does not say that it has the packets. Here it counts none lost."""
    wire = _stream(20.1, lost=MANY)
    report(wire, 0.6, about=1, highest=1005)
    report(wire, 20.3, about=1, highest=1221)
    return wire.sorted()


def near_miss_capture_stood_still():
    """Condition: the capture went on. Here it has nothing of anybody for 7.3 s."""
    return _stream(20.1, lost=frozenset(range(20, 100))).sorted()


def near_miss_passed_here():
    """Condition: no point further on has the packets. Behind two routers all of them are there."""
    return {"near": _stream(20.1, lost=MANY).sorted(), "far": _stream(20.1, ttl=62).sorted()}
