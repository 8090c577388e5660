"""RTP streams: recognition, sequence and jitter statistics, and which call they belong to."""

from __future__ import annotations

import ipaddress
import itertools
import shutil
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from checkout import PcapWriter, udp_frame
from hypothesis import given
from hypothesis import strategies as st

from netdiag.tables import Tables, rtp_events, rtp_groups, rtp_stats
from netdiag.tables.calls import Call, Media
from netdiag.tables.reader import open_captures
from netdiag.tables.rtp import RtpStream, series
from netdiag.tables.schema import empty, rows, schema

T0 = 1_767_225_600_000_000_000
MS = 1_000_000
MESSAGES = itertools.count()
A, B, C = "192.0.2.1", "198.51.100.2", "203.0.113.3"


def rtp(sequence: int, timestamp: int, ssrc: int = 7, pt: int = 0, marker: bool = False, first: int = 0x80,
        body: bytes = b"\xd5" * 160) -> bytes:
    return struct.pack(">BBHII", first, marker << 7 | pt, sequence % 65536, timestamp % 2**32, ssrc) + body


def talk(sequences: Iterable[int], begin: int = T0, src: str = A, dst: str = B, sport: int = 4000, dport: int = 5000,
         **header: Any) -> list[tuple[int, bytes]]:
    """Packets every 20 ms of arrival; the timestamp follows the sequence number."""
    return [(begin + i * 20 * MS, udp_frame(src, dst, sport, dport, rtp(s, 160 * s, **header)))
            for i, s in enumerate(sequences)]


def call(number: int = 0, end_s: float | None = None, midstream: bool = False) -> dict[str, Any]:
    end_ns = None if end_s is None else T0 + int(end_s * 1e9)
    return {"call": number, "call_id": f"call{number}@pbx.example", "end_ns": end_ns,
            "midstream": midstream, "point": "capture"}


def line(side: str, address: str, port: int, at_s: float = 0.0, number: int = 0,
         formats: dict[int, str] | None = None) -> dict[str, Any]:
    formats = {0: "PCMU/8000"} if formats is None else formats
    return {"call": number, "call_id": f"call{number}@pbx.example", "point": "capture", "ts_ns": T0 + int(at_s * 1e9),
            "message": next(MESSAGES),
            "side": side, "index": 0, "type": "audio", "address": address, "port": port, "rtcp_port": port + 1,
            "payload_types": list(formats), "codecs": list(formats.values())}


def load(path: Path, calls: list[dict[str, Any]] | None = None, media: list[dict[str, Any]] | None = None) -> Tables:
    """Tables of a capture with made-up signalling in place of parsed SIP."""
    tables = open_captures([str(path)])
    for name, row, given_rows in (("calls", Call, calls), ("media", Media, media)):
        frame = pl.DataFrame(given_rows or [], schema_overrides=schema(row)) if given_rows else empty(row)
        missing = [pl.lit(None, dtype).alias(c) for c, dtype in schema(row).items() if c not in frame.columns]
        tables.__dict__[name] = frame.with_columns(missing).select(list(schema(row)))
    return tables


def streams(tables: Tables) -> list[RtpStream]:
    assert tables.rtp.schema == schema(RtpStream)
    return list(rows(tables.rtp, RtpStream))


def test_plain_stream(pcap: PcapWriter) -> None:
    [s] = streams(load(pcap(talk(range(65500, 65600), marker=False))))
    assert (s.source, s.source_port, s.destination, s.destination_port, s.ssrc) == (A, 4000, B, 5000, 7)
    assert (s.packets, s.expected, s.lost, s.duplicates, s.reordered, s.restarts) == (100, 100, 0, 0, 0, 0)
    assert (s.codec, s.clock_rate, s.clock_guessed) == ("PCMU", 8000, False)
    assert (s.heuristic, s.bound_by, s.call) == (True, "", None)
    assert (s.first_ns, s.last_ns, s.first_packet, s.last_packet) == (T0, T0 + 99 * 20 * MS, 0, 99)
    assert (s.jitter_mean_ms, s.jitter_max_ms, s.max_delta_ms) == (0.0, 0.0, 20.0)
    assert (s.wire_bytes, s.dscp) == (17200, 0)


def test_dscp_with_and_without_ip_options(pcap: PcapWriter) -> None:
    plain = [(t, f[:15] + b"\xb8" + f[16:]) for t, f in talk(range(20))]
    options = [(t, f[:14] + b"\x46\x68" + struct.pack(">H", len(f) - 14 + 4) + f[18:34] + b"\1\1\1\0" + f[34:])
               for t, f in talk(range(20), ssrc=8)]
    assert [s.dscp for s in streams(load(pcap(plain + options)))] == [46, 26]


def test_ipv6(pcap: PcapWriter) -> None:
    ends = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("2001:db8::2").packed
    frames = []
    for t, f in talk(range(5)):
        udp = f[34:]
        frames.append((t, f[:12] + b"\x86\xdd" + struct.pack(">IHBB", 0x6B8 << 20, len(udp), 17, 64) + ends + udp))
    [s] = streams(load(pcap(frames), [call()], [line("callee", "2001:DB8:0::2", 5000)]))
    assert (s.source, s.destination, s.dscp, s.bound_by) == ("2001:db8::1", "2001:db8::2", 46, "sdp")


def test_loss_order_and_duplicates_apart(pcap: PcapWriter) -> None:
    sequences = [s for s in range(100) if s not in (20, 40, 41, 42)]
    sequences[60], sequences[61] = sequences[61], sequences[60]
    sequences.insert(80, sequences[79])
    [s] = streams(load(pcap(talk(sequences))))
    assert (s.packets, s.expected, s.lost, s.duplicates, s.reordered) == (97, 100, 4, 1, 1)
    assert (s.max_gap, s.gaps) == (3, 2)


def test_restart_is_no_loss_and_starts_jitter_anew(pcap: PcapWriter) -> None:
    packets = talk(range(50)) + talk(range(30000, 30050), begin=T0 + 1000 * MS)
    [s] = streams(load(pcap(packets)))
    assert (s.expected, s.lost, s.restarts, s.strays) == (100, 0, 1, 0)
    assert s.jitter_max_ms == 0.0


def test_single_stray_is_left_out(pcap: PcapWriter) -> None:
    [s] = streams(load(pcap(talk([*range(50), 40000, *range(50, 100)]))))
    assert (s.packets, s.expected, s.lost, s.restarts, s.strays) == (101, 100, 0, 0, 1)


def brute(sequences: list[int]) -> tuple[int, int, int]:
    """Expected, lost and duplicates of a short extended sequence without jumps, from the definition."""
    seen = set(sequences)
    span = max(seen) - min(seen) + 1
    return span, span - len(seen), len(sequences) - len(seen)


@given(st.lists(st.lists(st.integers(-90, 90), min_size=1, max_size=40), min_size=1, max_size=6), st.integers(0, 65535))
def test_statistics_follow_the_definition(parts: list[list[int]], base: int) -> None:
    # Values of one list lie within 180 of each other; steps of 100 back would be restarts, so they are made smaller.
    parts = [[v // 2 for v in part] for part in parts]
    flat = np.array([(base + v) % 65536 for part in parts for v in part], np.uint16)
    start = np.cumsum([0] + [len(p) for p in parts[:-1]])
    got = rtp_stats.sequence_statistics(start, flat)
    counts = zip(got.expected.tolist(), got.lost.tolist(), got.duplicates.tolist(), strict=True)
    assert list(counts) == [brute(p) for p in parts]
    late = [sum(v <= max(p[:i], default=-10**9) for i, v in enumerate(p)) for p in parts]
    assert (got.reordered + got.duplicates).tolist() == late


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=300), st.integers(1, 20))
def test_any_sequence_is_accounted_for(values: list[int], every: int) -> None:
    start = np.arange(0, len(values), every)
    got = rtp_stats.sequence_statistics(start, np.array(values, np.uint16))
    size = rtp_stats.sizes(start, len(values))
    assert ((got.expected - got.lost + got.duplicates + got.strays) == size).all()
    assert (got.lost >= 0).all()
    assert (got.reordered >= 0).all()


@given(st.lists(st.lists(st.floats(0, 9000), min_size=1, max_size=700), min_size=1, max_size=5))
def test_jitter_recurrence_matches_the_loop(parts: list[list[float]]) -> None:
    start = np.cumsum([0] + [len(p) for p in parts[:-1]])
    got = rtp_stats.smooth(start, np.array([v for p in parts for v in p]))
    want = []
    for part in parts:  # RFC 3550 A.8
        level = 0.0
        for i, value in enumerate(part):
            level += ((value if i else 0.0) - level) / 16
            want.append(level)
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_jitter_value(pcap: PcapWriter) -> None:
    packets = talk(range(20))
    packets[10] = (packets[10][0] + 8 * MS, packets[10][1])
    [s] = streams(load(pcap(packets)))
    assert s.jitter_max_ms == pytest.approx(8 / 16 * 15 / 16 + 8 / 16)


def test_hold_with_a_new_timestamp_base_is_no_jitter(pcap: PcapWriter) -> None:
    packets = talk(range(50))
    later = [(T0 + 60_000 * MS + i * 20 * MS, udp_frame(A, B, 4000, 5000, rtp(50 + i, 3_000_000_000 + 160 * i)))
             for i in range(50)]
    [s] = streams(load(pcap(packets + later)))
    assert s.jitter_max_ms == 0.0
    assert s.max_delta_ms == pytest.approx(60_000 - 49 * 20)


def test_events_do_not_count_as_jitter(pcap: PcapWriter) -> None:
    packets = talk(range(100))
    for i in range(40, 60):  # RFC 4733: one timestamp for the whole event
        packets[i] = (packets[i][0], udp_frame(A, B, 4000, 5000, rtp(i, 160 * 40, pt=101, body=b"\1\x0a\0\xa0")))
    said = [line("callee", B, 5000, formats={0: "PCMU/8000", 101: "telephone-event/8000"})]
    [s] = streams(load(pcap(packets), [call()], said))
    assert (s.payload_type, s.payload_types, s.lost) == (0, (0, 101), 0)
    assert s.jitter_max_ms == pytest.approx(0.0, abs=1e-9)
    [unbound] = streams(load(pcap(packets)))
    assert unbound.jitter_max_ms > 10


def test_an_event_at_the_wrap_of_the_numbers_is_followed(pcap: PcapWriter) -> None:
    numbers = [*range(65500, 65536), *range(10)]
    packets = talk(numbers)
    ends = struct.pack(">BBH", 5, 0x8A, 800)
    packets[35] = (packets[35][0], udp_frame(A, B, 4000, 5000, rtp(65535, 160 * 65535, pt=101, body=ends)))
    said = [line("callee", B, 5000, formats={0: "PCMU/8000", 101: "telephone-event/8000"})]
    tables = load(pcap(packets), [call()], said)
    event, = rtp_events.events(tables, tables.rtp, {0: {101}})
    assert (event.digit, event.ends, event.duration, event.followed) == ("5", 1, 800, True)


def test_two_sources_on_one_port_and_both_directions(pcap: PcapWriter) -> None:
    mixed = [p for pair in zip(talk(range(40), ssrc=1), talk(range(500, 540), ssrc=2, begin=T0 + MS),
                               talk(range(900, 940), ssrc=1, src=B, dst=A, sport=5000, dport=4000, begin=T0 + 2 * MS),
                               strict=True) for p in pair]
    found = streams(load(pcap(mixed)))
    assert [(s.source, s.ssrc, s.packets, s.lost) for s in found] == [(A, 1, 40, 0), (A, 2, 40, 0), (B, 1, 40, 0)]
    assert len({s.flow for s in found}) == 1
    assert [s.stream for s in found] == [0, 1, 2]


def test_series_gives_back_the_packets(pcap: PcapWriter) -> None:
    pairs = zip(talk(range(40), ssrc=1), talk(range(500, 540), ssrc=2), strict=True)
    tables = load(pcap([packet for pair in pairs for packet in pair]))
    got = series(tables, streams(tables)[1])
    assert got.packet.tolist() == list(range(1, 80, 2))
    assert got.sequence.tolist() == list(range(500, 540))
    assert got.timestamp.tolist() == [160 * s for s in range(500, 540)]
    assert got.ts_ns.tolist() == [T0 + i * 20 * MS for i in range(40)]


# ---------------------------------------------------------------- what is not RTP

def noise(make: Any, n: int = 400) -> list[tuple[int, bytes]]:
    random = np.random.default_rng(3)
    return [(T0 + i * 20 * MS, udp_frame(payload=make(i, random))) for i in range(n)]


NOT_RTP = {
    "random bytes": lambda i, r: bytes([0x80 | int(r.integers(64))]) + r.bytes(171),
    "ESP in UDP: fixed SPI, 32-bit counter": lambda i, r: b"\x81\x22\x33\x44" + struct.pack(">I", i) + r.bytes(160),
    "counter in place of sequence, random elsewhere": lambda i, r: b"\x80\0" + struct.pack(">H", i) + r.bytes(160),
    "DNS on another port": lambda i, r: struct.pack(">HHHHHH", 0x8000 + i, 0x100, 1, 0, 0, 0) + b"\4host\0\0\1\0\1",
    "constant header": lambda i, r: b"\x80\0\0\1\0\0\0\1\0\0\0\1" + r.bytes(100),
    "clock stands still": lambda i, r: rtp(i, 0),
    "QUIC short header": lambda i, r: bytes([0x40 | i % 32]) + r.bytes(100),
    "RTCP types": lambda i, r: rtp(i, 160 * i, pt=72 + i % 4, marker=True),
    "reserved payload type": lambda i, r: rtp(i, 160 * i, pt=80),
    "every payload type": lambda i, r: rtp(i, 160 * i, pt=96 + i % 30),
}


@pytest.mark.parametrize("kind", NOT_RTP)
def test_other_protocols_are_no_streams(pcap: PcapWriter, kind: str) -> None:
    assert streams(load(pcap(noise(NOT_RTP[kind])))) == []


def test_the_bar_for_streams_without_signalling(pcap: PcapWriter) -> None:
    assert streams(load(pcap(talk(range(rtp_groups.MIN_PACKETS - 1))))) == []
    assert len(streams(load(pcap(talk(range(rtp_groups.MIN_PACKETS)))))) == 1


def test_video_with_several_packets_a_frame_is_rtp(pcap: PcapWriter) -> None:
    packets = [(T0 + i // 5 * 33 * MS, udp_frame(payload=rtp(i, i // 5 * 3000, pt=96, marker=i % 5 == 4)))
               for i in range(100)]
    [s] = streams(load(pcap(packets)))
    assert (s.codec, s.clock_rate, s.clock_guessed, s.marker_packets) == ("", 8000, True, 20)


def test_header_longer_than_the_packet_is_no_rtp(pcap: PcapWriter) -> None:
    said = [line("callee", B, 5000)]
    packets = talk(range(20), first=0x8F, body=b"")
    packets += talk(range(20), ssrc=9, begin=T0 + MS, first=0x8F, body=b"\0" * 60)
    [s] = streams(load(pcap(packets), [call()], said))
    assert s.ssrc == 9


def test_cut_header_is_an_anomaly(pcap: PcapWriter) -> None:
    tables = load(pcap(talk(range(20)), snaplen=42 + 10), [call()], [line("callee", B, 5000)])
    assert streams(tables) == []
    assert [(a.reason, a.count, a.first_frame) for a in tables.anomalies() if a.table == "rtp"] == [
        ("packet captured shorter than the RTP header", 20, 1)]


# ---------------------------------------------------------------- calls

def test_bound_by_destination_with_two_packets(pcap: PcapWriter) -> None:
    tables = load(pcap(talk(range(2), pt=97)), [call(end_s=60)],
                  [line("caller", A, 4000), line("callee", B, 5000, 0.1, formats={97: "AMR-WB/16000"})])
    [s] = streams(tables)
    assert (s.call, s.call_id, s.bound_by, s.sender, s.heuristic) == (0, "call0@pbx.example", "sdp", "caller", False)
    assert (s.codec, s.clock_rate, s.clock_guessed, s.media_index) == ("AMR-WB", 16000, False, 0)


def test_bound_by_source(pcap: PcapWriter) -> None:
    # B advertised a port behind NAT that nobody at this point sends to: media runs between A and the NAT's address C.
    packets = talk(range(5), src=A, dst=C, dport=7000)
    packets += talk(range(5), begin=T0 + MS, src=C, dst=A, sport=7000, dport=4000, ssrc=8)
    there, back = streams(load(pcap(packets), [call()], [line("caller", A, 4000), line("callee", "10.0.0.5", 5000)]))
    assert (back.bound_by, back.sender) == ("sdp", "callee")
    assert (there.bound_by, there.sender) == ("comedia", "caller")
    assert back.call == there.call == 0


def test_symmetric_stream_beside_a_bound_one(pcap: PcapWriter) -> None:
    # Bound by its destination, the flow carries a second source the other way whose ends SDP named only later.
    packets = talk(range(5), src=A, dst=B)
    packets += talk(range(200), begin=T0 - 3000 * MS, src=B, dst=A, sport=5000, dport=4000, ssrc=8)
    earlier = talk(range(20), begin=T0 - 9000 * MS, src=B, dst=A, sport=5000, dport=4000, ssrc=9)
    packets += earlier
    stray, back, there = streams(load(pcap(sorted(packets)), [call()], [line("callee", B, 5000)]))
    assert (stray.bound_by, stray.call, stray.heuristic) == ("", None, True)
    assert (there.bound_by, there.sender) == ("sdp", "caller")
    assert (back.bound_by, back.sender, back.call) == ("comedia", "callee", 0)


@pytest.mark.parametrize(("begin_s", "bound"), [(-0.9, True), (-1.1, False), (5.0, True), (31.0, False)])
def test_validity_in_time(pcap: PcapWriter, begin_s: float, bound: bool) -> None:
    tables = load(pcap(talk(range(5), begin=T0 + int(begin_s * 1e9))), [call(end_s=30)], [line("callee", B, 5000)])
    assert [s.call for s in streams(tables)] == ([0] if bound else [])


def test_midstream_call_binds_what_came_before_its_sdp(pcap: PcapWriter) -> None:
    tables = load(pcap(talk(range(5), begin=T0 - 60_000 * MS)), [call(midstream=True)], [line("callee", B, 5000)])
    assert [s.call for s in streams(tables)] == [0]


def test_port_used_again_belongs_to_the_later_call(pcap: PcapWriter) -> None:
    said = [line("callee", B, 5000), line("callee", B, 5000, 40, number=1)]
    packets = talk(range(5), begin=T0 + 10**9) + talk(range(5), begin=T0 + 41 * 10**9, ssrc=8)
    assert [s.call for s in streams(load(pcap(packets), [call(0, 30), call(1)], said))] == [0, 1]


def test_odd_sdp_does_not_matter(pcap: PcapWriter) -> None:
    said = [line("callee", "pbx.example", 5000), line("callee", "2001:db8::1", 5000), line("callee", B, 0),
            line("callee", B, 5000, formats={0: "", 255: "X/1", 300: "Y/0"}), line("callee", B, 5000, formats={})]
    [s] = streams(load(pcap(talk(range(5))), [call()], said))
    assert (s.codec, s.clock_rate) == ("PCMU", 8000)


def test_nothing_at_all(pcap: PcapWriter) -> None:
    assert streams(load(pcap([]))) == []
    assert streams(load(pcap([(T0, udp_frame(payload=b"hello"))]))) == []


# ---------------------------------------------------------------- beside tshark

Row = tuple[int, int, float, float, float]


def tshark_streams(path: Path) -> dict[int, Row]:
    """SSRC to packets, lost, greatest delta, mean and greatest jitter."""
    out = subprocess.run(["tshark", "-q", "--enable-heuristic", "rtp_udp", "-z", "rtp,streams", "-r", str(path)],
                         capture_output=True, text=True, check=True).stdout
    found = {}
    for text in out.splitlines():
        fields = text.replace("(", " ").replace(")", " ").split()
        if len(fields) > 15 and fields[6].startswith("0x"):
            n = fields.index(next(f for f in fields if f.endswith("%")))
            delta, mean, highest = (float(fields[n + i]) for i in (3, 5, 6))
            found[int(fields[6], 16)] = (int(fields[n - 2]), int(fields[n - 1]), delta, mean, highest)
    return found


@pytest.mark.tshark
@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_agrees_with_tshark(pcap: PcapWriter) -> None:
    random = np.random.default_rng(5)
    packets = []
    for ssrc in range(1, 9):
        kept = [int(s) for s in np.arange(65000, 66000) if random.random() > 0.03 or s == 65000]
        packets += [(T0 + int((s - 65000) * 20 * MS + abs(random.normal(0, 4 * MS)) // 1000 * 1000),
                     udp_frame(A, B, 4000 + 2 * ssrc, 5000, rtp(s, 160 * s, ssrc=ssrc))) for s in kept]
    path = pcap(sorted(packets))
    theirs = tshark_streams(path)
    mine = {s.ssrc: s for s in streams(load(path))}
    assert set(mine) == set(theirs) == set(range(1, 9))
    for ssrc, (count, lost, delta, mean, highest) in theirs.items():
        s = mine[ssrc]
        assert (s.packets, s.lost) == (count, lost)
        assert (s.max_delta_ms, s.jitter_mean_ms, s.jitter_max_ms) == pytest.approx((delta, mean, highest), abs=0.0011)
