"""Finds the wanted header lines of many SIP messages at once, as positions in one buffer.

Messages stand in one buffer with a line feed between them. One pass over its line feeds gives every header
line; two bytes of a line choose the few candidate names, the rest of the name is compared
as two 8-byte words. No Python runs per message or per line, except for odd lines.

Sources: RFC 3261 §7.3.1 (folding, white space before the colon, case), §7.3.3 and §20
(compact forms), RFC 4028 §4 (``x``).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PAD = 80
"""Zero bytes that must stand behind the last message: no read goes further (64 for ``bits``, and a word)."""

CORE: dict[str, tuple[str, ...]] = {
    "call_id": ("call-id", "i"),
    "cseq": ("cseq",),
    "from": ("from", "f"),
    "to": ("to", "t"),
    "via": ("via", "v"),
    "reason": ("reason",),
    "content_type": ("content-type", "c"),
    "content_length": ("content-length", "l"),
}
"""Header fields of every message that are looked at: key to full name and compact form."""
DETAILS: dict[str, tuple[str, ...]] = {
    "from": ("from", "f"),
    "to": ("to", "t"),
    "via": ("via", "v"),
    "contact": ("contact", "m"),
    "expires": ("expires",),
    "user_agent": ("user-agent",),
    "server": ("server",),
    "reason": ("reason",),
    "session_expires": ("session-expires", "x"),
}
"""Header fields that are read for the few messages somebody asks about."""

_LF, _CR, _SP, _TAB, _COLON = 10, 13, 32, 9, 58
_BLANKS_COLON = re.compile(rb"[ \t]*:")


def _either_case(text: str) -> list[str]:
    out = [""]
    for c in text:
        out = [o + x for o in out for x in sorted({c.lower(), c.upper()})]
    return out


class _Try:
    """One full name for each group, as tables by code; a name is compared as two 8-byte words."""

    def __init__(self, fields: int, names: list[tuple[int, str] | None]) -> None:
        count = fields + 1 + len(names)
        self.field, self.size = np.full(count, -1, np.int64), np.zeros(count, np.int64)
        self.case, self.mask = np.zeros((2, count), np.uint64), np.zeros((2, count), np.uint64)
        self.value = np.full((2, count), 1, np.uint64)  # where no name is, nothing is equal: mask 0, value 1
        for k, name in enumerate(names, fields + 1):
            if name is not None:
                self.field[k], self.size[k] = name[0], len(name[1])
                case, mask, value = bytearray(16), bytearray(16), bytearray(16)
                for i, c in enumerate(name[1].encode()):
                    case[i], mask[i], value[i] = 0x20 if chr(c).isalpha() else 0, 0xFF, c
                for table, raw in ((self.case, case), (self.mask, mask), (self.value, value)):
                    table[:, k] = np.frombuffer(bytes(raw), "<u8")
        self.long = self.size > 8


_BLANK_CR, _BLANK_LF, _FOLDED = 255, 254, 253
"""Codes of lines that are no header: an empty one (if a line feed follows the CR), and the rest of a folded one."""


class Wanted:
    """Names compiled for the search: the first two bytes of a line to a code.

    Codes: 0 unwanted, 1..n a field in compact form, n + 1 + k group k of full names, and the three above.
    """

    def __init__(self, names: dict[str, tuple[str, ...]]) -> None:
        self.fields = tuple(names)
        self.first = np.zeros(1 << 16, np.uint8)
        groups: dict[str, list[tuple[int, str]]] = {}
        for field, forms in enumerate(names.values()):
            for name in forms:
                if len(name) == 1:
                    for c in _either_case(name):
                        for after in ":", " ", "\t":
                            self.first[ord(c) | ord(after) << 8] = field + 1
                else:
                    groups.setdefault(name[:2], []).append((field, name))
        for k, prefix in enumerate(groups):
            for c in _either_case(prefix):
                self.first[ord(c[0]) | ord(c[1]) << 8] = len(names) + 1 + k
        self.tries = [_Try(len(names), [group[i] if i < len(group) else None for group in groups.values()])
                      for i in range(max(map(len, groups.values())))]
        """The first full name of each group, the second ones, …"""
        every = np.arange(256) << 8
        self.first[_SP | every] = self.first[_TAB | every] = _FOLDED
        self.first[_LF | every] = _BLANK_LF
        self.first[_CR | _LF << 8] = _BLANK_CR


class HeaderTable(NamedTuple):
    """Positions in the buffer; arrays over messages, ``begin``/``end`` also over the wanted fields (first axis)."""

    begin: I64
    end: I64
    """-1: the message has no such header. Blanks around the value are left out."""
    first_line_end: I64
    """Where the start line ends, CR LF excluded."""
    head_end: I64
    """Where the body starts; -1 where no empty line ends the header."""
    changed: Mask
    """Bytes of the message were changed: a folded header, or a CR alone."""
    repeated: Mask | None
    """The message has several lines of that field (both axes); None where none has."""


def find_headers(data: U8, start: I64, end: I64, wanted: Wanted) -> HeaderTable:
    """Header values of the messages ``data[start[i]:end[i]]``; the first header of a name wins.

    One line feed must stand between messages and behind the last, then PAD zero bytes.
    ``data`` is written to: line ends inside a folded header become spaces, a CR alone becomes LF.
    """
    n = len(start)
    changed = np.zeros(n, np.bool_)
    feeds = np.flatnonzero(data == _LF)
    quad = np.ndarray((len(data) - 3,), "<u4", data, 0, (1,))
    around = quad[feeds - 1]  # the byte before each line feed, the feed, and the two bytes behind it
    if np.count_nonzero(data == _CR) != np.count_nonzero(around & 0xFF == _CR):
        # A CR alone ends a line, as in Wireshark.
        alone = np.flatnonzero((data[:-1] == _CR) & (data[1:] != _LF))
        data[alone] = _LF
        changed[np.searchsorted(start, alone, side="right") - 1] = True
        feeds = np.flatnonzero(data == _LF)
        around = quad[feeds - 1]
    while True:
        code = wanted.first[around >> np.uint32(16)]
        hits = np.flatnonzero(code != 0)
        at, code = feeds[hits], code[hits]
        low = np.searchsorted(at, start)
        message = np.repeat(np.arange(n), np.diff(low, append=len(at)))
        special = np.flatnonzero(code >= _FOLDED)
        kind, place, owner = code[special], at[special], message[special]
        blank = ((kind == _BLANK_LF) & (place + 1 < end[owner])) | (
            (kind == _BLANK_CR) & (place + 2 < end[owner]) & (data[place + 2] == _LF))
        rows = np.flatnonzero(blank)[::-1]
        bound = end - 1  # a header line begins before it
        bound[owner[rows]] = place[rows]
        head_end = np.full(n, -1, np.int64)
        head_end[owner[rows]] = place[rows] + np.where(kind[rows] == _BLANK_LF, 2, 3)
        folded = place[(kind == _FOLDED) & (place < bound[owner])]
        if not len(folded):
            break
        data[folded] = _SP
        data[folded[data[folded - 1] == _CR] - 1] = _SP
        changed[np.searchsorted(start, folded, side="right") - 1] = True
        feeds = np.flatnonzero(data == _LF)
        around = quad[feeds - 1]

    ends = np.append(feeds, len(data) - PAD) - np.append(around & 0xFF == _CR, False)
    where = np.searchsorted(feeds, start)
    first_line_end = np.maximum(ends[where], start)

    keep = np.flatnonzero((at < bound[message]) & (code < _FOLDED))
    at, line_end, code, message = at[keep], ends[hits[keep] + 1], code[keep], message[keep]
    field, value = _names(data, at + 1, line_end, code, wanted)
    real = np.flatnonzero(field >= 0)[::-1]
    begin = np.zeros(len(wanted.fields) * n, np.int64)
    stop = np.full(len(wanted.fields) * n, -1, np.int64)
    place = field[real] * n + message[real]
    begin[place], stop[place] = _trim(data, value[real], line_end[real])
    shape = len(wanted.fields), n
    repeated = None
    if len(place) != np.count_nonzero(stop >= 0):
        repeated = (np.bincount(place, minlength=len(stop)) > 1).reshape(shape)
    return HeaderTable(begin.reshape(shape), stop.reshape(shape), first_line_end, head_end, changed, repeated)


def _trim(data: U8, begin: I64, end: I64) -> tuple[I64, I64]:
    """Without blanks at both ends."""
    begin = np.minimum(begin, end)
    before, after = data[begin], data[end - 1]
    for i in np.flatnonzero(((before == _SP) | (before == _TAB)) & (begin < end)).tolist():
        value = data[begin[i] : end[i]].tobytes()
        begin[i] += len(value) - len(value.lstrip(b" \t"))
    for i in np.flatnonzero(((after == _SP) | (after == _TAB)) & (begin < end)).tolist():
        end[i] = begin[i] + len(data[begin[i] : end[i]].tobytes().rstrip(b" \t"))
    return begin, end


def _names(data: U8, line: I64, line_end: I64, code: U8, wanted: Wanted) -> tuple[I64, I64]:
    """Field index (-1: another header after all) and value position of each candidate line."""
    word = np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))
    field = np.where(code <= len(wanted.fields), code.astype(np.int64) - 1, -1)
    width = np.ones(len(line), np.int64)
    first = word[line]
    for name in wanted.tries:
        hit = np.flatnonzero((first | name.case[0][code]) & name.mask[0][code] == name.value[0][code])
        found = code[hit]
        long = np.flatnonzero(name.long[found])
        if len(long):
            more, second = found[long], word[line[hit[long]] + 8]
            same = np.ones(len(hit), np.bool_)
            same[long] = (second | name.case[1][more]) & name.mask[1][more] == name.value[1][more]
            hit, found = hit[same], found[same]
        field[hit], width[hit] = name.field[found], name.size[found]
    colon = line + width
    odd = np.flatnonzero((field >= 0) & (data[colon] != _COLON))
    for i in odd.tolist():
        match = _BLANKS_COLON.match(data[colon[i] : line_end[i]].tobytes())
        if match:
            colon[i] += match.end() - 1
        else:
            field[i] = -1
    field[colon >= line_end] = -1  # the message ends inside the name
    value = colon + 1
    value += data[value] == _SP
    return field, value
