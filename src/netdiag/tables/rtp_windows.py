"""Loss, delay variation and late packets of RTP streams over time.

Only packets of the stream's main payload type count for timing: events and comfort noise have timestamps of their own
kind (RFC 4733 §2.2, RFC 3389 §4). Delay variation is arrival minus media time, above its lowest value in the same
window and talk spurt (RFC 3550 §6.4.1 compares neighbours only; a play-out buffer cares for the distance to the
fastest packet).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import rtp_packets, rtp_stats
from netdiag.tables.rtp_packets import StreamPackets
from netdiag.tables.rtp_stats import sizes
from netdiag.tables.schema import U32, empty, schema

if TYPE_CHECKING:
    from netdiag.tables import Tables

SPURTS = 0.2
"""Streams with more markers than this set them without meaning (RFC 3551 §4.1: the first packet after silence)."""
CLOCK_ERROR = 0.2
"""Media time and arrival that differ by more over a window: another clock rate, or no sampling clock (practice)."""
TREND_MS, TREND = 500.0, 0.02
"""Delay that ends so far from where it began, and by such a share of the stream's time, is a clock's (practice)."""
REPEATED = 0.2
"""More packets than this share a timestamp with the one before: frames of video, not of audio (practice)."""
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of one stream."""

    stream: U32
    window: U32
    begin_ns: int
    end_ns: int
    """Last packet in it."""
    packets: U32
    expected: U32
    """Received without duplicates, and lost: a run of missing numbers counts where the packet behind it came."""
    lost: U32
    runs: U32
    timed: U32
    """Packets whose timing counts."""
    steady: bool
    """Its timestamps follow the sampling clock, so that the columns below mean something."""
    jitter_ms: float
    """Mean of the interarrival jitter (RFC 3550 §6.4.1)."""
    p95_ms: float
    """Delay above the fastest packet of the same talk spurt."""
    p99_ms: float
    late: U32
    """Packets that are later than the play-out buffer."""
    returns: U32
    """Times that a packet in time followed a late one: 0 where delay went up and stayed there."""
    bunched: float
    """Share of packets that arrive within a quarter of the usual interval after the one before."""
    base_ms: float
    """Lowest arrival minus media time, from the stream's first packet on: its slope is clock drift (or a new route)."""
    latest: U32
    """Packet with the highest delay."""


@dataclass(slots=True)
class _Timed:
    """Packets whose timing counts."""

    index: I64
    owner: I64
    delay: F64
    """Arrival minus media time from the stream's first packet on, ms."""
    piece: Mask
    """First packet of a talk spurt, or behind a new timestamp base."""
    apart: F64
    """|D| of RFC 3550 §6.4.1."""
    standing: Mask
    """Has the timestamp of the packet before."""


def windows(tables: Tables, streams: pl.DataFrame, seconds: float, buffer_ms: float) -> pl.DataFrame:
    """Stretches of ``seconds`` of each of ``streams`` (rows of ``Tables.rtp``), schema of ``Window``.

    Reads every packet of them: choose first. Windows without packets have no row.
    """
    if not streams.height:
        return empty(Window)
    s = rtp_packets.read(tables, streams)
    e = rtp_packets.extend(s)
    owner = s.owner
    length = int(seconds * 1e9)
    number = np.clip((s.ts_ns - s.ts_ns[s.start][owner]) // length, 0, (1 << 31) - 1)
    # A clock that is set back must not lead back into a window that has ended.
    key = np.maximum.accumulate(owner << 31 | number)
    keys, which = np.unique(key, return_inverse=True)
    count = len(keys)
    of_run = which[e.behind]
    lost = np.bincount(of_run, e.size, count).astype(np.int64)
    fresh = np.bincount(which[e.kept], minlength=count) - np.bincount(which[e.again], minlength=count)
    end = np.zeros(count, np.int64)
    np.maximum.at(end, which, s.ts_ns)
    stream = keys >> 31
    t = _timed(s, streams, owner)
    data = pl.DataFrame({
        "stream": s.stream[stream], "window": keys & (1 << 31) - 1,
        "begin_ns": s.ts_ns[s.start][stream] + (keys & (1 << 31) - 1) * length, "end_ns": end,
        "packets": np.bincount(which, minlength=count), "expected": fresh + lost, "lost": lost,
        "runs": np.bincount(of_run, minlength=count),
        **_timing(s, t, which[t.index], count, streams, stream, buffer_ms)})
    return data.select(pl.col(name).cast(dtype) for name, dtype in schema(Window).items())


def _timed(s: StreamPackets, streams: pl.DataFrame, owner: I64) -> _Timed:
    main = s.payload_type == streams["payload_type"].to_numpy()[owner]
    index = np.flatnonzero(main)
    owner = owner[index]
    rate = streams["clock_rate"].to_numpy().astype(np.float64)[owner]
    first = np.ones(len(index), np.bool_)
    first[1:] = owner[1:] != owner[:-1]
    timestamp = s.timestamp[index]
    advance = np.zeros(len(index), np.int64)
    advance[1:] = (timestamp[1:] - timestamp[:-1]).view(np.int32)
    between = np.zeros(len(index))
    between[1:] = np.diff(s.ts_ns[index]) * 1e-6
    change = between - advance * 1000 / rate
    # A marker begins a talk spurt, whose timestamps some senders do not carry on.
    marked = s.marker[index]
    often = np.bincount(owner, marked, len(s.start)) > SPURTS * np.bincount(owner, minlength=len(s.start))
    piece = first | (np.abs(change) > rtp_stats.TIMESTAMP_BREAK_MS) | marked & ~often[owner]
    apart = np.abs(change)
    apart[piece] = 0.0
    standing = ~first & (advance == 0)
    change[first] = 0.0
    delay = np.cumsum(change)
    delay -= np.repeat(delay[first], np.diff(np.flatnonzero(first), append=len(index)))
    return _Timed(index, owner, delay, piece, apart, standing)


def _timing(s: StreamPackets, t: _Timed, which: I64, count: int, streams: pl.DataFrame, stream: I64,
            buffer_ms: float) -> dict[str, npt.NDArray[np.generic]]:
    """The columns from ``timed`` on. ``which``: window of each timed packet."""
    level = rtp_stats.smooth(np.flatnonzero(np.append(True, t.owner[1:] != t.owner[:-1])), t.apart) if len(
        t.index) else t.apart
    timed = np.bincount(which, minlength=count)
    many = np.maximum(timed, 1)
    new = np.ones(len(which), np.bool_)
    new[1:] = which[1:] != which[:-1]
    begin = np.flatnonzero(new)
    part = np.flatnonzero(new | t.piece)
    above = t.delay - np.repeat(np.minimum.reduceat(t.delay, part), sizes(part, len(which))) if len(which) else t.delay
    order = np.lexsort((above, which))
    line = above[order]
    out: dict[str, npt.NDArray[np.generic]] = {"timed": timed}
    mine = which[begin]
    size = sizes(begin, len(which))

    def spread(values: npt.NDArray[np.generic], blank: float = 0.0) -> F64:
        column = np.full(count, blank)
        column[mine] = values
        return column

    ts = s.ts_ns[t.index]
    last = begin + size - 1
    arrival = (ts[last] - ts[begin]) * 1e-6
    moved = t.delay[last] - t.delay[begin]  # arrival minus media time over the window
    clock = np.abs(moved) <= CLOCK_ERROR * np.maximum(arrival, 1.0)
    if len(which):
        clock &= np.add.reduceat(t.standing, begin, dtype=np.int64) <= REPEATED * size
    out["steady"] = (spread(clock) > 0) & ~_trend(t, ts, len(s.start))[stream]
    out["jitter_ms"] = np.bincount(which, level, count) / many
    for name, share in (("p95_ms", 0.95), ("p99_ms", 0.99)):
        out[name] = spread(line[begin + np.ceil(share * size).astype(np.int64) - 1])
    out["late"] = np.bincount(which[above > buffer_ms], minlength=count)
    tardy = above > buffer_ms
    back = np.zeros(len(which), np.bool_)
    back[1:] = tardy[:-1] & ~tardy[1:] & (which[1:] == which[:-1])
    out["returns"] = np.bincount(which[back], minlength=count)
    usual = np.zeros(len(which))
    usual[1:] = np.diff(ts) * 1e-6
    interval = ((streams["last_ns"] - streams["first_ns"]) / streams["packets"].cast(pl.Int64)).to_numpy() * 1e-6
    close = ~t.piece & (usual < interval[t.owner] / 4)
    out["bunched"] = np.bincount(which[close], minlength=count) / many
    out["base_ms"] = spread(np.minimum.reduceat(t.delay, begin)) if len(which) else spread(t.delay)
    out["latest"] = spread(s.packet[t.index[order[last]]]).astype(np.int64)
    return out


def _trend(t: _Timed, ts: I64, count: int) -> Mask:
    """Which streams have a media clock that goes at another rate than it should."""
    out = np.zeros(count, np.bool_)
    if len(t.owner):
        begin = np.flatnonzero(np.append(True, t.owner[1:] != t.owner[:-1]))
        last = np.append(begin[1:], len(t.owner)) - 1
        moved = np.abs(t.delay[last] - t.delay[begin])
        out[t.owner[begin]] = (moved > TREND_MS) & (moved > TREND * (ts[last] - ts[begin]) * 1e-6)
    return out


def drift_ppm(stretches: pl.DataFrame) -> pl.DataFrame:
    """``stream`` and ``drift_ppm`` of windows in order: how much faster the receiver's clock runs than the sender's.

    Slope of the lowest delays between the first and the last window, of streams with three windows or more.
    """
    timed = stretches.filter((pl.col("timed") > 0) & pl.col("steady"))
    first, last = pl.col("base_ms").first(), pl.col("base_ms").last()
    span = (pl.col("begin_ns").last() - pl.col("begin_ns").first()) / 1e6
    return timed.group_by("stream", maintain_order=True).agg(drift=(last - first) / span * 1e6, n=pl.len()).filter(
        pl.col("n") >= 3).select("stream", drift_ppm="drift")
