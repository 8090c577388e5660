"""Classic pcap, and the variants of it that libpcap and Wireshark read.

Both byte orders, microseconds and nanoseconds (pcap-savefile(5)); Ixia's with a longer file header; Kuznetzov's three
and Nokia's with longer record headers; AIX's with other numbers of link types; versions before 2.4, and DG/UX's
543.0, whose two lengths are the other way round. Variants that share a magic number are told as Wireshark does it
(wiretap/libpcap.c): by which of them makes the first three records look best.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from netdiag.capture.chain import Layout, batches
from netdiag.capture.records import I64, MAX_RECORD, U32, FileNotes, Mask, Records
from netdiag.capture.space import Extent, Space
from netdiag.errors import CaptureError

_STANDARD, _MODIFIED, _IXIA = "", "modified", "Ixia"
MAGIC = {
    magic.to_bytes(4, "big" if order == ">" else "little"): (order, unit, kind)
    for order in "<>"
    for magic, unit, kind in (
        (0xA1B2C3D4, 1000, _STANDARD), (0xA1B23C4D, 1, _STANDARD), (0xA1B2CD34, 1000, _MODIFIED),
        (0x1C0001AC, 1, _IXIA), (0x1C0001AB, 1000, _IXIA))
}
"""First four bytes to (byte order, nanoseconds a fraction unit, kind of file)."""
_HEADER = 24
_TRIED = 3
"""Records by which variants are told apart: MAX_RECORDS_TO_TRY of wiretap."""
_AIX_LINKS = {6: 1, 9: 6, 15: 10, 24: 0}
"""RFC 1573 interface types to link types."""
_NEVER, _ALWAYS, _MAYBE = range(3)
"""Are the captured and the wire length the other way round? Maybe: the captured one is the smaller."""
_RESERVED = 0x03FF0000


class _Form(NamedTuple):
    """One variant."""

    name: str
    record: int = 16
    """Bytes of a record header."""
    extra: str = ""
    """What its additional fields hold: "linux" (interface, protocol, packet type) or "nokia"."""


_PLAIN = _Form("")
_VARIANTS = {
    _STANDARD: (_PLAIN, _Form("modified", 24, "linux"), _Form("Nokia", 20, "nokia")),
    _MODIFIED: (_Form("modified", 24, "linux"), _Form("modified, SMP", 28, "linux")),
}


def read(space: Space, extent: Extent, notes: FileNotes, path: str) -> Iterator[Records]:
    """Batches of the records of one file; a file that breaks off says where in ``notes.damage``.

    CaptureError when the file header is cut or of a version that nobody knows.
    """
    order, unit, kind = MAGIC[space.read(extent.start, 4)]
    header = _HEADER + 4 * (kind == _IXIA)
    if extent.size < header:
        raise CaptureError(f"{path}: the pcap file header is cut ({extent.size} of {header} bytes)")
    major, minor, snaplen, network = struct.unpack(order + "4xHH8xII", space.read(extent.start, _HEADER))
    if major < 2:
        raise CaptureError(f"{path}: pcap version {major}.{minor} is not known; the oldest is 2.0")
    swapped = _ALWAYS if (major == 2 and minor < 3) or major == 543 else _MAYBE if (major, minor) == (2, 3) else _NEVER
    begin = extent.refill(extent.start + header)
    link, form, padding = network & 0xFFFF, _PLAIN, 0  # the upper bits of the link carry FCS information
    standard = kind == _STANDARD and unit == 1000
    if standard and (major, minor) == (2, 2) and network in _AIX_LINKS:
        form, link, unit, swapped = _Form("AIX"), _AIX_LINKS[network], 1, _ALWAYS
        padding = 3 if link == 10 else 0  # in front of FDDI frames
    elif kind == _MODIFIED or (standard and swapped == _NEVER):
        form = _choose(space, order, begin, extent.end, snaplen, _VARIANTS[kind])
    _describe(notes, kind, form, order, unit, (major, minor))
    notes.snaplen = snaplen or None
    if network & _RESERVED:
        notes.notes.append(f"reserved bits of the link type are set (0x{network:08x}); {link} is what was read")
    limit = max(MAX_RECORD, min(snaplen, 1 << 27))
    yield from _records(space, extent, begin, notes, order, unit, form.record, swapped, limit, link, padding)


def _records(space: Space, extent: Extent, begin: int, notes: FileNotes, order: str, unit: int, record: int,
             swapped: int, limit: int, link: int, padding: int) -> Iterator[Records]:
    frames = longer = 0
    for starts in batches(_layout(space, order, record, swapped, limit), extent, begin, notes):
        head = space.gather(starts, 16).view(order + "u4").reshape(-1, 4)
        zeros = _zeros(head)
        if zeros < len(starts):
            notes.damage = (f"zeros where frame {frames + zeros + 1} should start, at byte "
                            f"{int(starts[zeros]) - extent.start}; the rest of the file was not read")
            starts, head = starts[:zeros], head[:zeros]
        joined = _joined(space, starts, head)
        if joined < len(starts):
            notes.damage = (f"another pcap file header where frame {frames + joined + 1} should start, at byte "
                            f"{int(starts[joined]) - extent.start}: files were put one behind the other, and the rest "
                            "was not read (mergecap -a joins captures)")
            starts, head = starts[:joined], head[:joined]
        captured, wire = head[:, 2].astype(np.uint32), head[:, 3].astype(np.uint32)
        if swapped == _ALWAYS:
            captured, wire = wire, captured
        elif swapped == _MAYBE:
            captured, wire = np.minimum(captured, wire), np.maximum(captured, wire)
        front = np.minimum(captured, padding).astype(np.uint32)
        frames += len(starts)
        longer += int((captured > notes.snaplen).sum()) if notes.snaplen else 0
        if len(starts):
            ts = head[:, 0].astype(np.int64) * 1_000_000_000 + head[:, 1].astype(np.int64) * unit
            yield Records(starts + record + front, captured - front, np.maximum(wire, captured) - front, ts,
                          np.full(len(starts), link, np.uint16))
    if longer:
        notes.notes.append(
            f"{longer} frames are longer than the snap length {notes.snaplen} that the file header states")


def _describe(notes: FileNotes, kind: str, form: _Form, order: str, unit: int, version: tuple[int, int]) -> None:
    words = [form.name or kind] if form.name or kind else []
    words += ["little-endian" if order == "<" else "big-endian", "ns" if unit == 1 else "µs"]
    words += [] if version == (2, 4) else [f"version {version[0]}.{version[1]}"]
    notes.format = f"pcap ({', '.join(words)})"


def _zeros(head: U32) -> int:
    """Index of the first of two headers in a row that are all zeros, or how many there are: no writer makes such
    records, but a file system does that lost power (and 1 GB of them packs into 32 kB).
    """
    empty = np.asarray(~head.any(axis=1), np.bool_)
    twice = np.flatnonzero(empty[:-1] & empty[1:])
    return int(twice[0]) if len(twice) else len(head)


def _joined(space: Space, starts: I64, head: U32) -> int:
    """Index of the first header of a record that is one of a file, or how many there are: as a record it is empty and
    decades away, for its time zone and accuracy are 0 (pcap-savefile(5)) where the lengths of a record stand.
    """
    for i in np.flatnonzero((head[:, 2] == 0) & (head[:, 3] == 0)).tolist():
        magic, version = space.read(int(starts[i]), 4), space.read(int(starts[i]) + 4, 4)
        if magic in MAGIC and version == struct.pack(MAGIC[magic][0] + "HH", 2, 4):
            return int(i)
    return len(starts)


def _layout(space: Space, order: str, record: int, swapped: int, limit: int) -> Layout:
    u4 = space.numbers(order + "u4")
    lengths = struct.Struct(order + "II").unpack_from
    buffer = space.view(0, len(space.array))

    def pick(at: int) -> int:
        first, second = lengths(buffer, at + 8)
        return int(first if swapped == _NEVER else second if swapped == _ALWAYS else min(first, second))

    def size(at: int) -> int:
        captured = pick(at)
        return record + captured if captured <= limit else -1

    def sizes(at: I64) -> I64:
        captured = u4[at + 8].astype(np.int64)
        return np.where(captured <= limit, record + captured, -1)

    def likely(at: I64, known: int) -> Mask:
        # The top byte of the captured length is zero in every believable record: the cheapest strong test.
        good = np.asarray(space.array[at + (11 if order == "<" else 8)] == 0, np.bool_)
        index = np.flatnonzero(good)
        at = at[index]
        captured, wire = u4[at + 8], u4[at + 12]
        near = np.abs(u4[at].astype(np.int64) - int(u4[known])) < 86400 * 400
        good[index] = (captured > 0) & (captured <= limit) & (wire >= captured) & (u4[at + 4] < 1_000_000_000) & near
        return good

    return Layout(record, limit, size, sizes, pick, likely if swapped == _NEVER else None)


def _choose(space: Space, order: str, begin: int, end: int, snaplen: int, forms: tuple[_Form, ...]) -> _Form:
    """The first variant whose records look best, as Wireshark chooses."""
    faults = [_faults(space, order, begin, end, snaplen, form) for form in forms]
    return forms[faults.index(min(faults))]


def _faults(space: Space, order: str, at: int, end: int, snaplen: int, form: _Form) -> int:
    """How many things are odd about the first records, read as this variant."""
    count: int = 0
    for _ in range(_TRIED):
        if at >= end:
            break
        if at + form.record > end:
            return count + 1
        fraction, captured, wire = struct.unpack(order + "III", space.read(at + 4, 12))
        count += (fraction >= 1_000_000) + (captured > MAX_RECORD) + (captured > snaplen) + (wire > 1 << 27)
        count += int(captured > wire) + _EXTRA[form.extra](space.read(at + 16, form.record - 16), order)
        if captured > MAX_RECORD:
            break
        at += form.record + captured
        if at > end:
            return count + 1
    return count


def _linux(extra: bytes, order: str) -> int:
    """Interface index, protocol and packet type of Kuznetzov's patches, within what Linux had in 1999."""
    index, protocol, kind = struct.unpack_from(order + "IHB", extra)
    known: bool = protocol >= 0x0600 or protocol in (0x0060, 0x0200, 0x0400) or protocol <= 0x0017
    return int(index > 10000) + int(not known) + int(kind > 4)


def _nokia(extra: bytes, order: str) -> int:
    """Four bytes of which only the form is known: [9b] fbf [bd] [69] 0 [12], in hexadecimal digits."""
    text = struct.unpack(order + "I", extra)[0].to_bytes(4, "big").hex()
    return int(not (text[0] in "9b" and text[1:4] == "fbf" and text[4] in "bd" and text[5] in "69" and text[6] == "0"
                    and text[7] in "12"))


_EXTRA: dict[str, Callable[[bytes, str], int]] = {"": lambda extra, order: 0, "linux": _linux, "nokia": _nokia}
