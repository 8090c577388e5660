"""What the packets say about the clocks that stamped them: between points, and inside the capture of one.

``Tables.clocks`` gives a ``Clocks``; each part is made when it is asked for. Pairs of points: ``clock_pairs``.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import clock_pairs
from netdiag.tables.packets import FORWARD, I64, KIND_RTP, TCP, Packets
from netdiag.tables.quality import BACKWARD_NS

if TYPE_CHECKING:
    from netdiag.tables import Tables

STEPS = 64
"""Places of a point where time goes back that are looked at (practice)."""
AROUND = 512
"""Packets before and behind such a place that are compared (practice)."""
NEAR = 3000
"""RTP sequence numbers ahead that still are the same stream: MAX_DROPOUT of RFC 3550 A.1."""
REPORTS = 5
"""Sender reports of a source before its clock is judged (practice)."""
REPORT_SPAN_NS = 30_000_000_000
"""Shortest time between the first and last of them: the jitter of a report must stay far below the drift (practice)."""
SENDERS = 256
"""Sources whose reports are looked at, those with most of them first (practice)."""


class BackStep(NamedTuple):
    """A packet that is stamped earlier than the packet before it in the same file, by more than 1 ms."""

    point: str
    row: int
    """The first packet behind the step; ``row - 1`` is the last before it."""
    size_ns: int
    """How far time goes back."""
    resumed: bool
    """Time goes on from there and passes the old mark without a jump; False where it jumps ahead again, or ends."""
    onward: int
    """Directions of flows whose numbers go on across it: the packets are in order, and the clock is not."""
    against: int
    """Directions of flows whose numbers go back with the time: the packets are out of order."""
    hosts: int
    """Pairs of hosts among those that go on."""


class SenderClock(NamedTuple):
    """The clock of one source of RTCP sender reports against the clock of the capture."""

    point: str
    source: str
    ssrc: int
    reports: int
    span_ns: int
    gain_ppm: float
    """Gain of the sender's clock over the capture's, in millionths."""
    error_ppm: float
    """Half of the range in which that gain lies, from the scatter of the reports."""
    rows: tuple[int, int]
    """Packets of the first and the last report."""


class Clocks:
    """Facts about clocks, each built on first use."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    @cached_property
    def pairs(self) -> tuple[clock_pairs.ClockPair, ...]:
        """Every two capture points."""
        return clock_pairs.build(self._tables)

    @cached_property
    def back_steps(self) -> tuple[BackStep, ...]:
        """Where time goes back inside one file, the first STEPS of each point."""
        tables = self._tables
        quality = tables.quality.filter(pl.col("backward_steps") > 0)
        return tuple(step for point in quality["point"].to_list() for step in _back_steps(tables, point))

    @cached_property
    def senders(self) -> tuple[SenderClock, ...]:
        """Sources with enough sender reports to tell their clock from the capture's."""
        return _senders(self._tables)


def _back_steps(tables: Tables, point: str) -> list[BackStep]:
    p = tables.packets
    mine = np.flatnonzero(p.files.all_points() == tables.points.index(point))
    begin, end = int(mine[0]), int(mine[-1]) + 1  # rows of a point stand together
    ts = p.ts[begin:end]
    capture, _ = p.locate(mine)
    places = np.flatnonzero((np.diff(ts) < -BACKWARD_NS) & (capture[1:] == capture[:-1])) + 1
    out = []
    for at in places[:STEPS].tolist():
        size = int(ts[at - 1] - ts[at])
        ahead = np.flatnonzero(ts[at:] >= ts[at - 1])
        resumed = len(ahead) > 0 and int(ts[at + ahead[0]] - ts[at + ahead[0] - 1]) < size
        before = np.arange(max(begin, begin + at - AROUND), begin + at)
        behind = np.arange(begin + at, min(end, begin + at + AROUND))
        out.append(BackStep(point, begin + at, size, resumed, *_continuity(p, before, behind)))
    return out


def _continuity(p: Packets, before: I64, behind: I64) -> tuple[int, int, int]:
    """Directions of flows that go on from ``before`` to ``behind``, those that go back, and host pairs that go on."""
    old, new = _progress(p, before), _progress(p, behind)
    on = back = 0
    hosts = set()
    for key in old.keys() & new.keys():
        moved = [(b - a + 2**31) % 2**32 - 2**31 for a, b in zip(old[key][1], new[key][0], strict=True)]
        if any(m < 0 for m in moved):
            back += 1
        elif any(moved) and max(moved) < 2**30:
            on += 1
            row = int(p.order[p.flow_start[key[0]]])
            hosts.add(frozenset((int(p.src[row]), int(p.dst[row]))))
    return on, back, len(hosts)


def _progress(p: Packets, rows: I64) -> dict[tuple[int, bool, int], tuple[list[int], list[int]]]:
    """For each direction of a flow (with SSRC), its numbers in its first and in its last packet of ``rows``."""
    out: dict[tuple[int, bool, int], tuple[list[int], list[int]]] = {}
    rows = rows[p.flow[rows] < len(p.flow_start)]
    media = rows[(p.kind[rows] == KIND_RTP) & (p.length[rows] >= 12)]
    head = dict(zip(media.tolist(), p.head(media, 12).tolist(), strict=True))
    for row in rows.tolist():
        if row in head:
            b = head[row]
            if 192 <= b[1] <= 223:  # RTCP: no sequence number (RFC 5761 §4)
                continue
            # 16 bits at the top of 32: differences wrap as they should
            numbers, ssrc = [(b[2] << 8 | b[3]) << 16], int.from_bytes(bytes(b[8:12]), "big")
        elif p.proto[row] == TCP and len(p.tcp.row):
            column = int(np.searchsorted(p.tcp.row, row))
            if column == len(p.tcp.row) or p.tcp.row[column] != row or p.tcp.flags[column] & 4:
                continue  # a reset (RFC 9293 §3.5.2) may have any number
            numbers, ssrc = [int(p.tcp.seq[column]), int(p.tcp.ack[column])], 0
        else:
            continue
        key = int(p.flow[row]), bool(p.flags[row] & FORWARD), ssrc
        out[key] = (out[key][0] if key in out else numbers, numbers)
    return out


def _senders(tables: Tables) -> tuple[SenderClock, ...]:
    # An NTP timestamp of 0 says that the sender has no clock (RFC 3550 §6.4.1).
    reports = tables.rtcp.filter(pl.col("sender_ntp").is_not_null() & (pl.col("sender_ntp") != 0)).unique(
        ["packet", "sender_ssrc"], keep="first", maintain_order=True)
    sources = reports.group_by("point", "source", "sender_ssrc", maintain_order=True).agg(
        "ts_ns", "sender_ntp", "packet", number=pl.len()).filter(pl.col("number") >= REPORTS)
    out = []
    for row in sources.sort("number", descending=True, maintain_order=True).head(SENDERS).iter_rows(named=True):
        at = np.array(row["ts_ns"], np.int64)
        ntp = np.array(row["sender_ntp"], np.uint32)
        t = (at - at[0]).astype(np.float64)
        if t[-1] < REPORT_SPAN_NS or (np.diff(t) <= 0).any():
            continue
        # The middle 32 bits count 1/65536 s and wrap after 18 hours.
        told = np.concatenate([np.zeros(1), np.cumsum(np.diff(ntp).view(np.int32).astype(np.float64))]) * (1e9 / 65536)
        gain, error = _gain(t, told - t)
        out.append(SenderClock(row["point"], row["source"], row["sender_ssrc"], len(at), int(t[-1]), gain, error,
                               (row["packet"][0], row["packet"][-1])))
    return tuple(out)


def _gain(t: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Slope of y over t and its error, both in millionths; 512 points at most."""
    step = -(-len(t) // 512)
    t, y = t[::step], y[::step]
    slope = clock_pairs.theil_sen(t, y)
    rest = y - slope * t
    scatter = float(np.median(np.abs(rest - np.median(rest)))) + 1e9 / 65536
    return slope * 1e6, 3 * scatter / float(t[-1]) * 1e6
