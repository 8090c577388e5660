"""Follows the records of a format in which each record says how long it is, many at a time where that is possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from netdiag.capture.lockstep import FAR, walk
from netdiag.capture.records import I64, FileNotes, Mask
from netdiag.capture.space import Extent

WINDOW = 1 << 26
"""Bytes that are indexed before they are decoded."""
_WIDEST, _RECORDS = 1 << 28, 1 << 20
"""With long records the window may be that wide, or hold so many of them: fewer, longer steps (measured)."""


class Layout(NamedTuple):
    """How the records of a file lie behind one another. Places given to it hold a whole record header."""

    head: int
    """Bytes of a record header."""
    limit: int
    """Most captured bytes that a record may claim."""
    size: Callable[[int], int]
    """Whole length of the record at a place; -1 when it cannot be believed."""
    sizes: Callable[[I64], I64]
    """The same for many places."""
    claimed: Callable[[int], int]
    """Captured bytes that the record at a place states."""
    likely: Callable[[I64, int], Mask] | None
    """Does a record seem to start there, like the one that starts at the second argument? None: one by one."""
    step: int = 1
    """What record starts are a multiple of."""


def batches(layout: Layout, extent: Extent, begin: int, notes: FileNotes) -> Iterator[I64]:
    """Starts of the whole records from ``begin`` to the end of the file; ``notes.damage`` says where it breaks off.

    A caller that sets ``notes.damage`` itself ends it.
    """
    frames, width = 0, WINDOW
    while (begin := extent.refill(begin)) < (end := extent.end):
        starts, following = _index(layout, begin, extent.stop(begin, width), end)
        if not len(starts):
            return
        last = int(starts[-1])
        headless = last + layout.head > end
        if headless or not 0 <= following <= end:
            starts = starts[:-1]
        frames += len(starts)
        if len(starts):
            yield starts
        if notes.damage:
            return
        if not extent.ended and (headless or following > end):
            begin = last
            continue
        where = f"frame {frames + 1} at byte {last - extent.start}"
        if headless:
            notes.damage = f"cut in the record header of {where} ({end - last} of {layout.head} bytes)"
        elif following < 0:
            claimed = layout.claimed(last)
            odd = (f"claims {claimed} captured bytes, more than the {layout.limit} that are believed"
                   if claimed > layout.limit else "has lengths that contradict each other")
            notes.damage = f"{where} {odd}; the rest of the file was not read"
        elif following > end:
            notes.damage = (f"cut in {where}: {end - last - layout.head} of {layout.claimed(last)} captured bytes "
                            "are there")
        if notes.damage:
            return
        width = min(max(WINDOW, (following - begin) // len(starts) * _RECORDS), _WIDEST) if len(starts) else WINDOW
        begin = following


def _index(layout: Layout, begin: int, stop: int, end: int) -> tuple[I64, int]:
    """Record starts in [begin, stop), and where the next one starts: -1 when the last length cannot be believed.

    The last start may be of a record that is cut: the next one then starts behind ``end``, or where it starts itself.
    """
    head, sizes, likely = layout.head, layout.sizes, layout.likely
    result = None
    if likely is not None:
        def advance(at: I64) -> I64:
            length = sizes(at)
            # What lies behind the end reads as zeros: a header that is cut leads behind the end as well.
            return at + length if length.min() >= 0 else np.where(length >= 0, at + length, FAR)

        def plausible(at: I64) -> Mask:
            index = np.flatnonzero(at + head <= end)
            index = index[likely(at[index], begin)]
            here = at[index]
            for _ in range(2):
                going = here < end  # a chain that ends exactly with the file stays good
                following = here[going] + sizes(here[going])
                believed = following == end
                inside = np.flatnonzero(following + head <= end)
                believed[inside] = likely(following[inside], begin)
                here = here.copy()
                here[going] = following
                keep = np.ones(len(here), bool)
                keep[going] = believed
                index, here = index[keep], here[keep]
            out = np.zeros(len(at), bool)
            out[index] = True
            return out

        result = walk(begin, stop, advance, plausible, layout.step)
    if result is not None and result.next <= end:
        return result.starts, result.next
    return _one_by_one(layout, begin, stop, end)


def _one_by_one(layout: Layout, begin: int, stop: int, end: int) -> tuple[I64, int]:
    size, last = layout.size, end - layout.head
    starts = []
    at = begin
    while at < stop:
        starts.append(at)
        if at > last:
            break
        length = size(at)
        if length < 0:
            return np.array(starts, np.int64), -1
        at += length
    return np.array(starts, np.int64), at
