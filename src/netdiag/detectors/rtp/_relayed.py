"""Silence that a relay or B2BUA passes on: what does not reach it on one leg cannot leave it on the other."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

from netdiag.detectors.rtp._judge import Deaf
from netdiag.detectors.rtp._legs import other

SAME_NS = 2_000_000_000
"""Legs of one call fall silent within this time: answers and changes are passed on at once (practice)."""
NEAREST = 20
"""Legs before and after in time that are compared (practice)."""

Place = tuple[str, str, str]


def first(deaf: Sequence[Deaf]) -> dict[int, list[Deaf]]:
    """Index of the legs on which the silence begins, to the legs behind that only pass it on; the others are no key.

    A host that should send on one leg is itself not reached on another one, on the same side and from the same time on;
    where several calls fit, the one nearest in time, best with the same SSRC.
    """
    waiting: dict[Place, list[tuple[int, int]]] = defaultdict(list)
    for i, d in enumerate(deaf):
        waiting[d.leg.call.point, d.side, str(d.leg.side(d.side).address)].append((d.since_ns, i))
    for several in waiting.values():
        several.sort()
    before: dict[int, int] = {}
    for i, d in enumerate(deaf):
        source = str(d.leg.side(other(d.side)).address)
        if source == str(d.leg.side(d.side).address):
            continue  # both ends on one host
        there = waiting.get((d.leg.call.point, d.side, source), [])
        at = bisect_left(there, (d.since_ns, -1))
        fits = [j for since, j in there[max(0, at - NEAREST):at + NEAREST]
                if abs(since - d.since_ns) <= SAME_NS and deaf[j].leg.call.call_id != d.leg.call.call_id]
        if fits:
            before[i] = min(fits, key=lambda j: (_ssrcs(deaf[j]).isdisjoint(_ssrcs(d)),
                                                 abs(deaf[j].since_ns - d.since_ns), j))
    out: dict[int, list[Deaf]] = {i: [] for i in range(len(deaf)) if i not in before}
    for i in before:
        root, seen = i, {i}
        while root in before and before[root] not in seen:
            root = before[root]
            seen.add(root)
        if root in out:
            out[root].append(deaf[i])
        else:
            out[i] = []  # they wait for each other: each is told
    return out


def _ssrcs(d: Deaf) -> set[int]:
    return {s.ssrc for s in d.heard}
