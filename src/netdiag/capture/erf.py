"""Endace ERF: records of capture cards, without a file header or magic number.

Record layout and types: Endace, "ERF types", version 21.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from netdiag.capture.chain import Layout, batches
from netdiag.capture.records import I64, FileNotes, Mask, Records
from netdiag.capture.space import Extent, Space

_HEAD = 16
_PAD, _KNOWN = 48, frozenset({*range(1, 30), 48})
_ETHERNET, _HDLC, _CHANNEL, _IP = (2, 11, 16, 20), (1, 10, 15, 19), (5, 17), (22, 23)
"""Record types: Ethernet behind two bytes, HDLC, HDLC behind a header of four bytes, IP."""
_COUNTING = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12)
"""Types that count the packets lost before the record; the others have a colour in that field."""
_ERF = 197
_EXTENSIONS = 8
"""Extension headers followed in a record (Wireshark: MAX_ERF_EHDR 16; cards write up to four)."""
_SLACK = _HEAD + 8 * _EXTENSIONS + 24
"""Bytes of a record that are not of the packet: headers, the checksum's room and padding to eight."""
_YEAR = 86400 * 366
_TRIED = 20
"""Records that must look right: RECORDS_FOR_ERF_CHECK of wiretap/erf.c."""


def looks(head: bytes) -> bool:
    """Do these first bytes of a file hold ERF records?

    Two whole records must be seen, or one that ends where ``head`` does, and every header in ``head`` must be
    believable.
    """
    at = seen = before = 0
    while at + _HEAD <= len(head) and seen < _TRIED:
        stamp, kind, _, size, _, wire = struct.unpack_from("<QBB", head, at) + struct.unpack_from(">HHH", head, at + 10)
        if kind & 0x7F not in _KNOWN or size < _HEAD:
            return False
        if kind & 0x7F != _PAD:
            second = stamp >> 32
            if size == _HEAD or not wire or size > wire + _SLACK:
                return False
            if second + 1 < before or (before and second > before + _YEAR):
                return False
            before = second
        at += size
        seen += at <= len(head)
    return seen > 1 or (seen == 1 and at == len(head))


def read(space: Space, extent: Extent, notes: FileNotes, path: str) -> Iterator[Records]:
    """Batches of the records of one file; padding is left out, as Wireshark does not number it."""
    notes.format = "ERF"
    u2, octets = space.numbers(">u2"), space.array
    lost = 0
    for starts in batches(_layout(space), extent, extent.start, notes):
        kind = octets[starts + 8] & 0x7F
        starts, kind = starts[kind != _PAD], kind[kind != _PAD]
        counting = np.isin(kind, _COUNTING)
        lost += int(u2[starts[counting] + 12].sum())
        if counting.any():
            notes.drops = lost
        end = starts + u2[starts + 10]
        at = _skip_extensions(octets, starts)
        at = at + np.where(np.isin(kind, _ETHERNET), 2, np.where(np.isin(kind, _CHANNEL), 4, 0))
        wire = u2[starts + 14].astype(np.int64)
        captured = np.clip(end - at, 0, wire)
        yield Records(np.minimum(at, end), captured.astype(np.uint32), wire.astype(np.uint32), _times(space, starts),
                      _links(kind))


def _skip_extensions(octets: npt.NDArray[np.uint8], starts: I64) -> I64:
    at = starts + _HEAD
    more = np.flatnonzero(octets[starts + 8] & 0x80)
    for _ in range(_EXTENSIONS):
        if not len(more):
            break
        following = octets[at[more]] & 0x80
        at[more] += 8
        more = more[following != 0]
    return at


def _links(kind: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    return np.where(np.isin(kind, _ETHERNET), 1, np.where(np.isin(kind, _HDLC + _CHANNEL), 50, np.where(
        np.isin(kind, _IP), 101, _ERF))).astype(np.uint16)


def _times(space: Space, starts: I64) -> I64:
    """Seconds in the upper half of a little-endian number, fractions of 2^-32 s in the lower; rounded."""
    u4 = space.numbers("<u4")
    fraction = u4[starts].astype(np.uint64) * np.uint64(1_000_000_000) + np.uint64(1 << 31)
    return u4[starts + 4].astype(np.int64) * 1_000_000_000 + (fraction >> np.uint64(32)).astype(np.int64)


def _layout(space: Space) -> Layout:
    u2, u4 = space.numbers(">u2"), space.numbers("<u4")
    lengths = struct.Struct(">H").unpack_from
    buffer = space.view(0, len(space.array))

    def size(at: int) -> int:
        length = int(lengths(buffer, at + 10)[0])
        return length if length > _HEAD or (length == _HEAD and buffer[at + 8] & 0x7F == _PAD) else -1

    def sizes(at: I64) -> I64:
        length = u2[at + 10].astype(np.int64)
        pad = (length == _HEAD) & (space.array[at + 8] & 0x7F == _PAD)
        return np.where((length > _HEAD) | pad, length, -1)

    def claimed(at: int) -> int:
        return int(u2[at + 10]) - _HEAD

    def likely(at: I64, known: int) -> Mask:
        good = np.asarray(space.array[at + 8] == space.array[known + 8], np.bool_)
        index = np.flatnonzero(good)
        at = at[index]
        near = np.abs(u4[at + 4].astype(np.int64) - int(u4[known + 4])) < _YEAR
        good[index] = near & (sizes(at) > 0) & (u2[at + 14] > 0)
        return good

    return Layout(_HEAD, (1 << 16) - 1 - _HEAD, size, sizes, claimed, likely)
