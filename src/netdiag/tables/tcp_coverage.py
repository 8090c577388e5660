"""Which payload bytes of a connection the capture holds, and which were acknowledged without being in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netdiag.tables.packets import ACK, FIN, I64, RST, SYN, U8
from netdiag.tables.tcp_split import Sides, apart, running_max

Bools = npt.NDArray[np.bool_]
LOWEST = np.iinfo(np.int64).min >> 1
"""No sequence number."""
IN_FLIGHT_NS = 10**9
"""What was under way when the capture began is acknowledged or sent again by then (RFC 6298 §2.4: the shortest
retransmission timeout)."""


@dataclass(slots=True)
class Coverage:
    """Facts about bytes; sides as in ``Sides``, entries in side order."""

    data: I64
    """Distinct payload bytes of each side."""
    acked_unseen: I64
    """Entries that were the first to acknowledge bytes of the other side that the capture does not hold."""
    unacked_sends: I64
    """For each side: how often its first never acknowledged byte was sent."""
    floor: I64
    """For each side: below it, bytes may have been sent before the capture began; ``LOWEST`` where none were."""


def measure(sides: Sides, opposite: I64, seq: I64, ack: I64, length: I64, flags: U8, soon: Bools,
            begun: Bools) -> Coverage:
    """``opposite``: number of the other side of each side, -1 without; the other arguments in side order.

    ``soon``: entries within ``IN_FLIGHT_NS`` of the first one of their connection. ``begun``: sides that may have sent
    before it.
    """
    count = len(sides.start)
    if not count:
        none = np.zeros(0, np.int64)
        return Coverage(none, none, none, none)
    side = sides.side
    acks = (flags & ACK) != 0
    floor = _floor(sides, opposite, seq, ack, length, flags, soon, begun)
    held = _Held(sides, seq, length, flags, floor)
    highest = np.maximum.reduceat(np.where(acks, ack, LOWEST), sides.start)
    final = np.where(opposite >= 0, highest[opposite], LOWEST)
    unseen = held.unseen_acks(opposite, final, acks, side, ack)

    carries = np.flatnonzero(length > 0)
    begin = seq[carries] + ((flags[carries] & SYN) != 0)
    where = side[carries]
    lowest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(lowest, where, begin)
    wanted = np.maximum(final, lowest)[where]
    again = (begin <= wanted) & (wanted < begin + length[carries])
    return Coverage(held.data, unseen, np.bincount(where[again], minlength=count), floor)


def _floor(sides: Sides, opposite: I64, seq: I64, ack: I64, length: I64, flags: U8, soon: Bools, begun: Bools) -> I64:
    """The highest that a side which had begun sent ``soon``, or the other one acknowledged.

    A capture that begins in the middle of a transfer may show a retransmission first: the bytes behind it have arrived
    before, and their acknowledgment is no sign of anything that the capture lost. It may begin with a keep-alive, one
    number below the next. What a SYN-ACK acknowledges came with a SYN, maybe an earlier one (RFC 7413).
    """
    floor = np.full(len(sides.start), LOWEST)
    floor[begun] = seq[sides.start[begun]] + 1
    valid, other = (flags & RST) == 0, opposite[sides.side]
    sent = np.flatnonzero(soon & begun[sides.side] & valid)
    np.maximum.at(floor, sides.side[sent], (seq + length)[sent])
    opens = (flags & (SYN | ACK)) == (SYN | ACK)
    told = np.flatnonzero(((soon & begun[other]) | opens) & ((flags & ACK) != 0) & valid & (other >= 0))
    np.maximum.at(floor, other[told], ack[told])
    return floor


class _Held:
    """The sequence space of every side that the capture covers, as intervals sorted by side and place."""

    def __init__(self, sides: Sides, seq: I64, length: I64, flags: U8, floor: I64) -> None:
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
        known = floor + self.shift
        hole = np.maximum(key - np.maximum(before, known[group]), 0)
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
        self.top = np.full(count, LOWEST)
        last = np.append(begin[1:], len(entry))[: len(begin)] - 1
        self.top[group[last]] = np.maximum(reach[last], known[group[last]]) - self.shift[group[last]]
        self.floor = floor
        self.has_hole = np.zeros(count, np.bool_)
        self.has_hole[group[hole > 0]] = True
        self.n = n

    def unseen_acks(self, opposite: I64, final: I64, acks: Bools, side: I64, ack: I64) -> I64:
        known = self.top > LOWEST
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
            valid, np.maximum(value - np.maximum(self.reach[at] - self.shift[other], self.floor[other]), 0),
            np.where(value > self.top[other], value - self.top[other], 0))
        first = np.ones(len(entry), np.bool_)
        first[1:] = mine[1:] != mine[:-1]
        top = running_max(missing, np.flatnonzero(first), np.cumsum(first) - 1)
        before = np.zeros_like(top)
        before[1:] = top[:-1]
        before[first] = 0
        return entry[missing > before]
