"""Fragmented datagrams: put together, or what stands in the way."""

from __future__ import annotations

import random
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import test_agreement
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_wire import MS, START, Frame, ip4, ip6, read, write

from netdiag.capture.space import Space
from netdiag.decode import fragments
from netdiag.decode.frames import Piece
from netdiag.tables import Tables
from netdiag.tables.fragments import FragmentedDatagram
from netdiag.tables.schema import schema

A, B = "192.0.2.1", "198.51.100.2"
A6, B6 = "2001:db8::1", "2001:db8::2"
DATA = struct.pack(">HHHH", 4000, 5000, 88, 0) + bytes(range(80))
Cut = tuple[int, int]


def piece(data: bytes, cut: Cut, ident: int = 7, ms: float = 0, last: int | None = None, six: bool = False) -> Frame:
    """The bytes cut[0] up to cut[1] of a UDP datagram as a fragment; ``last``: the length it claims to have."""
    begin, end = cut
    more = end < (len(data) if last is None else last)
    if six:
        frame = ip6(A6, B6, 44, struct.pack(">BBHI", 17, 0, begin | more, ident) + data[begin:end])
    else:
        frame = ip4(A, B, 17, data[begin:end], ident=ident, fragment=begin // 8 | more << 13)
    return START + int(ms * MS), frame


def only(tables: Tables) -> dict[str, Any]:
    assert tables.fragments.schema == schema(FragmentedDatagram)
    assert tables.fragments.height == 1
    return tables.fragments.row(0, named=True)


@pytest.mark.parametrize("six", [False, True])
def test_in_any_order(tmp_path: Path, six: bool) -> None:
    cuts = [(40, 88), (0, 16), (16, 40)]
    tables = read(tmp_path / "t.pcap", [piece(DATA, c, ms=i, six=six) for i, c in enumerate(cuts)])
    d = only(tables)
    assert (d["complete"], d["overlap"], d["conflict"], d["size"], d["missing"], d["pieces"]) == (
        True, False, False, 88, 0, 3)
    assert (d["source"], d["protocol"], d["identification"], d["packets"]) == (A6 if six else A, 17, 7, [0, 1, 2])
    assert (d["first_packet"], d["last_packet"], d["last_ns"], d["given_up"]) == (0, 2, START + 2 * MS, "")
    assert tables.packets.payload(2) == DATA[8:]
    assert tables.packets.sport.tolist() == [4000] * 3
    assert not tables.anomalies()


def test_repeated_and_contradicting_pieces(tmp_path: Path) -> None:
    again = [piece(DATA, c, ms=20 * i) for i, c in enumerate([(0, 16), (0, 16), (16, 88)])]
    tables = read(tmp_path / "t.pcap", again)
    d = only(tables)
    assert (d["complete"], d["overlap"], d["conflict"], d["pieces"], d["seen"]) == (True, True, False, 3, 88)
    assert tables.packets.payload(2) == DATA[8:]

    other = bytes(88)
    lies = [piece(DATA, (24, 40)), piece(other, (16, 56), ms=1), piece(DATA, (0, 24), ms=2),
            piece(DATA, (56, 88), ms=3)]
    tables = read(tmp_path / "t.pcap", lies)
    d = only(tables)
    assert (d["complete"], d["overlap"], d["conflict"]) == (True, True, True)
    # What came first stays: 24–40 of the first, 16–24 and 40–56 of the second.
    assert tables.packets.payload(3) == DATA[8:16] + bytes(8) + DATA[24:40] + bytes(16) + DATA[56:]


def test_two_ends(tmp_path: Path) -> None:
    frames = [piece(DATA, (64, 88)), piece(DATA, (32, 48), ms=1, last=48), piece(DATA, (0, 64), ms=2)]
    d = only(read(tmp_path / "t.pcap", frames))
    assert (d["complete"], d["conflict"], d["size"]) == (True, True, 88)
    # The end comes after bytes that lie behind it.
    frames = [piece(DATA, (64, 88), last=100), piece(DATA, (16, 72), ms=1, last=72), piece(DATA, (0, 16), ms=2)]
    d = only(read(tmp_path / "t.pcap", frames))
    assert (d["complete"], d["conflict"], d["size"], d["seen"]) == (True, True, 72, 72)


def test_missing_pieces(tmp_path: Path) -> None:
    tables = read(tmp_path / "t.pcap", [piece(DATA, (0, 16)), piece(DATA, (40, 88), ms=1)])
    d = only(tables)
    assert (d["complete"], d["size"], d["seen"], d["missing"], d["has_first"], d["has_last"]) == (
        False, 88, 64, 24, True, True)
    assert d["given_up"] == fragments.MISSING
    assert [(a.reason, a.count) for a in tables.anomalies()] == [(fragments.MISSING, 2)]

    d = only(read(tmp_path / "t.pcap", [piece(DATA, (16, 40))]))
    assert (d["size"], d["missing"], d["seen"], d["has_first"], d["has_last"]) == (None, None, 24, False, False)


def test_a_piece_that_comes_again_later(tmp_path: Path) -> None:
    """Nothing is missing of a datagram that was whole before; other bytes are another datagram."""
    whole = [piece(DATA, (0, 16)), piece(DATA, (16, 88), ms=1)]
    tables = read(tmp_path / "t.pcap", [*whole, piece(DATA, (16, 88), ms=20)])
    d = only(tables)
    assert (d["complete"], d["pieces"], d["packets"], d["repeated"]) == (True, 2, [0, 1], [2])
    assert not tables.anomalies()
    for other in (piece(bytes(88), (0, 16), ms=20), piece(DATA, (0, 16), ms=60_001),
                  piece(DATA, (64, 80), ms=20, last=80)):
        tables = read(tmp_path / "t.pcap", [*whole, other])
        assert tables.fragments["complete"].to_list() == [True, False]
        assert tables.fragments["repeated"].to_list() == [[], []]
    # The same identification and the same beginning again, and then all of it: a second datagram.
    tables = read(tmp_path / "t.pcap", [*whole, piece(DATA, (0, 16), ms=20), piece(DATA, (16, 88), ms=30)])
    assert tables.fragments["complete"].to_list() == [True, True]


def test_cut_by_the_snap_length(tmp_path: Path) -> None:
    tables = read(tmp_path / "t.pcap", [piece(DATA, (0, 16)), piece(DATA, (16, 88), ms=1)], snaplen=60)
    d = only(tables)
    assert (d["complete"], d["missing"], d["given_up"]) == (False, 0, fragments.CUT)
    assert [(a.reason, a.count) for a in tables.anomalies()] == [(fragments.CUT, 1)]


def test_an_identification_used_again(tmp_path: Path) -> None:
    """60 s later the same identification is another datagram (RFC 8200 §4.5)."""
    old, new = piece(DATA, (0, 16)), [piece(bytes(88), c, ms=60_001) for c in ((16, 88), (0, 16))]
    tables = read(tmp_path / "t.pcap", [old, *new])
    assert tables.fragments["complete"].to_list() == [False, True]
    assert tables.fragments["given_up"].to_list() == [fragments.LATE, ""]
    assert only(read(tmp_path / "t.pcap", [old, piece(DATA, (16, 88), ms=59_999)]))["complete"]


def pieces(cuts: list[Cut], at: int, total: int) -> list[Piece]:
    return [Piece(i, 1, 2, 4, 17, 9, a, b < total, at + a, b - a, b - a, 0) for i, (a, b) in enumerate(cuts)]


@pytest.mark.parametrize("order", ["up", "down", "odd first", "end first", "covers"])
def test_many_pieces_take_linear_time(order: str) -> None:
    space = Space([])
    data = random.Random(1).randbytes(65528)
    at = space.append(data)
    cuts = [(a, a + 8) for a in range(0, 65528, 8)]
    cuts = {"up": cuts, "down": cuts[::-1], "odd first": cuts[1::2] + cuts[::2], "end first": cuts[-1:] + cuts[:-1],
            "covers": [*cuts[1::2], (0, 65520), *cuts[::2]]}[order][:8192]
    begin = time.process_time()
    result = fragments.reassemble(space, pieces(cuts, at, 65528), [0] * len(cuts))
    assert time.process_time() - begin < 1
    assert len(result.whole) == 1
    assert space.read(result.whole[0].offset, result.whole[0].size) == data


def test_a_million_pieces_of_one_datagram() -> None:
    space = Space([])
    at = space.append(bytes(65528))
    cuts = [(65520, 65528)] + [(a % 8000 * 8, a % 8000 * 8 + 8) for a in range(300_000)]
    many = pieces(cuts, at, 65528)
    begin = time.process_time()
    result = fragments.reassemble(space, many, [0] * len(cuts))
    assert time.process_time() - begin < 5
    d = result.broken[0]
    assert (d.have, d.overlap, d.conflict, len(d.rows)) == (8001 * 8, True, False, 8192)
    assert len(result.odd[fragments.TOO_MANY]) == len(cuts) - 8192


def test_too_many_datagrams() -> None:
    space = Space([])
    at = space.append(bytes(16))
    many = [Piece(i, 1, 2, 4, 17, i, 0, True, at, 8, 8, 0) for i in range(5000)]
    result = fragments.reassemble(space, many, [0] * 5000)
    assert len(result.odd[fragments.CROWDED]) == 5000 - 4096
    assert result.broken[0].given_up == fragments.CROWDED
    assert result.broken[0].rows == [0]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(1, 12)), max_size=12), st.data())
def test_any_pieces(size: int, extra: list[tuple[int, int]], draw: st.DataObject) -> None:
    """Of one honest datagram: whole exactly when every byte came, and then these bytes; else what is missing."""
    total = size * 8 + 3
    data = random.Random(size).randbytes(total)
    edges = sorted(draw.draw(st.sets(st.integers(1, size), max_size=8)))
    inner = [(a * 8, b * 8) for a, b in zip([0, *edges[:-1]], edges, strict=False)] if edges else []
    cuts = [*inner, (edges[-1] * 8 if edges else 0, total)]
    cuts += [(a * 8, min((a + n) * 8, total)) for a, n in extra if a * 8 < total]
    cuts = draw.draw(st.permutations(cuts))[: draw.draw(st.integers(1, len(cuts)))]
    space = Space([])
    at = space.append(data)
    result = fragments.reassemble(space, pieces(cuts, at, total), [0] * len(cuts))
    have: set[int] = set()
    for number, (a, b) in enumerate(cuts):
        have |= set(range(a, b))
        if len(have) == total:
            d = result.whole[0]
            assert (d.rows, d.have, d.conflict) == (list(range(number + 1)), total, False)
            assert space.read(d.offset, d.size) == data
            assert d.overlap == (sum(b - a for a, b in cuts[: number + 1]) > total)
            return
    assert not result.whole
    d = result.broken[0]
    assert (d.have, d.total) == (len(have), total if any(b == total for _, b in cuts) else None)
    assert d.overlap == (sum(b - a for a, b in cuts) > len(have))


def _random_frames(seed: int) -> list[Frame]:
    r = random.Random(seed)
    out: list[Frame] = []
    for number in range(12):
        data = struct.pack(">HHHH", 4000, 5000 + number, 0, 0) + bytes(1) + r.randbytes(r.choice([8, 100, 1000, 3000]))
        step, six = r.choice([16, 64, 400, 1480]), r.random() < 0.4
        cuts = [(a, min(a + step, len(data))) for a in range(0, len(data), step)]
        sent = [(c, data) for c in cuts]
        if r.random() < 0.4:
            r.shuffle(sent)
        if r.random() < 0.3:
            sent.insert(r.randrange(len(sent)), r.choice(sent))
        if r.random() < 0.2:
            sent.pop(r.randrange(len(sent)))
        if r.random() < 0.4:
            begin = r.randrange(len(data)) // 8 * 8
            end = min(len(data), begin + r.choice([8, 16, 64, 800]))
            sent.insert(r.randrange(len(sent) + 1), ((begin, end), r.choice([data, bytes(len(data))])))
        for cut, text in sent:
            out.append(piece(text, cut, seed * 100 + number, seed * 10_000 + len(out) * 10, six=six))
    return out


@pytest.mark.tshark
@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_random_fragments_agree_with_tshark(tmp_path: Path) -> None:
    """Which datagrams come whole, of which pieces, with which overlaps and contradictions."""
    path = write(tmp_path / "t.pcap", [frame for seed in range(12) for frame in _random_frames(seed)])
    assert test_agreement.compare(path) == {}


def test_extension_headers_behind_the_fragment_header(tmp_path: Path) -> None:
    """They are a part of the datagram (RFC 8200 §4.5), so the protocol is known when it is whole."""
    options = bytes([17, 0, 1, 4, 0, 0, 0, 0])  # next header UDP; eight bytes of padding (RFC 8200 §4.6)
    data = options + struct.pack(">HHHH", 5060, 5060, 8 + 1200, 0) + b"x" * 1200
    cut = 600
    frames = []
    for number, (a, b) in enumerate(((0, cut), (cut, len(data)))):
        header = struct.pack(">BBHI", 60, 0, a | (b < len(data)), 7)
        frames.append((START + number * MS, ip6("2001:db8::1", "2001:db8::2", 44, header + data[a:b])))
    tables = read(tmp_path / "t.pcap", frames)
    p = tables.packets
    assert p.proto.tolist() == [17, 17]
    assert (int(p.sport[1]), int(p.wire[1]), p.payload(1, 1)) == (5060, 1200, b"x")
    assert tables.fragments["missing"].to_list() == [0]
