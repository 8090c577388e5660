"""Captures that are read once from their start: a window runs over them, and what facts need is kept in a file.

The window is one buffer. A record that its end cuts is moved to its front before the next bytes are read behind it.
Bytes that are kept go to an unlinked temporary file, so that the kernel may take their memory back, and are mapped.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from netdiag.capture import formats, scratch
from netdiag.capture.records import I64, U32, Records
from netdiag.capture.source import Stream
from netdiag.capture.space import GUARD, PAGE, Extent, Space
from netdiag.errors import CaptureError

FILL = 1 << 25
"""Bytes read at once (measured: less costs time, more costs memory alone)."""
WINDOW = FILL + (1 << 27) + GUARD
"""Bytes reserved for the window: the longest record that is believed must fit in behind a part of another."""
BLOCK = 1 << 14
"""Frames whose bytes are closed up at once."""
_MOST = 1 << 42
"""Bytes of address space reserved for what is kept: far below the 2^47 that a process has."""


class Window(Extent):
    """The part of a stream that lies in the space's window."""

    def __init__(self, space: Space, stream: Stream) -> None:
        super().__init__(space.window.start, 0, False)
        self._space, self._stream = space, stream
        self._asked = -1

    def refill(self, begin: int) -> int:
        if self.ended:
            return begin
        base, rest = self._space.window.start, self.end - begin
        if begin != self._asked and (rest >= FILL // 2 or (rest > 0 and begin == base)):
            self._asked = begin  # enough is there, unless it asks again: short steps must not move much each time
            return begin
        array = self._space.array
        if begin > base:
            array[base : base + rest] = array[begin : begin + rest]
            self.start -= begin - base
        # Little at first, which tells the format and finds out soon what is no capture but a hole.
        most = min(FILL, 16 * self.size or formats.HEAD)
        size = min(most if rest < most else rest + FILL, self._space.window.size - GUARD) - rest
        got = self._stream.fill(self._space.view(base + rest, size))
        self.size += got
        self.ended = got < size or not size
        array[self.end : self.end + GUARD] = 0  # of an older window
        self._asked = -1
        return base


class Kept:
    """The temporary file with what is kept of all streams, and its place in the space."""

    def __init__(self) -> None:
        try:
            self._file = scratch.opened()
        except OSError as error:
            raise CaptureError(f"no temporary file can be made: {error.strerror or error}") from None
        self.room = min(scratch.free(self._file.fileno()), _MOST)
        """Bytes that there is disk space for."""
        self.size = 0
        self._begin = 0
        self._trimmed = False
        self._index: list[tuple[int, int]] = []

    def fits(self, space: Space, records: Records) -> bool:
        """Is there room for this batch?"""
        n = len(records.offset)
        size = int(records.offset[-1] - records.offset[0]) + int(records.captured[-1]) + 32 * n if n else 0
        return size <= min(scratch.free(self._file.fileno()), space.kept.size - self.size)

    def write(self, data: memoryview) -> None:
        """Appends bytes of the current stream."""
        try:
            while len(data):
                done = self._file.write(data)
                self.size += done
                data = data[done:]
        except OSError as error:
            raise CaptureError(f"the temporary file cannot be written: {error.strerror or error}") from None

    def add(self, space: Space, records: Records, sizes: U32) -> I64:
        """Appends the first ``sizes`` bytes of each frame; how far each frame moves from its place in the space.

        The frames must not overlap, and lie in the order of the stream.
        """
        moved = np.empty(len(sizes), np.int64)
        begin = records.offset
        behind = begin + records.captured
        words = space.array[: len(space.array) // 8 * 8].view(np.uint64)
        # Whole words are left out: closing up bytes takes four times as long (measured).
        hole, after = -(-(begin + sizes) // 8), behind // 8
        left_out = np.maximum(after - hole, 0) * 8
        for first in range(0, len(sizes), BLOCK):
            cut = slice(first, first + BLOCK)
            start, end = int(begin[first]) // 8, -(-int(behind[cut].max()) // 8)
            moved[cut] = space.kept.start + self.size - start * 8 - (np.cumsum(left_out[cut]) - left_out[cut])
            trimmed = np.flatnonzero(left_out[cut]) + first
            if len(trimmed):
                self._trimmed = True
                runs = np.empty((len(trimmed), 2), np.int64)
                runs[:, 0] = after[trimmed] - hole[trimmed]
                runs[:, 1] = np.append(hole[trimmed[1:]], end) - after[trimmed]
                kept = np.repeat(np.append(True, np.tile([False, True], len(trimmed))),
                                 np.append(hole[trimmed[0]] - start, runs.reshape(-1)))
                self.write(memoryview(words[start:end][kept].view(np.uint8)))
            else:
                self.write(space.view(start * 8, (end - start) * 8))
        self._note(Records(begin + moved, sizes, records.wire, records.ts, records.link))
        return moved

    def _note(self, records: Records) -> None:
        """Writes the index of a batch, so that its frames can be found again."""
        if not len(records.offset):
            return
        self.write(memoryview(bytes(-self.size % 8)))
        self._index.append((self.size, len(records.offset)))
        for column in (records.offset, records.ts, records.captured, records.wire, records.link):
            self.write(memoryview(column.tobytes()))

    def finish(self, space: Space) -> Extent:
        """Maps what was kept of the current stream; what comes next belongs to another one."""
        start, size = self._begin, self.size - self._begin
        space.map(self._file.fileno(), start, space.kept.start + start, size)
        extent = Place(space.kept.start + start, size, self._trimmed,
                       [(space.kept.start + at, n) for at, n in self._index])
        self._index, self._trimmed = [], False
        self.size = self._begin = -(-(self.size + GUARD) // PAGE) * PAGE
        self._file.seek(self.size)
        return extent

    def close(self) -> None:
        self._file.close()


class Place(Extent):
    """What was kept of a stream."""

    def __init__(self, start: int, size: int, trimmed: bool, index: list[tuple[int, int]]) -> None:
        super().__init__(start, size)
        self.trimmed = trimmed
        """Of some frames not all captured bytes were kept."""
        self._index = index

    def records(self, space: Space) -> Iterator[Records]:
        """Its frames as far as they were kept, batch by batch."""
        for at, n in self._index:
            columns = []
            for kind in ("i8", "i8", "u4", "u4", "u2"):
                columns.append(np.frombuffer(space.view(at, n * int(kind[1])), kind))
                at += n * int(kind[1])
            offset, ts, captured, wire, link = columns
            yield Records(offset, captured, wire, ts, link)
