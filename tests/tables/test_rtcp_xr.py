"""Extended reports: all seven blocks, hostile lengths, round trips, encrypted and cut RTCP, what is told of them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from typing import Any

import numpy as np
import pytest
from checkout import PcapWriter, udp_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netdiag.decode import rtcp_xr as decode
from netdiag.tables import Tables, rtp_reports
from netdiag.tables.reader import open_captures
from netdiag.tables.rtcp_xr import MAX_BLOCKS, MAX_SOURCES, RtcpXr
from netdiag.tables.schema import rows, schema

T0 = 1_767_225_600_000_000_000
A, B = "192.0.2.1", "198.51.100.2"
RR = struct.pack(">BBHI", 0x80, 201, 1, 7)


def block(kind: int, specific: int, body: bytes, words: int | None = None) -> bytes:
    return struct.pack(">BBH", kind, specific, len(body) // 4 if words is None else words) + body


def xr(*blocks: bytes, ssrc: int = 7, words: int | None = None) -> bytes:
    body = struct.pack(">I", ssrc) + b"".join(blocks)
    return struct.pack(">BBH", 0x80, 207, len(body) // 4 if words is None else words) + body


def rle(kind: int, begin: int, end: int, *chunks: int) -> bytes:
    pairs = chunks + (0,) * (len(chunks) % 2)
    return block(kind, 0, struct.pack(f">IHH{len(pairs)}H", 9, begin, end, *pairs))


def voip(loss: int = 13, discard: int = 26, burst: int = 128, r: int = 62, mos_lq: int = 31, mos_cq: int = 29,
         config: int = 0x70, trip: int = 83) -> bytes:
    return block(7, 0, struct.pack(">IBBBBHHHHbbBBBBBBBBHHH", 9, loss, discard, burst, 3, 240, 3000, trip, 0, -20, 127,
                                   127, 16, r, 127, mos_lq, mos_cq, config, 0, 60, 120, 300))


def load(pcap: PcapWriter, *payloads: bytes, snaplen: int = 262144) -> Tables:
    return open_captures([str(pcap([(T0 + i * 10**9, udp_frame(sport=4001, dport=5001, payload=p))
                                    for i, p in enumerate(payloads)], snaplen=snaplen))])


def found(tables: Tables) -> list[RtcpXr]:
    assert tables.rtcp_xr.schema == schema(RtcpXr)
    return list(rows(tables.rtcp_xr, RtcpXr))


def told(row: RtcpXr) -> dict[str, Any]:
    """What is there beyond where and who."""
    common = {"packet", "point", "ts_ns", "flow", "source", "destination", "sender_ssrc", "block", "call", "call_id"}
    return {n: getattr(row, n) for n in schema(RtcpXr) if n not in common and getattr(row, n) is not None}


def reasons(tables: Tables) -> dict[str, int]:
    return {a.reason: a.count for a in tables.anomalies() if a.table.startswith("rtcp")}


def test_all_blocks_of_one_packet(pcap: PcapWriter) -> None:
    blocks = [
        rle(1, 100, 130, 0x4005, 0x8000 | 0b111_1111_0000_1111, 0x000A),
        rle(2, 100, 130, 0x401C, 0x0002),
        block(3, 0, struct.pack(">IHHIII", 9, 100, 103, 1, 2, 3)),
        block(4, 0, struct.pack(">HIH", 1, 0xAABBCCDD, 2)),
        block(5, 0, struct.pack(">6I", 9, 5, 6, 10, 0, 0)),
        block(6, 0xF0, struct.pack(">IHHIIIIIIBBBB", 9, 100, 130, 14, 2, 3, 90, 20, 5, 57, 64, 60, 1)),
        voip(),
    ]
    tables = load(pcap, RR + xr(*blocks))
    got = found(tables)
    expected = [
        {"name": "loss RLE", "about_ssrc": 9, "begin_sequence": 100, "end_sequence": 130, "lost": 14},
        {"name": "duplicate RLE", "about_ssrc": 9, "begin_sequence": 100, "end_sequence": 130, "duplicates": 2},
        {"name": "packet receipt times", "about_ssrc": 9, "begin_sequence": 100, "end_sequence": 103, "received": 3},
        {"name": "receiver reference time", "ntp": 0xAABBCCDD},
        {"name": "DLRR", "about_ssrc": 9, "last_rr": 5, "delay_since_rr": 6},
        {"name": "DLRR", "about_ssrc": 10, "last_rr": 0, "delay_since_rr": 0},
        {"name": "statistics summary", "about_ssrc": 9, "begin_sequence": 100, "end_sequence": 130, "lost": 14,
         "duplicates": 2, "min_jitter": 3, "max_jitter": 90, "mean_jitter": 20, "dev_jitter": 5, "min_ttl": 57,
         "max_ttl": 64},
        {"name": "VoIP metrics", "about_ssrc": 9, "loss_rate": 13 / 256, "discard_rate": 26 / 256, "burst_density": 0.5,
         "gap_density": 3 / 256, "burst_ms": 240, "gap_ms": 3000, "round_trip_ms": 83, "signal_dbm": -20, "gmin": 16,
         "r_factor": 62, "mos_lq": 3.1, "mos_cq": 2.9, "buffer": "adaptive", "buffer_ms": 60, "buffer_max_ms": 120,
         "buffer_limit_ms": 300},
    ]
    assert [told(r) for r in got] == expected
    assert [(r.packet, r.ts_ns, r.source, r.destination, r.sender_ssrc) for r in got] == [(0, T0, A, B, 7)] * 8
    assert reasons(tables) == {}


@pytest.mark.parametrize(("chunks", "count", "lost"), [
    ((0x400A,), 10, 0), ((0x000A,), 10, 10), ((0x7FFF,), 10, 0), ((0x3FFF,), 10, 10),
    ((0xFFFF,), 10, 0), ((0x8000,), 10, 10), ((0x8000 | 0b100_0000_0000_0000,), 10, 9),
    ((0x8000 | 0b000_0000_0001_1111,), 10, 10), ((0x8000, 0x8000), 20, 20), ((0x4005, 0, 0x0005), 10, 0),
    ((), 10, 0), ((0x0005,), 0, 0), ((0x4005, 0x0003, 0xFFFF), 30, 3),
])
def test_run_length_chunks(chunks: tuple[int, ...], count: int, lost: int) -> None:
    got = decode.zeros(np.array(chunks, np.uint16), np.array([len(chunks)]), np.array([count]))
    assert got.tolist() == [lost]


@given(st.lists(st.tuples(st.lists(st.integers(0, 0xFFFF), max_size=12), st.integers(0, 200)), min_size=1, max_size=5))
def test_run_lengths_beside_a_plain_reading(traces: list[tuple[list[int], int]]) -> None:
    """Each trace bit by bit, as RFC 3611 §4.1 tells it."""
    expected = []
    for chunks, count in traces:
        bits = ""
        for chunk in chunks:
            if chunk == 0:
                break
            bits += f"{chunk & 0x7FFF:015b}" if chunk >> 15 else str(chunk >> 14) * (chunk & 0x3FFF)
        expected.append(bits[:count].count("0"))
    flat = np.array([c for chunks, _ in traces for c in chunks], np.uint16)
    got = decode.zeros(flat, np.array([len(c) for c, _ in traces]), np.array([n for _, n in traces]))
    assert got.tolist() == expected


def test_what_the_reporter_does_not_know(pcap: PcapWriter) -> None:
    [r] = found(load(pcap, RR + xr(voip(r=127, mos_lq=127, mos_cq=9, config=0x20, trip=0))))
    assert (r.r_factor, r.mos_lq, r.mos_cq, r.round_trip_ms, r.noise_dbm, r.echo_loss_db) == (None,) * 6
    assert (r.ext_r_factor, r.end_system_delay_ms, r.buffer) == (None, None, "fixed")


def test_fields_without_their_flag_mean_nothing(pcap: PcapWriter) -> None:
    summary = struct.pack(">IHHIIIIIIBBBB", 9, 1, 2, 14, 2, 3, 90, 20, 5, 57, 64, 60, 1)
    [r] = found(load(pcap, RR + xr(block(6, 0, summary))))
    assert (r.lost, r.duplicates, r.max_jitter, r.min_ttl) == (None, None, None, None)


def test_unknown_blocks_are_skipped(pcap: PcapWriter) -> None:
    tables = load(pcap, RR + xr(block(14, 0, b"x" * 8), block(4, 0, bytes(8)), block(200, 9, b"")))
    assert [r.block for r in found(tables)] == [4]
    assert reasons(tables) == {}


@pytest.mark.parametrize(("payload", "reason", "kept"), [
    (xr(voip(), block(4, 0, bytes(8), words=9)), "extended report blocks longer than their packet", [7]),
    (xr(block(7, 0, bytes(8)), voip()), "extended report blocks too short for their type", [7]),
    (xr(*[block(4, 0, bytes(8))] * (MAX_BLOCKS + 1)), "more blocks in one extended report than are read",
     [4] * MAX_BLOCKS),
    (xr(block(5, 0, bytes(12 * (MAX_SOURCES + 1)))), "more sources in a DLRR block than are read", [5] * MAX_SOURCES),
    (struct.pack(">BBHI", 0x80, 207, 1, 7), None, []),
    (struct.pack(">BBH", 0x80, 207, 0), None, []),
])
def test_hostile_lengths(pcap: PcapWriter, payload: bytes, reason: str | None, kept: list[int]) -> None:
    tables = load(pcap, RR + payload)
    assert [r.block for r in found(tables)] == kept
    assert reasons(tables) == ({reason: 1} if reason else {})


def test_blocks_end_where_the_capture_was_cut(pcap: PcapWriter) -> None:
    tables = load(pcap, RR + xr(block(4, 0, bytes(8)), voip()), snaplen=42 + 8 + 8 + 12 + 20)
    assert [r.block for r in found(tables)] == [4]
    assert reasons(tables) == {"RTCP cut by the snap length": 1}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes(pcap: PcapWriter, body: bytes) -> None:
    found(load(pcap, RR + xr(body + bytes(-len(body) % 4))))


# ---------------------------------------------------------------- SRTCP

def sealed(seed: int, size: int = 52, tag: int = 10) -> bytes:
    """A sender report with one block as SRTCP (RFC 3711 §3.4): header and SSRC clear, E bit set in the trailer."""
    noise = np.random.default_rng(seed).bytes(size - 8)
    return struct.pack(">BBHI", 0x81, 200, size // 4 - 1, 7) + noise + struct.pack(">I", 1 << 31 | seed) + bytes(
        [(seed * 7 + i) % 256 for i in range(tag)])


@pytest.mark.parametrize("tag", [4, 10, 16])
def test_encrypted_reports_are_not_read(pcap: PcapWriter, tag: int) -> None:
    tables = load(pcap, *[sealed(i, tag=tag) for i in range(50)])
    assert tables.rtcp.height == tables.rtcp_xr.height == 0
    assert reasons(tables) == {"RTCP lengths do not add up (encrypted or damaged)": 50}


def test_encrypted_reports_that_were_cut_are_not_read(pcap: PcapWriter) -> None:
    # The cut is right behind the first report: without the length on the wire it would look whole.
    tables = load(pcap, *[sealed(i) for i in range(5)], snaplen=42 + 52)
    assert tables.rtcp.height == 0
    assert reasons(tables) == {"RTCP lengths do not add up (encrypted or damaged)": 5}


def test_cut_reports_beside_encrypted_ones_are_not_read(pcap: PcapWriter) -> None:
    # With a tag of 16 bytes (RFC 7714) lengths are whole words; a shorter one of the flow, uncut, shows what it is.
    tables = load(pcap, sealed(1, tag=16), sealed(2, size=28, tag=16), snaplen=42 + 54)
    assert tables.rtcp.height == 0
    assert reasons(tables) == {"RTCP lengths do not add up (encrypted or damaged)": 2}


# ---------------------------------------------------------------- what is made of it

def test_round_trip_by_reference_time_and_delay(pcap: PcapWriter) -> None:
    stamp, delay = 0x12345678, round(0.05 * 65536)
    there = RR + xr(block(4, 0, struct.pack(">HIH", 1, stamp, 2)))
    back = struct.pack(">BBHI", 0x80, 201, 1, 9) + xr(block(5, 0, struct.pack(">III", 7, stamp, delay)), ssrc=9)
    path = pcap([(T0, udp_frame(A, B, 4001, 5001, there)), (T0 + 130_000_000, udp_frame(B, A, 5001, 4001, back))])
    tables = open_captures([str(path)])
    [trip] = rtp_reports.round_trips(tables).rows(named=True)
    assert (trip["ssrc"], trip["sender_report"], trip["packet"]) == (7, 0, 1)
    assert trip["rtt_ms"] == pytest.approx(80, abs=0.02)


def test_metrics_of_a_stream_in_words(pcap: PcapWriter) -> None:
    frames = [(T0 + i * 20_000_000, udp_frame(A, B, 4000, 5000, struct.pack(
        ">BBHII", 0x80, 0, i, 160 * i, 9) + bytes(9))) for i in range(60)]
    report = RR + xr(voip())
    frames.append((T0 + 1_300_000_000, udp_frame(B, A, 5001, 4001, report)))
    frames.append((T0 + 1_400_000_000, udp_frame("203.0.113.9", A, 5001, 4001, RR + xr(voip(r=10)))))  # another host
    tables = open_captures([str(pcap(frames))])
    [metric] = rtp_reports.metrics(tables).rows(named=True)
    assert (metric["stream"], metric["packet"]) == (0, 60)
    assert rtp_reports.in_words(metric) == (
        "R 62, MOS-LQ 3.1, MOS-CQ 2.9, 5.1% lost, 10.2% discarded, bursts of 240 ms with 50% missing, "
        "a play-out buffer of 60 ms")
    assert rtp_reports.told(tables).rows() == [(None, None, 3.1)]


def test_nothing_is_told_without_rtcp(pcap: PcapWriter) -> None:
    frames = [(T0 + i * 20_000_000, udp_frame(A, B, 4000, 5000, struct.pack(
        ">BBHII", 0x80, 0, i // 2, 80 * i, 9 + i % 2) + bytes(9))) for i in range(60)]
    told = rtp_reports.told(open_captures([str(pcap(frames))]))
    assert told.rows() == [(None, None, None)] * 2


@pytest.mark.tshark
@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_agrees_with_tshark(pcap: PcapWriter) -> None:
    payloads = [RR + xr(voip(loss=i, r=40 + i, mos_lq=20 + i), block(4, 0, struct.pack(">HIH", 1, 1000 + i, 2)),
                        block(5, 0, struct.pack(">3I", 9, i, 77 * i)),
                        block(6, 0xE0, struct.pack(">IHHIIIIII4x", 9, i, i + 30, i, 2, 3, 90, 20, 5)))
                for i in range(20)]
    path = pcap([(T0 + i, udp_frame(sport=4001, dport=5001, payload=p)) for i, p in enumerate(payloads)])
    fields = ["rtcp.xr.voipmetrics.burstduration", "rtcp.xr.voipmetrics.rfactor", "rtcp.xr.voipmetrics.moslq",
              "rtcp.xr.dlrr", "rtcp.xr.lrr", "rtcp.xr.stats.lost", "rtcp.xr.stats.maxjitter"]
    out = subprocess.run(["tshark", "-r", str(path), "-d", "udp.port==5001,rtcp", "-T", "fields",
                          *(x for f in fields for x in ("-e", f))], capture_output=True, text=True, check=True).stdout
    by_packet: dict[int, dict[int, RtcpXr]] = {}
    for r in found(open_captures([str(path)])):
        by_packet.setdefault(r.packet, {})[r.block] = r
    assert len(by_packet) == 20
    for packet, line in enumerate(out.splitlines()):
        burst, rating, mos, delay, last, lost, jitter = (float(text) for text in line.split("\t"))
        mine = by_packet[packet]
        assert (mine[7].burst_ms, mine[7].r_factor, mine[5].delay_since_rr, mine[5].last_rr) == (
            burst, rating, delay, last)
        assert mine[7].mos_lq == pytest.approx(mos, abs=0.01)
        assert (mine[6].lost, mine[6].max_jitter) == (lost, jitter)
