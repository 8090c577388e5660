"""How far the clocks of two capture points are apart, from packets that both have.

A packet is recognised by what also a NAT leaves alone: TCP sequence and acknowledgment numbers and flags, or the first
bytes of a UDP payload. Its time at one point less its time at the other is the offset of the clocks and the way
between the points; packets of both directions bound the offset from both sides. Where there are more packets than
SAMPLE, the same share of them is chosen at each point by their content, so that the cost is bounded.
"""

from __future__ import annotations

import secrets
from itertools import combinations, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.tables.packets import FORWARD, FRAGMENT, I64, IPV6, TCP, UDP, Packets

if TYPE_CHECKING:
    from netdiag.tables import Tables

SAMPLE = 100_000
"""Packets of a point that are compared, as a mean (practice)."""
READ = 400_000
"""Packets of a point whose content is looked at to choose the sample; of more, those whose IP identification is a
multiple (practice). A NAT that writes identifications of its own leaves fewer matches then."""
PAIRS = 64
"""Pairs of points that are compared (practice: captures are made at two or three places)."""
HEAD = 160
"""Payload bytes that tell UDP packets apart: up to the branch of a SIP request's Via (practice)."""
CUT_HEAD = 48
"""The same where a snap length cut packets: an RTP, DNS or STUN header, and inside a snap length of 96 (practice)."""
BINS = 40
"""Slices of time, of which each gives the line one point (practice)."""
EACH_WAY = 10
"""Packets of each direction before it bounds the offset (practice)."""
TRIM = 0.01
"""Share of the fastest packets that does not count as fastest: wrong matches and late timestamps (practice)."""
WAY_NS = 1_000_000_000
"""The longest way believed where one direction alone was matched: more than by satellite (ITU-T G.114) (practice)."""
STEP_NS = 5_000_000
"""Smallest step of one clock against the other that is told from delay (practice)."""
_CHUNK = 1 << 16
_EARLY = 24
"""Payload bytes by which the sample is chosen: an RTP header and the start of a SIP request's URI (practice)."""

F64 = npt.NDArray[np.float64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


class ClockPair(NamedTuple):
    """Two points. Offsets are the clock of ``b`` less the clock of ``a``, ns, at the first matched packet."""

    a: str
    b: str
    matched: int
    """Packets seen at both that the fit rests on; 0: all below says nothing."""
    offset_ns: int
    low_ns: int
    """The offset lies between ``low_ns`` and ``high_ns``: no packet arrives before it was sent."""
    high_ns: int
    drift_ppm: float
    """Gain of the clock of ``b``, in millionths; 0 where it cannot be told from changing delay."""
    residual_ns: int
    """Median distance of a packet from the line of its direction."""
    span_ns: int
    """Time between the first and the last matched packet."""
    way_ns: int | None
    """Shortest way there and shortest way back together; negative: offset and drift do not describe these clocks.
    None where the hops do not tell the directions apart."""
    step_ns: int
    """Sudden change of the offset, 0 without; the fit is then of the longer side of it."""
    step_at_ns: int
    """When, by the clock of ``a``."""
    rows: tuple[int, ...]
    """First and last matched packet, at ``a`` and at ``b``."""


def build(tables: Tables) -> tuple[ClockPair, ...]:
    """Each two points that have packets; matched is 0 where they share none."""
    p = tables.packets
    if len(tables.points) < 2:
        return ()
    candidates = {}
    width = CUT_HEAD if any(tables.quality["cut_packets"]) else HEAD
    point = p.files.all_points()
    for number in range(len(tables.points)):
        rows = _candidates(p, np.flatnonzero(point == number))
        if len(rows):
            candidates[number] = rows
    parts = -(-max((len(rows) for rows in candidates.values()), default=0) // READ)
    candidates = {number: rows[p.ip_id[rows] % max(parts, 1) == 0] for number, rows in candidates.items()}
    share = -(-max((len(rows) for rows in candidates.values()), default=0) // SAMPLE)
    salt = np.array([secrets.randbits(64) | 1 for _ in range(4 + HEAD // 8)], np.uint64)
    known = {number: _once(p, rows, width, max(share, 1), salt) for number, rows in candidates.items()}
    out = []
    for a, b in islice(combinations(known, 2), PAIRS):
        _, i, j = np.intersect1d(known[a][0], known[b][0], True, True)
        mine, theirs = known[a][1][i], known[b][1][j]
        order = np.argsort(p.ts[mine], kind="stable")
        out.append(_pair(p, tables.points[a], tables.points[b], mine[order], theirs[order]))
    return tuple(out)


def _candidates(p: Packets, rows: I64) -> I64:
    """TCP segments, and UDP packets with a payload of which the head was captured."""
    rows = rows[(p.flow[rows] < len(p.flow_start)) & ((p.flags[rows] & FRAGMENT) == 0)]
    proto, have = p.proto[rows], p.length[rows]
    told = (proto == UDP) & (have >= 8) & (have >= np.minimum(p.wire[rows], CUT_HEAD))
    out: I64 = rows[(proto == TCP) | told]
    return out


def _once(p: Packets, rows: I64, width: int, share: int, salt: U64) -> tuple[U64, I64]:
    """Numbers of packets by content, those that come once, and their rows; one of ``share`` packets."""
    number, row = [], []
    for at in range(0, len(rows), _CHUNK):
        some = rows[at : at + _CHUNK]
        early = _mixed(salt, *_numbers(p, some), *_words(p, some, _EARLY))
        kept = early % np.uint64(share) == 0
        some = some[kept]
        number.append(_mixed(salt[1:], early[kept], *_words(p, some, width)))
        row.append(some)
    if not row:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    value, first, count = np.unique(np.concatenate(number), return_index=True, return_counts=True)
    return value[count == 1], np.concatenate(row)[first[count == 1]]


def _numbers(p: Packets, rows: I64) -> list[U64]:
    tcp = p.tcp
    out = p.proto[rows].astype(np.uint64) << np.uint64(32) | p.wire[rows]
    if not len(tcp.row):
        return [out]
    column = np.minimum(np.searchsorted(tcp.row, rows), len(tcp.row) - 1)
    known = (tcp.row[column] == rows).astype(np.uint64)
    ends = (tcp.seq[column].astype(np.uint64) << np.uint64(32) | tcp.ack[column]) * known
    return [out, ends, tcp.flags[column] * known]


def _words(p: Packets, rows: I64, width: int) -> list[U64]:
    """The head of UDP payload; TCP is told by its numbers alone, offload cuts its payload anew."""
    head = p.head(rows, width)
    head[p.proto[rows] == TCP] = 0
    return list(np.ascontiguousarray(head).view(np.uint64).T)


def _mixed(salt: U64, *parts: U64) -> U64:
    out = np.zeros(len(parts[0]), np.uint64)
    for factor, part in zip(salt, parts, strict=False):
        out = (out ^ part) * factor
        out ^= out >> np.uint64(31)
    return out


def _pair(p: Packets, a: str, b: str, mine: I64, theirs: I64) -> ClockPair:
    if not len(mine):
        return ClockPair(a, b, 0, 0, 0, 0, 0.0, 0, 0, None, 0, 0, ())
    start = int(p.ts[mine[0]])
    delta = p.ts[theirs] - p.ts[mine]
    base = int(np.sort(delta)[len(delta) // 2])
    t = (p.ts[mine] - start).astype(np.float64)
    y = (delta - base).astype(np.float64)
    way, forward = _way(p, mine, theirs), (p.flags[mine] & FORWARD) != 0
    step, when = _step(t, y, way, forward)
    if step:
        before = t < when
        part = before if before.sum() * 2 >= len(t) else ~before
        t, y, way, forward, mine, theirs = t[part], y[part], way[part], forward[part], mine[part], theirs[part]
    span = float(t[-1] - t[0])
    slope = _drift(t, y, way, forward)
    level = y - slope * (t - t[0])
    low, high, told = _bounds(level, way, forward)
    sides = [level[side] for side in _sides(way, forward) if side.any()]
    residual = max(float(np.median(np.abs(side - np.median(side)))) for side in sides)
    return ClockPair(
        a, b, len(mine), base + round((low + high) / 2), base + round(low), base + round(high), slope * 1e6,
        round(residual), round(span), round(high - low) if told else None, round(step),
        start + round(when) if step else 0, (int(mine[0]), int(mine[-1]), int(theirs[0]), int(theirs[-1])))


def _way(p: Packets, mine: I64, theirs: I64) -> npt.NDArray[np.int8]:
    """1: from a to b, -1: from b to a, by the hops between; 0 where there are none, or a relay sent it anew."""
    family = ((p.flags[mine] ^ p.flags[theirs]) & IPV6) == 0
    routed = family & ((p.src[mine] == p.src[theirs]) | (p.dst[mine] == p.dst[theirs]))
    hops = p.ttl[mine].astype(np.int16) - p.ttl[theirs]
    way = np.where(routed, np.sign(hops), 0).astype(np.int8)
    return way if np.count_nonzero(way) >= max(EACH_WAY, len(way) // 20) else np.zeros_like(way)


def _sides(way: npt.NDArray[np.int8], forward: Mask) -> tuple[Mask, Mask]:
    """The two directions: by the hops where they tell, else those of the flows."""
    there, back = way > 0, way < 0
    if there.any() or back.any():
        return there, back
    return forward, ~forward


def _bounds(y: F64, way: npt.NDArray[np.int8], forward: Mask) -> tuple[float, float, bool]:
    """Between what the offset lies, and whether both directions are known from the hops."""
    there, back = y[way > 0], y[way < 0]
    high = float(np.quantile(there, TRIM)) if len(there) >= EACH_WAY else None
    low = float(np.quantile(back, 1 - TRIM)) if len(back) >= EACH_WAY else None
    if high is not None and low is not None:
        return low, high, True
    if high is not None:
        return high - WAY_NS, high, False
    if low is not None:
        return low, low + WAY_NS, False
    near, far = (float(v) for v in np.quantile(y, (0.05, 0.95)))
    if min(forward.sum(), (~forward).sum()) >= EACH_WAY:
        return near, far, False
    return near - WAY_NS, far + WAY_NS, False


def _line(t: F64, y: F64, least: bool) -> tuple[F64, F64]:
    """One point for each slice of time: the fastest packet of it (``least``: the lowest y, else the highest)."""
    if len(t) < EACH_WAY or t[-1] <= t[0]:
        return np.zeros(0), np.zeros(0)
    edges = np.searchsorted(t, np.linspace(t[0], t[-1], BINS + 1)[1:-1])
    cuts = np.unique(np.concatenate([np.zeros(1, np.int64), edges]))
    cuts = cuts[cuts < len(t)]
    best = np.minimum.reduceat(y, cuts) if least else np.maximum.reduceat(y, cuts)
    return np.add.reduceat(t, cuts) / np.diff(np.append(cuts, len(t))), best


def theil_sen(x: F64, y: F64) -> float:
    """Median of the slopes between all points: a third of wild points does not move it (Sen 1968)."""
    i, j = np.triu_indices(len(x), 1)
    rise = x[j] - x[i]
    some = rise > 0
    return float(np.median((y[j] - y[i])[some] / rise[some])) if some.any() else 0.0


def _drift(t: F64, y: F64, way: npt.NDArray[np.int8], forward: Mask) -> float:
    """What both directions gain alike: a queue that grows shows in one of them, a clock in both."""
    slopes = []
    for side, least in zip(_sides(way, forward), (True, False), strict=True):
        x, best = _line(t[side], y[side], least or not way.any())
        if len(x) < 4:
            return 0.0
        slope = theil_sen(x, best)
        noise = float(np.median(np.abs(best - slope * x - np.median(best - slope * x)))) + 1000
        if abs(slope) * (x[-1] - x[0]) < 4 * noise:
            return 0.0
        slopes.append(slope)
    return min(slopes, key=abs) if slopes[0] * slopes[1] > 0 else 0.0


def _step(t: F64, y: F64, way: npt.NDArray[np.int8], forward: Mask) -> tuple[float, float]:
    """The largest sudden change that both directions show, and when; (0, 0) without."""
    found = []
    for side, least in zip(_sides(way, forward), (True, False), strict=True):
        x, best = _line(t[side], y[side], least or not way.any())
        if len(x) < 4:
            return 0.0, 0.0
        jump = np.diff(best)
        at = int(np.abs(jump).argmax())
        rest = np.delete(jump, at)
        if abs(jump[at]) < max(STEP_NS, 8 * float(np.abs(rest).max())):
            return 0.0, 0.0
        # The slice in which it happened holds both levels: the jump may be before it or behind it.
        found.append((float(jump[at]), float(x[max(at - 1, 0)]), float(x[min(at + 2, len(x) - 1)])))
    (one, begin, end), (two, start, stop) = found
    if one * two < 0 or begin > stop or start > end:
        return 0.0, 0.0
    inside = np.flatnonzero(_sides(way, forward)[0] & (t >= min(begin, start)) & (t <= max(end, stop)))
    at = int(np.abs(np.diff(y[inside])).argmax())
    return min(one, two, key=abs), float(t[inside[at + 1]])
