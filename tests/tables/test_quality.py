"""Capture quality, flows and Community IDs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tcp_wire import ACK, CLIENT, SERVER, START, SYN, Talk, ip4, ip6, read, tcp_header, write

from netdiag.decode.community_id import community_id
from netdiag.tables import Tables, quality
from netdiag.tables.flows import Flow, community_ids
from netdiag.tables.reader import open_captures
from netdiag.tables.schema import rows, schema


def row(tables: Tables) -> quality.PointQuality:
    assert tables.quality.schema == schema(quality.PointQuality)
    (only,) = rows(tables.quality, quality.PointQuality)
    return only


def acks(values: list[int], port: int = 40000) -> Talk:
    t = Talk(client_port=port)
    for i, ack in enumerate(values):
        t.c(i * 10, ACK, 1, ack)
    return t


def test_one_way(tmp_path: Path) -> None:
    advancing, stuck, few = acks([1, 1, 500, 900, 900]), acks([1] * 9, 40001), acks([1, 100, 200], 40002)
    syns = Talk(client_port=40003)
    for i in range(6):
        syns.c(i * 1000, SYN, 0)
    both = acks([1, 1, 500, 900, 900], 40004)
    both.s(50, ACK, 900, 1)
    tables = read(tmp_path / "t.pcap", sorted(advancing.frames + stuck.frames + few.frames + syns.frames + both.frames))
    flow = int(tables.packets.flow[np.flatnonzero(tables.packets.sport == 40000)[0]])
    assert quality.oneway_flows(tables).tolist() == [flow]
    assert row(tables).tcp_oneway == 1
    assert row(tables).tcp_connections == 5


def test_one_way_across_wrap(tmp_path: Path) -> None:
    t = Talk(server_isn=2**32 - 100)
    for i in range(5):
        t.c(i, ACK, 1, 40 * i)
    assert len(quality.oneway_flows(read(tmp_path / "t.pcap", t.frames))) == 1


def test_midstream_loss_and_cut(tmp_path: Path) -> None:
    whole = Talk().handshake().c(20, ACK, 1, 1, b"a" * 10).s(30, ACK, 1, 11)
    middle = Talk(client_port=40001).c(0, ACK, 50, 50, b"x" * 10).s(9, ACK, 50, 60)
    lossy = Talk(client_port=40002).handshake().c(20, ACK, 1, 1, b"a" * 10).s(30, ACK, 1, 999)
    frames = sorted(whole.frames + middle.frames + lossy.frames)
    tables = read(tmp_path / "t.pcap", frames)
    flow = {int(p): int(f) for p, f in zip(tables.packets.sport, tables.packets.flow, strict=True)}
    assert quality.midstream_flows(tables).tolist() == [flow[40001]]
    assert quality.lossy_flows(tables).tolist() == [flow[40002]]
    assert quality.cut_flows(tables).tolist() == []
    q = row(tables)
    assert (q.packets, q.tcp_midstream, q.acked_unseen, q.data_segments, q.cut_packets) == (12, 1, 1, 3, 0)
    assert (q.interface_drops, q.capture_filter, q.icmp_packets) == (None, None, 0)
    tables = read(tmp_path / "t.pcap", frames, snaplen=60)
    assert len(quality.cut_flows(tables)) == 3
    assert row(tables).cut_packets == 3
    assert tables.flows["cut"].to_list() == [True] * 3


def test_backward_steps(tmp_path: Path) -> None:
    frame = ip4(CLIENT, SERVER, 17, bytes(8))
    times = [0, 5_000_000, 4_500_000, 3_000_000, 9_000_000]  # back by 0.5 ms (harmless), then by 1.5 ms
    assert row(read(tmp_path / "t.pcap", [(START + t, frame) for t in times])).backward_steps == 1


def test_fragments(tmp_path: Path) -> None:
    def piece(ident: int, fragment: int, data: bytes, proto: int = 17) -> tuple[int, bytes]:
        return START + ident, ip4(CLIENT, SERVER, proto, data, ident=ident, fragment=fragment)

    header = b"\x13\xc4\x13\xc4\0\x28\0\0"
    frames = [
        piece(1, 0x2000, header + b"a" * 8), piece(1, 2, b"b" * 24),  # a whole datagram
        piece(2, 0x2000, header + b"a" * 8),  # only its first piece
        piece(3, 2, b"b" * 24),  # only a later piece
        piece(4, 0x2000, b"\3\1" + bytes(14), 1), piece(5, 2, b"\0" * 16, 1),  # ICMP: no ports to tell by
    ]
    q = row(read(tmp_path / "t.pcap", frames))
    assert (q.first_fragments, q.later_fragments, q.icmp_packets) == (3, 3, 2)


def test_points_without_packets_have_no_row(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.pcap", acks([1]).frames), write(tmp_path / "b.pcap", [])
    tables = open_captures([], [("a", str(a)), ("b", str(b))])
    assert tables.quality["point"].to_list() == ["a"]


def test_flows(tmp_path: Path) -> None:
    t = Talk().handshake().c(20, ACK, 1, 1, b"a" * 10).s(5020, ACK, 1, 11, b"b" * 30)
    six = ip6("2001:db8::a", "2001:db8::b", 6, tcp_header(1, 2, 0, 0, SYN))
    other = ip4("203.0.113.255", "192.0.2.0", 17, b"\x13\xc4\x13\xc5\0\x0b\0\0abc")
    tables = read(tmp_path / "t.pcap", [*t.frames, (START + 10**10, six), (START + 10**10, other)])
    assert tables.flows.schema == schema(Flow)
    first, second, third = rows(tables.flows, Flow)
    assert (first.a, first.a_port, first.b, first.b_port, first.proto) == (CLIENT, 40000, SERVER, 443, 6)
    assert (first.packets_ab, first.packets_ba, first.bytes_ab, first.bytes_ba) == (3, 2, 10, 30)
    assert (first.first_packet, first.last_packet, first.max_gap_s, first.cut) == (0, 4, 5.0, False)
    assert (first.first_ns, first.last_ns) == (START, START + 5020 * 10**6)
    assert (second.a, second.b, second.max_gap_s) == ("2001:db8::a", "2001:db8::b", 0.0)
    assert (third.a, third.b, third.a_port, third.b_port) == ("203.0.113.255", "192.0.2.0", 5060, 5061)


def test_community_id_of_both_directions() -> None:
    a, b = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
    assert community_id(a, b, 6, 80, 1024) == community_id(b, a, 6, 1024, 80)
    assert community_id(a, b, 1, 8, 0) == community_id(b, a, 1, 0, 0)  # echo and its reply
    assert community_id(a, b, 1, 3, 1) != community_id(b, a, 1, 3, 1)  # an error has one direction


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_community_id_agrees_with_tshark(real: Path) -> None:
    path = real / "icmp__community-id-spec__combined.pcap.gz"
    tables = open_captures([str(path)])
    p = tables.packets
    every = np.flatnonzero(p.flow < len(p.flow_start))
    mine = dict(zip(p.locate(every)[1].tolist(), community_ids(p, every).to_list(), strict=True))
    out = subprocess.run(["tshark", "--enable-protocol", "communityid", "-r", str(path), "-T", "fields",
                          "-e", "frame.number", "-e", "communityid"], capture_output=True, text=True, check=True).stdout
    theirs = {int(n): ids.split(",") for n, ids in (line.split("\t") for line in out.splitlines()) if ids}
    assert len(theirs) > 50
    assert {n: mine[n] for n, ids in theirs.items() if mine.get(n, ids[0]) not in ids} == {}  # copies have none
