"""Which payload bytes of a connection the capture holds, and which were acknowledged without being in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netdiag.tables.packets import ACK, FIN, I64, RST, SYN, U8
from netdiag.tables.tcp_split import Sides, apart, running_max

Bools = npt.NDArray[np.bool_]
_LOWEST = np.iinfo(np.int64).min >> 1


@dataclass(slots=True)
class Coverage:
    """Facts about bytes; sides as in ``Sides``, entries in side order."""

    data: I64
    """Distinct payload bytes of each side."""
    acked_unseen: I64
    """Entries that were the first to acknowledge bytes of the other side that the capture does not hold."""
    unacked_sends: I64
    """For each side: how often its first never acknowledged byte was sent."""


def measure(sides: Sides, opposite: I64, seq: I64, ack: I64, length: I64, flags: U8) -> Coverage:
    """``opposite``: number of the other side of each side, -1 without; the other arguments in side order."""
    count = len(sides.start)
    if not count:
        return Coverage(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    side = sides.side
    held = _Held(sides, seq, length, flags)
    acks = (flags & ACK) != 0
    highest = np.maximum.reduceat(np.where(acks, ack, _LOWEST), sides.start)
    final = np.where(opposite >= 0, highest[opposite], _LOWEST)
    unseen = held.unseen_acks(opposite, final, acks, side, ack)

    carries = np.flatnonzero(length > 0)
    begin = seq[carries] + ((flags[carries] & SYN) != 0)
    where = side[carries]
    lowest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(lowest, where, begin)
    wanted = np.maximum(final, lowest)[where]
    again = (begin <= wanted) & (wanted < begin + length[carries])
    return Coverage(held.data, unseen, np.bincount(where[again], minlength=count))


class _Held:
    """The sequence space of every side that the capture covers, as intervals sorted by side and place."""

    def __init__(self, sides: Sides, seq: I64, length: I64, flags: U8) -> None:
        n, count = len(seq), len(sides.start)
        control = (flags & (SYN | FIN)) != 0
        span = length + control
        use = span > 0
        use[sides.start] = True  # where a side begins is known even when nothing of its data is
        use &= (flags & RST) == 0
        entry = np.flatnonzero(use)
        self.count = count
        self.low = np.minimum.reduceat(seq, sides.start)
        self.shift = apart(self.low, np.maximum.reduceat(seq + span, sides.start))
        group = sides.side[entry]
        key = seq[entry] + self.shift[group]
        if len(key) > 1 and bool((key[1:] < key[:-1]).any()):
            order = np.argsort(key, kind="stable")
            entry, key, group = entry[order], key[order], group[order]
        end = key + span[entry]
        reach = np.maximum.accumulate(end) if len(end) else end
        before = np.empty_like(reach)
        before[1:] = reach[:-1]
        first = np.ones(len(entry), np.bool_)
        first[1:] = group[1:] != group[:-1]
        before[first] = key[first]
        self.key, self.reach, self.group = key, reach, group
        hole = np.maximum(key - before, 0)
        self.holes = np.cumsum(hole)  # over all sides; differences inside one side are what counts
        begin = np.flatnonzero(first)
        self.holes -= (self.holes[begin] - hole[begin])[np.cumsum(first) - 1] if len(begin) else 0
        new = np.maximum(end - np.maximum(before, key), 0)
        total = np.bincount(group, weights=new, minlength=count).astype(np.int64)
        # A SYN and a FIN take one number each and carry no byte; one that is sent again at its place takes no other.
        for flag, offset in ((SYN, 0), (FIN, length)):
            rows = np.flatnonzero(((flags & flag) != 0) & use)
            place = (seq + offset)[rows] + self.shift[sides.side[rows]]
            _, one = np.unique(place, return_index=True)
            total -= np.bincount(sides.side[rows[one]], minlength=count)
        self.data = np.maximum(total, 0)
        self.top = np.full(count, _LOWEST)
        last = np.append(begin[1:], len(entry))[: len(begin)] - 1
        self.top[group[last]] = reach[last] - self.shift[group[last]]
        self.has_hole = np.zeros(count, np.bool_)
        self.has_hole[group[hole > 0]] = True
        self.n = n

    def unseen_acks(self, opposite: I64, final: I64, acks: Bools, side: I64, ack: I64) -> I64:
        known = self.top > _LOWEST
        suspect = known & (self.has_hole | (final > self.top))
        checks = suspect[opposite] & (opposite >= 0)
        entry = np.flatnonzero(acks & checks[side])
        if not len(entry):
            return entry
        mine = side[entry]
        other = opposite[mine]
        value = ack[entry]
        inside = np.clip(value, self.low[other], self.top[other]) + self.shift[other]
        at = np.searchsorted(self.key, inside, side="left") - 1
        valid = (at >= 0) & (self.group[at] == other)
        missing = np.where(valid, self.holes[at], 0) + np.where(
            valid, np.maximum(value - (self.reach[at] - self.shift[other]), 0),
            np.where(value > self.top[other], value - self.top[other], 0))
        first = np.ones(len(entry), np.bool_)
        first[1:] = mine[1:] != mine[:-1]
        top = running_max(missing, np.flatnonzero(first), np.cumsum(first) - 1)
        before = np.zeros_like(top)
        before[1:] = top[:-1]
        before[first] = 0
        return entry[missing > before]
