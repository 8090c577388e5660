"""Shape of the loss in RTP streams: bursts, the two-state model behind them, and loss over time.

Sources: RFC 3611 §4.7.2 (bursts and gaps with Gmin), G.107 §3.5 and §7.5 (burst ratio), RFC 3550 A.3 (loss).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import rtp_packets
from netdiag.tables.rtp_packets import Extended, StreamPackets
from netdiag.tables.rtp_stats import sizes
from netdiag.tables.schema import U32, empty, schema

if TYPE_CHECKING:
    from netdiag.tables import Tables

G_MIN = 16
"""Packets received in a row that end a burst (RFC 3611 §4.7.2, recommended value)."""
LONG_RUN = 3
"""Missing packets in a row that concealment cannot bridge: 60 ms of 20 ms packets (G.711 Appendix I fades out then)."""

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LossShape:
    """How one stream loses packets; shares are 0 to 1."""

    stream: U32
    expected: int
    lost: int
    runs: U32
    """Runs of missing numbers."""
    long_runs: U32
    """Runs of three or more."""
    longest: U32
    p: float
    """Gilbert model: chance that a packet is lost when the one before it came (runs / received)."""
    q: float
    """Chance that a packet comes when the one before it was lost (runs / lost); 1 without loss."""
    burst_ratio: float
    """BurstR of G.107: mean run over the mean run of random loss of the same share; 1 without loss."""
    bursts: U32
    """RFC 3611 §4.7.2: stretches with two losses or more and never Gmin packets received in a row."""
    burst_density: float
    """Share lost inside bursts, 0 without any."""
    burst_ms: float
    """Mean length of a burst."""
    gap_density: float
    """Share lost outside bursts."""
    worst_packet: U32
    """Packet behind the longest run; the first packet of the stream without loss."""
    worst_10s: float
    """Highest share lost in 10 s of sequence, of windows with at least 50 packets expected; else the whole share."""
    worst_10s_ns: int
    """Begin of those 10 s."""
    worst_10s_lost: U32


WINDOW_NS = 10_000_000_000
"""Stretch over which loss is told (practice: what RTP-LOSS and RTP-MOS-LOW of the catalogue use)."""
ENOUGH = 50
"""Packets expected before the share of a window means anything (practice)."""


def shapes(tables: Tables, streams: pl.DataFrame) -> pl.DataFrame:
    """Loss of ``streams`` (rows of ``Tables.rtp``), in their order; schema of ``LossShape``.

    Reads every packet of them: choose first.
    """
    if not streams.height:
        return empty(LossShape)
    s = rtp_packets.read(tables, streams)
    e = rtp_packets.extend(s)
    count = len(s.start)
    owner = s.owner
    of_run = owner[e.behind]

    def total(weights: I64 | None = None) -> I64:
        return np.bincount(of_run, weights, count).astype(np.int64)

    received = np.bincount(owner[e.kept], minlength=count) - np.bincount(owner[e.again], minlength=count)
    lost, runs = total(e.size), total()
    longest = np.zeros(count, np.int64)
    np.maximum.at(longest, of_run, e.size)
    share = lost / (lost + received)
    p, q = runs / received, runs / np.maximum(lost, 1)
    worst = s.packet[s.start].astype(np.int64)
    for i in np.flatnonzero(e.size == longest[of_run])[::-1]:
        worst[of_run[i]] = s.packet[e.behind[i]]
    ptime = (s.ts_ns[s.start + sizes(s.start, len(s.packet)) - 1] - s.ts_ns[s.start]) / np.maximum(
        lost + received - 1, 1) * 1e-6
    bursts, inside, spread = _bursts(e, of_run, count)
    window = worst_windows(s, e, owner)
    data = pl.DataFrame({
        "stream": s.stream, "expected": lost + received, "lost": lost, "runs": runs,
        "long_runs": np.bincount(of_run[e.size >= LONG_RUN], minlength=count), "longest": longest, "p": p,
        "q": np.where(lost > 0, q, 1.0), "burst_ratio": np.where(lost > 0, (1 - share) / np.where(q > 0, q, 1), 1.0),
        "bursts": bursts, "burst_density": inside / np.maximum(spread, 1), "burst_ms": spread * ptime / np.maximum(
            bursts, 1), "gap_density": (lost - inside) / np.maximum(lost + received - spread, 1),
        "worst_packet": worst, **window})
    return data.select(pl.col(name).cast(dtype) for name, dtype in schema(LossShape).items())


SILENT_NS = 5_000_000_000
"""A point that captures nothing at all for so long stood still (practice; RTCP alone comes so often, RFC 3550 §6.2)."""
SILENT_RUN = 25
"""Packets missing in such a time, of the slowest telephony streams at least (practice: 200 ms a packet)."""

NEW_BASE = (0.5, 1000.0)
"""Media time behind missing packets, as a multiple of theirs, beyond which it has a new base: silence makes it longer,
nothing makes it shorter (practice; 1000 times is minutes)."""


def unobserved(tables: Tables, streams: pl.DataFrame) -> dict[int, int]:
    """Stream to missing numbers that are no loss: the capture point captured nothing of anybody meanwhile, or they are
    ``renumbered``."""
    return _no_loss(tables, streams, silence=True)


def renumbered(tables: Tables, streams: pl.DataFrame) -> dict[int, int]:
    """Stream to missing numbers that nobody sent: numbers and time stamps both went on elsewhere, as after hold
    (RFC 3550 A.1 sees a step of 3000 and more only)."""
    return _no_loss(tables, streams, silence=False)


def _no_loss(tables: Tables, streams: pl.DataFrame, silence: bool) -> dict[int, int]:
    chosen = streams.filter(pl.col("max_gap") >= SILENT_RUN)
    if not chosen.height:
        return {}
    s = rtp_packets.read(tables, chosen)
    e = rtp_packets.extend(s)
    none = _anew(s, e)
    if silence:
        p = tables.packets
        # Rows of a point stand in order of time, so the row before is what was captured last.
        row = s.packet[e.behind].astype(np.int64)
        none |= (row > 0) & (p.ts[row] - p.ts[row - 1] >= SILENT_NS)
    none &= e.size >= SILENT_RUN
    missing = np.bincount(s.owner[e.behind][none], e.size[none], len(s.start)).astype(np.int64)
    return {stream: lost for stream, lost in zip(s.stream.tolist(), missing.tolist(), strict=True) if lost}


def _anew(s: StreamPackets, e: Extended) -> npt.NDArray[np.bool_]:
    """For each run of missing numbers: do time stamps behind it not fit so many packets of this stream?"""
    out = np.zeros(len(e.size), np.bool_)
    owner = s.owner[e.behind]
    advance = (s.timestamp[e.behind] - s.timestamp[np.maximum(e.behind - 1, 0)]).view(np.int32)
    streams = np.unique(owner[e.size >= SILENT_RUN])
    ends = np.searchsorted(owner, streams), np.searchsorted(owner, streams, "right")
    for i, first, last in zip(streams.tolist(), *(end.tolist() for end in ends), strict=True):
        part, mine = s.part(i), slice(first, last)
        steps = np.diff(s.timestamp[part]).view(np.int32)[np.diff(s.sequence[part]) == 1]
        step = float(np.median(steps)) if len(steps) else 0.0
        if step > 0:  # packets of one video frame share their time stamp
            ratio = advance[mine] / ((e.size[mine] + 1) * step)
            out[mine] = (ratio < NEW_BASE[0]) | (ratio > NEW_BASE[1])
    return out


def _bursts(e: Extended, of_run: I64, count: int) -> tuple[I64, I64, I64]:
    """For each stream: bursts, packets lost in them, and sequence numbers that they span (RFC 3611 §4.7.2)."""
    if not len(e.first):
        return np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
    end = e.first + e.size
    fresh = np.ones(len(e.first), np.bool_)
    fresh[1:] = (e.first[1:] - end[:-1] >= G_MIN) | (of_run[1:] != of_run[:-1])
    begin = np.flatnonzero(fresh)
    lost = np.add.reduceat(e.size, begin)
    span = end[np.append(begin[1:], len(end)) - 1] - e.first[begin]
    several = lost > 1
    owner = of_run[begin][several]
    return (np.bincount(owner, minlength=count), np.bincount(owner, lost[several], count).astype(np.int64),
            np.bincount(owner, span[several], count).astype(np.int64))


def worst_windows(s: StreamPackets, e: Extended, owner: I64) -> dict[str, npt.NDArray[np.generic]]:
    """The worst 10 s of each stream, in windows that begin with its first packet."""
    count = len(s.start)
    window = (s.ts_ns - s.ts_ns[s.start][owner]) // WINDOW_NS
    window = np.minimum(np.maximum(window, 0), 1 << 30)
    key = owner << 31 | window
    keys, index = np.unique(key[e.kept], return_inverse=True)
    received = np.bincount(index)
    at = np.searchsorted(keys, key[e.behind])
    lost = np.bincount(at, e.size, len(keys)).astype(np.int64)
    whole = received + lost
    share = np.where(whole >= ENOUGH, lost / whole, 0.0)
    mine = keys >> 31
    best = np.lexsort((-share, mine))
    first = best[np.searchsorted(mine[best], np.arange(count))]
    return {"worst_10s": share[first],
            "worst_10s_ns": s.ts_ns[s.start] + (keys[first] & (1 << 31) - 1) * WINDOW_NS,
            "worst_10s_lost": lost[first]}
