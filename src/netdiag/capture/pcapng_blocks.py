"""What the blocks of a pcapng file say besides packets: interfaces, drops, names, secrets and comments.

Block layouts and option codes: draft-ietf-opsawg-pcapng §4.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from netdiag.capture.records import I64, MAX_RECORD, FileNotes
from netdiag.capture.space import Space

SECTION, INTERFACE, PACKET, SIMPLE, NAMES, STATISTICS, ENHANCED, SECRETS = 0x0A0D0D0A, 1, 2, 3, 4, 5, 6, 10
_COMMENT, _DROPCOUNT = 1, 4
_FILTER, _RESOLUTION, _OFFSET = 11, 9, 14
_IF_DROP, _OS_DROP = 5, 7
_TLS_KEYS = 0x544C534B
_OTHER_KEYS = {0x5353484B: "SSH", 0x57474B4C: "WireGuard", 0x5A4E574B: "ZigBee", 0x5A415053: "ZigBee",
               0x55414B4C: "OPC UA"}
"""Secrets that Wireshark knows too (draft §4.7), and that nothing here decrypts with."""
_COMMENTS = 200
"""Comments kept of one file (practice)."""
_NAMES = 10_000
"""Names kept of one file (practice)."""
_REMARKS = 100
"""Notes kept of one file (practice)."""
_OPTIONS = 64
"""Options of one packet that are looked at (practice; writers put in up to ten)."""
_BELIEVED = 1 << 48
"""Higher counts of drops are taken as not known (practice)."""


@dataclass(slots=True)
class Section:
    """Interfaces of a section, as lists with one entry each."""

    order: str
    number: int
    refusals: int = 0
    """Windows of the file so far in which records could not be walked together."""
    links: list[int] = field(default_factory=list)
    snaplens: list[int] = field(default_factory=list)
    resolutions: list[int] = field(default_factory=list)
    """if_tsresol: 10^-n s, or 2^-(n & 127) s where the top bit is set."""
    offsets: list[int] = field(default_factory=list)
    """if_tsoffset: seconds."""


@dataclass(slots=True)
class Drops:
    """Lost packets. Statistics are running totals, counts at packets are since the packet before; an interface that
    has both counts the same packets twice.
    """

    known: int | None = None
    """All of them; None where the file does not say."""
    _totals: dict[tuple[int, int], int] = field(default_factory=dict)
    _counted: dict[tuple[int, int], int] = field(default_factory=dict)

    def total(self, section: Section, interface: int, drops: int) -> None:
        """Takes over what the newest statistics of an interface state."""
        self._change(self._totals, (section.number, interface), drops)

    def count(self, section: Section, interfaces: I64, drops: I64) -> None:
        """Adds what packet blocks state."""
        some, place = np.unique(interfaces, return_inverse=True)
        sums = np.zeros(len(some), np.int64)
        np.add.at(sums, place, drops)
        for interface, more in zip(some.tolist(), sums.tolist(), strict=True):
            key = section.number, interface
            self._change(self._counted, key, self._counted.get(key, 0) + more)

    def _change(self, which: dict[tuple[int, int], int], key: tuple[int, int], drops: int) -> None:
        before = max(self._totals.get(key, 0), self._counted.get(key, 0))
        which[key] = drops
        self.known = (self.known or 0) - before + max(self._totals.get(key, 0), self._counted.get(key, 0))


def meta(space: Space, at: int, kind: int, section: Section, notes: FileNotes, drops: Drops) -> None:
    """Takes in one block that holds no packet."""
    order = section.order
    (size,) = struct.unpack(order + "I", space.read(at + 4, 4))
    end = at + (size + 3) // 4 * 4 - 4
    if kind == INTERFACE and end - at >= 16:
        _interface(space, at, end, section, notes)
    elif kind == STATISTICS and end - at >= 20:
        (interface,) = struct.unpack(order + "I", space.read(at + 8, 4))
        counts = [value for code, value in _options(space, at + 20, end, order, notes)
                  if code in (_IF_DROP, _OS_DROP) and len(value) == 8]
        found = [int(struct.unpack(order + "Q", value)[0]) for value in counts]
        if found := [n for n in found if n < _BELIEVED]:
            drops.total(section, interface, sum(found))
    elif kind == NAMES:
        _names(space, at + 8, end, order, notes)
    elif kind == SECRETS and end - at >= 16:
        secret, length = struct.unpack(order + "II", space.read(at + 8, 8))
        if at + 16 + length > end:
            remark(notes, "a secrets block states more bytes than it holds; it is not used")
        elif secret == _TLS_KEYS:
            notes.secrets.append(space.read(at + 16, length))
        else:
            remark(notes, f"{_OTHER_KEYS.get(secret, 'unknown')} secrets in the file are not used")
    elif kind == SECTION and end - at >= 24:
        major, minor = struct.unpack(order + "HH", space.read(at + 12, 4))
        if (major, minor) not in ((1, 0), (1, 2)):
            remark(notes, f"pcapng version {major}.{minor} is not known; read as 1.0")
        for _ in _options(space, at + 24, end, order, notes):
            pass  # comments are taken on the way


def _interface(space: Space, at: int, end: int, section: Section, notes: FileNotes) -> None:
    order = section.order
    link, _, snaplen = struct.unpack(order + "HHI", space.read(at + 8, 8))
    resolution, offset = 6, 0
    for code, value in _options(space, at + 16, end, order, notes):
        if code == _RESOLUTION and value:
            resolution = value[0]
        elif code == _OFFSET and len(value) == 8:
            (offset,) = struct.unpack(order + "q", value)
        elif code == _FILTER and len(value) > 1 and value[0] == 0:  # a libpcap string
            text = value[1:].decode("utf-8", "replace")
            if text not in notes.filters:
                notes.filters.append(text)
    section.links.append(link)
    section.snaplens.append(snaplen)
    section.resolutions.append(resolution)
    section.offsets.append(max(-(1 << 33), min(1 << 33, offset)))
    notes.snaplen = max(notes.snaplen or 0, snaplen or MAX_RECORD)  # 0 is no limit (draft §4.2)


def _names(space: Space, at: int, end: int, order: str, notes: FileNotes) -> None:
    for code, value in _options(space, at, end, order, notes, comments=False):
        size = {1: 4, 2: 16}.get(code)
        if size is None or len(value) <= size or len(notes.names) >= _NAMES:
            continue
        name = value[size:].split(b"\0")[0].decode("utf-8", "replace")
        notes.names.setdefault(str(ipaddress.ip_address(value[:size])), name)


def _options(space: Space, at: int, end: int, order: str, notes: FileNotes,
             comments: bool = True) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= end:
        code, size = struct.unpack(order + "HH", space.read(at, 4))
        if code == 0:
            return
        if at + 4 + size > end:
            _overrun(notes)
            return
        value = space.read(at + 4, size)
        if comments and code == _COMMENT:
            _comment(notes, value)
        yield code, value
        at += 4 + (size + 3) // 4 * 4


def packet_options(space: Space, section: Section, interfaces: I64, begin: I64, end: I64, notes: FileNotes,
                   drops: Drops) -> None:
    """Comments and drop counts of packet blocks whose options lie from ``begin`` to ``end``."""
    order = section.order
    u2 = space.numbers(order + "u2")
    rows = np.flatnonzero(end - begin >= 4)
    at = begin[rows]
    for _ in range(_OPTIONS):
        code, size = u2[at], u2[at + 2].astype(np.int64)
        fits = at + 4 + size <= end[rows]
        if not fits[code != 0].all():
            _overrun(notes)
        good = (code != 0) & fits
        rows, at, code, size = rows[good], at[good], code[good], size[good]
        if not len(rows):
            return
        for i in np.flatnonzero(code == _COMMENT)[:_COMMENTS].tolist():
            _comment(notes, space.read(int(at[i]) + 4, int(size[i])))
        lost = np.flatnonzero((code == _DROPCOUNT) & (size == 8))
        if len(lost):
            counts = space.numbers(order + "u8")[at[lost] + 4].astype(np.uint64)
            believed = counts < _BELIEVED
            drops.count(section, interfaces[rows[lost]][believed], counts[believed].astype(np.int64))
        at = at + 4 + (size + 3) // 4 * 4
        more = end[rows] - at >= 4
        rows, at = rows[more], at[more]


def _comment(notes: FileNotes, value: bytes) -> None:
    if len(notes.comments) < _COMMENTS:
        notes.comments.append(value.decode("utf-8", "replace"))


def _overrun(notes: FileNotes) -> None:
    remark(notes, "options of a block claim more bytes than it has; they were not read")


def remark(notes: FileNotes, text: str) -> None:
    """Notes it once, unless there is too much to note already."""
    if text not in notes.notes and len(notes.notes) < _REMARKS:
        notes.notes.append(text)
