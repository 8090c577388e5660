"""Classic pcap: both byte orders, microseconds and nanoseconds."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from netdiag.capture.lockstep import walk
from netdiag.capture.records import I64, MAX_RECORD, U32, FileNotes, Mask, Records
from netdiag.capture.space import Extent, Space
from netdiag.errors import CaptureError

MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1), b"\xa1\xb2\x3c\x4d": (">", 1),
}
"""First four bytes to (byte order, nanoseconds a fraction unit)."""
_HEADER = 24
_RECORD = 16
WINDOW = 1 << 26
"""Bytes that are indexed before they are decoded."""


def read(space: Space, extent: Extent, notes: FileNotes, path: str) -> Iterator[Records]:
    """Batches of the records of one file; a file that breaks off says where in ``notes.damage``."""
    order, unit = MAGIC[space.read(extent.start, 4)]
    if extent.size < _HEADER:
        raise CaptureError(f"{path}: the pcap file header is cut ({extent.size} of {_HEADER} bytes)")
    snaplen, network = struct.unpack(order + "II", space.read(extent.start + 16, 8))
    link = network & 0xFFFF  # the upper bits carry FCS information (pcap-savefile(5))
    limit = max(MAX_RECORD, min(snaplen, 1 << 27))
    notes.format = f"pcap ({'little' if order == '<' else 'big'}-endian, {'ns' if unit == 1 else 'µs'})"
    begin, end = extent.start + _HEADER, extent.end
    frames = longer = 0
    u4 = space.numbers(order + "u4")

    while begin < end:
        stop = min(end, begin + WINDOW)
        starts, following = _index(space, u4, order, begin, stop, end, limit)
        if not len(starts):
            break
        last = int(starts[-1])
        if last + _RECORD > end or following > end or following < 0:
            starts = starts[:-1]
        head = space.gather(starts, _RECORD).view(order + "u4").reshape(-1, 4)
        captured, wire = head[:, 2].astype(np.uint32), head[:, 3].astype(np.uint32)
        zeros = _zeros(head)
        if zeros < len(starts):
            notes.damage = (f"zeros where frame {frames + zeros + 1} should start, at byte "
                            f"{int(starts[zeros]) - extent.start}; the rest of the file was not read")
            starts, head, captured, wire = starts[:zeros], head[:zeros], captured[:zeros], wire[:zeros]
        frames += len(starts)
        longer += int((captured > snaplen).sum()) if snaplen else 0
        if len(starts):
            ts = head[:, 0].astype(np.int64) * 1_000_000_000 + head[:, 1].astype(np.int64) * unit
            yield Records(starts + _RECORD, captured, np.maximum(wire, captured), ts,
                          np.full(len(starts), link, np.uint16))
        if notes.damage:
            break
        at = last - extent.start
        if last + _RECORD > end:
            notes.damage = (f"cut in the record header of frame {frames + 1} at byte {at} "
                            f"({end - last} of {_RECORD} bytes)")
        elif following < 0:
            notes.damage = (f"frame {frames + 1} at byte {at} claims {int(u4[last + 8])} captured bytes, "
                            f"more than the {limit} that are believed; the rest of the file was not read")
        elif following > end:
            notes.damage = (f"cut in frame {frames + 1} at byte {at}: {end - last - _RECORD} of "
                            f"{int(u4[last + 8])} captured bytes are there")
        if notes.damage:
            break
        begin = following
    if longer:
        notes.notes.append(f"{longer} frames are longer than the snap length {snaplen} that the file header states")


def _zeros(head: U32) -> int:
    """Index of the first of two headers in a row that are all zeros, or how many there are: no writer makes such
    records, but a file system does that lost power (and 1 GB of them packs into 32 kB).
    """
    empty = np.asarray(~head.any(axis=1), np.bool_)
    twice = np.flatnonzero(empty[:-1] & empty[1:])
    return int(twice[0]) if len(twice) else len(head)


def _index(space: Space, u4: U32, order: str, begin: int, stop: int, end: int,
           limit: int) -> tuple[I64, int]:
    """Record starts in [begin, stop) and where the next one starts: -1 when the last length cannot be believed."""

    def advance(at: I64) -> I64:
        size = u4[at + 8].astype(np.int64)
        return np.where((at + _RECORD <= end) & (size <= limit), at + _RECORD + size, -1)

    epoch = int(u4[begin])

    def header(at: I64) -> Mask:
        size, wire = u4[at + 8], u4[at + 12]
        near = np.abs(u4[at].astype(np.int64) - epoch) < 86400 * 400
        good: Mask = (size > 0) & (size <= limit) & (wire >= size) & (u4[at + 4] < 1_000_000_000) & near
        return np.asarray(good, np.bool_)

    def plausible(at: I64) -> Mask:
        # The top byte of the captured length is zero in every believable record: the cheapest strong test.
        good = space.array[at + (11 if order == "<" else 8)] == 0
        good &= at + _RECORD <= end
        index = np.flatnonzero(good)
        index = index[header(at[index])]
        here = at[index]
        for _ in range(2):
            going = here < end  # a chain that ends exactly with the file stays good
            following = here[going] + _RECORD + u4[here[going] + 8]
            believed = following == end
            inside = np.flatnonzero(following + _RECORD <= end)
            believed[inside] = header(following[inside])
            here = here.copy()
            here[going] = following
            keep = np.ones(len(here), bool)
            keep[going] = believed
            index, here = index[keep], here[keep]
        out = np.zeros(len(at), bool)
        out[index] = True
        return out

    result = walk(begin, stop, advance, plausible)
    if result is not None and result.next <= end:
        return result.starts, result.next
    return _one_by_one(space, order, begin, stop, end, limit)


def _one_by_one(space: Space, order: str, begin: int, stop: int, end: int, limit: int) -> tuple[I64, int]:
    length = struct.Struct(order + "I").unpack_from
    buffer = space.view(0, end + _RECORD)
    starts = []
    at = begin
    while at < stop:
        starts.append(at)
        if at + _RECORD > end:
            return np.array(starts, np.int64), at
        size = length(buffer, at + 8)[0]
        if size > limit:
            return np.array(starts, np.int64), -1
        at += _RECORD + size
    return np.array(starts, np.int64), at
