"""Samples of RTP-JITTER: a stream from a phone to a gateway arrives unevenly."""

from _craft.network import Wire
from _craft.rtp import GATEWAY, GATEWAY_PORT, PHONE, PORT, body, call, forth, packet, report

HIT_FRAMES = {"hit": [6, 116, 138], "hit_jitter": [6, 115, 138], "hit_reported": [6, 116, 138, 139],
              "hit_all": [21, 22, 23, 24, 459, 461, 463, 464, 547, 549, 551, 552],
              "hit_two_points": {"far": [6, 116, 138], "near": [6, 138]},
              "hit_two_points_unlatched": {"far": [6, 61, 72], "near": [7, 62, 73]}}


def _often(i: int) -> float:
    """Every eleventh packet waits 110 ms."""
    return 0.11 if i % 11 == 10 else 0.0


def _stream(late=_often, seconds: float = 12.0, **options) -> Wire:
    wire = Wire()
    at = call(wire, seconds + 0.5)
    forth(wire, at + 0.02, seconds, late=late, **options)
    return wire


def hit():
    """One packet in eleven is 110 ms late."""
    return _stream().sorted()


def hit_jitter():
    """Every second packet is 50 ms late: no packet misses a buffer of 60 ms, and the jitter is nearly 50 ms."""
    return _stream(lambda i: 0.05 * (i % 2)).sorted()


def hit_reported():
    """The receiver reports a jitter of 20 ms."""
    wire = _stream()
    report(wire, 12.3, about=1, jitter=160, highest=1132)
    return wire.sorted()


def hit_two_points():
    """The stream leaves the phone's network evenly and is uneven before the gateway."""
    return {"far": _stream().sorted(), "near": _stream(lambda i: 0.0).sorted()}


def hit_two_points_unlatched():
    """Uneven at both points; before it learns the phone's address, the relay sends one packet elsewhere."""
    near = _stream(seconds=6.0)
    near.udp(0.1, PHONE, PORT, "10.20.0.15", GATEWAY_PORT, packet(999, 0, 1))
    return {"far": _stream(seconds=6.0).sorted(), "near": near.sorted()}


def hit_all():
    """Four streams of four calls wait at the same times."""
    wire = Wire()
    for n in (1, 2, 3, 4):
        shift = 100 * (n - 1)
        call(wire, 13.0, body(PHONE, PORT + shift, direction="sendonly"),
             body(GATEWAY, GATEWAY_PORT + shift, direction="recvonly"), n, 0.2 * n)
        forth(wire, 1.2 + 0.01 * n, 12.0, ssrc=n, number=n, late=_often)
    return wire.sorted()


def near_miss_small():
    """Condition: more than 60 ms late, or a jitter of 30 ms. Here 45 ms, now and then."""
    return _stream(lambda i: 0.045 if i % 11 == 10 else 0.0).sorted()


def near_miss_two_late():
    """Condition: three late packets in a stretch. Here two."""
    return _stream(lambda i: 0.11 if i in (20, 40) else 0.0).sorted()


def near_miss_one_percent():
    """Condition: one packet in a hundred. Here three of 333 in five seconds, 15 ms apart."""
    return _stream(lambda i: 0.1 if i in (20, 140, 260) else 0.0, 5.0, ptime=0.015).sorted()


def near_miss_new_route():
    """Condition: later packets are in time again. Here the delay goes up by 90 ms and stays."""
    return _stream(lambda i: 0.09 if i >= 20 else 0.0).sorted()


def near_miss_talk_spurts():
    """Condition: within a talk spurt. The phone's clock stands still in its pauses, and a marker says so."""
    wire = Wire()
    at = call(wire, 12.5)
    for i in range(120):
        wire.udp(at + 0.02 + i * 0.09 + i // 15 * 0.2, PHONE, PORT, GATEWAY, GATEWAY_PORT, packet(
            1000 + i, 720 * i, 1, marker=i % 15 == 0))
    return wire.sorted()


def near_miss_frames():
    """Condition: time stamps of the sampling clock. Here five packets share one, as video frames do."""
    wire, formats = Wire(), {97: "H264/90000"}
    at = call(wire, 12.5, body(PHONE, PORT, formats, "sendonly", kind="video"),
              body(GATEWAY, GATEWAY_PORT, formats, "recvonly", kind="video"))
    for i in range(130):
        wire.udp(at + 0.02 + i * 0.09, PHONE, PORT, GATEWAY, GATEWAY_PORT, packet(1000 + i, i // 5 * 40500, 1, 97))
    return wire.sorted()


def near_miss_wrong_clock():
    """Condition: the clock rate is right. The stream says 8000 Hz and counts 16000, in uneven steps."""
    return _stream(lambda i: 0.0, advance=1440).sorted()


def near_miss_short():
    """Condition: 25 packets in a stretch. Here 24 in all, every fourth late."""
    return _stream(lambda i: 0.11 if i % 4 == 2 else 0.0, 2.16).sorted()


def near_miss_few_in_a_stretch():
    """Condition: 25 packets in a stretch. A stream of four packets a second, every third late."""
    return _stream(lambda i: 0.11 if i % 3 == 2 else 0.0, 12.0, ptime=0.25).sorted()


def near_miss_events():
    """Condition: packets of the codec. Events (RFC 4733) bear one time stamp for half a second."""
    wire, formats = Wire(), {0: "PCMU/8000", 101: "telephone-event/8000"}
    at = call(wire, 12.5, body(PHONE, PORT, formats, "sendonly"), body(GATEWAY, GATEWAY_PORT, formats, "recvonly"))
    for i in range(130):
        event = i % 20 >= 14
        wire.udp(at + 0.02 + i * 0.09, PHONE, PORT, GATEWAY, GATEWAY_PORT, packet(
            1000 + i, 720 * (i - (i % 20 - 14 if event else 0)), 1, 101 if event else 0))
    return wire.sorted()
