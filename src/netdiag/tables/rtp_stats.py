"""Sequence and jitter statistics of many RTP streams at once (RFC 3550 A.1, A.3, A.8).

All functions take packets stream by stream, in order of arrival inside a stream; ``start`` holds the index
of the first packet of each stream, ascending, and every stream has at least one packet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MAX_DROPOUT = 3000
"""A step forward of this many sequence numbers or more is no gap but a restart (RFC 3550 A.1)."""
MAX_MISORDER = 100
"""A step back of this many sequence numbers or more is no late packet but a restart (RFC 3550 A.1)."""
GAIN = 16
"""Noise reduction of the jitter estimate (RFC 3550 §6.4.1)."""
TIMESTAMP_BREAK_MS = 10_000.0
"""Media clock and arrival that part by more are a new timestamp base (hold, other source), not delay (practice)."""

# (1 - 1/16) ** k is below the resolution of a double from k = 569 on: what came before is forgotten.
_DECAY = np.append((1 - 1 / GAIN) ** np.arange(1, 600), 0.0)


@dataclass(slots=True)
class Sequences:
    """Loss and order, one array element a stream."""

    expected: I64
    """Sequence numbers from the lowest to the highest, summed over restarts."""
    lost: I64
    """Expected and never received."""
    duplicates: I64
    reordered: I64
    """Arrived after a higher sequence number, duplicates not counted (RFC 4737 §3)."""
    max_gap: I64
    """Longest run of sequence numbers that never arrived."""
    gaps: I64
    """Number of such runs."""
    restarts: I64
    """Times the sequence went on elsewhere: two packets near each other, far from those before (RFC 3550 A.1)."""
    strays: I64
    """Single packets far from those before and behind: in no other count."""
    kept: Mask | None
    """Packets that are not strays; None when all are kept."""
    segment: I64
    """First kept packet of each run between restarts, an index among the kept packets."""
    kept_start: I64
    """``start`` among the kept packets."""


def sizes(start: I64, total: int) -> I64:
    """Packets of each stream."""
    return np.diff(start, append=total)


def _steps(start: I64, sequence: U16) -> tuple[npt.NDArray[np.int16], Mask]:
    """Step from the packet before (0 at the start), and whether it is too wide to be loss or late arrival."""
    step = np.zeros(len(sequence), np.int16)
    np.subtract(sequence[1:], sequence[:-1], out=step[1:].view(np.uint16))
    step[start] = 0
    return step, (step >= MAX_DROPOUT) | (step <= -MAX_MISORDER)


def sequence_statistics(start: I64, sequence: U16) -> Sequences:
    """Loss, duplicates and order of each stream from its 16-bit sequence numbers.

    A restart begins a new base and costs no loss: RFC 3550 A.1 with the condition "the next packet is near" in place
    of "the next packet is exactly one higher", so that a restart whose second packet is lost is seen too.
    """
    total = len(sequence)
    size = sizes(start, total)
    step, jump = _steps(start, sequence)
    kept = None
    strays = np.zeros(len(start), np.int64)
    if jump.any():
        leaves = np.ones(total, np.bool_)
        leaves[:-1] = jump[1:]
        leaves[start[1:] - 1] = True
        stray = jump & leaves
        if stray.any():
            strays = np.add.reduceat(stray, start, dtype=np.int64)
            kept = ~stray
            sequence = sequence[kept]
            size = size - strays
            start = np.cumsum(size) - size
            step, jump = _steps(start, sequence)
    total = len(sequence)
    first = jump
    first[start] = True
    segment = np.flatnonzero(first)
    step[segment] = 0
    extended = np.cumsum(step, dtype=np.int64)
    low = np.minimum.reduceat(extended, segment)
    span = np.maximum.reduceat(extended, segment) - low + 1
    # Segments are laid out one behind the other on one number line: later segments are higher, none overlap.
    extended += np.repeat(np.cumsum(span) - span - low, sizes(segment, total))
    late = np.zeros(total, np.bool_)
    late[1:] = extended[1:] <= np.maximum.accumulate(extended)[:-1]
    if late.any():
        extended.sort(kind="stable")  # nearly sorted: a merge sort is linear there
    hole = np.zeros(total, np.int64)
    np.subtract(extended[1:], extended[:-1], out=hole[1:])
    hole -= 1
    hole[segment] = 0
    duplicates = np.add.reduceat(hole < 0, start, dtype=np.int64)
    np.maximum(hole, 0, out=hole)
    runs = np.searchsorted(segment, start)
    return Sequences(
        expected=np.add.reduceat(span, runs),
        lost=np.add.reduceat(hole, start),
        duplicates=duplicates,
        reordered=np.add.reduceat(late, start, dtype=np.int64) - duplicates,
        max_gap=np.maximum.reduceat(hole, start),
        gaps=np.add.reduceat(hole > 0, start, dtype=np.int64),
        restarts=sizes(runs, len(segment)) - 1,
        strays=strays, kept=kept, segment=segment, kept_start=start,
    )


def smooth(start: I64, value: F64) -> F64:
    """J += (value - J) / 16 from J = 0 at the first packet of each stream (RFC 3550 A.8).

    One recurrence runs over all streams; what it carries over a start is subtracted again. That is exact because
    the recurrence is linear, and it needs no group-by.
    """
    level = value.copy()
    level[start] = 0.0
    level = pl.Series(level).ewm_mean(alpha=1 / GAIN, adjust=False).to_numpy().copy()
    size = sizes(start, len(value))
    carried = np.where(start > 0, level[start - 1], 0.0)
    age = np.arange(len(value)) - np.repeat(start, size)
    level -= np.repeat(carried, size) * _DECAY[np.minimum(age, len(_DECAY) - 1)]
    return np.maximum(level, 0.0)


def transit_ms(start: I64, arrival: I64, timestamp: U32, clock_rate: U32) -> F64:
    """|D| of RFC 3550 §6.4.1 in ms: how far arrival (ns) and media clock (Hz, one a stream) part from packet to packet.

    0 at the first packet of a stream and where the timestamp got a new base.
    """
    apart = np.zeros(len(arrival), np.float64)
    advance = (timestamp[1:] - timestamp[:-1]).view(np.int32)
    tick = np.repeat(1000.0 / clock_rate, sizes(start, len(arrival)))
    np.subtract(np.diff(arrival) * 1e-6, advance * tick[1:], out=apart[1:])
    np.abs(apart, out=apart)
    apart[start] = 0.0
    apart[apart > TIMESTAMP_BREAK_MS] = 0.0
    return apart


def jitter_ms(start: I64, segment: I64, arrival: I64, timestamp: U32, clock_rate: U32) -> tuple[F64, F64]:
    """Mean and highest interarrival jitter of each stream in ms; a new ``segment`` begins the estimate again.

    The mean is over all packets but the first. A stream of one packet has 0.
    """
    total = len(arrival)
    owner = np.searchsorted(start, segment, side="right") - 1
    level = smooth(segment, transit_ms(segment, arrival, timestamp, clock_rate[owner]))
    counted = np.maximum(sizes(start, total) - 1, 1)
    return np.add.reduceat(level, start) / counted, np.maximum.reduceat(level, start)


def max_delta_ms(start: I64, arrival: I64) -> F64:
    """Longest time between two packets of each stream in order of arrival, ms."""
    delta = np.zeros(len(arrival), np.int64)
    np.subtract(arrival[1:], arrival[:-1], out=delta[1:])
    delta[start] = 0
    return np.maximum.reduceat(delta, start) * 1e-6
