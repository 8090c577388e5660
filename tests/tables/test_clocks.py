"""Clocks of capture points against each other, and inside one capture."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tcp_wire import ACK, CLIENT, MS, PSH, SERVER, START, Frame, Talk, ip4, read, write

from netdiag.tables import Tables, clock_pairs
from netdiag.tables.clock_pairs import ClockPair, theil_sen
from netdiag.tables.reader import open_captures

S = 10**9
PUBLIC = "203.0.113.7"


def udp(src: str, dst: str, payload: bytes, ttl: int = 64) -> bytes:
    header = struct.pack(">HHHH", 5060, 5060, 8 + len(payload), 0)
    return ip4(src, dst, 17, header + payload, ttl=ttl)


Clock = Callable[[int], int]


def two(path: Path, a: list[Frame], b: list[Frame]) -> Tables:
    files = write(path / "a.pcap", sorted(a)), write(path / "b.pcap", sorted(b))
    return open_captures([], [("in", str(files[0])), ("out", str(files[1]))])


def points(path: Path, clock: Clock, count: int = 60, way: Callable[[int], int] = lambda n: MS, step: int = 100 * MS,
           outside: str = PUBLIC, alternate: int = 2, hops: int = 1) -> Tables:
    """A phone behind a NAT and a server: every ``alternate``-th packet comes back; ``clock`` is that of the outside."""
    a: list[Frame] = []
    b: list[Frame] = []
    for n in range(count):
        at, text = START + n * step, b"message %05d" % n
        if n % alternate:
            a.append((at + way(n), udp(SERVER, CLIENT, text, 57 - hops)))
            b.append((clock(at), udp(SERVER, outside, text, 57)))
        else:
            a.append((at, udp(CLIENT, SERVER, text, 64)))
            b.append((clock(at + way(n)), udp(outside, SERVER, text, 64 - hops)))
    return two(path, a, b)


def pair(tables: Tables) -> ClockPair:
    (only,) = tables.clocks.pairs
    return only


def test_offset_across_a_nat(tmp_path: Path) -> None:
    got = pair(points(tmp_path, lambda t: t + 7 * S))
    assert (got.a, got.b, got.matched) == ("in", "out", 60)
    assert (got.low_ns, got.high_ns, got.offset_ns) == (7 * S - MS, 7 * S + MS, 7 * S)
    assert got.way_ns == 2 * MS
    assert (got.drift_ppm, got.step_ns, got.residual_ns) == (0, 0, 0)


def test_delay_of_one_direction_does_not_move_the_bounds(tmp_path: Path) -> None:
    queued = pair(points(tmp_path, lambda t: t + 7 * S, way=lambda n: MS * (1 + (40 * (n % 8) if n % 2 == 0 else 0))))
    assert queued.low_ns == 7 * S - MS
    assert queued.high_ns == 7 * S + MS
    assert queued.residual_ns > 10 * MS


def test_drift_of_both_directions(tmp_path: Path) -> None:
    got = pair(points(tmp_path, lambda t: t + (t - START) // 1000, count=200, step=S))
    assert got.drift_ppm == pytest.approx(1000, abs=5)
    assert abs(got.offset_ns) < MS
    assert got.residual_ns < MS


def test_growing_queue_is_no_drift(tmp_path: Path) -> None:
    got = pair(points(tmp_path, lambda t: t, count=200, step=S, way=lambda n: MS + (n * MS if n % 2 == 0 else 0)))
    assert got.drift_ppm == 0
    assert got.high_ns < 5 * MS


def test_step_is_found_and_its_longer_side_fitted(tmp_path: Path) -> None:
    got = pair(points(tmp_path, lambda t: t - (S if t > START + 150 * S else 0), count=200, step=S))
    assert got.step_ns == pytest.approx(-S, abs=5 * MS)
    assert abs(got.step_at_ns - START - 150 * S) <= 2 * S
    assert (got.matched, got.drift_ppm) == (150, 0)
    assert abs(got.offset_ns) < MS


def test_bridge_bounds_by_flow_direction(tmp_path: Path) -> None:
    got = pair(points(tmp_path, lambda t: t + 7 * S, outside=CLIENT, hops=0))
    assert got.way_ns is None
    assert (got.low_ns, got.high_ns) == (7 * S - MS, 7 * S + MS)


def test_relay_that_sends_anew_tells_no_direction(tmp_path: Path) -> None:
    """Both addresses and the TTL are the relay's: its hops say nothing."""
    text = [b"message %05d" % n for n in range(60)]
    a = [(START + n * MS, udp(CLIENT, PUBLIC, t, 50)) for n, t in enumerate(text)]
    b = [(START + n * MS + MS, udp("203.0.113.8", SERVER, t, 64)) for n, t in enumerate(text)]
    tables = two(tmp_path, a, b)
    got = pair(tables)
    assert got.matched == 60
    assert (got.low_ns, got.high_ns) == (MS - clock_pairs.WAY_NS, MS + clock_pairs.WAY_NS)


def test_packets_that_come_twice_are_not_matched(tmp_path: Path) -> None:
    a = [(START + n * S, udp(CLIENT, SERVER, b"keepalive")) for n in range(60)]
    b = [(START + n * S + MS, udp(CLIENT, SERVER, b"keepalive", 63)) for n in range(60)]
    a.append((START + 61 * S, udp(CLIENT, SERVER, b"message 1")))
    b.append((START + 61 * S, udp(CLIENT, SERVER, b"message 1", 63)))
    tables = two(tmp_path, a, b)
    assert pair(tables).matched == 1


def test_sample_is_the_same_at_both_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_pairs, "SAMPLE", 100)
    got = pair(points(tmp_path, lambda t: t + S, count=2000, step=MS))
    assert 50 < got.matched < 200
    assert got.offset_ns == S


def test_nothing_in_common(tmp_path: Path) -> None:
    a = [(START, udp(CLIENT, SERVER, b"one message"))]
    b = [(START, udp(CLIENT, SERVER, b"another one"))]
    tables = two(tmp_path, a, b)
    got = pair(tables)
    assert (got.matched, got.rows) == (0, ())


def test_one_point_and_empty_point(tmp_path: Path) -> None:
    one = read(tmp_path / "t.pcap", [(START, udp(CLIENT, SERVER, b"one message"))])
    assert one.clocks.pairs == ()
    empty = write(tmp_path / "e.pcap", [])
    two = open_captures([], [("in", str(tmp_path / "t.pcap")), ("out", str(empty))])
    assert two.clocks.pairs == ()


def talk() -> list[Frame]:
    t = Talk().handshake()
    for n in range(20):
        t.c(100 + n * 100, PSH | ACK, 1 + 10 * n, 1 + 10 * n, b"0123456789")
        t.s(130 + n * 100, PSH | ACK, 1 + 10 * n, 11 + 10 * n, b"0123456789")
    return t.frames


def test_step_back_with_numbers_that_go_on(tmp_path: Path) -> None:
    frames = [(ts - (S if n > 20 else 0), frame) for n, (ts, frame) in enumerate(talk())]
    (step,) = read(tmp_path / "t.pcap", frames).clocks.back_steps
    assert (step.row, step.onward, step.against, step.hosts) == (21, 2, 0, 1)
    assert 0.9 * S < step.size_ns <= S
    assert step.resumed


def test_wrong_order_goes_back_with_its_numbers(tmp_path: Path) -> None:
    frames = talk()
    (step,) = read(tmp_path / "t.pcap", frames[21:] + frames[:21]).clocks.back_steps
    assert (step.onward, step.against, step.resumed) == (0, 2, False)


def test_late_packet_is_no_resumption(tmp_path: Path) -> None:
    frames = talk()
    (step,) = read(tmp_path / "t.pcap", frames[:5] + frames[6:12] + frames[5:6] + frames[12:]).clocks.back_steps
    assert not step.resumed


def test_rotated_files_are_no_step(tmp_path: Path) -> None:
    """Each file is in order; what lies between two files is not the clock's."""
    frames = talk()
    names = [str(write(tmp_path / "2.pcap", frames[21:])), str(write(tmp_path / "1.pcap", frames[:21]))]
    assert open_captures(names).clocks.back_steps == ()


def report(at: float, ntp: float, ssrc: int = 7, packets: int = 1) -> Frame:
    whole = int(ntp)
    body = struct.pack(">BBHIIIIII", 0x80, 200, 6, ssrc, whole, int((ntp - whole) * 2**32), 0, packets, packets)
    header = struct.pack(">HHHH", 5005, 5005, 8 + len(body), 0)
    return START + int(at * S), ip4(SERVER, CLIENT, 17, header + body)


def test_gain_of_a_sender_across_the_wrap_of_its_middle_bits(tmp_path: Path) -> None:
    start = 4_000_000_000 // 65536 * 65536 + 65536 - 30  # 16 bits of seconds wrap after 30 s
    frames = [report(i * 5, start + i * 5 * 1.0004) for i in range(20)]
    (sender,) = read(tmp_path / "t.pcap", frames).clocks.senders
    assert (sender.source, sender.ssrc, sender.reports, sender.span_ns) == (SERVER, 7, 20, 95 * S)
    assert sender.gain_ppm == pytest.approx(400, abs=2)
    assert sender.error_ppm < 10


def test_senders_without_clock_or_with_few_reports(tmp_path: Path) -> None:
    none = [report(i * 5, 0, 8) for i in range(20)]
    few = [report(i * 30, 4_000_000_000 + i * 30, 9) for i in range(4)]
    short = [report(i * 1 + 0.5, 4_000_000_000 + i, 10) for i in range(20)]
    assert read(tmp_path / "t.pcap", sorted(none + few + short)).clocks.senders == ()


def test_median_slope_ignores_wild_points() -> None:
    x = np.arange(30.0)
    y = 2 * x
    y[::4] += 1000
    assert theil_sen(x, y) == pytest.approx(2, abs=0.01)


def test_identification_chooses_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets without identification are all read: none of these has one."""
    monkeypatch.setattr(clock_pairs, "READ", 10)
    assert pair(points(tmp_path, lambda t: t + S)).matched == 60
    frames = [(START + n * MS, ip4(CLIENT, SERVER, 17, struct.pack(">HHHH12s", 1, 2, 20, 0, b"number %05d" % n),
                                   ident=n + 1)) for n in range(100)]
    got = pair(two(tmp_path, frames, [(ts + S, frame) for ts, frame in frames]))
    assert (got.matched, got.offset_ns) == (10, S)


def test_one_direction_bounds_one_side(tmp_path: Path) -> None:
    """The other side is as far away as the longest way that is believed."""
    there = pair(points(tmp_path, lambda t: t + 7 * S, alternate=1))
    assert (there.low_ns, there.high_ns) == (7 * S + MS - clock_pairs.WAY_NS, 7 * S + MS)
    back = open_captures([], [("out", str(tmp_path / "b.pcap")), ("in", str(tmp_path / "a.pcap"))])
    assert (pair(back).low_ns, pair(back).high_ns) == (-7 * S - MS, -7 * S - MS + clock_pairs.WAY_NS)
    assert pair(back).way_ns is None
