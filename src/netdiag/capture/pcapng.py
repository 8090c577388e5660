"""pcapng: several sections and interfaces, any time resolution, comments, embedded TLS secrets.

Block layouts and option codes: draft-ietf-opsawg-pcapng §4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from netdiag.capture.lockstep import walk
from netdiag.capture.pcap import WINDOW
from netdiag.capture.records import I64, MAX_RECORD, NO_PACKET, U32, FileNotes, Mask, Records
from netdiag.capture.space import Extent, Space
from netdiag.errors import CaptureError

MAGIC = b"\x0a\x0d\x0d\x0a"
_SECTION, _INTERFACE, _PACKET, _SIMPLE, _NAMES, _STATISTICS, _ENHANCED, _SECRETS = 0x0A0D0D0A, 1, 2, 3, 4, 5, 6, 10
_OTHER_RECORDS = (9, 0x0BAD, 0x40000BAD)
"""Journal and custom blocks: no packets, but Wireshark numbers them as frames, and so do we."""
_MAX_BLOCK = 1 << 24
"""Longest block that is believed: wiretap's MAX_BLOCK_SIZE is of this order (16 MiB)."""
_SECTION_HEAD = 28
"""Bytes of a section header block without options."""
_TLS_KEYS = 0x544C534B
_COMMENTS = 200
"""Comments kept of one file (practice)."""


@dataclass(slots=True)
class _Interface:
    link: int
    snaplen: int
    power: int = 6
    """Time unit: 10^-power s, or 2^-power s when ``binary``."""
    binary: bool = False
    offset_s: int = 0


_NO_PACKET = _Interface(NO_PACKET, 0)


@dataclass(slots=True)
class _Section:
    order: str
    interfaces: list[_Interface] = field(default_factory=list)


def read(space: Space, extent: Extent, notes: FileNotes, path: str) -> Iterator[Records]:
    """Batches of the frames of one file, simple, enhanced and obsolete packet blocks alike, in file order.

    CaptureError when not even its first block, the section header, can be read.
    """
    notes.format = "pcapng"
    if extent.size < _SECTION_HEAD:
        raise CaptureError(f"{path}: the pcapng section header is cut ({extent.size} of {_SECTION_HEAD} bytes)")
    at = extent.start
    section = _Section("<")
    read = 0
    while at < extent.end and not notes.damage:
        if space.read(at, 4) == MAGIC and extent.end - at >= 12:
            order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(space.read(at + 8, 4))
            if order is None:
                notes.damage = f"the section header at byte {at - extent.start} has no byte-order magic"
                break
            section = _Section(order)
        blocks, at = _blocks(space, extent, at, min(extent.end, at + WINDOW), section.order, notes)
        yield from _batches(space, extent, blocks, section, notes)
        read += len(blocks)
    if notes.damage and not read:
        raise CaptureError(f"{path}: {notes.damage}")


def _blocks(space: Space, extent: Extent, begin: int, stop: int, order: str, notes: FileNotes) -> tuple[I64, int]:
    """Starts of whole blocks from ``begin`` to ``stop`` or the next section header, and where to go on."""
    end = extent.end
    u4 = space.numbers(order + "u4")

    def size_of(at: I64) -> I64:
        out: I64 = u4[at + 4].astype(np.int64)
        return out

    def believable(at: I64) -> Mask:
        size = size_of(at)
        good = (at + 12 <= end) & (size >= 12) & (size <= _MAX_BLOCK) & (size % 4 == 0) & (at + size <= end)
        index = np.flatnonzero(good)
        good[index] = u4[at[index] + size[index] - 4] == size[index]
        return np.asarray(good, bool)

    def known(at: I64) -> Mask:
        good = believable(at)
        index = np.flatnonzero(good)
        good[index] = u4[at[index]] <= _SECRETS
        return good

    def advance(at: I64) -> I64:
        # A new section may have another byte order: stop before it.
        return np.where(believable(at) & (u4[at] != _SECTION), at + size_of(at), -1)

    def plausible(at: I64) -> Mask:
        good = known(at)
        index = np.flatnonzero(good)
        here = at[index]
        for _ in range(2):
            going = np.flatnonzero(here < end)  # a chain that ends exactly with the file stays good
            here = here.copy()
            here[going] += size_of(here[going])
            keep = here == end
            keep[going] |= known(here[going])
            index, here = index[keep], here[keep]
        good[:] = False
        good[index] = True
        return good

    if int(u4[begin]) != _SECTION:
        result = walk(begin, stop, advance, plausible, step=4)
        if result is not None:
            return result.starts, result.next
    return _one_by_one(space, extent, begin, stop, order, notes)


def _one_by_one(space: Space, extent: Extent, begin: int, stop: int, order: str, notes: FileNotes) -> tuple[I64, int]:
    head = struct.Struct(order + "II").unpack_from
    tail = struct.Struct(order + "I").unpack_from
    end = extent.end
    buffer = space.view(0, end + 16)
    starts: list[int] = []
    at = begin
    while at < stop:
        kind, size = head(buffer, at)
        where = f"at byte {at - extent.start}"
        if kind == _SECTION and at != begin:
            break
        if end - at < 12:
            notes.damage = f"cut in a block header {where} ({end - at} of 12 bytes)"
        elif size < 12 or size % 4 or size > _MAX_BLOCK:
            notes.damage = f"broken block {where}: type 0x{kind:08x} claims a length of {size} bytes"
        elif at + size > end:
            notes.damage = f"cut in a block {where}: {end - at} of {size} bytes are there"
        elif tail(buffer, at + size - 4)[0] != size:
            notes.damage = f"broken block {where}: its two lengths differ ({size} and {tail(buffer, at + size - 4)[0]})"
        if notes.damage:
            return np.array(starts, np.int64), end
        starts.append(at)
        at += size
    return np.array(starts, np.int64), at


def _batches(space: Space, extent: Extent, blocks: I64, section: _Section, notes: FileNotes) -> Iterator[Records]:
    """Frames of ``blocks``; blocks of other kinds are worked off where they stand between them."""
    if not len(blocks):
        return
    kinds = space.numbers(section.order + "u4")[blocks]
    packets = np.isin(kinds, (_ENHANCED, _SIMPLE, _PACKET, *_OTHER_RECORDS))
    others = np.flatnonzero(~packets)
    at = 0
    for other in [*others.tolist(), len(blocks)]:
        if other > at:
            yield from _frames(space, extent, blocks[at:other], kinds[at:other], section, notes)
        if other < len(blocks):
            _meta(space, int(blocks[other]), int(kinds[other]), section, notes)
        at = other + 1


def _frames(space: Space, extent: Extent, blocks: I64, kinds: U32, section: _Section,
            notes: FileNotes) -> Iterator[Records]:
    u4 = space.numbers(section.order + "u4")
    size = u4[blocks + 4].astype(np.int64)
    simple, old, other = kinds == _SIMPLE, kinds == _PACKET, np.isin(kinds, _OTHER_RECORDS)
    table = [*section.interfaces, _NO_PACKET]
    interface = u4[blocks + 8].astype(np.int64)
    interface[old] = space.numbers(section.order + "u2")[blocks[old] + 8]
    interface[simple] = 0
    known = (interface < len(section.interfaces)) | other
    interface[other | ~known] = len(table) - 1
    snap = np.array([i.snaplen or MAX_RECORD for i in table], np.int64)[interface]
    head = np.where(simple, 12, 28).astype(np.int64)
    wire = np.where(simple, u4[blocks + 8], u4[blocks + 24]).astype(np.int64)
    captured = np.where(simple, np.minimum(wire, snap), u4[blocks + 20]).astype(np.int64)
    wire[other] = captured[other] = 0
    fits = other | ((captured <= size - head - 4) & (captured <= np.maximum(snap, MAX_RECORD)))
    ticks = (u4[blocks + 12].astype(np.uint64) << np.uint64(32)) | u4[blocks + 16]
    ts = np.zeros(len(blocks), np.int64)
    for i in np.unique(interface[known]).tolist():
        mine = (interface == i) & ~simple & ~other
        ts[mine] = _nanoseconds(ticks[mine], table[i])
    if simple.any():
        notes.notes.append("simple packet blocks have no time; their frames stand at the epoch")
    broken = np.flatnonzero(~(known & fits))
    n = int(broken[0]) if len(broken) else len(blocks)
    tail = np.where(simple | other, blocks + size, blocks + head + (captured + 3) // 4 * 4)  # simple: no options
    _comments(space, tail[:n], (blocks + size - 4)[:n], section.order, notes)
    if n:
        links = np.array([i.link for i in table], np.uint16)[interface[:n]]
        yield Records((blocks + head)[:n], captured[:n].astype(np.uint32),
                      np.maximum(wire, captured)[:n].astype(np.uint32), ts[:n], links)
    if len(broken):
        where = f"broken block at byte {int(blocks[n]) - extent.start}: "
        notes.damage = where + (
            f"claims {int(captured[n])} captured bytes in a block of {int(size[n])}" if known[n] else
            f"names interface {int(u4[blocks[n] + 8])}, which no interface block describes")


def _nanoseconds(ticks: npt.NDArray[np.uint64], interface: _Interface) -> I64:
    power = interface.power
    if interface.binary:
        shift = np.uint64(min(power, 63))
        seconds = ticks >> shift
        rest = ticks & ((np.uint64(1) << shift) - np.uint64(1))
        if power > 33:  # keep the product below 2^64
            rest, shift = rest >> np.uint64(power - 33), np.uint64(33)
        ns = seconds * np.uint64(1_000_000_000) + ((rest * np.uint64(1_000_000_000)) >> shift)
    elif power <= 9:
        ns = ticks * np.uint64(10 ** (9 - power))
    else:
        ns = ticks // np.uint64(10 ** min(power - 9, 19))
    out: I64 = ns.astype(np.int64) + interface.offset_s * 1_000_000_000
    return out


def _comments(space: Space, begin: I64, end: I64, order: str, notes: FileNotes) -> None:
    for i in np.flatnonzero(end - begin >= 8)[:_COMMENTS].tolist():
        for code, value in _options(space, int(begin[i]), int(end[i]), order):
            if code == 1 and len(notes.comments) < _COMMENTS:
                notes.comments.append(value.decode("utf-8", "replace"))


def _options(space: Space, at: int, end: int, order: str) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= end:
        code, size = struct.unpack(order + "HH", space.read(at, 4))
        if code == 0 or at + 4 + size > end:
            return
        yield code, space.read(at + 4, size)
        at += 4 + (size + 3) // 4 * 4


def _meta(space: Space, at: int, kind: int, section: _Section, notes: FileNotes) -> None:
    order = section.order
    (size,) = struct.unpack(order + "I", space.read(at + 4, 4))
    end = at + size - 4
    if kind == _INTERFACE and size >= 20:
        link, _, snaplen = struct.unpack(order + "HHI", space.read(at + 8, 8))
        interface = _Interface(link, snaplen)
        for code, value in _options(space, at + 16, end, order):
            if code == 9 and value:  # if_tsresol
                interface.power, interface.binary = value[0] & 0x7F, bool(value[0] & 0x80)
            elif code == 14 and len(value) == 8:  # if_tsoffset
                (interface.offset_s,) = struct.unpack(order + "q", value)
                interface.offset_s = max(-(1 << 33), min(1 << 33, interface.offset_s))
            elif code == 11 and len(value) > 1 and value[0] == 0:  # if_filter, a libpcap string
                notes.filters.append(value[1:].decode("utf-8", "replace"))
            elif code == 1 and len(notes.comments) < _COMMENTS:
                notes.comments.append(value.decode("utf-8", "replace"))
        section.interfaces.append(interface)
    elif kind == _STATISTICS and size >= 24:
        for code, value in _options(space, at + 20, end, order):
            if code in (5, 7) and len(value) == 8:  # isb_ifdrop, isb_osdrop
                notes.drops = (notes.drops or 0) + int(struct.unpack(order + "Q", value)[0])
            elif code == 1 and len(notes.comments) < _COMMENTS:
                notes.comments.append(value.decode("utf-8", "replace"))
    elif kind == _SECRETS and size >= 20:
        secret, length = struct.unpack(order + "II", space.read(at + 8, 8))
        if secret == _TLS_KEYS and at + 16 + length <= end:
            notes.secrets.append(space.read(at + 16, length))
    elif kind == _SECTION and size >= 28:
        for code, value in _options(space, at + 24, end, order):
            if code == 1 and len(notes.comments) < _COMMENTS:
                notes.comments.append(value.decode("utf-8", "replace"))
