"""Shape of RTP loss, timing windows, E-model stretches and telephone events, against counts made by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

import pytest
from checkout import PcapWriter, udp_frame

from netdiag.decode import emodel
from netdiag.tables import Tables, rtp_events, rtp_loss, rtp_packets, rtp_quality, rtp_windows
from netdiag.tables.reader import open_captures

T0 = 1_767_225_600_000_000_000
MS = 1_000_000
A, B = "192.0.2.1", "198.51.100.2"


def packet(number: int, stamp: int, pt: int = 0, ssrc: int = 7, body: bytes = b"\xd5" * 160) -> bytes:
    return struct.pack(">BBHII", 0x80, pt, number & 0xFFFF, stamp & 0xFFFFFFFF, ssrc) + body


def capture(pcap: PcapWriter, numbers: Iterable[int], late: Callable[[int], float] = lambda n: 0.0, ssrc: int = 7,
            ) -> Tables:
    """Packet ``n`` at ``n`` times 20 ms, and ``late(n)`` ms."""
    lines = sorted((T0 + round((n * 20 + late(n)) * MS), n) for n in numbers)
    frames = [(at, udp_frame(A, B, 4000, 5000, packet(n, 160 * n, ssrc=ssrc))) for at, n in lines]
    return open_captures([str(pcap(frames))])


def shape(tables: Tables) -> rtp_loss.LossShape:
    row = rtp_loss.shapes(tables, tables.rtp).row(0, named=True)
    return rtp_loss.LossShape(**row)


def test_runs_of_loss_by_hand(pcap: PcapWriter) -> None:
    # Runs of 1, 3 and 2; the last two are 9 received packets apart: one burst of RFC 3611 with 14 numbers.
    gone = {100, 200, 201, 202, 212, 213}
    got = shape(capture(pcap, (n for n in range(500) if n not in gone)))
    assert (got.expected, got.lost, got.runs, got.long_runs, got.longest) == (500, 6, 3, 1, 3)
    assert got.p == pytest.approx(3 / 494)
    assert got.q == pytest.approx(3 / 6)
    assert got.burst_ratio == pytest.approx((1 - 6 / 500) * 2)
    assert got.bursts == 1
    assert got.burst_density == pytest.approx(5 / 14)
    assert got.burst_ms == pytest.approx(14 * 20)
    assert got.gap_density == pytest.approx(1 / 486)


@pytest.mark.parametrize(("between", "bursts"), [(15, 1), (16, 0)])
def test_sixteen_received_packets_end_a_burst(between: int, bursts: int, pcap: PcapWriter) -> None:
    gone = {100, 101 + between}
    assert shape(capture(pcap, (n for n in range(300) if n not in gone))).bursts == bursts


def test_worst_ten_seconds(pcap: PcapWriter) -> None:
    gone = {10, *range(600, 620, 2)}  # 12 to 12.4 s
    got = shape(capture(pcap, (n for n in range(1500) if n not in gone)))
    assert got.worst_10s_lost == 10
    assert got.worst_10s == pytest.approx(10 / 500)
    assert got.worst_10s_ns == T0 + 10_000 * MS


def test_loss_agrees_with_the_stream_table_over_wrap_and_reordering(pcap: PcapWriter) -> None:
    numbers = [n for n in range(65000, 66500) if n % 41]
    tables = capture(pcap, numbers, lambda n: 25.0 if n % 97 == 5 else 0.0)
    got, stream = shape(tables), tables.rtp.row(0, named=True)
    assert stream["lost"] == len([n for n in range(65000, 66500) if not n % 41 and n > 65000])
    assert stream["reordered"] > 0
    assert (got.expected, got.lost, got.runs, got.longest) == (
        stream["expected"], stream["lost"], stream["gaps"], stream["max_gap"])


def test_windows_tell_late_packets_and_jitter(pcap: PcapWriter) -> None:
    tables = capture(pcap, range(1000), lambda n: 90.0 if n % 50 == 7 and n >= 500 else 0.0)
    first, second = rtp_windows.windows(tables, tables.rtp, 10, 60).iter_rows(named=True)
    assert (first["late"], first["returns"], first["jitter_ms"], first["p99_ms"]) == (0, 0, 0.0, 0.0)
    assert (second["late"], second["returns"]) == (10, 10)
    assert second["p95_ms"] == 0.0
    assert second["p99_ms"] == pytest.approx(90.0)
    # Each late packet parts twice from its neighbours, by 90 ms; J follows with the same mean (RFC 3550 §6.4.1),
    # less what the last pulse has not given back yet. Packets overtake: three neighbours each.
    assert 3.0 < second["jitter_ms"] < 3.8
    assert first["steady"]
    assert second["steady"]


def test_clock_drift(pcap: PcapWriter) -> None:
    tables = capture(pcap, range(3000), lambda n: n * 20 * 150e-6)
    drift = rtp_windows.drift_ppm(rtp_windows.windows(tables, tables.rtp, 10, 60))
    assert drift["drift_ppm"].to_list() == pytest.approx([150.0], rel=1e-3)


def test_rating_of_a_stretch_is_the_model_of_what_was_lost(pcap: PcapWriter) -> None:
    tables = capture(pcap, (n for n in range(500) if n % 10 not in (3, 4)))
    streams = rtp_quality.ratable(tables.rtp)
    delay = rtp_quality.delays(tables, streams, 60.0, 50.0)
    assert delay["delay_ms"].to_list() == pytest.approx([50 + 20 + 60], abs=0.1)
    assert delay["round_trip_ms"].to_list() == [None]
    got = rtp_quality.ratings(tables, streams, delay, 10.0, 60.0).row(0, named=True)
    by_hand = emodel.rate(emodel.CODECS["PCMU"], delay["delay_ms"][0], 20.0, 2 * 0.8)
    assert got["r"] == pytest.approx(by_hand.r, abs=0.2)
    assert got["mos"] == pytest.approx(emodel.mos(by_hand.r), abs=0.01)
    assert got["by_late"] == 0.0
    assert got["by_loss"] == pytest.approx(by_hand.loss, abs=0.2)


def test_suspects_are_those_that_can_be_low(pcap: PcapWriter) -> None:
    few = capture(pcap, (n for n in range(500) if n % 100))
    many = capture(pcap, (n for n in range(500) if n % 10))
    for tables, count in ((few, 0), (many, 1)):
        delay = rtp_quality.delays(tables, tables.rtp, 60.0, 50.0)
        assert rtp_quality.suspects(tables.rtp, delay, 70.0, 0.2, 60.0).height == count


def test_events_are_put_together(pcap: PcapWriter) -> None:
    frames = []
    for n in range(30):
        event = 10 <= n < 16
        body = struct.pack(">BBH", 11, 10 | (n >= 13) << 7, 160 * (min(n, 13) - 9)) if event else b"\xd5" * 160
        stamp = 160 * (10 if event else n)
        frames.append((T0 + n * 20 * MS, udp_frame(A, B, 4000, 5000, packet(n, stamp, 101 * event, body=body))))
    tables = open_captures([str(pcap(frames))])
    (got,) = rtp_events.events(tables, tables.rtp, {0: {101}})
    assert (got.digit, got.packets, got.ends, got.duration, got.followed) == ("#", 6, 3, 640, True)
    assert (got.first_packet, got.last_packet) == (10, 15)
    assert rtp_events.events(tables, tables.rtp, {0: {96}}) == []


def test_budget_keeps_at_least_one_stream(pcap: PcapWriter) -> None:
    tables = capture(pcap, range(100))
    assert rtp_packets.affordable(tables.rtp, 10).height == 1
