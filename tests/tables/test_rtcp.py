"""RTCP reports: compound packets, hostile counts, encrypted and cut datagrams."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from checkout import PcapWriter, udp_frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netdiag.tables import Tables
from netdiag.tables.reader import open_captures
from netdiag.tables.rtcp_read import MAX_BLOCKS, MAX_PACKETS
from netdiag.tables.rtp import RtcpReport
from netdiag.tables.schema import rows, schema

T0 = 1_767_225_600_000_000_000


def packet(kind: int, body: bytes, count: int = 0, first: int = 0x80, length: int | None = None) -> bytes:
    words = len(body) // 4 if length is None else length
    return struct.pack(">BBH", first | count, kind, words) + body


def block(ssrc: int = 9, fraction: int = 64, lost: int = 5, highest: int = 70000, jitter: int = 40,
          lsr: int = 0xAABBCCDD, delay: int = 65536) -> bytes:
    return struct.pack(">I", ssrc) + bytes([fraction]) + (lost & 0xFFFFFF).to_bytes(3, "big") + struct.pack(
        ">IIII", highest, jitter, lsr, delay)


def sender(ssrc: int, *blocks: bytes, sent: int = 1000, count: int | None = None) -> bytes:
    info = struct.pack(">IIIIII", ssrc, 0x0000AABB, 0xCCDD0000, 160_000, sent, 160 * sent)
    return packet(200, info + b"".join(blocks), len(blocks) if count is None else count)


def receiver(ssrc: int, *blocks: bytes, count: int | None = None) -> bytes:
    return packet(201, struct.pack(">I", ssrc) + b"".join(blocks), len(blocks) if count is None else count)


SDES = packet(202, struct.pack(">I", 7) + b"\x01\x04user\0\0", 1)
BYE = packet(203, struct.pack(">I", 7), 1)


def load(pcap: PcapWriter, *payloads: bytes, snaplen: int = 262144) -> Tables:
    return open_captures([str(pcap([(T0 + i * 5 * 10**9, udp_frame(sport=4001, dport=5001, payload=p))
                                    for i, p in enumerate(payloads)], snaplen=snaplen))])


def reports(tables: Tables) -> list[RtcpReport]:
    assert tables.rtcp.schema == schema(RtcpReport)
    return list(rows(tables.rtcp, RtcpReport))


def reasons(tables: Tables) -> dict[str, int]:
    return {a.reason: a.count for a in tables.anomalies() if a.table == "rtcp"}


def test_sender_report_with_block(pcap: PcapWriter) -> None:
    tables = load(pcap, sender(7, block()) + SDES)
    [r] = reports(tables)
    assert r == RtcpReport(
        packet=0, point="capture", ts_ns=T0, flow=r.flow, source="192.0.2.1", destination="198.51.100.2", sender_ssrc=7,
        about_ssrc=9, packet_type=200, fraction_lost=0.25, cumulative_lost=5, highest_sequence=70000, jitter=40,
        sender_packets=1000, sender_ntp=0xAABBCCDD, last_sr=0xAABBCCDD, delay_since_sr=65536,
        call=None, call_id=None, bound_by="")
    assert reasons(tables) == {}


def test_receiver_report_with_two_blocks_and_negative_loss(pcap: PcapWriter) -> None:
    one, two = reports(load(pcap, receiver(7, block(9, lost=-3), block(10, lost=-0x800000)) + SDES + BYE))
    assert (one.packet_type, one.about_ssrc, one.cumulative_lost) == (201, 9, -3)
    assert (one.sender_packets, one.sender_ntp) == (None, None)
    assert (two.about_ssrc, two.cumulative_lost) == (10, -0x800000)


def test_reports_without_blocks(pcap: PcapWriter) -> None:
    one, two = reports(load(pcap, sender(7), receiver(8)))
    assert (one.sender_ssrc, one.about_ssrc, one.fraction_lost, one.sender_packets) == (7, None, None, 1000)
    assert (two.sender_ssrc, two.about_ssrc, two.jitter, two.sender_packets) == (8, None, None, None)


def test_several_reports_in_one_compound_keep_their_order(pcap: PcapWriter) -> None:
    found = reports(load(pcap, sender(7, block(1)) + receiver(7, block(2), block(3)) + SDES, sender(8, block(4))))
    got = [(r.packet, r.packet_type, r.about_ssrc) for r in found]
    assert got == [(0, 200, 1), (0, 201, 2), (0, 201, 3), (1, 200, 4)]


def test_count_beyond_the_length_is_clipped(pcap: PcapWriter) -> None:
    tables = load(pcap, receiver(7, block(), count=31) + SDES)
    assert [r.about_ssrc for r in reports(tables)] == [9]
    assert reasons(tables) == {"more report blocks counted than its length holds or than are read": 1}


def test_report_shorter_than_its_fixed_part_is_left_out(pcap: PcapWriter) -> None:
    assert reports(load(pcap, packet(200, b"\0" * 8, 1) + SDES)) == []


def test_number_of_blocks_and_packets_is_bounded(pcap: PcapWriter) -> None:
    many = load(pcap, receiver(7, *[block(i) for i in range(20)]) * 3)
    assert len(reports(many)) == MAX_BLOCKS + 1  # the third report has a row of its own although no block of it is read
    assert len(reasons(many)) == 1
    long = load(pcap, receiver(7, block()) + BYE * (MAX_PACKETS + 5))
    assert len(reports(long)) == 1
    assert reasons(long) == {"more RTCP packets in one datagram than are read": 1}


@pytest.mark.parametrize("payload", [
    sender(7, block())[:-4], sender(7, block()) + b"\0" * 4, packet(200, b"\0" * 24, length=0xFFFF),
    sender(7, block()) + np.random.default_rng(1).bytes(14),
])
def test_lengths_that_do_not_add_up_are_counted_not_read(pcap: PcapWriter, payload: bytes) -> None:
    tables = load(pcap, payload)
    assert reports(tables) == []
    assert reasons(tables) == {"RTCP lengths do not add up (encrypted or damaged)": 1}


@pytest.mark.parametrize("payload", [
    BYE, SDES + sender(7), packet(200, sender(7)[4:], first=0xA0), b"\x80\xc8\0\6", b"\x40" + sender(7)[1:],
    packet(206, b"\0" * 8, 1),
])
def test_what_does_not_begin_with_a_report(pcap: PcapWriter, payload: bytes) -> None:
    assert reports(load(pcap, payload)) == []


def test_cut_datagram_gives_what_was_captured(pcap: PcapWriter) -> None:
    whole = receiver(7, block(1), block(2)) + SDES
    tables = load(pcap, whole, snaplen=42 + 8 + 24 + 10)
    assert [r.about_ssrc for r in reports(tables)] == [1]
    assert "RTCP cut by the snap length" in reasons(tables)


def test_no_rtcp(pcap: PcapWriter) -> None:
    assert reports(load(pcap)) == []
    assert reports(load(pcap, b"hello world!")) == []


NEARLY = st.binary(min_size=4, max_size=200).map(lambda b: b"\x81\xc9" + b[2:])
TRAILED = st.builds(lambda n, b: receiver(7, block()) + bytes([0x80 | n, 200]) + b,
                    st.integers(0, 63), st.binary(max_size=60))


@given(st.lists(st.one_of(st.binary(max_size=80), NEARLY, TRAILED), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_no_bytes_raise(pcap: PcapWriter, payloads: list[bytes]) -> None:
    for r in reports(load(pcap, *payloads)):
        assert r.packet_type in (200, 201)


@pytest.mark.tshark
@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_fields_as_tshark_reads_them(pcap: PcapWriter, tmp_path: Path) -> None:
    tables = load(pcap, sender(7, block(9, 13, -2, 123456, 77, 1, 2)) + SDES, receiver(8, block(7, 200, 70000)))
    names = ["rtcp.ssrc.fraction", "rtcp.ssrc.cum_nr", "rtcp.ssrc.ext_high", "rtcp.ssrc.jitter", "rtcp.ssrc.lsr",
             "rtcp.ssrc.dlsr", "rtcp.ssrc.identifier"]
    command = ["tshark", "-r", tables.captures[0].path, "-d", "udp.port==5001,rtcp", "-T", "fields", "-E",
               "occurrence=f", *(f"-e{n}" for n in names)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs = [[int(v, 0) for v in text.split("\t")] for text in out.splitlines()]
    mine = [[int((r.fraction_lost or 0) * 256), r.cumulative_lost, r.highest_sequence, r.jitter, r.last_sr,
             r.delay_since_sr, r.about_ssrc] for r in reports(tables)]
    assert mine == theirs
