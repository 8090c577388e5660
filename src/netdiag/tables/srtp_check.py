"""Tells with which key and roll-over counter the packets of one SRTP sender verify, from a sample of them.

Packets are taken at both ends, evenly in between, and on both sides of each place where something may change: a wrap
of the sequence number, a new key, a new flow. Where two neighbours differ the place of the change is found by halving.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.decode import srtp
from netdiag.tables.packets import Packets
from netdiag.tables.srtp_keys import Candidate

EDGE = 5
"""Packets on each side of a place where something may change (practice)."""
SPREAD = 16
"""Packets taken evenly over the whole (practice)."""
ROCS = 16
"""Roll-over counters tried, from 0 (practice: 5.8 h of 20 ms packets)."""
LATE_ROCS = 256
"""The same where the beginning of the call was not captured."""
CHANGES = 32
"""Changes whose place is looked for, and marks looked at, in one sender's packets (practice)."""
FEW = 3
"""So many packets make a stretch of their own between others; fewer are strays (practice)."""
UNSEEN = 1 << 14
"""Packets not captured after which nobody knows how often the sequence number wrapped: a quarter of its range."""

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Verdict(NamedTuple):
    """What a packet verifies with."""

    candidate: int
    """-1: with nothing."""
    base: int
    """Roll-over counter without the wraps seen since the first packet."""
    relation: str
    """"agreed" in the time of the key, "old" and "early" outside, the candidate's own word, "" for none."""


NOTHING = Verdict(-1, 0, "")


@dataclass(slots=True)
class Stretch:
    """Packets in a row with one verdict."""

    verdict: Verdict
    first: int
    """Place of its first packet, and of its last one."""
    last: int
    sampled: int = 0
    matched: int = 0


@dataclass(slots=True)
class Budget:
    """Tags that may still be computed."""

    left: int


@dataclass(slots=True)
class Sender:
    """Packets of one SSRC of one sender, in order of time."""

    packets: Packets
    row: npt.NDArray[np.uint32]
    ts: I64
    wraps: I64
    """Wraps of the sequence number since the first packet, as a receiver counts them (RFC 3711 §3.3.1)."""
    candidates: list[Candidate]
    budget: Budget
    rocs: int = ROCS
    usable: I64 = field(init=False)
    """Places of packets that can be judged: captured whole, at a time when a key is known."""
    _seen: dict[int, Verdict] = field(init=False, default_factory=dict)
    _last: Verdict = field(init=False, default=NOTHING)

    def __post_init__(self) -> None:
        p = self.packets
        whole = p.length[self.row] >= p.wire[self.row]
        known = np.zeros(len(self.row), np.bool_)
        for c in self.candidates:
            known |= (self.ts >= c.begin_ns) & (self.ts <= c.end_ns)
        self.usable = np.flatnonzero(whole & known)

    def judge(self, at: int) -> Verdict:
        """Verdict on the packet at this place of ``usable``."""
        if at not in self._seen:
            place = int(self.usable[at])
            self._seen[at] = found = self._search(place)
            if found is not NOTHING:
                self._last = found
        return self._seen[at]

    def _search(self, place: int) -> Verdict:
        packet = self.packets.payload(int(self.row[place]))
        ns, wraps = int(self.ts[place]), int(self.wraps[place])
        for number in self._order(ns):
            c = self.candidates[number]
            for roc in self._rocs(wraps):
                self.budget.left -= 1
                if srtp.verify(c.key, packet, roc):
                    relation = c.relation
                    if relation == "agreed" and not c.begin_ns <= ns <= c.end_ns:
                        relation = "old" if ns > c.end_ns else "early"
                    return Verdict(number, roc - wraps, relation)
        return NOTHING

    def _order(self, ns: int) -> list[int]:
        """Candidates, those in force first, and the one that fitted last before the others."""
        return sorted(range(len(self.candidates)), key=lambda i: (
            not self.candidates[i].begin_ns <= ns <= self.candidates[i].end_ns, i != self._last.candidate))

    def _rocs(self, wraps: int) -> Iterator[int]:
        hint = self._last.base + wraps
        if 0 <= hint < 1 << 32:
            yield hint
        yield from (roc for roc in range(self.rocs) if roc != hint)

    def fits(self, at: int, candidate: Candidate, rocs: Iterable[int]) -> bool:
        """Does the packet at this place verify with a key that is not among the candidates?"""
        packet = self.packets.payload(int(self.row[self.usable[at]]))
        tried = list(rocs)
        self.budget.left -= len(tried)
        return any(srtp.verify(candidate.key, packet, roc) for roc in tried)

    def adopt(self, candidate: Candidate) -> None:
        """One more candidate; packets without a verdict are judged anew."""
        self.candidates.append(candidate)
        self._seen = {at: found for at, found in self._seen.items() if found is not NOTHING}

    def stretches(self, marks: I64) -> list[Stretch]:
        """Stretches in order; ``marks`` are places of packets before which something may change."""
        n = len(self.usable)
        if not n:
            return []
        picked = set(range(min(EDGE, n))) | set(range(max(n - EDGE, 0), n))
        picked |= set(np.linspace(0, n - 1, min(SPREAD, n)).astype(int).tolist())
        for mark in np.searchsorted(self.usable, marks[:CHANGES]).tolist():
            picked |= set(range(max(mark - EDGE, 0), min(mark + EDGE, n)))
        runs = self._runs(picked)
        short = [at for run in runs if len(run) < FEW for at in run]
        picked |= {a for at in short[: 4 * CHANGES] for a in range(max(at - FEW, 0), min(at + FEW + 1, n))}
        return self._placed(self._merged(self._runs(picked)), n)

    def _runs(self, picked: set[int]) -> list[list[int]]:
        runs: list[list[int]] = []
        for at in sorted(picked):
            if runs and self.judge(at) == self.judge(runs[-1][-1]):
                runs[-1].append(at)
            else:
                runs.append([at])
        return runs

    def _merged(self, runs: list[list[int]]) -> list[tuple[Verdict, list[int]]]:
        """Runs, with strays counted to the run around them."""
        out: list[tuple[Verdict, list[int]]] = []
        for run in runs:
            verdict = self.judge(run[0])
            if out and (len(run) < FEW or verdict == out[-1][0]):
                out[-1][1].extend(run)
            elif out and len(out[-1][1]) < FEW:
                out[-1] = verdict, out[-1][1] + run  # strays at the beginning
            else:
                out.append((verdict, list(run)))
        return out

    def _placed(self, runs: list[tuple[Verdict, list[int]]], n: int) -> list[Stretch]:
        """The stretches that the runs stand for, each sampled by EDGE times two at least."""
        bounds = [0]
        for (verdict, before), (_, after) in list(pairwise(runs))[:CHANGES]:
            low, high = before[-1], after[0]
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if self.judge(middle) == verdict else (low, middle)
            bounds.append(high)
        runs = runs[: len(bounds)]
        out = []
        for (verdict, run), begin, end in zip(runs, bounds, [*bounds[1:], n], strict=True):
            picked = set(run) | set(np.linspace(begin, end - 1, min(2 * EDGE, end - begin)).astype(int).tolist())
            stretch = Stretch(verdict, int(self.usable[begin]), int(self.usable[end - 1]), len(picked))
            judged = [self.judge(at) for at in picked]
            stretch.matched = sum(v is not NOTHING if verdict is NOTHING else v == verdict for v in judged)
            out.append(stretch)
        return out


def wraps(sequence: npt.NDArray[np.uint16]) -> I64:
    """Wraps before each packet, by the nearest number to the one before."""
    step = np.zeros(len(sequence), np.int64)
    step[1:] = (sequence[1:] - sequence[:-1]).view(np.int16)
    return (int(sequence[0]) + np.cumsum(step)) >> 16


def unseen(ts: I64) -> I64:
    """Places of packets behind such a long pause that wraps may have been missed."""
    if len(ts) < 3:
        return np.empty(0, np.int64)
    step = np.diff(ts)
    usual = max(int(np.median(step)), 1_000_000)
    return np.flatnonzero(step > usual * UNSEEN) + 1
