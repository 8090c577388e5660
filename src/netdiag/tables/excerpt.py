"""Frames as they lie in the capture files, found again by their numbers: for cutting captures.

The packet table keeps where payloads are, not where frames are, so the files are indexed once more; only files
with wanted frames are touched, and no bytes are copied until `Frame.data` is read. Of a stream only what was kept
is left, with an index of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from netdiag.capture.records import NO_PACKET, FileNotes, Records
from netdiag.capture.space import Space
from netdiag.capture.stream import Place
from netdiag.tables import Tables
from netdiag.tables.intake import batches


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of one file."""

    space: Space
    capture: int
    """Index into ``Tables.captures``."""
    number: int
    """Wireshark's, from 1."""
    ts_ns: int
    link: int
    """LINKTYPE_ value."""
    wire: int
    """Bytes on the wire."""
    captured: int
    offset: int
    trimmed: bool = False
    """It may lack bytes that were captured: it was read from a stream, of which not all was kept."""

    @property
    def data(self) -> bytes:
        """A copy of the captured bytes."""
        return self.space.read(self.offset, self.captured)


def frames(tables: Tables, capture: int, numbers: Collection[int]) -> dict[int, Frame]:
    """The frames of file ``capture`` with these numbers; records that hold no packet, and no frames, are left out."""
    wanted = np.unique(np.fromiter(numbers, np.int64, len(numbers)))
    space, out, first = tables.packets.space, {}, 1
    extent = space.extents[capture]
    trimmed = isinstance(extent, Place) and extent.trimmed
    for records in _records(tables, capture) if len(wanted) else ():
        for number in wanted[(wanted >= first) & (wanted < first + len(records.offset))].tolist():
            i = number - first
            if int(records.link[i]) != NO_PACKET:
                out[number] = Frame(space, capture, number, int(records.ts[i]), int(records.link[i]),
                                    int(records.wire[i]), int(records.captured[i]), int(records.offset[i]),
                                    trimmed and int(records.captured[i]) < int(records.wire[i]))
        first += len(records.offset)
        if first > wanted[-1]:
            break
    return out


def _records(tables: Tables, capture: int) -> Iterator[Records]:
    space = tables.packets.space
    extent = space.extents[capture]
    if isinstance(extent, Place):
        return extent.records(space)
    return batches(space, extent, FileNotes(), tables.captures[capture].path)
