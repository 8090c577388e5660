"""pcapng: several sections and interfaces, any time resolution; enhanced, simple and obsolete packet blocks.

Block layouts: draft-ietf-opsawg-pcapng §4. Like Wireshark, a block length that is no multiple of four is rounded up.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from netdiag.capture.chain import WINDOW
from netdiag.capture.lockstep import FAR, walk
from netdiag.capture.pcapng_blocks import (
    ENHANCED,
    INTERFACE,
    PACKET,
    SECRETS,
    SECTION,
    SIMPLE,
    Drops,
    Section,
    meta,
    packet_options,
    remark,
)
from netdiag.capture.records import I64, MAX_RECORD, NO_PACKET, FileNotes, Mask, Records
from netdiag.capture.space import Extent, Space
from netdiag.errors import CaptureError

MAGIC = b"\x0a\x0d\x0d\x0a"
_ORDERS = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}
_OTHER_RECORDS = (9, 0x0BAD, 0x40000BAD, 0x204, 0x216, 0x221)
"""Journal, custom and Sysdig event blocks: no packets, but Wireshark numbers them as frames, and so do we."""
_MAX_BLOCK = 1 << 24
"""Longest block that is believed: wiretap's MAX_BLOCK_SIZE is of this order (16 MiB)."""
_PROBE = 1 << 16
"""Bytes of a section that are walked one by one: in a file of many short ones no guess would pay."""
_REFUSALS = 3
"""Windows that could not be walked together, after which that is not tried again."""
_SECTION_HEAD = 28
"""Bytes of a section header block without options."""
_UNKNOWN_DROPS = 0xFFFF
"""In the obsolete packet block: how many were lost is not known."""


def read(space: Space, extent: Extent, notes: FileNotes, path: str) -> Iterator[Records]:
    """Batches of the frames of one file, simple, enhanced and obsolete packet blocks alike, in file order.

    CaptureError when not even its first block, the section header, can be read.
    """
    notes.format = "pcapng"
    if extent.size < _SECTION_HEAD:
        raise CaptureError(f"{path}: the pcapng section header is cut ({extent.size} of {_SECTION_HEAD} bytes)")
    at = extent.start
    section, drops = Section("<", 0), Drops()
    read = 0
    while not notes.damage and (at := extent.refill(at)) < extent.end:
        if space.read(at, 4) == MAGIC and extent.end - at >= 12:
            order = _ORDERS.get(space.read(at + 8, 4))
            if order is None:
                notes.damage = f"the section header at byte {at - extent.start} has no byte-order magic"
                break
            section = Section(order, section.number + 1, section.refusals)
        blocks, at = _blocks(space, extent, at, extent.stop(at, WINDOW), section, notes)
        if len(blocks):
            yield from _frames(space, extent, blocks, section, notes, drops)
        read += len(blocks)
        notes.drops = drops.known
    if notes.damage and not read:
        raise CaptureError(f"{path}: {notes.damage}")


def _blocks(space: Space, extent: Extent, begin: int, stop: int, section: Section,
            notes: FileNotes) -> tuple[I64, int]:
    """Starts of whole blocks from ``begin`` to ``stop`` or the next section header, and where to go on."""
    end, order = extent.end, section.order
    u4 = space.numbers(order + "u4")

    def size_of(at: I64) -> I64:
        out: I64 = (u4[at + 4].astype(np.int64) + 3) & ~3
        return out

    def believable(at: I64, size: I64) -> Mask:
        good = (at + 12 <= end) & (size >= 12) & (size <= _MAX_BLOCK) & (at + size <= end)
        index = slice(None) if good.all() else np.flatnonzero(good)
        good[index] = (u4[at[index] + size[index] - 4].astype(np.int64) + 3) & ~3 == size[index]
        return np.asarray(good, bool)

    def known(at: I64) -> Mask:
        good = believable(at, size_of(at))
        index = np.flatnonzero(good)
        good[index] = u4[at[index]] <= SECRETS
        return good

    def advance(at: I64) -> I64:
        # A new section may have another byte order: stop before it.
        size = size_of(at)
        return np.where(believable(at, size) & (u4[at] != SECTION), at + size, FAR)

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

    if int(u4[begin]) == SECTION:
        stop = min(stop, begin + _PROBE)  # what comes behind it can be walked fast
    elif section.refusals < _REFUSALS:
        result = walk(begin, stop, advance, plausible, step=4)
        if result is not None and result.next <= end:
            return result.starts, result.next
        section.refusals += 1
    return _one_by_one(space, extent, begin, stop, order, notes)


def _one_by_one(space: Space, extent: Extent, begin: int, stop: int, order: str, notes: FileNotes) -> tuple[I64, int]:
    head = struct.Struct(order + "II").unpack_from
    tail = struct.Struct(order + "I").unpack_from
    end = extent.end
    buffer = space.view(0, end + 16)
    starts: list[int] = []
    at = begin
    while at < stop:
        kind, stated = head(buffer, at)
        size = (stated + 3) & ~3
        if kind == SECTION and at != begin:
            break
        whole = 12 <= size <= _MAX_BLOCK and at + size <= end
        if whole and (tail(buffer, at + size - 4)[0] + 3) & ~3 == size:
            starts.append(at)
            at += size
            continue
        if not extent.ended and not whole and (end - at < 12 or 12 <= size <= _MAX_BLOCK):
            break  # the next window holds the rest
        where = f"at byte {at - extent.start}"
        if end - at < 12:
            notes.damage = f"cut in a block header {where} ({end - at} of 12 bytes)"
        elif 12 <= size <= _MAX_BLOCK and not whole:
            notes.damage = f"cut in a block {where}: {end - at} of {size} bytes are there"
        elif whole and stated % 4 == 0:
            other = tail(buffer, at + size - 4)[0]
            notes.damage = f"broken block {where}: its two lengths differ ({stated} and {other})"
        else:
            notes.damage = f"broken block {where}: type 0x{kind:08x} claims a length of {stated} bytes"
        return np.array(starts, np.int64), end
    return np.array(starts, np.int64), at


def _frames(space: Space, extent: Extent, blocks: I64, section: Section, notes: FileNotes,
            drops: Drops) -> Iterator[Records]:
    """Frames of ``blocks`` as one batch, after what the other blocks say was taken in."""
    u4 = space.numbers(section.order + "u4")
    kinds = u4[blocks]
    packets = np.isin(kinds, (ENHANCED, SIMPLE, PACKET, *_OTHER_RECORDS))
    described = len(section.links) + np.cumsum((kinds == INTERFACE) & (u4[blocks + 4] >= 20))
    for i in np.flatnonzero(~packets).tolist():
        meta(space, int(blocks[i]), int(kinds[i]), section, notes, drops)
    blocks, kinds, described = blocks[packets], kinds[packets], described[packets]
    if not len(blocks):
        return
    size = (u4[blocks + 4].astype(np.int64) + 3) & ~3
    simple, old, other = kinds == SIMPLE, kinds == PACKET, np.isin(kinds, _OTHER_RECORDS)
    interface = u4[blocks + 8].astype(np.int64)
    interface[old] = space.numbers(section.order + "u2")[blocks[old] + 8]
    interface[simple] = 0
    known = (interface < described) | other
    stated = interface
    interface = np.where(other | ~known, len(section.links), interface)  # an entry for what has no interface
    snap = np.array([*section.snaplens, 0], np.int64)[interface]
    snap[snap == 0] = MAX_RECORD
    head = np.where(simple, 12, 28).astype(np.int64)
    wire = np.where(simple, u4[blocks + 8], u4[blocks + 24]).astype(np.int64)
    captured = np.where(simple, np.minimum(wire, snap), u4[blocks + 20]).astype(np.int64)
    wire[other] = captured[other] = 0
    fits = other | ((captured <= size - head - 4) & (captured <= np.maximum(snap, MAX_RECORD)))
    if simple.any():
        remark(notes, "simple packet blocks have no time; their frames stand at the epoch")
    broken = np.flatnonzero(~(known & fits))
    n = int(broken[0]) if len(broken) else len(blocks)
    first = slice(0, n)
    if n:
        ticks = (u4[blocks + 12].astype(np.uint64) << np.uint64(32)) | u4[blocks + 16]
        ts = _times(ticks[first], interface[first], section)
        ts[(simple | other)[first]] = 0
        tail = np.where(simple | other, blocks + size, blocks + head + ((captured + 3) & ~3))  # simple: no options
        packet_options(space, section, interface[first], tail[first], (blocks + size - 4)[first], notes, drops)
        lost = np.flatnonzero(old[first])
        if len(lost):
            count = space.numbers(section.order + "u2")[blocks[lost] + 10].astype(np.int64)
            told = count != _UNKNOWN_DROPS
            drops.count(section, interface[lost][told], count[told])
        links = np.array([*section.links, NO_PACKET], np.uint16)[interface[first]]
        yield Records((blocks + head)[first], captured[first].astype(np.uint32),
                      np.maximum(wire, captured)[first].astype(np.uint32), ts, links)
    if len(broken):
        notes.damage = f"broken block at byte {int(blocks[n]) - extent.start}: " + (
            f"claims {int(captured[n])} captured bytes in a block of {int(size[n])}" if known[n] else
            f"names interface {int(stated[n])}, which no interface block describes")


def _times(ticks: npt.NDArray[np.uint64], interface: I64, section: Section) -> I64:
    """Nanoseconds since the epoch of time stamps in the units of their interfaces."""
    unit = np.array([*section.resolutions, 6], np.int64)[interface]
    out = np.array([*section.offsets, 0], np.int64)[interface] * 1_000_000_000
    units = np.unique(unit).tolist()
    if len(units) == 1:
        return out + _nanoseconds(ticks, units[0])
    for resolution in units:
        mine = unit == resolution
        out[mine] += _nanoseconds(ticks[mine], resolution)
    return out


def _nanoseconds(ticks: npt.NDArray[np.uint64], resolution: int) -> I64:
    power = resolution & 0x7F
    if resolution & 0x80:
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
    return ns.astype(np.int64)
