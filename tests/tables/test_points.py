"""The same packets at two capture points."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from tcp_wire import ACK, CLIENT, MS, PSH, SERVER, START, Frame, Talk, ip4, write

from netdiag.tables import Tables
from netdiag.tables.reader import open_captures

OFFSET = 3600 * 10**9
"""Clock of the second point."""
DELAY = 12 * MS


def udp(ms: float, payload: bytes, sport: int = 5060, ident: int = 0, src: str = CLIENT, dst: str = SERVER) -> Frame:
    header = struct.pack(">HHHH", sport, 5060, 8 + len(payload), 0)
    return START + int(ms * MS), ip4(src, dst, 17, header + payload, ident=ident)


def pair(path: Path, inside: list[Frame], outside: list[Frame], snap: int = 262144) -> Tables:
    """``outside`` is given in the inside's time; it is shifted by delay and clock."""
    a = write(path / "a.pcap", sorted(inside))
    b = write(path / "b.pcap", sorted((ts + DELAY + OFFSET, f) for ts, f in outside), snap)
    return open_captures([], [("in", str(a)), ("out", str(b))])


def rows_at(tables: Tables, point: int) -> np.ndarray:
    return np.flatnonzero(tables.packets.points(np.arange(tables.packets.n)) == point)


def frames_missing(tables: Tables, of: int, at: str) -> list[int]:
    rows = rows_at(tables, of)
    missing = rows[tables.crosspoint.missing_at(rows, at)]
    return tables.packets.locate(missing)[1].tolist()


MESSAGES = [udp(i * 1000, b"REGISTER %d" % i) for i in range(20)]


def test_offset_and_missing(tmp_path: Path) -> None:
    tables = pair(tmp_path, MESSAGES, MESSAGES[:7] + MESSAGES[8:])
    x = tables.crosspoint
    assert x.offset_ns("in", "out") == OFFSET + DELAY
    assert x.offset_ns("out", "in") == -OFFSET - DELAY
    assert x.matched("in", "out") == 19
    assert frames_missing(tables, 0, "out") == [8]
    assert frames_missing(tables, 1, "in") == []
    assert x.loss_ratio("in", "out") == pytest.approx(1 / 20)
    assert x.loss_ratio("in", "out", exclude=[7]) == 0
    assert x.loss_ratio("out", "in") == 0


def test_covers(tmp_path: Path) -> None:
    stranger = udp(9050, b"hello", src="203.0.113.9")
    sibling = udp(9100, b"hello", sport=5080)
    late = udp(60_000, b"REGISTER late")
    tables = pair(tmp_path, [*MESSAGES, stranger, sibling, late], MESSAGES)
    x = tables.crosspoint
    rows = rows_at(tables, 0)
    missing, covered = x.missing_at(rows, "out"), x.covers("out", rows)
    judged = [(int(n), bool(c)) for n, m, c in zip(tables.packets.locate(rows)[1], missing, covered, strict=True) if m]
    # The stranger's hosts were never seen outside; the sibling's were; the last one came after that capture had ended.
    assert judged == [(11, False), (12, True), (23, False)]


def test_repeats_are_paired_by_time(tmp_path: Path) -> None:
    repeats = [udp(ms, b"INVITE same") for ms in (0, 500, 1500, 3500)]
    tables = pair(tmp_path, MESSAGES + repeats, MESSAGES + repeats[2:])
    ladder = frames_missing(tables, 0, "out")
    rows = rows_at(tables, 0)
    assert ((tables.packets.ts[rows[np.array(ladder) - 1]] - START) // MS).tolist() == [0, 500]


def test_many_repeats_stay_cheap(tmp_path: Path) -> None:
    same = [udp(6 * i, b"same") for i in range(3000)]  # closer ones would be copies of one packet
    tables = pair(tmp_path, MESSAGES + same, MESSAGES + same[1000:])
    assert len(frames_missing(tables, 0, "out")) == 1000


def test_identification_tells_copies_apart(tmp_path: Path) -> None:
    copies = [udp(ms, b"same", ident=ms + 1) for ms in (0, 1, 2)]
    tables = pair(tmp_path, MESSAGES + copies, MESSAGES + copies[:1] + copies[2:])
    rows = rows_at(tables, 0)
    missing = rows[tables.crosspoint.missing_at(rows, "out")]
    assert tables.packets.ip_id[missing].tolist() == [2]


def test_outside_the_window_is_missing(tmp_path: Path) -> None:
    again = udp(50, b"stray")
    tables = pair(tmp_path, [*MESSAGES, again], [*MESSAGES, (again[0] + 8 * 10**9, again[1])])
    assert len(frames_missing(tables, 0, "out")) == 1


def test_tcp_segments(tmp_path: Path) -> None:
    t = Talk().handshake().c(20, PSH | ACK, 1, 1, b"a" * 100, ident=7)
    lost = Talk().c(400_000, PSH | ACK, 101, 1, b"b" * 50, ident=8).c(400_200, PSH | ACK, 101, 1, b"b" * 50, ident=9)
    tables = pair(tmp_path, t.frames + lost.frames + [udp(500_000, b"end")], [*t.frames, udp(500_000, b"end")])
    assert frames_missing(tables, 0, "out") == [5, 6]
    assert tables.crosspoint.covers("out", rows_at(tables, 0)).all()


def test_offloaded_segments_are_not_missing(tmp_path: Path) -> None:
    big = Talk().handshake().c(20, ACK, 1, 1, b"a" * 300, ident=1).c(21, ACK, 301, 1, b"c" * 300, ident=2)
    small = Talk().handshake().c(20, ACK, 1, 1, b"a" * 150, ident=1).c(20, ACK, 151, 1, b"a" * 150, ident=2)
    tables = pair(tmp_path, MESSAGES + big.frames, MESSAGES + small.frames)
    missing = tables.crosspoint.missing_at(rows_at(tables, 0), "out")
    rows = rows_at(tables, 0)[missing]
    assert tables.packets.wire[rows].tolist() == [300]
    assert tables.packets.ip_id[rows].tolist() == [2]


def test_snap_length_at_one_point(tmp_path: Path) -> None:
    longer = [udp(i * 1000, b"REGISTER %02d" % i + b" ".join([b"%d" % i] * 9)) for i in range(10)]
    tables = pair(tmp_path, longer, longer[:7] + longer[8:], snap=14 + 20 + 8 + 11)
    assert frames_missing(tables, 0, "out") == [8]


def test_nothing_in_common(tmp_path: Path) -> None:
    tables = pair(tmp_path, MESSAGES, [udp(0, b"x", src="203.0.113.77")])
    x = tables.crosspoint
    assert (x.offset_ns("in", "out"), x.matched("in", "out"), x.loss_ratio("in", "out")) == (None, 0, None)
    assert x.missing_at(rows_at(tables, 0), "out").all()
    assert not x.covers("out", rows_at(tables, 0)).any()
    assert not x.missing_at(rows_at(tables, 0), "in").any()
    assert x.missing_at([], "out").tolist() == []
    with pytest.raises(ValueError, match="nowhere"):
        x.missing_at([0], "nowhere")


def test_empty_points(tmp_path: Path) -> None:
    tables = pair(tmp_path, MESSAGES, [])
    assert not tables.crosspoint.covers("out", rows_at(tables, 0)).any()
    assert tables.crosspoint.loss_ratio("in", "out") is None
