"""Byte streams out of segments."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_wire import ACK, MS, RST, START, SYN, Talk, read, write

from netdiag.tables import Tables, streams
from netdiag.tables.reader import open_captures
from netdiag.tables.streams import Stream

TEXT = bytes(range(256)) * 40


def client(tables: Tables, limit: int = 1 << 22) -> Stream:
    return tables.streams.get(0, True, limit)


def frame_at(tables: Tables, stream: Stream, position: int) -> int:
    return int(tables.packets.locate([stream.packet_at(position)])[1][0])


def test_in_order_with_retransmission_and_both_sides(tmp_path: Path) -> None:
    t = Talk().handshake().c(20, ACK, 1, 1, b"GET ").c(21, ACK, 5, 1, b"x\r\n").c(300, ACK, 1, 1, b"GET ")
    t.s(310, ACK, 1, 8, b"200")
    tables = read(tmp_path / "t.pcap", t.frames)
    s = client(tables)
    assert (s.data, s.holes, s.start_known, s.truncated) == (b"GET x\r\n", (), True, False)
    assert [frame_at(tables, s, p) for p in (0, 3, 4, 6, 100)] == [4, 4, 5, 5, 5]
    assert s.time_at(4) == START + 21 * MS
    assert s.packets(0, 7).tolist() == [3, 4]
    assert s.packets(4, 5).tolist() == [4]
    assert s.packets(5, 5).tolist() == []
    assert tables.streams.get(0, False).data == b"200"


def test_empty_side(tmp_path: Path) -> None:
    s = client(read(tmp_path / "t.pcap", Talk().handshake().frames))
    assert (s.data, s.start_known, s.holes) == (b"", True, ())
    with pytest.raises(IndexError):
        s.packet_at(0)


def test_damaged_segment_gives_way_to_its_repetition(tmp_path: Path) -> None:
    def sealed(frame: bytes, damage: bytes = b"") -> bytes:
        """With its checksum (RFC 9293 §3.1), and then with other bytes at its end."""
        words = frame[26:34] + struct.pack(">HH", 6, len(frame) - 34) + frame[34:]
        total = sum(struct.unpack(f">{len(words) // 2}H", words))
        total = (total & 0xFFFF) + (total >> 16)
        frame = frame[:50] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + frame[52:]
        return frame[: len(frame) - len(damage)] + damage

    t = Talk().handshake().c(20, ACK, 1, 1, b"abcd").c(30, ACK, 1, 1, b"abcd").c(40, ACK, 1, 1, b"abcd")
    t.c(50, ACK, 5, 1, b"efgh")

    def text(*damage: bytes) -> bytes:
        frames = t.frames[:3] + [(ts, sealed(frame, d)) for (ts, frame), d in zip(t.frames[3:], damage, strict=True)]
        tables = read(tmp_path / "t.pcap", frames)
        assert next(iter(tables.streams.each([0], 4)))[0].data == client(tables, 4).data
        return client(tables).data

    assert text(b"?", b"", b"", b"") == b"abcdefgh"
    assert text(b"?", b"!", b"", b"") == b"abcdefgh"
    assert text(b"", b"?", b"!", b"") == b"abcdefgh"
    assert text(b"??", b"??", b"??", b"??") == b"ab??ef??"  # nothing better was captured
    # The host that sends shows no checksums yet: what came first wins.
    raw = [(ts, frame[:-1] + tail) for (ts, frame), tail in zip(t.frames[3:], (b"1", b"2", b"3", b"4"), strict=True)]
    assert client(read(tmp_path / "t.pcap", t.frames[:3] + raw)).data == b"abc1efg4"


def test_order_of_availability(tmp_path: Path) -> None:
    t = Talk().handshake().c(20, ACK, 11, 1, b"b" * 10).c(30, ACK, 21, 1, b"c" * 10).c(40, ACK, 1, 1, b"a" * 10)
    t.c(50, ACK, 31, 1, b"d" * 10)
    tables = read(tmp_path / "t.pcap", t.frames)
    s = client(tables)
    assert s.data == b"a" * 10 + b"b" * 10 + b"c" * 10 + b"d" * 10
    # Frame 6 filled the gap, so all that waited became readable with it.
    assert [frame_at(tables, s, p) for p in (0, 10, 29, 30)] == [6, 6, 6, 7]
    assert s.packets(10, 20).tolist() == [3]


def test_hole_and_bytes_behind_it(tmp_path: Path) -> None:
    t = Talk().handshake().c(20, ACK, 1, 1, b"aaaa").c(30, ACK, 9, 1, b"cccc")
    s = client(read(tmp_path / "t.pcap", t.frames))
    assert (s.data, s.holes) == (b"aaaa\0\0\0\0cccc", ((4, 8),))


def test_first_bytes_win(tmp_path: Path) -> None:
    t = Talk().handshake().c(20, ACK, 5, 1, b"BBBB").c(30, ACK, 1, 1, b"aaaaXXXX").c(40, ACK, 7, 1, b"YYYYYY")
    t.c(50, ACK, 1, 1, b"ZZZZZZZZZZZZZZZZ")
    tables = read(tmp_path / "t.pcap", t.frames)
    s = client(tables)
    assert s.data == b"aaaaBBBBYYYYZZZZ"
    assert s.packets(0, 16).tolist() == [3, 4, 5, 6]
    assert s.holes == ()


def test_midstream_start(tmp_path: Path) -> None:
    t = Talk().c(0, ACK, 1011, 1, b"second").c(0.1, ACK, 1005, 1, b"first ").c(5, ACK, 1017, 1, b"!")
    s = client(read(tmp_path / "t.pcap", t.frames))
    assert (s.data, s.start_known) == (b"first second!", False)


def test_wrap_and_keepalive_byte(tmp_path: Path) -> None:
    t = Talk(2**32 - 20).handshake().c(20, ACK, 1, 1, TEXT[:30]).c(30, ACK, 31, 1, TEXT[30:100])
    t.c(60_000, ACK, 100, 1, b"\0")
    s = client(read(tmp_path / "t.pcap", t.frames))
    assert s.data == TEXT[:100]


def test_wild_sequence_number_costs_nothing(tmp_path: Path) -> None:
    t = Talk().handshake().c(20, ACK, 1, 1, b"a" * 10).c(30, ACK, 1 + 1_500_000_000, 1, b"evil").c(40, ACK, 11, 1, b"b")
    s = client(read(tmp_path / "t.pcap", t.frames))
    assert (s.data, s.truncated, s.holes) == (b"a" * 10 + b"b", True, ())
    s = client(read(tmp_path / "t.pcap", t.frames), limit=4)
    assert (s.data, s.truncated) == (b"aaaa", True)


def test_data_in_syn_and_in_reset(tmp_path: Path) -> None:
    t = Talk().c(0, SYN, 0, data=b"early").s(5, SYN | ACK, 0, 6).c(6, ACK, 6, 1, b" late")
    t.c(9, RST | ACK, 11, 1, b"go away")
    s = client(read(tmp_path / "t.pcap", t.frames))
    assert s.data == b"early late"


def test_snap_length_leaves_holes(tmp_path: Path) -> None:
    t = Talk().handshake().c(20, ACK, 1, 1, b"a" * 100).c(30, ACK, 101, 1, b"b" * 100)
    s = client(read(tmp_path / "t.pcap", t.frames, snaplen=54 + 40))
    assert (len(s.data), s.holes) == (200, ((40, 100), (140, 200)))
    # A repeat that was captured whole would fill it; one that is cut as well does not.
    t.c(40, ACK, 41, 1, b"a" * 60)
    s = client(read(tmp_path / "t.pcap", t.frames, snaplen=54 + 40))
    assert s.holes == ((80, 100), (140, 200))


def test_million_small_segments_take_linear_time(tmp_path: Path) -> None:


    count = 200_000
    t = Talk().handshake()
    frame = Talk().c(0, ACK, 1, 1, b"xy").frames[0][1]
    block = np.zeros((count, 16 + len(frame)), np.uint8)
    block[:, :16] = np.frombuffer(struct.pack("<IIII", START // 10**9 + 1, 0, len(frame), len(frame)), np.uint8)
    block[:, 16:] = np.frombuffer(frame, np.uint8)
    order = np.arange(count)
    order[1:-1:2], order[2::2] = order[2::2].copy(), order[1:-1:2].copy()  # every other pair swapped
    block[:, 16 + 38 : 16 + 42] = (1001 + 2 * order).astype(">u4").view(np.uint8).reshape(-1, 4)
    path = write(tmp_path / "t.pcap", t.frames)
    with path.open("ab") as file:
        file.write(block.tobytes())
    tables = open_captures([str(path)])
    assert tables.tcp.height == 1
    begin = time.process_time()
    s = client(tables)
    assert time.process_time() - begin < 2
    assert s.data == b"xy" * count


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1000, 2**32 - 300]))
def test_any_cutting_gives_the_text_back(tmp_path_factory: pytest.TempPathFactory, seed: int, isn: int) -> None:
    """Random pieces of one text, repeated, overlapping and shuffled: the stream is the text where it was captured."""
    r = random.Random(seed)
    size = r.randrange(1, 600)
    text = r.randbytes(size)
    t = Talk(isn).handshake()
    have = bytearray(size)
    pieces = []
    for _ in range(r.randrange(1, 12)):
        a = r.randrange(size)
        b = min(size, a + r.randrange(1, 200))
        pieces.append((a, b))
        have[a:b] = b"\1" * (b - a)
    for i, (a, b) in enumerate(pieces):
        t.c(20 + i * 7, ACK, 1 + a, 1, text[a:b])
    tables = read(tmp_path_factory.mktemp("s") / "t.pcap", t.frames)
    s = client(tables)
    end = max(b for _, b in pieces)
    assert len(s.data) == end
    missing = set()
    for a, b in s.holes:
        missing.update(range(a, b))
    assert missing == {i for i in range(end) if not have[i]}
    assert all(s.data[i] == (text[i] if have[i] else 0) for i in range(end))
    # Time of availability, worked out the slow way.
    first = [min((k for k, (a, b) in enumerate(pieces) if a <= i < b), default=-1) for i in range(end)]
    for i in range(end):
        if have[i]:
            assert s.packet_at(i) == 3 + max(first[: i + 1])
            assert s.packets(i, i + 1).tolist() == [3 + first[i]]


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 2000), isn=st.sampled_from([1000, 2**31 - 700, 2**32 - 600, 2**32 - 1]), opened=st.booleans(),
    snaplen=st.sampled_from([54 + 16, 262144]), limit=st.sampled_from([700, 1 << 22]), mtu=st.integers(20, 700),
    draw=st.data())
def test_any_transfer(tmp_path_factory: pytest.TempPathFactory, size: int, isn: int, opened: bool, snaplen: int,
                      limit: int, mtu: int, draw: st.DataObject) -> None:
    """Segments lost, repeated, cut anew, late, with the start or without: each byte is right or said to be missing."""
    text = random.Random(size).randbytes(size)
    cuts = [(a, min(a + mtu, size)) for a in range(0, size, mtu)]
    lost = draw.draw(st.sets(st.integers(0, len(cuts) - 1)))
    again = draw.draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(1, 900)), max_size=6))
    sent = [c for i, c in enumerate(cuts) if i not in lost] + [(a, min(a + n, size)) for a, n in again]
    late = draw.draw(st.lists(st.integers(0, 3), min_size=len(sent), max_size=len(sent)))
    sent = [sent[i] for i in sorted(range(len(sent)), key=lambda i: i + late[i])]
    t = Talk(isn).handshake() if opened else Talk(isn)
    first_row = len(t.frames)
    for i, (a, b) in enumerate(sent):
        t.c(20 + i * 7, ACK, 1 + a, 1, text[a:b], ident=i + 1)
    tables = read(tmp_path_factory.mktemp("s") / "t.pcap", t.frames, snaplen)
    if not sent:
        assert opened == bool(tables.tcp.height)
        return
    # Without an other side the higher port is the client's: 40000.
    s = client(tables, limit)
    origin = 0 if opened else min(a for a, _ in sent if a > sent[0][0] - limit)
    owner: dict[int, int] = {}
    for i, (a, b) in enumerate(sent):
        for at in range(a, min(b, a + snaplen - 54)):
            if 0 <= at - origin < limit:
                owner.setdefault(at - origin, i)
    inside = [(a - origin, b - origin) for a, b in sent if b > origin and a - origin < limit]
    assert len(s.data) == max((min(b, limit) for _, b in inside), default=0)
    assert s.start_known == opened
    assert s.truncated == (any(b - origin > limit or a - origin < -limit for a, b in sent))
    holes = {i for a, b in s.holes for i in range(a, b)}
    assert holes == set(range(len(s.data))) - set(owner)
    latest = 0
    for at in range(len(s.data)):
        assert s.data[at] == (text[origin + at] if at in owner else 0)
        if at in owner:
            latest = max(latest, owner[at])
            assert s.packet_at(at) == first_row + latest
            assert s.packets(at, at + 1).tolist() == [first_row + owner[at]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_many_at_once_are_the_same(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Connections in order, out of order, repeated, without SYN, in blocks of any size."""
    r = random.Random(seed)
    frames = []
    for number in range(r.randrange(1, 6)):
        t = Talk(r.choice([1000, 2**32 - 50]), client_port=5000 + number)
        if r.random() < 0.7:
            t.handshake()
        at = 1
        for i in range(r.randrange(8)):
            data = r.randbytes(r.randrange(1, 40))
            t.c(20 + i, ACK, at, 1, data).s(20.5 + i, ACK, at, at + len(data), data[::-1])
            at += r.choice([len(data)] * 6 + [0, len(data) + 5, -20])
            if r.random() < 0.1:
                t.c(20.7 + i, RST | ACK, at, 1, b"reset")
        frames += t.frames
    tables = read(tmp_path_factory.mktemp("t") / "t.pcap", frames, snaplen=r.choice([262144, 262144, 70]))
    wanted = list(range(tables.tcp.height))
    for limit in (1, 50, 1 << 15):
        for block in (1, 20, streams.BLOCK):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(streams, "BLOCK", block)
                assert list(tables.streams.each(wanted, limit)) == [tables.streams.both(i, limit) for i in wanted]
    assert list(tables.streams.each([])) == []


@pytest.mark.parametrize("t", [
    Talk().c(0, ACK, 101, 1, b"a" * 60).c(1, ACK, 91, 1, b"b" * 10),  # the full stream turns out to begin earlier
    Talk().handshake().c(20, ACK, 1, 1, b"a" * 50).c(21, ACK, -100, 1, b"b" * 10),  # too far off to belong to it
    Talk().handshake().c(20, ACK, 6, 1, b"a" * 60),  # its start is missing
    Talk().handshake().c(20, ACK, 1, 1, b"a" * 50).c(21, ACK, 1, 1, b"b" * 50),  # full, then repeated
])
def test_many_at_once_near_the_limit(tmp_path: Path, t: Talk) -> None:
    tables = read(tmp_path / "t.pcap", t.frames)
    assert list(tables.streams.each([0], 50)) == [tables.streams.both(0, 50)]


def test_numbers_that_go_round_twice(tmp_path: Path) -> None:
    """9 GB in segments of 64 kB, of which the capture holds the headers: counts do not end at 2^32."""
    step, count = 65_495, 140_000
    t = Talk(2**32 - 5).handshake()
    write(tmp_path / "t.pcap", t.frames)
    frame = Talk().c(0, ACK, 1, 1).frames[0][1]
    block = np.zeros((count, 16 + len(frame)), np.uint8)
    block[:, :16] = np.frombuffer(struct.pack("<IIII", START // 10**9 + 1, 0, len(frame), len(frame) + step), np.uint8)
    block[:, 16:] = np.frombuffer(frame, np.uint8)
    block[:, 16 + 16 : 16 + 18] = np.frombuffer(struct.pack(">H", 40 + step), np.uint8)
    block[:, 16 + 18 : 16 + 20] = (np.arange(count) % 65535 + 1).astype(">u2").view(np.uint8).reshape(-1, 2)
    sequence = (2**32 - 4 + step * np.arange(count)) % 2**32
    block[:, 16 + 38 : 16 + 42] = sequence.astype(">u4").view(np.uint8).reshape(-1, 4)
    with (tmp_path / "t.pcap").open("ab") as file:
        file.write(block.tobytes())
    tables = open_captures([str(tmp_path / "t.pcap")])
    c = tables.tcp.row(0, named=True)
    assert c["data_client"] == step * count
    assert (c["retransmissions_client"], c["out_of_order_client"], c["acked_unseen"]) == (0, 0, 0)
    s = client(tables, 1 << 20)
    assert (s.truncated, s.holes) == (True, ((0, 1 << 20),))
