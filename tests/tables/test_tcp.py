"""Connections and segment classes."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_wire import ACK, CLIENT, CLIENT_PORT, FIN, PSH, RST, SERVER, SYN, Frame, Talk, ip4, read, tcp_header, write

from netdiag.decode import tcp_options
from netdiag.tables import Tables, tcp, unseen
from netdiag.tables import tcp_segments as seg
from netdiag.tables.reader import open_captures
from netdiag.tables.schema import rows, schema

Load = Callable[..., Tables]
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return lambda talk: read(tmp_path / "t.pcap", talk.frames if isinstance(talk, Talk) else talk)


def only(tables: Tables) -> tcp.Connection:
    assert tables.tcp.height == 1
    return next(rows(tables.tcp, tcp.Connection))


def classes(tables: Tables, bit: int) -> list[int]:
    """Frame numbers with a class."""
    s = seg.segments(tables)
    return sorted(tables.packets.locate(s.row[(s.classes & bit) != 0])[1].tolist())


def test_handshake_data_and_close(load: Load) -> None:
    options = bytes.fromhex("020405b4" "0402" "080a0000000100000000" "01" "030307")
    answer = bytes.fromhex("02040550" "0101" "0402")
    t = Talk()
    t.c(0, SYN, 0, options=options).s(20, SYN | ACK, 0, 1, options=answer, ttl=50).c(21, ACK, 1, 1)
    t.c(30, PSH | ACK, 1, 1, b"a" * 100).s(50, PSH | ACK, 1, 101, b"b" * 300).c(51, ACK, 101, 301)
    t.c(9051, FIN | ACK, 101, 301).s(9070, FIN | ACK, 301, 102).c(9071, ACK, 102, 302)
    tables = load(t)
    assert tables.tcp.schema == schema(tcp.Connection)
    c = only(tables)
    assert (c.client, c.client_port, c.server, c.server_port) == (CLIENT, CLIENT_PORT, SERVER, 443)
    assert (c.established, c.midstream, c.state, c.refused) == (True, False, "closed", False)
    assert c.handshake_rtt_s == pytest.approx(0.021)
    assert (c.data_client, c.data_server, c.packets_client, c.packets_server) == (100, 300, 6, 3)
    assert (c.mss_client, c.wscale_client, c.sack_client, c.timestamps_client) == (1460, 7, True, True)
    assert (c.mss_server, c.wscale_server, c.sack_server, c.timestamps_server) == (1360, None, True, False)
    assert (c.syn_ttl, c.server_ttl, c.rst_ttl) == (64, 50, None)
    assert (c.syn_packets, c.syn_ack_packet, c.fin_client_packet, c.fin_server_packet) == ((0,), 1, 6, 7)
    assert (c.max_idle_s, c.idle_before_packet) == (9.0, 6)
    assert (c.retransmissions_client, c.tail_client_unacked, c.tail_server_unacked, c.acked_unseen) == (0, 0, 0, 0)
    assert c.ends == f"{CLIENT}:{CLIENT_PORT} → {SERVER}:443"


def test_unanswered_and_refused(load: Load) -> None:
    t = Talk()
    for ms in (0, 1000, 3000, 7000):
        t.c(ms, SYN, 0)
    c = only(load(t))
    assert (c.state, c.established, c.syn_packets, c.retransmissions_client) == ("syn-sent", False, (0, 1, 2, 3), 3)
    assert c.sack_server is None

    t = Talk().c(0, SYN, 0)
    no = tcp_header(443, CLIENT_PORT, 0, 1001, RST | ACK)
    t.frames.append((t.frames[0][0] + 10**7, ip4(SERVER, CLIENT, 6, no, 61)))
    c = only(load(t))
    assert (c.state, c.refused, c.rst_packets, c.rst_ttl, c.rst_by_server) == ("refused", True, (1,), 61, True)

    t = Talk().c(0, SYN, 0)
    no = tcp_header(443, CLIENT_PORT, 0, 1002, RST | ACK)
    t.frames.append((t.frames[0][0] + 10**7, ip4(SERVER, CLIENT, 6, no)))
    assert only(load(t)).refused is False  # acknowledges something else than ISN+1

    t = Talk().handshake().s(20, RST | ACK, 1, 1)
    c = only(load(t))
    assert (c.refused, c.state) == (False, "reset")


def test_lists_are_bounded(load: Load) -> None:
    t = Talk()
    for i in range(40):
        t.c(i * 1000, SYN, 0)
    for i in range(40):
        t.s(50_000 + i, RST | ACK, 0, 5)
    c = only(load(t))
    assert len(c.syn_packets) == len(c.rst_packets) == tcp.LIST_LIMIT
    assert c.retransmissions_client == 39


def test_port_reuse_starts_a_connection(load: Load) -> None:
    a, b = Talk(1000, 5000).handshake(), Talk(90000, 70000).handshake(5000)
    tables = load(a.frames + b.frames)
    assert tables.tcp["syn_packets"].to_list() == [[0], [3]]
    assert classes(tables, seg.REUSED_PORTS) == [4]
    assert seg.connection_segments(tables, 1).row.tolist() == [3, 4, 5]


def test_same_isn_is_a_retransmission(load: Load) -> None:
    t = Talk().c(0, SYN, 0).c(1000, SYN, 0).s(1010, SYN | ACK, 0, 1).c(1011, ACK, 1, 1)
    c = only(load(t))
    assert (c.syn_packets, c.retransmissions_client) == ((0, 1), 1)
    assert c.handshake_rtt_s == pytest.approx(0.011)


def test_what_was_under_way_when_the_capture_began(load: Load) -> None:
    # A retransmission comes first: what follows it had arrived before, and the acknowledgment jumps behind all of it.
    t = Talk().c(0, ACK, 101, 1, b"a" * 100).s(10, ACK, 1, 1001).c(11, ACK, 1001, 1, b"b" * 100)
    t.s(20, ACK, 1, 1101)
    assert classes(load(t), seg.ACKED_UNSEEN) == []
    # New data first, and the retransmission behind it: the same bytes, seen from the other end.
    late = Talk().c(0, ACK, 1001, 1, b"b" * 100).c(5, ACK, 101, 1, b"a" * 100).s(10, ACK, 1, 1101)
    assert classes(load(late), seg.ACKED_UNSEEN) == []
    # Later, the capture lacks a segment.
    t.c(1500, ACK, 1101, 1, b"c" * 100).c(1501, ACK, 1301, 1, b"d" * 100).s(1510, ACK, 1, 1401)
    tables = load(t)
    assert classes(tables, seg.ACKED_UNSEEN) == [7]
    hole = unseen.hole(tables, 0, 6)
    assert hole is not None
    assert (hole.size, hole.raw) == (100, 1000 + 1201)
    # It begins with a keep-alive, whose one number was sent before.
    assert classes(load(Talk().c(0, ACK, 100, 1).s(2000, ACK, 1, 101).c(3000, ACK, 101, 1)), seg.ACKED_UNSEEN) == []
    # It begins with a SYN-ACK that comes again, after the client's first data.
    t = Talk().s(0, SYN | ACK, 0, 1).c(1, ACK, 301, 1).s(20, ACK, 1, 101).c(21, ACK, 101, 1, b"b" * 100)
    t.s(30, ACK, 1, 301)
    assert classes(load(t), seg.ACKED_UNSEEN) == []
    # It begins with a SYN that comes again without the data of the first one (RFC 7413).
    t = Talk().c(0, SYN, 0).s(10, SYN | ACK, 0, 101).c(11, ACK, 101, 1, b"b" * 100).s(20, ACK, 1, 201)
    assert classes(load(t), seg.ACKED_UNSEEN) == []
    # A connection that begins in the capture has nothing under way.
    t = Talk().handshake().c(20, ACK, 101, 1, b"a" * 100).s(30, ACK, 1, 1001)
    assert classes(load(t), seg.ACKED_UNSEEN) == [5]


def test_round_trip_of_a_repeated_handshake(load: Load) -> None:
    # The SYN-ACK is lost behind the capture point: the client's next try is a second later.
    t = Talk().c(0, SYN, 0).s(0.1, SYN | ACK, 0, 1).c(1000, SYN, 0).s(1000.1, SYN | ACK, 0, 1).c(1020, ACK, 1, 1)
    assert only(load(t)).handshake_rtt_s == pytest.approx(0.02)


def test_reuse_after_midstream_packets(load: Load) -> None:
    old = Talk(1000, 5000).c(0, ACK, 10, 10, b"x" * 10).s(5, ACK, 10, 20)
    tables = load(old.frames + Talk(800_000, 900_000).handshake(3000).frames)
    assert tables.tcp["midstream"].to_list() == [True, False]


def test_simultaneous_open_and_swapped_handshake_are_one(load: Load) -> None:
    t = Talk().c(0, SYN, 0).s(1, SYN, 0).c(2, SYN | ACK, 0, 1).s(3, SYN | ACK, 0, 1)
    assert load(t).tcp.height == 1
    t = Talk().s(0, SYN | ACK, 0, 1).c(0.01, SYN, 0).c(10, ACK, 1, 1)
    c = only(load(t))
    assert c.client == CLIENT


def test_client_without_handshake(load: Load) -> None:
    t = Talk().s(0, ACK, 10, 10, b"x").c(5, ACK, 10, 11, b"y")
    c = only(load(t))
    assert (c.client, c.midstream, c.state, c.established) == (CLIENT, True, "midstream", True)
    assert c.server_ttl == 57
    t = Talk().s(0, SYN | ACK, 0, 1)
    c = only(load(t))
    assert (c.client, c.midstream, c.state) == (CLIENT, False, "syn-received")


def test_sequence_numbers_wrap(load: Load) -> None:
    t = Talk(2**32 - 1500, 2**32 - 3).handshake()
    for i in range(5):
        t.c(20 + i * 20, ACK, 1 + i * 1000, 1, b"q" * 1000).s(30 + i * 20, ACK, 1, 1001 + i * 1000)
    tables = load(t)
    c = only(tables)
    assert (c.data_client, c.retransmissions_client, c.acked_unseen, c.tail_client_unacked) == (5000, 0, 0, 0)
    s = seg.connection_segments(tables, 0)
    assert s.seq[s.client & (s.length > 0)].tolist() == [1, 1001, 2001, 3001, 4001]
    assert s.ack[~s.client][1:].tolist() == [1001, 2001, 3001, 4001, 5001]


def test_retransmission_ladder_at_the_end(load: Load) -> None:
    t = Talk().handshake().c(20, ACK, 1, 1, b"a" * 50).s(30, ACK, 1, 51)
    for ms in (400_000, 400_200, 400_600, 401_400, 403_000):
        t.c(ms, PSH | ACK, 51, 1, b"b" * 70)
    t.c(400_001, PSH | ACK, 121, 1, b"c" * 10)
    c = only(load(sorted(t.frames)))
    assert (c.tail_client_unacked, c.retransmissions_client, c.state) == (5, 4, "established")
    assert c.max_idle_s == pytest.approx(399.97)
    assert c.data_client == 130


def test_bulk_transfer_cut_by_the_end_of_the_capture_is_one_send(load: Load) -> None:
    t = Talk().handshake()
    for i in range(10):
        t.c(20 + i, ACK, 1 + 100 * i, 1, b"a" * 100)
    t.s(40, ACK, 1, 301)
    assert only(load(t)).tail_client_unacked == 1


def test_fast_retransmission_and_reordering(load: Load) -> None:
    t = Talk().handshake(rtt=10)
    t.c(20, ACK, 1, 1, b"a" * 100).c(21, ACK, 201, 1, b"c" * 100).c(22, ACK, 301, 1, b"d" * 100)
    t.s(30, ACK, 1, 101).s(31, ACK, 1, 101).s(32, ACK, 1, 101).c(45, ACK, 101, 1, b"b" * 100)
    tables = load(t)
    assert classes(tables, seg.FAST_RETRANSMISSION) == classes(tables, seg.RETRANSMISSION) == [10]
    assert classes(tables, seg.DUPLICATE_ACK) == [8, 9]
    assert classes(tables, seg.LOST_SEGMENT) == [5]

    for late, expected in ((21, (1, 0, 200)), (31, (0, 1, 200))):  # within the initial round-trip time, and after
        t = Talk().handshake(rtt=10).c(20, ACK, 101, 1, b"b" * 100).c(late, ACK, 1, 1, b"a" * 50)
        c = only(load(t.c(late, ACK, 51, 1, b"a" * 50)))
        assert (c.out_of_order_client, c.retransmissions_client, c.data_client) == tuple(
            2 * n if n < 200 else n for n in expected)


def test_keepalives_and_zero_windows(load: Load) -> None:
    t = Talk().handshake().c(20, ACK, 1, 1, b"a" * 100).s(30, ACK, 1, 101)
    t.c(60_000, ACK, 100, 1).s(60_010, ACK, 1, 101)
    t.s(61_000, ACK, 1, 101, window=0).c(62_000, ACK, 101, 1, b"p").s(62_010, ACK, 1, 101, window=0)
    tables = load(t)
    c = only(tables)
    assert (c.keepalives, c.zero_windows, c.retransmissions_client) == (1, 2, 0)
    assert classes(tables, seg.KEEP_ALIVE) == [6]
    assert classes(tables, seg.KEEP_ALIVE_ACK) == [7]
    assert classes(tables, seg.ZERO_WINDOW_PROBE) == [9]


def test_acked_but_never_captured(load: Load) -> None:
    def talk(*extra: tuple[float, int, bytes]) -> Talk:
        t = Talk().handshake().c(20, ACK, 1, 1, b"a" * 100).c(22, ACK, 201, 1, b"c" * 100)
        t.s(30, ACK, 1, 301)
        for ms, at, data in extra:
            t.c(ms, ACK, at, 1, data)
        return t.c(50, ACK, 301, 1, b"d" * 100).s(60, ACK, 1, 401).s(70, ACK, 1, 401)

    tables = load(talk())
    assert only(tables).acked_unseen == 1
    assert classes(tables, seg.ACKED_UNSEEN) == [6]
    # The same bytes captured behind their ACK (two taps merged) are not missing.
    assert only(load(talk((31, 101, b"b" * 100)))).acked_unseen == 0
    # Half of them are.
    assert only(load(talk((31, 101, b"b" * 50)))).acked_unseen == 1
    # An ACK beyond everything that was captured.
    assert only(load(Talk().handshake().s(20, ACK, 1, 500).s(30, ACK, 1, 500))).acked_unseen == 1


@pytest.mark.parametrize(("client", "server", "times"), [
    (b"\3\3\7", b"\3\3\2", 4), (b"\3\3\0", b"\3\3\0", 1), (b"\3\3\7", b"", 1), (b"", b"\3\3\2", 1),
    (b"\3\3\7", b"\3\3\xc8", 1 << 14)])
def test_window_full_needs_the_scale(load: Load, client: bytes, server: bytes, times: int) -> None:
    t = Talk().c(0, SYN, 0, options=client).s(10, SYN | ACK, 0, 1, options=server, window=100).c(10, ACK, 1, 1)
    # The window of a SYN is never scaled (RFC 7323 §2.2): 100 bytes fill it.
    t.c(20, ACK, 1, 1, b"a" * 100).s(30, ACK, 1, 101, window=1)
    t.c(40, ACK, 101, 1, b"b" * min(times, 1400)).c(41, ACK, 101 + 700, 1, b"c" * 700)
    full = [4, 6] if times <= 1400 else [4]
    assert classes(load(t), seg.WINDOW_FULL) == full
    t = Talk().c(0, ACK, 1, 1).s(10, ACK, 1, 1, window=100).c(20, ACK, 1, 1, b"a" * 100)
    assert classes(load(t), seg.WINDOW_FULL) == []  # mid-stream: nobody knows what 100 means


def test_window_opens_shuts_and_is_probed(load: Load) -> None:
    t = Talk().handshake().c(20, ACK, 1, 1, b"a" * 100).s(30, ACK, 1, 101, window=0).c(300, ACK, 101, 1, b"b")
    t.s(310, ACK, 1, 101, window=0).s(900, ACK, 1, 101, window=5000).c(910, ACK, 101, 1, b"bbb")
    tables = load(t)
    assert classes(tables, seg.ZERO_WINDOW) == [5, 7]
    assert classes(tables, seg.ZERO_WINDOW_PROBE) == [6]
    assert classes(tables, seg.ZERO_WINDOW_PROBE_ACK) == [7]
    assert classes(tables, seg.WINDOW_UPDATE) == [8]
    assert classes(tables, seg.WINDOW_FULL) == classes(tables, seg.RETRANSMISSION) == []


def test_overlap_is_counted_once(load: Load) -> None:
    t = Talk().handshake().c(20, ACK, 1, 1, b"a" * 100).c(300, ACK, 51, 1, b"b" * 100).c(900, ACK, 1, 1, b"a" * 150)
    assert only(load(t)).data_client == 150


def test_options_that_lie() -> None:
    area = np.zeros((4, tcp_options.WIDTH), np.uint8)
    area[0, :4] = [2, 4, 5, 180]
    area[1, :3] = [2, 0, 5]  # length 0 would never end
    area[2, :6] = [1, 1, 3, 3, 9, 2]  # last option has no length
    area[3, :2] = [2, 44]  # longer than the header
    found = tcp_options.parse(area, np.array([4, 40, 6, 40]))
    assert found.mss.tolist() == [1460, -1, -1, -1]
    assert found.window_scale.tolist() == [-1, -1, 9, -1]
    assert found.malformed.tolist() == [False, True, True, True]


def _random_talk(seed: int) -> list[Frame]:
    r = random.Random(seed)
    # No step lands on number 0 itself, which tshark keeps for "not known".
    again = seed % 2 * 10_007  # every other talk uses the ports of the one before, with numbers of its own
    t = Talk(r.choice([1000, 2**32 - 733, 2**31 - 500]) + again, r.choice([77000, 2**32 - 317]) + again,
             40000 + seed // 2)
    scale = r.choice([None, (0, 0), (2, 1), (7, None)])
    options = [b"" if scale is None or s is None else bytes([3, 3, s, 0]) for s in scale or (None, None)]
    scaled = scale is not None and None not in scale
    rtt = r.choice([0.5, 8, 40])
    t.c(0, SYN, 0, options=options[0]).s(rtt, SYN | ACK, 0, 1, options=options[1]).c(rtt, ACK, 1, 1)
    now, following, acked, offered = 100.0, [1, 1], [1, 1], [0, 0]
    for ident in range(r.randrange(5, 120)):
        now += r.choice([0.05, 0.3, 1, 2, 5, 15, 30, 250])
        who = r.randrange(2)
        at, size, kind = following[who], r.choice([0, 0, 0, 1, 1, 2, 50, 100, 100]), r.random()
        if kind < 0.12:
            at -= r.choice([1, 1, 50, 100, 150])
        elif kind < 0.2:
            at += r.choice([1, 50, 100])
        elif kind < 0.35 and 0 < offered[1 - who] - at < 1400:
            size = offered[1 - who] - at
        if r.random() < 0.6:
            acked[who] = max(acked[who], following[1 - who] - r.choice([0, 0, 0, 1, 50, 100]))
        send, reply = (t.c, t.s) if who == 0 else (t.s, t.c)
        if kind > 0.9 and following[who] > 101:  # duplicate ACKs, and what they ask for
            at, size, acked[1 - who] = following[who] - 100, 100, following[who] - 100
            for repeat in range(4):
                reply(now + repeat / 10, ACK, following[1 - who], at, ident=1000 + 10 * ident + repeat)
            now += r.choice([0.4, 5, 25])
        window = r.choice([0, 500, 500, 500, 500])
        send(now, ACK, at, acked[who], b"z" * size, window=window, ident=ident + 1)
        offered[who] = acked[who] + (window << (scale[who] or 0) if scaled and scale else window)
        following[who] = max(following[who], at + size)
    return [(ts + seed * 10**10, frame) for ts, frame in t.frames]


def _tshark(path: Path, fields: list[str]) -> list[list[str]]:
    command = ["tshark", "-r", str(path), "-Y", "tcp && !icmp && !icmpv6", "-T", "fields"]
    for name in ["frame.number", *fields]:
        command += ["-e", name]
    out = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [line.split("\t") for line in out.splitlines()]


CLASSES = {
    "retransmission": seg.RETRANSMISSION, "spurious_retransmission": seg.SPURIOUS_RETRANSMISSION,
    "out_of_order": seg.OUT_OF_ORDER, "keep_alive": seg.KEEP_ALIVE, "keep_alive_ack": seg.KEEP_ALIVE_ACK,
    "duplicate_ack": seg.DUPLICATE_ACK, "zero_window": seg.ZERO_WINDOW, "zero_window_probe": seg.ZERO_WINDOW_PROBE,
    "lost_segment": seg.LOST_SEGMENT, "fast_retransmission": seg.FAST_RETRANSMISSION,
    "zero_window_probe_ack": seg.ZERO_WINDOW_PROBE_ACK, "window_full": seg.WINDOW_FULL,
    "window_update": seg.WINDOW_UPDATE, "reused_ports": seg.REUSED_PORTS,
}


def _differences(path: Path) -> dict[str, tuple[list[int], list[int]]]:
    tables = open_captures([str(path)])
    names = [f"tcp.analysis.{n}" for n in CLASSES]
    theirs: dict[str, set[int]] = {n: set() for n in CLASSES}
    for line in _tshark(path, names):
        for name, value in zip(CLASSES, line[1:], strict=False):
            if value:
                theirs[name].add(int(line[0]))
    out = {}
    for name, bit in CLASSES.items():
        mine = set(classes(tables, bit))
        if mine != theirs[name]:
            out[name] = (sorted(theirs[name] - mine), sorted(mine - theirs[name]))
    return out


@needs_tshark
@pytest.mark.tshark
def test_classes_are_those_of_tshark(tmp_path: Path) -> None:
    frames = sorted((f for seed in range(60) for f in _random_talk(seed)), key=lambda f: f[0])
    path = write(tmp_path / "random.pcap", frames)
    assert _differences(path) == {}


def test_real_capture_facts(real: Path) -> None:
    c = only(open_captures([str(real / "tcp-refused__cascadia-IT-2015__tcp_closed_port.pcap")]))
    assert (c.state, c.refused) == ("refused", True)
    c = only(open_captures([str(real / "tcp-blackhole__cascadia-IT-2015__tcp_firewalled_port.pcap")]))
    assert (c.state, c.packets_server) == ("syn-sent", 0)
    assert len(c.syn_packets) == c.packets_client
    t = open_captures([str(real / "tcp-portreuse__pkts__ports_reused.pcap")])
    assert t.tcp.height == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255),
                          st.integers(0, 65535), st.binary(max_size=40), st.integers(0, 15)), max_size=25))
def test_any_segments(tmp_path_factory: pytest.TempPathFactory,
                      segments: list[tuple[bool, int, int, int, int, bytes, int]]) -> None:
    frames = []
    for i, (up, seq, ack, flags, window, data, offset) in enumerate(segments):
        ends = (CLIENT, SERVER, 1, 2) if up else (SERVER, CLIENT, 2, 1)
        header = struct.pack(">HHIIBBHHH", ends[2], ends[3], seq, ack, offset << 4, flags, window, 0, 0)
        frames.append((i * 1000, ip4(ends[0], ends[1], 6, header + data)))
    tables = read(tmp_path_factory.mktemp("any") / "a.pcap", frames)
    table = tables.tcp
    assert table.schema == schema(tcp.Connection)
    s = seg.segments(tables)
    assert int(s.size.sum()) == len(s.row) == len(tables.packets.tcp.row)
    assert (table["packets_client"] + table["packets_server"]).sum() == len(s.row)
    payload = int(s.length.sum())
    assert table["data_client"].sum() + table["data_server"].sum() <= payload
    for c in range(table.height):
        for side in (True, False):
            stream = tables.streams.get(c, side, limit=1 << 16)
            assert len(stream.data) <= 1 << 16
    assert tables.flows.height == len(tables.packets.flow_start)
    assert tables.quality.height == (1 if frames else 0)


def test_empty(load: Load) -> None:
    tables = load([])
    assert tables.tcp.schema == schema(tcp.Connection)
    assert tables.tcp.height == 0
