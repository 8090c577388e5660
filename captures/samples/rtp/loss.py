"""Samples of RTP-LOSS: a stream from a phone to a gateway lacks packets."""

from _craft.network import Wire
from _craft.rtp import GATEWAY, GATEWAY_PORT, PHONE, PORT, body, call, forth, packet, report
from _craft.sip import Dialog

HIT_FRAMES = {"hit": [6, 62, 130], "hit_reported": [6, 62, 125, 131], "hit_one_stretch": [6, 307, 570],
              "hit_bursts": [6, 118, 716], "hit_both_ways": [17, 20, 217, 220, 759, 762],
              "hit_all_pause": [*range(16, 22), *range(196, 202), *range(718, 724)],
              "hit_two_points": {"far": [6, 62, 130], "near": [16, 17, 27]},
              "hit_two_points_untold": {"far": [6, 62, 130], "near": [16, 17, 27]},
              "hit_besides_the_capture": [6, 128, 129]}
TOGETHER = frozenset({*range(30, 35), *range(90, 95)})
LOST = frozenset({10, 11, 21, 35, 60, 61, 62, 90})


def _stream(lost: frozenset[int] = LOST, seconds: float = 12.0, ttl: int = 64) -> Wire:
    wire = Wire()
    at = call(wire, seconds + 0.5)
    forth(wire, at + 0.02, seconds, lost=lost, ttl=ttl)
    return wire


def hit():
    """Eight of 133 packets never come."""
    return _stream().sorted()


def hit_reported():
    """The same, and the receiver counts seven of them."""
    wire = _stream()
    report(wire, 11.5, about=1, lost=7, fraction=0.05, highest=1125)
    return wire.sorted()


def hit_one_stretch():
    """Five packets are lost within 4 s of a stream that is whole before and after: 0.9 % in all."""
    return _stream(frozenset({301, 303, 310, 320, 330}), 51.3).sorted()


def hit_bursts():
    """Two runs of three in 64 s: 0.8 % in all."""
    return _stream(frozenset({112, 113, 114, 500, 501, 502}), 64.5).sorted()


def hit_two_points():
    """All packets leave the phone's network, and eight do not come to the gateway."""
    return {"far": _stream(ttl=61).sorted(), "near": _stream(frozenset()).sorted()}


def hit_two_points_untold():
    """The same between two points with no router between them: either may come first."""
    return {"far": _stream().sorted(), "near": _stream(frozenset()).sorted()}


def _three(*paused: int) -> list:
    """Three calls; the streams with these numbers, 4 and more from the gateway, lack two times five packets."""
    wire = Wire()
    for n in (1, 2, 3):
        shift = 100 * (n - 1)
        call(wire, 12.5, body(PHONE, PORT + shift), body(GATEWAY, GATEWAY_PORT + shift), n, 0.2 * n)
        for back in (False, True):
            ssrc = n + 3 * back
            forth(wire, 0.8 + 0.01 * ssrc, 11.5, ssrc=ssrc, number=n, back=back,
                  lost=TOGETHER if ssrc in paused else frozenset())
    return wire.sorted()


def hit_all_pause():
    """Three calls, both ways, lack the same half seconds."""
    return _three(1, 2, 3, 4, 5, 6)


def hit_both_ways():
    """Both directions of one call of three lack the same half seconds."""
    return _three(2, 5)


def near_miss_few():
    """Condition: five packets. Four are lost, of 133."""
    return _stream(frozenset({10, 30, 50, 70})).sorted()


def near_miss_share():
    """Condition: 1 % in all, or in 10 s. Five of 570, far from each other."""
    return _stream(frozenset({10, 140, 260, 380, 500}), 51.3).sorted()


def near_miss_share_of_a_stretch():
    """Condition: 1 % of a stretch. Five of 555 in 10 s."""
    wire = Wire()
    at = call(wire, 11.5)
    forth(wire, at + 0.02, 10.8, ptime=0.018, lost=frozenset({10, 140, 260, 380, 500}))
    return wire.sorted()


def near_miss_seldom():
    """Condition: long runs more than once a minute. Two in 135 s, with 0.4 % in all."""
    return _stream(frozenset({112, 113, 114, 1400, 1401, 1402}), 135.0).sorted()


def near_miss_short():
    """Condition: 50 packets expected. Five of 40 are lost."""
    return _stream(frozenset({10, 11, 13, 30, 31}), 3.6).sorted()


def near_miss_lost_by_the_capture():
    """Condition: the receiver does not say that it has them. Here it counts none between its reports."""
    wire = _stream()
    report(wire, 0.5, about=1, highest=1003)
    report(wire, 12.0, about=1, highest=1130)
    return wire.sorted()


def hit_besides_the_capture():
    """The receiver counts five lost packets, and six others passed that the capture lacks."""
    wire = _stream(frozenset({21, 35, 61, 90, 100, *range(40, 46)}))
    report(wire, 1.0, about=1, lost=0, highest=1005)
    report(wire, 12.0, about=1, lost=5, highest=1127)
    return wire.sorted()


def near_miss_between():
    """Condition: no point further on has them. The point before has them too, and the most packets."""
    return {"near": _stream(frozenset()).sorted(), "tap": _stream(ttl=63).sorted(),
            "far": _stream(frozenset({70, 71, 72}), ttl=61).sorted()}


def near_miss_passed_here():
    """Condition: no point further on has them. Behind three routers they are there: this capture did not write them."""
    return {"far": _stream(frozenset(), ttl=61).sorted(), "near": _stream().sorted()}


def near_miss_capture_stood_still():
    """Condition: the capture went on. Here it has nothing of anybody for 5.4 s."""
    return _stream(frozenset(range(40, 100))).sorted()


def near_miss_redundant():
    """Condition: not audio that each packet repeats (RFC 2198). No two packets in a row are lost."""
    wire, formats = Wire(), {97: "red/8000", 0: "PCMU/8000"}
    at = call(wire, 12.5, body(PHONE, PORT, formats), body(GATEWAY, GATEWAY_PORT, formats))
    forth(wire, at + 0.02, 12.0, lost=frozenset({10, 20, 30, 40, 50, 60}), payload=lambda i: 97)
    return wire.sorted()


def near_miss_repair_stream():
    """Condition: a stream of media. Retransmissions (RFC 4588) are sent only for what was lost."""
    wire, formats = Wire(), {97: "rtx/90000"}
    at = call(wire, 12.5, body(PHONE, PORT, formats), body(GATEWAY, GATEWAY_PORT, formats))
    forth(wire, at + 0.02, 12.0, lost=LOST, payload=lambda i: 97)
    return wire.sorted()


def near_miss_restart():
    """Condition: missing numbers, not new ones. After 6 s the numbers begin anew, and go on."""
    wire = Wire()
    at = call(wire, 12.5)
    forth(wire, at + 0.02, 6.0)
    forth(wire, at + 6.1, 6.0, first=9000)
    return wire.sorted()


def near_miss_restart_nearby():
    """Condition: missing numbers, not new ones. After a hold they begin 500 higher, and the time stamps anywhere."""
    wire = Wire()
    at = call(wire, 12.5)
    forth(wire, at + 0.02, 6.0)
    forth(wire, at + 6.1, 6.0, first=1567, stamp=400_000_000)
    return wire.sorted()


def near_miss_late():
    """Condition: they never come. Here every twelfth packet comes late, behind the next one."""
    wire = Wire()
    at = call(wire, 12.5)
    forth(wire, at + 0.02, 12.0, late=lambda i: 0.1 if i % 12 == 6 else 0.0)
    return wire.sorted()


def near_miss_silence():
    """Condition: numbers are missing. Silence suppression leaves pauses, and its numbers go on."""
    wire = Wire()
    at = call(wire, 12.5)
    for i in range(90):
        pause = 3.0 * (i // 30)
        wire.udp(at + 0.02 + i * 0.05 + pause, PHONE, PORT, GATEWAY, GATEWAY_PORT, packet(
            1000 + i, round((i * 0.05 + pause) * 8000), 1, marker=i % 30 == 0))
    return wire.sorted()


def near_miss_two_calls():
    """Condition: one stream. A transfer gives the port a new SSRC with numbers of its own."""
    wire = Wire()
    dialog = Dialog(wire, PHONE, GATEWAY)
    at = dialog.answered(0.0, body(PHONE, PORT), body(GATEWAY, GATEWAY_PORT))
    forth(wire, at + 0.02, 6.0)
    forth(wire, at + 6.1, 6.0, ssrc=2, first=1200)
    dialog.bye(at + 12.5)
    return wire.sorted()
