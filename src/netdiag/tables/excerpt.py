"""Frames as they lie in the capture files, found again by their numbers: for cutting captures.

The packet table keeps where payloads are, not where frames are, so the files are indexed once more; only files
with wanted frames are touched, and no bytes are copied until `Frame.data` is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from netdiag.capture import pcap, pcapng
from netdiag.capture.records import NO_PACKET, FileNotes, Records
from netdiag.capture.space import Space
from netdiag.tables import Tables


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

    @property
    def data(self) -> bytes:
        """A copy of the captured bytes."""
        return self.space.read(self.offset, self.captured)


def frames(tables: Tables, capture: int, numbers: Collection[int]) -> dict[int, Frame]:
    """The frames of file ``capture`` with these numbers; records that hold no packet, and no frames, are left out."""
    wanted = np.unique(np.fromiter(numbers, np.int64, len(numbers)))
    space, out, first = tables.packets.space, {}, 1
    for records in _records(tables, capture) if len(wanted) else ():
        for number in wanted[(wanted >= first) & (wanted < first + len(records.offset))].tolist():
            i = number - first
            if int(records.link[i]) != NO_PACKET:
                out[number] = Frame(space, capture, number, int(records.ts[i]), int(records.link[i]),
                                    int(records.wire[i]), int(records.captured[i]), int(records.offset[i]))
        first += len(records.offset)
        if first > wanted[-1]:
            break
    return out


def _records(tables: Tables, capture: int) -> Iterator[Records]:
    space = tables.packets.space
    extent = space.extents[capture]
    read = pcap.read if space.read(extent.start, 4) in pcap.MAGIC else pcapng.read
    yield from read(space, extent, FileNotes(), tables.captures[capture].path)
