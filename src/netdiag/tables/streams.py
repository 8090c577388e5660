"""The byte stream that one side of a TCP connection sent, put together from its segments.

Survives retransmission, overlap (the bytes that came first win, but not those of a segment with a wrong checksum over
others with a right one: no receiver takes them, RFC 9293 §3.1), reordering, sequence wrap-around, packets cut by the
snap length (holes) and segments far outside the stream (dropped beyond the limit, and said so).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.tables.checksums import verify
from netdiag.tables.packets import I64, RST, SYN, U8, U32, Packets
from netdiag.tables.tcp_segments import ConnectionSegments, connection_segments, segments

if TYPE_CHECKING:
    from netdiag.tables import Tables

LIMIT = 1 << 22
"""Bytes kept of one side: handshakes and signalling lie far below it, bulk transfer needs no more (practice)."""
BLOCK = 1 << 16
"""Segments that ``Streams.each`` looks at together: some 10 MB of arrays (practice)."""


@dataclass(slots=True)
class Stream:
    """One side of a connection. Positions count from its first byte: behind the SYN, or the first byte captured."""

    data: bytes
    """Contiguous from position 0; what was not captured is zero."""
    holes: tuple[tuple[int, int], ...]
    """Positions (from, up to) of ``data`` that were not captured."""
    start_known: bool
    """The SYN was captured, so position 0 is the first byte that was sent."""
    truncated: bool
    """There were bytes beyond the limit, or so far off that they cannot belong here."""
    _end: list[int]
    """End of each captured piece, ascending; pieces do not overlap."""
    _carrier: list[int]
    """Packet row that carries each piece."""
    _complete: list[int]
    """Packet row after which every captured piece up to this one was there."""
    _complete_ns: list[int]

    def _piece(self, position: int) -> int:
        if not self._end:
            raise IndexError("empty stream")
        return min(bisect_right(self._end, position), len(self._end) - 1)

    def packet_at(self, position: int) -> int:
        """Packet row that made everything up to this byte available in order, where tshark shows the reassembled
        message that ends there. In a hole: the packet behind the hole. IndexError for an empty stream."""
        return self._complete[self._piece(position)]

    def time_at(self, position: int) -> int:
        """Time of ``packet_at(position)``, ns."""
        return self._complete_ns[self._piece(position)]

    def packets(self, start: int, end: int) -> npt.NDArray[np.uint32]:
        """Packet rows that carry the bytes from ``start`` up to ``end``, ascending."""
        if end <= start or not self._end:
            return np.zeros(0, np.uint32)
        a, b = bisect_right(self._end, start), bisect_right(self._end, end - 1)
        return np.unique(np.array(self._carrier[a : b + 1], np.uint32))


class Streams:
    """Streams on demand; nothing is kept, a second call does the work again."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, connection: int, from_client: bool, limit: int = LIMIT) -> Stream:
        """What one side of a connection (row number of ``Tables.tcp``) sent, at most ``limit`` bytes."""
        return self._side(connection_segments(self._tables, connection), from_client, limit)

    def both(self, connection: int, limit: int = LIMIT) -> tuple[Stream, Stream]:
        """What the client and what the server sent, at most ``limit`` bytes each."""
        s = connection_segments(self._tables, connection)
        return self._side(s, True, limit), self._side(s, False, limit)

    def each(self, connections: Sequence[int], limit: int = LIMIT) -> Iterator[tuple[Stream, Stream]]:
        """``both`` of many connections, in their order. Faster, as segments in order are found for many at once."""
        wanted = np.array(connections, np.int64)
        reach = np.cumsum(segments(self._tables).size[wanted])
        a = done = 0
        while a < len(wanted):
            b = max(a + 1, int(np.searchsorted(reach, done + BLOCK, side="right")))
            total = int(reach[b - 1])
            # Arrays of a connection that is larger than a block are not made all at once.
            yield from self._block(wanted[a:b], limit) if total - done <= BLOCK else [self.both(int(wanted[a]), limit)]
            a, done = b, total

    def _block(self, connections: I64, limit: int) -> Iterator[tuple[Stream, Stream]]:
        plain = _plain_sides(self._tables, connections, limit)
        for connection in connections.tolist():
            client, server = next(plain), next(plain)
            if client is None or server is None:
                s = connection_segments(self._tables, connection)
                client, server = client or self._side(s, True, limit), server or self._side(s, False, limit)
            yield client, server

    def _side(self, s: ConnectionSegments, from_client: bool, limit: int) -> Stream:
        packets = self._tables.packets
        mine = s.client == from_client
        rows, seq, flags, length = s.row[mine], s.seq[mine], s.flags[mine], s.length[mine]
        syn = np.flatnonzero(flags & SYN)
        carries = (length > 0) & ((flags & RST) == 0)  # data in a reset explains it, it is not stream (RFC 9293 §3.5.3)
        rows, seq, flags, length = rows[carries], seq[carries], flags[carries], length[carries].astype(np.int64)
        if not len(rows):
            return Stream(b"", (), len(syn) > 0, False, [], [], [], [])
        start = seq + ((flags & SYN) != 0)  # data of a SYN follows the SYN's own number
        if len(syn):
            origin = int(s.seq[mine][syn[0]]) + 1
        else:
            # The first segments may have been captured out of order: take the lowest that is near the first.
            origin = int(start[start > start[0] - limit].min())
        start = start - origin
        plain = _in_order(packets, rows, start, length, limit)
        if plain is not None:
            carrier = rows.tolist()
            return Stream(plain, (), len(syn) > 0, False, (start + length).tolist(), carrier, carrier,
                          packets.ts[rows].tolist())
        wanted = (start < limit) & (start + length > 0)
        far = bool((start >= limit).any() or (start + length > limit).any() or (start < -limit).any())
        # Where bytes contradict each other, what no receiver accepts stands behind all others.
        last = _refused(packets, rows[wanted], start[wanted], length[wanted])
        trusted = np.argsort(last, kind="stable")
        pieces = _pieces(packets, rows[wanted][trusted], start[wanted][trusted], length[wanted][trusted], limit)
        size = int(np.minimum(start[wanted] + length[wanted], limit).max()) if wanted.any() else 0
        return _assemble(packets, pieces, size, len(syn) > 0, far)


def _in_order(packets: Packets, rows: U32, start: I64, length: I64, limit: int) -> bytes | None:
    """The bytes of segments that came one behind the other and whole, as nearly all do; else None."""
    end = start + length
    if start[0] != 0 or end[-1] > limit or not (start[1:] == end[:-1]).all() or (packets.length[rows] != length).any():
        return None
    places = zip(packets.offset[rows].tolist(), length.tolist(), strict=True)
    return b"".join([packets.space.view(at, size) for at, size in places])


def _plain_sides(tables: Tables, connections: I64, limit: int) -> Iterator[Stream | None]:
    """Client and server of each connection; None where what lies below the limit did not come whole and in order."""
    packets, s = tables.packets, segments(tables)
    sides = 2 * len(connections)
    size = s.size[connections]
    entry = np.arange(int(size.sum())) + np.repeat(s.start[connections] - (np.cumsum(size) - size), size)
    side = 2 * np.repeat(np.arange(len(connections)), size) + ~s.client[entry]
    order = np.argsort(side, kind="stable")
    entry, side = entry[order], side[order]
    syn = (s.flags[entry] & SYN) != 0
    known, origin = np.zeros(sides, np.bool_), np.zeros(sides, np.int64)
    syns = np.flatnonzero(syn)[::-1]  # backwards: the first SYN is what remains
    known[side[syns]], origin[side[syns]] = True, s.seq[entry[syns]] + 1
    carries = (s.length[entry] > 0) & ((s.flags[entry] & RST) == 0)
    entry, side, row = entry[carries], side[carries], s.row[entry[carries]]
    start, length = s.seq[entry] + syn[carries], s.length[entry].astype(np.int64)
    bound = np.searchsorted(side, np.arange(sides + 1))
    filled = np.flatnonzero(bound[1:] > bound[:-1])
    head, tail = bound[filled], bound[filled + 1]
    origin[filled] = np.where(known[filled], origin[filled], start[head])
    start = start - origin[side]
    end = start + length
    follows = np.ones(len(entry), np.bool_)
    follows[1:] = start[1:] == end[:-1]
    follows[head] = start[head] == 0
    place = np.arange(len(entry))
    full = np.minimum.reduceat(np.where(end >= limit, place, len(entry)), head)
    # Behind the segment that reaches the limit, only those that bring something from below it need a closer look.
    fine = (follows & (packets.length[row] == length)) | ((place > np.repeat(full, tail - head)) & (start >= limit))
    odd = np.minimum.reduceat(np.where(fine, len(entry), place), head)
    # Without a SYN, a later segment that lies before the first one moves the origin.
    moved = ~known[filled] & (np.minimum.reduceat(np.where(start > -limit, start, 0), head) < 0)
    last = np.minimum(full, tail - 1)
    stop = np.zeros(sides, np.int64)
    stop[filled] = np.where((odd == len(entry)) & ~moved, last + 1, -1)
    far = np.zeros(sides, np.bool_)
    far[filled] = (np.maximum.reduceat(end, head) > limit) | (np.minimum.reduceat(start, head) < -limit)
    kept = place < stop[side]
    return _joined(packets, row[kept], start[kept], np.minimum(end[kept], limit), side[kept], known, far, stop < 0)


def _joined(packets: Packets, row: U32, start: I64, end: I64, side: I64, known: npt.NDArray[np.bool_],
            far: npt.NDArray[np.bool_], none: npt.NDArray[np.bool_]) -> Iterator[Stream | None]:
    """The streams of segments in order, by side; None for those in ``none``."""
    view = packets.space.view
    bounds = np.searchsorted(side, np.arange(len(known) + 1)).tolist()
    offsets, sizes = packets.offset[row].tolist(), (end - start).tolist()
    rows, ends, times = row.tolist(), end.tolist(), packets.ts[row].tolist()
    for a, b, start_known, truncated, left_out in zip(bounds[:-1], bounds[1:], known.tolist(), far.tolist(),
                                                      none.tolist(), strict=True):
        if left_out:
            yield None
            continue
        carrier = rows[a:b]
        yield Stream(b"".join(map(view, offsets[a:b], sizes[a:b])), (), start_known, truncated, ends[a:b], carrier,
                     carrier, times[a:b])


class _Pieces(NamedTuple):
    """Disjoint intervals of a stream in order of place."""

    start: I64
    end: I64
    row: U32
    source: I64
    """Offset of the first byte in the space."""
    arrival: I64
    """Rank in time."""


def _refused(packets: Packets, rows: U32, start: I64, wire: I64) -> npt.NDArray[np.bool_]:
    """Segments with a wrong checksum that contradict others, where one of those is known to have a right one."""
    out = np.zeros(len(rows), np.bool_)
    end = start + np.minimum(packets.length[rows], wire)
    order = np.argsort(start, kind="stable")
    begin, end = start[order], end[order]
    reach = np.maximum.accumulate(end) if len(end) else end
    overlaps = np.flatnonzero(begin[1:] < np.minimum(reach[:-1], end[1:])) + 1
    if not len(overlaps):
        return out
    advances = np.append(True, reach[1:] > reach[:-1])
    farthest = np.maximum.accumulate(np.where(advances, np.arange(len(end)), 0))[overlaps - 1]
    size = np.minimum(end[overlaps], end[farthest]) - begin[overlaps]
    here = packets.offset[rows[order[overlaps]]]
    there = packets.offset[rows[order[farthest]]] + (begin[overlaps] - begin[farthest])
    view = packets.space.view
    same = [view(a, n) == view(b, n) for a, b, n in zip(here.tolist(), there.tolist(), size.tolist(), strict=True)]
    differ = ~np.array(same)
    odd = np.unique(np.concatenate([order[overlaps[differ]], order[farthest[differ]]]))
    right, wrong = verify(packets, rows[odd].astype(np.int64))
    out[odd] = wrong & right.any()
    return out


def _pieces(packets: Packets, rows: U32, start: I64, wire: I64, limit: int) -> _Pieces:
    """Cuts segments (in order of time) so that each byte is left in the one that brought it first."""
    captured = np.minimum(packets.length[rows].astype(np.int64), wire)
    end = np.minimum(start + captured, limit)
    begin = np.maximum(start, 0)
    arrival = np.flatnonzero(end > begin)
    begin, end, base = begin[arrival], end[arrival], start[arrival]
    order = np.argsort(begin, kind="stable")
    arrival, begin, end, base = arrival[order], begin[order], end[order], base[order]
    reach = np.maximum.accumulate(end) if len(end) else end
    before = np.zeros_like(reach)
    before[1:] = reach[:-1]
    overlaps = np.flatnonzero((begin < before) & (end > begin))
    # A segment that only repeats bytes of earlier ones goes; what overlaps in part needs a closer look.
    if len(overlaps):
        leader = np.maximum.accumulate(np.where(end > before, np.arange(len(end)), 0))
        repeats = np.zeros(len(end), np.bool_)
        behind = leader[overlaps - 1]
        repeats[overlaps] = (end[overlaps] <= end[behind]) & (arrival[overlaps] > arrival[behind])
        keep = ~repeats
        arrival, begin, end, base = arrival[keep], begin[keep], end[keep], base[keep]
        if bool((begin[1:] < end[:-1]).any()):
            arrival, begin, end, base = _first_wins(arrival, begin, end, base)
    source = packets.offset[rows[arrival]] + (begin - base)
    return _Pieces(begin, end, rows[arrival], source, arrival)


def _first_wins(arrival: I64, begin: I64, end: I64, base: I64) -> tuple[I64, I64, I64, I64]:
    """Overlapping segments (in order of ``begin``) that are no plain repeats: a sweep, the earliest at each byte."""
    begins, ends, ranks = begin.tolist(), end.tolist(), arrival.tolist()
    who: list[int] = []
    left: list[int] = []
    right: list[int] = []
    here: list[tuple[int, int]] = []  # heap of (rank in time, segment) of those that have begun
    at = following = 0
    while following < len(begins) or here:
        if not here:
            at = max(at, begins[following])
        while following < len(begins) and begins[following] <= at:
            heappush(here, (ranks[following], following))
            following += 1
        i = here[0][1]
        if ends[i] <= at:
            heappop(here)
            continue
        stop = min(ends[i], begins[following]) if following < len(begins) else ends[i]
        if who and who[-1] == i and right[-1] == at:
            right[-1] = stop
        else:
            who.append(i)
            left.append(at)
            right.append(stop)
        at = stop
    index = np.array(who, np.int64)
    return arrival[index], np.array(left, np.int64), np.array(right, np.int64), base[index]


def _assemble(packets: Packets, p: _Pieces, size: int, start_known: bool, truncated: bool) -> Stream:
    out = np.zeros(size, np.uint8)
    length = p.end - p.start
    if len(length):
        _copy(packets.space.array, out, p.source, p.start, length)
    gap_from = np.concatenate([np.zeros(1, np.int64), p.end])
    gap_to = np.append(p.start, size)
    gap = gap_to > gap_from
    holes = tuple(zip(gap_from[gap].tolist(), gap_to[gap].tolist(), strict=True))
    # In order is a byte when the last of all pieces before it has come.
    last = np.maximum.accumulate(p.arrival) if len(p.arrival) else p.arrival
    row_of = np.zeros(int(p.arrival.max()) + 1 if len(p.arrival) else 0, np.uint32)
    row_of[p.arrival] = p.row
    complete = row_of[last]
    return Stream(out.tobytes(), holes, start_known, truncated, p.end.tolist(), p.row.tolist(), complete.tolist(),
                  packets.ts[complete].tolist())


def _copy(space: U8, out: U8, source: I64, target: I64, length: I64) -> None:
    """Copies many slices; index arithmetic is made for some 64 KiB at a time, so that memory stays small."""
    if len(length) < 64:
        for a, b, n in zip(source.tolist(), target.tolist(), length.tolist(), strict=True):
            out[b : b + n] = space[a : a + n]
        return
    total = np.cumsum(length)
    cuts = np.searchsorted(total, np.arange(0, int(total[-1]) + (1 << 16), 1 << 16))
    cuts[0], cuts[-1] = 0, len(length)
    for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        if a == b:
            continue
        n = length[a:b]
        step = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
        out[np.repeat(target[a:b], n) + step] = space[np.repeat(source[a:b], n) + step]
