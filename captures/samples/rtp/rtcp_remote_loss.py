"""Samples of RTP-RTCP-REMOTE-LOSS: the gateway reports about a stream that is whole before a lossy hop."""

from _craft.network import Wire
from _craft.rtp import call, forth, metrics, report
from _craft.sip import rtcp_report, rtp

HIT_FRAMES = {"hit": [6, 50, 141], "hit_stands_still": [6, 57, 307], "hit_metrics": [6, 50, 141, 142],
              "hit_two_points": {"far": [6], "near": [6, 50, 141]}}
ALSO = ("RTP-LOSS", "RTP-MOS-LOW")
"""At the second point, behind the lossy hop, the loss itself and what it does are seen."""


def _stream(seconds: float = 12.0, **options) -> Wire:
    wire = Wire()
    at = call(wire, seconds + 1)
    forth(wire, at + 0.02, seconds, **options)
    return wire


def _reports(wire: Wire, lost=(2, 8, 15), shift: int = 0) -> Wire:
    """Three reports, 4 s apart; the first packet has number 1000."""
    for i, count in enumerate(lost):
        report(wire, 4.0 + 4 * i, about=1, lost=count, fraction=0.13 if i else 0.0, highest=1042 + shift + 44 * i)
    return wire


def hit():
    """All packets pass, and the gateway counts 2, 8, 15 lost ones."""
    return _reports(_stream()).sorted()


def hit_stands_still():
    """The highest number that the gateway has stays at 1049, and 249 packets more pass here."""
    wire = _stream(6.0, ptime=0.02)
    report(wire, 1.13, about=1, highest=1049)
    report(wire, 6.1, about=1, highest=1049)
    return wire.sorted()


def hit_metrics():
    """The gateway's own VoIP metrics part what is lost from what comes too late."""
    wire = _reports(_stream())
    metrics(wire, 12.6, about=1, r=66, mos=3.4, loss=0.066, discard=0.012)
    return wire.sorted()


def hit_two_points():
    """The far side of the lossy hop lacks the packets."""
    gone = frozenset({50, 52, 60, 61, 70, 72, 90, 91, 92, 100, 110, 111, 115})
    return {"far": _stream(lost=gone).sorted(), "near": _reports(_stream()).sorted()}


def near_miss_few():
    """Condition: five packets beyond what is missing here. The gateway counts four."""
    return _reports(_stream(), (2, 4, 6)).sorted()


def near_miss_share():
    """Condition: 3 %. The gateway counts six of 230."""
    wire = _stream(26.0)
    for i, count in enumerate((2, 5, 8)):
        report(wire, 4.0 + 10.4 * i, about=1, lost=count, highest=1042 + 115 * i)
    return wire.sorted()


def near_miss_lost_here_too():
    """Condition: this capture has what the gateway misses. Here it lacks eleven packets as well."""
    return _reports(_stream(lost=frozenset(range(50, 116, 6)))).sorted()


def near_miss_one_report():
    """Condition: two reports in a row count more."""
    return _reports(_stream(), (2, 15)).sorted()


def near_miss_other_leg():
    """Condition: the numbers are those of this stream. Here they are of a stream that the gateway forwards."""
    return _reports(_stream(), shift=30000).sorted()


def near_miss_passed_on():
    """Condition: the reporter receives this stream. The gateway is a relay that passes on what its peer reports, and
    the packets are lost behind it, where a second capture shows it."""
    peer, gone = Wire(), frozenset({50, 52, 60, 61, 70, 72, 90, 91, 92, 100, 110, 111, 115})
    rtp(peer, 0.1, "192.0.2.20", 16200, "198.51.100.30", 16300, 12.0, ssrc=1, ptime=0.09, lost=gone)
    for i, count in enumerate((2, 8, 15)):
        rtcp_report(peer, 4.0 + 4 * i, "198.51.100.30", 16301, "192.0.2.20", 16201, ssrc=1001, about=1,
                    highest=1042 + 44 * i, lost=count)
    return {"phone": _reports(_stream()).sorted(), "peer": peer.sorted()}


def near_miss_another_host():
    """Condition: the reports come from where the stream goes to."""
    wire = _stream()
    for i, count in enumerate((2, 8, 15)):
        rtcp_report(wire, 4.0 + 4 * i, "198.51.100.10", 16103, "203.0.113.140", 16101, ssrc=9, about=1,
                    highest=1042 + 44 * i, lost=count)
    return wire.sorted()


def near_miss_count_falls():
    """Condition: counts go up only. Here they fall in between."""
    return _reports(_stream(), (2, 20, 10, 25)).sorted()


def near_miss_more_than_sent():
    """Condition: no more lost than sent. This reporter counts thousands."""
    return _reports(_stream(), (2, 4000, 9000)).sorted()


def near_miss_restart():
    """Condition: one run of numbers. After 6 s they begin anew, and the gateway's highest one with them."""
    wire = _stream(6.0, ptime=0.02)
    forth(wire, 6.2, 6.0, ptime=0.02)
    report(wire, 1.13, about=1, highest=1049)
    report(wire, 7.2, about=1, highest=1049)
    return wire.sorted()


def near_miss_wraps_not_counted():
    """Condition: the highest number stands still. This receiver does not count that the numbers wrapped."""
    wire = _stream(12.0, ptime=0.02, first=65_336)
    for i in range(5):
        report(wire, 3.13 + 2 * i, about=1, highest=(65_436 + 100 * i) & 0xFFFF)
    return wire.sorted()


def near_miss_short_delay():
    """Condition: 200 packets behind. Here a report is 90 packets old."""
    wire = _stream(6.0, ptime=0.02)
    report(wire, 1.13, about=1, highest=1049)
    report(wire, 6.1, about=1, highest=1209)
    return wire.sorted()
