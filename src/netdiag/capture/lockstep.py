"""Finds the starts of the records of a large region by walking it with many cursors at once.

A chain of records can only be followed one by one, unless one guesses: some hundred cursors start
at places that look like a record, and advance together in NumPy. The guess is then proved: each
cursor must land exactly where the next one started. If one does not, the region is walked one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from netdiag.capture.records import I64, Mask

Advance = Callable[[I64], I64]
"""Start of the record behind each record; FAR for one whose length cannot be believed."""
Plausible = Callable[[I64], Mask]
"""Does a record seem to start here (and two more behind it)?"""

FAR = 1 << 62
"""Beyond any file."""
_SPACING = 1 << 16
"""Bytes a cursor walks at least: below that the guess costs more than it saves (measured)."""
_CURSORS = 1024
"""Advanced together; more do not stay near the processor (measured)."""
_FEW = 32
"""Below so many cursors a step of all of them costs more than walking one by one (measured: 30 µs against 0.5)."""
_PATIENCE = 4096
"""Steps that few cursors may take together: the tail of an even walk is shorter."""
_SEARCH = 256
MAX_SEARCH = 1 << 17
"""Bytes searched for a start; behind that the cursor is given up."""


class Walk(NamedTuple):
    """Record starts in ascending order, and where the next record would start."""

    starts: I64
    next: int


def _guess(base: I64, plausible: Plausible, end: int, step: int) -> I64:
    """First plausible record start at or behind each of ``base``; those without are left out."""
    found = np.full(len(base), -1, np.int64)
    todo = np.arange(len(base))
    at, window = 0, np.arange(0, _SEARCH, step)
    while len(todo) and at < MAX_SEARCH:
        candidate = base[todo][:, None] + (at + window)
        owner = np.broadcast_to(todo[:, None], candidate.shape)
        inside = candidate < end
        candidate, owner = candidate[inside], owner[inside]
        good = plausible(candidate)
        first_owner, first = np.unique(owner[good], return_index=True)
        found[first_owner] = candidate[good][first]
        todo = todo[found[todo] < 0]
        at += _SEARCH
    return found[found >= 0]


def walk(begin: int, end: int, advance: Advance, plausible: Plausible, step: int = 1) -> Walk | None:
    """All record starts in [begin, end), a record being known to start at ``begin``.

    ``step`` is the alignment of records. None when the cursors do not meet: then the caller walks one by one.
    """
    cursors = min(_CURSORS, (end - begin) // _SPACING)
    if cursors < 2:
        return None
    base = begin + ((end - begin) // cursors // step * step) * np.arange(1, cursors, dtype=np.int64)
    guessed = _guess(base, plausible, end, step)
    starts = np.unique(np.concatenate([np.array([begin], np.int64), guessed[guessed < end]]))
    limit = np.append(starts[1:], end)
    landed = starts.copy()
    where, here, bound = np.arange(len(starts)), starts, limit
    rows: list[tuple[I64, I64]] = []
    lonely = 0
    while len(here):
        lonely += len(here) < _FEW
        if lonely > _PATIENCE and lonely > len(rows) // 2:
            return None  # some cursor walks a stretch where no start was guessed: steps and the table would grow
        rows.append((where, here))
        following = advance(here)
        going = following < bound
        if not going.all():
            landed[where[~going]] = following[~going]
            here, where, bound = following[going], where[going], bound[going]
        else:
            here = following
    if not (landed[:-1] == starts[1:]).all():
        return None
    table = np.full((len(starts), len(rows)), -1, np.int64)
    for i, (which, value) in enumerate(rows):
        table[which, i] = value
    return Walk(table[table >= 0], int(landed[-1]))
