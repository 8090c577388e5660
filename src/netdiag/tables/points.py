"""Which packets of one capture point were seen at another one, between which addresses are not translated.

A packet is recognised by what a router leaves alone: addresses, ports, payload length, IPv4 identification (where it
is not 0), TCP numbers and flags, and the first bytes of the payload. Only flows that are asked for are compared.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.tables.grouping import partition
from netdiag.tables.packets import CUT, I64, IPV6, TCP, U32, Packets

if TYPE_CHECKING:
    from netdiag.tables import Tables

Bools = npt.NDArray[np.bool_]
U64 = npt.NDArray[np.uint64]

WINDOW_NS = 5_000_000_000
"""Longest time on the way between two points after the clocks were aligned (practice)."""
PAYLOAD_BYTES = 64
"""Payload compared: enough to tell SIP, RTP and TLS packets apart, and inside most snap lengths (practice)."""
ALIGN_PACKETS = 200_000
"""Packets of one point looked at to align two clocks (practice)."""
RATIO_PACKETS = 1_000_000
"""Packets of one point looked at for a loss ratio (practice)."""
_PAIRS = 4096
"""Pairs of identical packets weighed against each other; above it they are paired in order of time (practice)."""
_CHUNK = 1 << 16
"""Packets hashed at a time."""
_SIBLINGS = 8
"""Other conversations of a host pair looked at to know whether a point sees that pair (practice)."""


class _Alignment(NamedTuple):
    offset: int | None
    """To be added to times of the first point, ns."""
    matched: int


class CrossPoint:
    """Joins packets between points; results for a flow are kept."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._p = p = tables.packets
        first = p.order[p.flow_start]
        six = (p.flags[first] & IPV6) != 0
        a, b = _ends(p, first)
        family = six.astype(np.uint64) << np.uint64(56)
        self._flow_point = p.points(first)
        self._conversation = _numbers(np.minimum(a, b) | family | p.proto[first].astype(np.uint64) << np.uint64(48),
                                      np.maximum(a, b))
        self._hosts = _numbers(np.minimum(a >> np.uint64(16), b >> np.uint64(16)) | family,
                               np.maximum(a >> np.uint64(16), b >> np.uint64(16)))
        self._host_order = np.argsort(self._hosts, kind="stable")
        self._host_start = np.searchsorted(self._hosts[self._host_order], np.arange(self._hosts.max(initial=-1) + 2))
        self._host_seen: dict[tuple[int, int, int], bool] = {}
        # Where the snap length cut packets at some point, only what every point has of the payload can be compared.
        self._common_bytes = np.full(int(self._conversation.max(initial=-1)) + 1, PAYLOAD_BYTES, np.uint8)
        cut = np.flatnonzero(((p.flags & CUT) != 0) & (p.length < PAYLOAD_BYTES) & (p.flow < len(first)))
        np.minimum.at(self._common_bytes, self._conversation[p.flow[cut]], p.length[cut].astype(np.uint8))
        self._span: dict[int, tuple[int, int]] = {}
        self._salt = np.array([secrets.randbits(64) | 1 for _ in range(8 + PAYLOAD_BYTES // 8)], np.uint64)
        self._at: dict[int, I64] = {}
        self._seen: dict[tuple[int, int], Bools] = {}
        self._alignments: dict[tuple[int, int], _Alignment] = {}

    # What detectors ask.

    def missing_at(self, rows: npt.ArrayLike, other_point: str) -> Bools:
        """For each packet row: ``other_point`` has no such packet. ValueError for an unknown point.

        Says nothing about whether that point could have seen it: ask ``covers`` too.
        """
        return ~self._found(np.asarray(rows, np.int64), self._number(other_point))

    def covers(self, point: str, rows: npt.ArrayLike) -> Bools:
        """For each packet row of another point: would ``point`` have shown it?

        It would when it captured at that time, and packets of the same flow, or else of the same two hosts, were
        seen at both points. ValueError for an unknown point.
        """
        wanted = np.asarray(rows, np.int64)
        other = self._number(point)
        p = self._p
        out = np.zeros(len(wanted), np.bool_)
        known = np.flatnonzero(p.flow[wanted] < len(p.flow_start))
        flows, back = np.unique(p.flow[wanted[known]].astype(np.int64), return_inverse=True)
        self._compare(flows, other)
        out[known] = np.array([self._visible(f, other) for f in flows.tolist()], np.bool_)[back]
        return out & self._running(wanted, other)

    def offset_ns(self, point_a: str, point_b: str) -> int | None:
        """What to add to times of ``point_a`` to compare them with ``point_b``.

        The median over packets seen at both, so it contains the way between them; None when no packet was.
        """
        return self._align(self._number(point_a), self._number(point_b)).offset

    def matched(self, point_a: str, point_b: str) -> int:
        """Packets that ``offset_ns`` rests on."""
        return self._align(self._number(point_a), self._number(point_b)).matched

    def loss_ratio(self, point_a: str, point_b: str, exclude: npt.ArrayLike = ()) -> float | None:
        """Share of the packets of ``point_a`` that ``point_b`` lacks, in flows of both and while both captures ran.

        The rows in ``exclude`` do not count; None when there are none left to count.
        """
        a, b = self._number(point_a), self._number(point_b)
        flows = self._common(a, b, RATIO_PACKETS)
        if not len(flows):
            return None
        rows = _rows_of(self._p, flows).astype(np.int64)
        rows = rows[~np.isin(rows, np.asarray(exclude, np.int64))]
        rows = rows[self._running(rows, b)]
        return float((~self._found(rows, b)).mean()) if len(rows) else None

    # How it is found.

    def _number(self, point: str) -> int:
        if point not in self._tables.points:
            raise ValueError(f"no capture point {point!r}; there are {', '.join(self._tables.points)}")
        return self._tables.points.index(point)

    def _flow_at(self, point: int) -> I64:
        """For each conversation, its flow at a point, -1 without."""
        if point not in self._at:
            table = np.full(int(self._conversation.max(initial=-1)) + 1, -1, np.int64)
            flows = np.flatnonzero(self._flow_point == point)
            table[self._conversation[flows]] = flows
            self._at[point] = table
        return self._at[point]

    def _common(self, a: int, b: int, budget: int) -> I64:
        """Flows of point ``a`` that ``b`` has too: small ones first, as many as the budget allows, at least one."""
        flows = np.flatnonzero(self._flow_point == a)
        flows = flows[self._flow_at(b)[self._conversation[flows]] >= 0]
        size = self._p.flow_size[flows] + self._p.flow_size[self._flow_at(b)[self._conversation[flows]]]
        order = np.argsort(size, kind="stable")
        keep = np.cumsum(size[order]) <= budget
        keep[:1] = True
        return flows[order[keep]].astype(np.int64)

    def _align(self, a: int, b: int) -> _Alignment:
        if (a, b) not in self._alignments:
            flows = self._common(a, b, ALIGN_PACKETS) if a != b else np.zeros(0, np.int64)
            offset, matched = None, 0
            if len(flows):
                peers = self._flow_at(b)[self._conversation[flows]]
                mine, theirs = _rows_of(self._p, flows), _rows_of(self._p, peers)
                hash_a, hash_b = self._hash(mine), self._hash(theirs)
                value_a, at_a, count_a = np.unique(hash_a, return_index=True, return_counts=True)
                value_b, at_b, count_b = np.unique(hash_b, return_index=True, return_counts=True)
                _, i, j = np.intersect1d(value_a[count_a == 1], value_b[count_b == 1], True, True)
                matched = len(i)
                if matched:
                    ts = self._p.ts
                    delta = ts[theirs[at_b[count_b == 1][j]]] - ts[mine[at_a[count_a == 1][i]]]
                    offset = int(np.sort(delta)[matched // 2])
            self._alignments[a, b] = _Alignment(offset, matched)
        return self._alignments[a, b]

    def _offsets(self, points: npt.NDArray[np.uint8], other: int) -> I64:
        out = np.zeros(len(points), np.int64)
        for point in np.unique(points).tolist():
            if point != other:
                out[points == point] = self._align(point, other).offset or 0
        return out

    def _found(self, rows: I64, other: int) -> Bools:
        p = self._p
        out = np.ones(len(rows), np.bool_)
        if not len(rows):
            return out
        flow = p.flow[rows].astype(np.int64)
        ask = np.flatnonzero((flow < len(p.flow_start)) & (p.points(rows) != other))
        wanted = np.unique(flow[ask])
        self._compare(wanted, other)
        order = ask[np.argsort(flow[ask], kind="stable")]
        begin = np.searchsorted(flow[order], wanted, side="left").tolist()
        end = np.searchsorted(flow[order], wanted, side="right").tolist()
        for f, a, b in zip(wanted.tolist(), begin, end, strict=True):
            mine = order[a:b]
            out[mine] = self._seen[f, other][np.searchsorted(p.flow_rows(f), rows[mine])]
        return out

    def _running(self, rows: I64, other: int) -> Bools:
        """Was the other point capturing at the time of each row?"""
        p = self._p
        if other not in self._span:
            ts = p.ts[p.files.all_points() == other]
            self._span[other] = (int(ts.min()), int(ts.max())) if len(ts) else (1, 0)
        low, high = self._span[other]
        ts = p.ts[rows] + self._offsets(p.points(rows), other)
        inside: Bools = (ts >= low) & (ts <= high)
        return inside

    def _visible(self, flow: int, other: int) -> bool:
        """Do packets of this flow, or of its two hosts, reach the other point?"""
        if self._seen[flow, other].any():
            return True
        hosts, here = int(self._hosts[flow]), int(self._flow_point[flow])
        key = (hosts, here, other)
        if key not in self._host_seen:
            same = self._host_order[self._host_start[hosts] : self._host_start[hosts + 1]]
            same = same[(self._flow_point[same] == here) & (self._flow_at(other)[self._conversation[same]] >= 0)]
            same = same[np.argsort(self._p.flow_size[same], kind="stable")][:_SIBLINGS]
            self._compare(same, other)
            self._host_seen[key] = any(bool(self._seen[f, other].any()) for f in same.tolist())
        return self._host_seen[key]

    def _compare(self, flows: I64, other: int) -> None:
        """Fills ``_seen`` for flows: which of their packets the other point has, each of its packets used once."""
        p = self._p
        todo = np.array([f for f in flows.tolist() if (f, other) not in self._seen], np.int64)
        if not len(todo):
            return
        peers = self._flow_at(other)[self._conversation[todo]]
        for f in todo[peers < 0].tolist():
            self._seen[f, other] = np.zeros(int(p.flow_size[f]), np.bool_)
        todo, peers = todo[peers >= 0], peers[peers >= 0]
        if not len(todo):
            return
        mine, theirs = _rows_of(p, todo), _rows_of(p, peers)
        times = p.ts[mine] + self._offsets(p.points(mine), other)
        found = _pair(self._hash(mine), times, self._hash(theirs), p.ts[theirs])
        start = 0
        for f, g in zip(todo.tolist(), peers.tolist(), strict=True):
            seen = found[start : start + int(p.flow_size[f])]
            start += int(p.flow_size[f])
            if p.proto[p.order[p.flow_start[f]]] == TCP and not seen.all():
                seen = seen | _resegmented(p, p.flow_rows(f), p.flow_rows(g), seen)
            self._seen[f, other] = seen

    def _hash(self, rows: U32) -> U64:
        """A number for each packet; equal at all points where nothing translates it. Not for storing: salted anew."""
        out = np.empty(len(rows), np.uint64)
        for at in range(0, len(rows), _CHUNK):
            out[at : at + _CHUNK] = self._hash_chunk(rows[at : at + _CHUNK])
        return out

    def _hash_chunk(self, rows: U32) -> U64:
        p = self._p
        conversation = self._conversation[p.flow[rows]]
        a, b = _ends(p, rows)
        parts = [conversation.astype(np.uint64), (a < b).astype(np.uint64), p.wire[rows].astype(np.uint64),
                 p.ip_id[rows].astype(np.uint64)]
        column, known = _tcp_column(p, rows)
        if len(p.tcp.row):
            parts += [np.where(known, values[column], 0).astype(np.uint64)
                      for values in (p.tcp.seq, p.tcp.ack, p.tcp.flags)]
        head = p.head(rows, PAYLOAD_BYTES)
        common = self._common_bytes[conversation]
        if (common < PAYLOAD_BYTES).any():
            head = head * (np.arange(PAYLOAD_BYTES) < common[:, None])
        words = np.ascontiguousarray(head, np.uint8).view(np.uint64)
        out = np.zeros(len(rows), np.uint64)
        for salt, part in zip(self._salt, [*parts, *words.T], strict=False):
            out = (out ^ part) * salt
            out ^= out >> np.uint64(31)
        return out


def _tcp_column(p: Packets, rows: U32) -> tuple[I64, Bools]:
    """Index of each row in ``Packets.tcp``, and whether it is there at all."""
    if not len(p.tcp.row):
        return np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
    column = np.minimum(np.searchsorted(p.tcp.row, rows), len(p.tcp.row) - 1)
    return column, p.tcp.row[column] == rows


def _ends(p: Packets, rows: npt.NDArray[np.integer]) -> tuple[U64, U64]:
    return (p.src[rows].astype(np.uint64) << np.uint64(16) | p.sport[rows],
            p.dst[rows].astype(np.uint64) << np.uint64(16) | p.dport[rows])


def _numbers(*keys: U64) -> I64:
    """A number for each distinct combination of keys."""
    order, _, size = partition(*keys)
    out = np.empty(len(keys[0]), np.int64)
    out[order] = np.repeat(np.arange(len(size)), size)
    return out


def _rows_of(p: Packets, flows: I64) -> U32:
    return np.concatenate([p.flow_rows(f) for f in flows.tolist()]) if len(flows) else np.zeros(0, np.uint32)


def _pair(hash_a: U64, time_a: I64, hash_b: U64, time_b: I64) -> Bools:
    """Which packets of a have their own counterpart in b, within the window."""
    order_a = np.lexsort((time_a, hash_a))
    order_b = np.lexsort((time_b, hash_b))
    sorted_b = hash_b[order_b]
    value, start, count = np.unique(hash_a[order_a], return_index=True, return_counts=True)
    first = np.searchsorted(sorted_b, value, side="left")
    there = np.searchsorted(sorted_b, value, side="right") - first
    out = np.zeros(len(hash_a), np.bool_)
    # As many here as there: pair them in order of time.
    even = there == count
    group = np.repeat(np.arange(len(value)), count)
    rank = np.arange(len(group)) - start[group]
    mine = np.flatnonzero(even[group])
    gap = time_a[order_a[mine]] - time_b[order_b[first[group[mine]] + rank[mine]]]
    out[order_a[mine]] = np.abs(gap) <= WINDOW_NS
    for g in np.flatnonzero(~even & (there > 0)).tolist():
        a = order_a[start[g] : start[g] + count[g]]
        b = order_b[first[g] : first[g] + there[g]]
        out[a] = _nearest(time_a[a], time_b[b])
    return out


def _nearest(time_a: I64, time_b: I64) -> Bools:
    """Pairs identical packets of unequal number: those closest in time belong together."""
    out = np.zeros(len(time_a), np.bool_)
    if len(time_a) * len(time_b) > _PAIRS:
        j = 0
        for i, at in enumerate(time_a.tolist()):
            while j < len(time_b) and time_b[j] < at - WINDOW_NS:
                j += 1
            if j < len(time_b) and time_b[j] <= at + WINDOW_NS:
                out[i], j = True, j + 1
        return out
    gap = np.abs(time_a[:, None] - time_b[None, :])
    used = np.zeros(len(time_b), np.bool_)
    for pair in np.argsort(gap, axis=None, kind="stable").tolist():
        i, j = divmod(pair, len(time_b))
        if gap[i, j] > WINDOW_NS:
            break
        if not out[i] and not used[j]:
            out[i] = used[j] = True
    return out


def _resegmented(p: Packets, mine: U32, theirs: U32, seen: Bools) -> Bools:
    """TCP payload that the other point holds in other pieces (segmentation offload): rows whose bytes are all there.

    Only where the largest segments differ in size: else a missing packet is a missing packet.
    """
    out = np.zeros(len(mine), np.bool_)
    size_a, size_b = p.wire[mine].astype(np.int64), p.wire[theirs].astype(np.int64)
    if size_a.max(initial=0) == size_b.max(initial=0):
        return out
    forward_a, forward_b = (np.less(*_ends(p, rows)) for rows in (mine, theirs))
    (column_a, known_a), (column_b, known_b) = _tcp_column(p, mine), _tcp_column(p, theirs)
    if not known_a.any() or not known_b.any():
        return out
    seq_a, seq_b = p.tcp.seq[column_a], p.tcp.seq[column_b]
    size_a, size_b = np.where(known_a, size_a, 0), np.where(known_b, size_b, 0)
    for way in (True, False):
        a = np.flatnonzero((forward_a == way) & ~seen & (size_a > 0))
        b = np.flatnonzero((forward_b == way) & (size_b > 0))
        if not len(a) or not len(b):
            continue
        base = seq_b[b[0]]
        begin = (seq_b[b] - base).view(np.int32).astype(np.int64)
        order = np.argsort(begin, kind="stable")
        begin = begin[order]
        end = np.maximum.accumulate(begin + size_b[b][order])
        joins = np.append(True, begin[1:] > end[:-1])  # where a run of bytes without a gap starts
        run_begin, run_end = begin[joins], end[np.append(np.flatnonzero(joins)[1:] - 1, len(end) - 1)]
        want = (seq_a[a] - base).view(np.int32).astype(np.int64)
        run = np.searchsorted(run_begin, want, side="right") - 1
        out[a] = (run >= 0) & (want + size_a[a] <= run_end[np.maximum(run, 0)])
    return out
