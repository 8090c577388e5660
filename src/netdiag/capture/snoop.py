"""Sun snoop (RFC 1761), with the link types of Solaris and of Shomiti's Surveyor."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from netdiag.capture.chain import Layout, batches
from netdiag.capture.records import I64, MAX_RECORD, FileNotes, Mask, Records
from netdiag.capture.space import Extent, Space
from netdiag.errors import CaptureError

MAGIC = b"snoop\0\0\0"
_HEADER, _RECORD = 16, 24
_PADDING = 64
"""Bytes behind a frame that a guess at a record start believes (Surveyor writes 16 and up to 3 more)."""
_LINKS = {0: 1, 2: 6, 4: 1, 8: 10, 9: 0, 14: 0, 16: 122, 26: 242, 0x80000005: 226}
"""Datalink types (RFC 1761, RFC 3827, IANA snoop-datalink-types; with the top bit Solaris' own) to link types."""
_SURVEYOR = {0: 1, 2: 6, 4: 1, 8: 10, 10: 1, 11: 6, 12: 1, 13: 6, 14: 6, 19: 1}
_TRAILER = 16
"""Bytes that Surveyor puts behind each frame, by which Wireshark (wiretap/snoop.c) tells its files."""
_UNKNOWN = 0xFFFE
"""A link type that nobody has."""


def read(space: Space, extent: Extent, notes: FileNotes, path: str) -> Iterator[Records]:
    """Batches of the records of one file; CaptureError when its header is cut or of an unknown version."""
    if extent.size < _HEADER:
        raise CaptureError(f"{path}: the snoop file header is cut ({extent.size} of {_HEADER} bytes)")
    version, datalink = struct.unpack(">II", space.read(extent.start + 8, 8))
    if not 2 <= version <= 5:
        raise CaptureError(f"{path}: snoop version {version} is not known; 2 to 5 are")
    begin = extent.refill(extent.start + _HEADER)
    links, notes.format = _LINKS, "snoop"
    if begin + _RECORD <= extent.end:
        captured, record = struct.unpack(">II", space.read(begin + 4, 8))
        if record >= captured + _RECORD + _TRAILER:
            links, notes.format = _SURVEYOR, "snoop (Surveyor)"
    link = links.get(datalink, _UNKNOWN)
    if link == _UNKNOWN:
        notes.notes.append(f"frames of snoop datalink type {datalink} are not decoded")
    for starts in batches(_layout(space), extent, begin, notes):
        head = space.gather(starts, _RECORD).view(">u4").reshape(-1, 6).astype(np.int64)
        notes.drops = int(head[-1, 3])  # a running total
        captured = head[:, 1].astype(np.uint32)
        wire = np.maximum(head[:, 0], head[:, 1]).astype(np.uint32)
        yield Records(starts + _RECORD, captured, wire, head[:, 4] * 1_000_000_000 + head[:, 5] * 1000,
                      np.full(len(starts), link, np.uint16))


def _layout(space: Space) -> Layout:
    u4 = space.numbers(">u4")
    lengths = struct.Struct(">III").unpack_from
    buffer = space.view(0, len(space.array))

    def claimed(at: int) -> int:
        return int(u4[at + 4])

    def size(at: int) -> int:
        wire, captured, record = lengths(buffer, at)
        good = captured <= MAX_RECORD and wire <= MAX_RECORD and record >= captured + _RECORD
        return int(record) if good else -1

    def sizes(at: I64) -> I64:
        captured, record = u4[at + 4].astype(np.int64), u4[at + 8].astype(np.int64)
        good = (captured <= MAX_RECORD) & (u4[at] <= MAX_RECORD) & (record >= captured + _RECORD)
        return np.where(good, record, -1)

    def likely(at: I64, known: int) -> Mask:
        good = np.asarray((space.array[at] == 0) & (space.array[at + 4] == 0) & (space.array[at + 8] == 0), np.bool_)
        index = np.flatnonzero(good)
        at = at[index]
        size, captured = sizes(at), u4[at + 4]
        near = np.abs(u4[at + 16].astype(np.int64) - int(u4[known + 16])) < 86400 * 400
        good[index] = ((captured > 0) & (captured <= u4[at]) & (size >= 0) & (size <= captured.astype(np.int64)
                       + _RECORD + _PADDING) & (u4[at + 20] < 1_000_000) & near)
        return good

    return Layout(_RECORD, MAX_RECORD, size, sizes, claimed, likely)
