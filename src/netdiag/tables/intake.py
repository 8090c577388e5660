"""Reads captures one after the other into columns: plain files where they are mapped, streams through a window."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import numpy as np

from netdiag.capture import formats
from netdiag.capture.interrupt import Interrupts
from netdiag.capture.records import I64, FileNotes, Records
from netdiag.capture.source import Source, Stream, open_source
from netdiag.capture.space import Extent, Space
from netdiag.capture.stream import WINDOW, Kept, Window
from netdiag.decode import keep
from netdiag.decode.frames import Decoded
from netdiag.decode.store import MOST_ROWS
from netdiag.errors import CaptureError

_RECORD = 12
"""Bytes of the shortest block of pcapng, and less than any record of another format."""
Progress = Callable[[str, int, int], None]
"""(what, bytes done, bytes in all)."""


class Intake:
    """The open captures of one analysis, and the space that their bytes lie in."""

    def __init__(self, paths: Sequence[str], checksums: bool, progress: Progress | None) -> None:
        self.sources: list[Source] = []
        self._kept: Kept | None = None
        self._progress, self._done = progress, 0
        try:
            for path in paths:
                self.sources.append(open_source(path, checksums))
            streams = any(s.stream for s in self.sources)
            self._kept = Kept() if streams else None
            self.space = Space([(s.fd, s.size) for s in self.sources], WINDOW if streams else 0,
                               self._kept.room if self._kept else 0)
            for source, extent in zip(self.sources, self.space.extents, strict=True):
                if source.stream is None:
                    source.start_checksum(self.space.view(extent.start, extent.size))
                    source.close()
        except BaseException:
            self.close()
            raise
        self._total = sum(s.stored for s in self.sources)

    def __enter__(self) -> Intake:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes files; what was mapped stays."""
        for source in self.sources:
            source.close()
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    @property
    def most_frames(self) -> int:
        """Frames that there can be in all captures at most; no format has shorter records."""
        return sum(MOST_ROWS if s.stream is not None else s.size // _RECORD + 1 for s in self.sources)

    def read(self, index: int, notes: FileNotes, decoded: Decoded) -> None:
        """Reads capture ``index`` to its end, or as far as it goes."""
        source = self.sources[index]
        if source.stream is not None and self._kept is not None:
            self._stream(index, source, source.stream, self._kept, notes, decoded)
        else:
            extent = self.space.extents[index]
            for records in batches(self.space, extent, notes, source.path):
                decoded.add(self.space, records)
                if len(records.offset):
                    self._report(int(records.offset[-1]) - extent.start)
        if source.damage:
            notes.damage = "; ".join(d for d in (source.damage, notes.damage) if d)
        self._done += source.stored

    def _report(self, at: int) -> None:
        if self._progress is not None:
            self._progress("reading", self._done + at, self._total)

    def _stream(self, index: int, source: Source, stream: Stream, kept: Kept, notes: FileNotes,
                decoded: Decoded) -> None:
        window = Window(self.space, stream)
        trimmed = False
        with Interrupts() if stream.input.pipe else contextlib.nullcontext() as stream.input.interrupts:
            window.refill(window.start)
            if not window.size:
                raise CaptureError(f"{source.path}: {stream.damage or 'empty after unpacking ' + source.compression}")
            for records in batches(self.space, window, notes, source.path):
                if not kept.fits(self.space, records):
                    stream.damage = f"reading stopped after {decoded.rows} frames: no more room for temporary files"
                    break
                trimmed |= _add(self.space, records, decoded, kept, window.size <= keep.WHOLE)
                self._report(0 if stream.input.pipe else stream.input.count)
            interrupted = stream.interrupted
            self.space.extents[index] = kept.finish(self.space)
            source.finish()
        self.space.release_window()
        if trimmed:
            notes.notes.append(f"read as a stream: behind its first {keep.WHOLE >> 20} MiB only {keep.MEDIA} payload "
                               f"bytes are kept of {keep.SAMPLED - 1} in {keep.SAMPLED} media packets, so that SRTP "
                               "authentication cannot be verified; save it to a plain file for that")
        if interrupted:
            notes.notes.append("interrupted: what was read until then is analysed")
            if notes.damage.startswith("cut in "):  # its writer was stopped too
                notes.damage = ""


def _add(space: Space, records: Records, decoded: Decoded, kept: Kept, whole: bool) -> bool:
    """Decodes a batch of a stream and keeps what is needed, or the ``whole`` of it; was some of it left out?"""
    pieces = len(decoded.pieces)
    row = decoded.rows
    columns = decoded.add(space, records)
    if not len(records.offset):
        return False
    sizes = records.captured if whole else keep.sizes(space, records, columns)
    moved: I64 = kept.add(space, records, sizes)
    inside = columns["offset"] != 0  # rows without IP have no place
    columns["offset"][inside] += moved[inside]
    for piece in decoded.pieces[pieces:]:
        piece.at += int(moved[piece.row - row])
    return bool(np.any(sizes != records.captured))


def batches(space: Space, extent: Extent, notes: FileNotes, path: str) -> Iterator[Records]:
    """Records of one file; CaptureError when it is in no known format."""
    head = space.read(extent.start, min(formats.HEAD, extent.size))
    read = formats.reader(head)
    if read is None:
        raise CaptureError(f"{path}: {_describe(head[:64])}; expected pcap or pcapng, plain or compressed")
    return read(space, extent, notes, path)


def _describe(head: bytes) -> str:
    if all(b in b"\t\n\r\x0c" or 32 <= b < 127 for b in head):
        return "a text file, not a capture"
    return f"not a capture (begins with {head[:4].hex(' ')})"
