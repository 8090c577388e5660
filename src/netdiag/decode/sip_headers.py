"""Finds the wanted header lines of many SIP messages at once, as positions in one buffer.

Messages stand in one buffer with a line feed between them. One pass over its line feeds gives every header
line; two bytes of a line choose the few candidate names, the rest of the name is compared
as two 8-byte words. No Python runs per message or per line, except for odd lines.

Sources: RFC 3261 §7.3.1 (folding, white space before the colon, case), §7.3.3 and §20
(compact forms), RFC 4028 §4 (``x``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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


Words = list[np.uint64]
Name = tuple[int, int, Words, Words, Words]
"""Field index, length, and per 8-byte word: bits that fold case, bits that count, value."""


def _words(name: str) -> tuple[Words, Words, Words]:
    case, mask, value = bytearray(16), bytearray(16), bytearray(16)
    for i, c in enumerate(name.encode()):
        case[i] = 0x20 if chr(c).isalpha() else 0
        mask[i] = 0xFF
        value[i] = c
    case_words, mask_words, value_words = (list(np.frombuffer(bytes(b), "<u8")) for b in (case, mask, value))
    return case_words, mask_words, value_words


_BLANK_CR, _BLANK_LF, _FOLDED = 255, 254, 253
"""Codes of lines that are no header: an empty one (if a line feed follows the CR), and the rest of a folded one."""


class Wanted:
    """Names compiled for the search: the first two bytes of a line to a code.

    Codes: 0 unwanted, 1..n a field in compact form, n + 1 + k group k of full names, and the three above.
    """

    def __init__(self, names: dict[str, tuple[str, ...]]) -> None:
        self.fields = tuple(names)
        self.first = np.zeros(1 << 16, np.uint8)
        groups: dict[str, list[Name]] = {}
        for field, forms in enumerate(names.values()):
            for name in forms:
                if len(name) == 1:
                    for c in _either_case(name):
                        for after in ":", " ", "\t":
                            self.first[ord(c) | ord(after) << 8] = field + 1
                else:
                    groups.setdefault(name[:2], []).append((field, len(name), *_words(name)))
        for k, prefix in enumerate(groups):
            for c in _either_case(prefix):
                self.first[ord(c[0]) | ord(c[1]) << 8] = len(names) + 1 + k
        self.groups = list(groups.values())
        every = np.arange(256) << 8
        self.first[_SP | every] = self.first[_TAB | every] = _FOLDED
        self.first[_LF | every] = _BLANK_LF
        self.first[_CR | _LF << 8] = _BLANK_CR


@dataclass(slots=True)
class HeaderTable:
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


def find_headers(data: U8, start: I64, end: I64, wanted: Wanted) -> HeaderTable:
    """Header values of the messages ``data[start[i]:end[i]]``; the first header of a name wins.

    One line feed must stand between messages and behind the last, then PAD zero bytes.
    ``data`` is written to: line ends inside a folded header become spaces, a CR alone becomes LF.
    """
    n = len(start)
    changed = np.zeros(n, np.bool_)
    feeds = np.flatnonzero(data == _LF)
    returns = data == _CR
    if np.count_nonzero(returns) != np.count_nonzero(data[feeds - 1] == _CR):  # a CR alone ends a line, as in Wireshark
        alone = np.flatnonzero(returns[:-1] & (data[1:] != _LF))
        data[alone] = _LF
        changed[np.searchsorted(start, alone, side="right") - 1] = True
        feeds = np.flatnonzero(data == _LF)
    while True:
        pair = np.ndarray((len(data) - 1,), "<u2", data, 0, (1,))
        code = wanted.first[pair[feeds + 1]]
        hits = np.flatnonzero(code)
        at, code = feeds[hits], code[hits]
        low = np.searchsorted(at, start)
        message = np.repeat(np.arange(n), np.diff(low, append=len(at)))
        limit = end[message]
        blank = ((code == _BLANK_LF) & (at + 1 < limit)) | (
            (code == _BLANK_CR) & (at + 2 < limit) & (data[at + 2] == _LF))
        rows = np.flatnonzero(blank)[::-1]
        empty_line = np.full(n, len(data))
        empty_line[message[rows]] = at[rows]
        head_end = np.full(n, -1, np.int64)
        head_end[message[rows]] = at[rows] + np.where(code[rows] == _BLANK_LF, 2, 3)
        head = (at + 1 < limit) & (at < empty_line[message])
        folded = at[head & (code == _FOLDED)]
        if not len(folded):
            break
        data[folded] = _SP
        data[folded[data[folded - 1] == _CR] - 1] = _SP
        changed[np.searchsorted(start, folded, side="right") - 1] = True
        feeds = np.flatnonzero(data == _LF)

    line_end = np.append(feeds[1:], len(data) - PAD)[hits]
    line_end -= data[line_end - 1] == _CR
    first_feed = np.append(feeds, len(data) - PAD)[np.searchsorted(feeds, start)]
    first_line_end = first_feed - ((data[first_feed - 1] == _CR) & (first_feed > start))

    keep = np.flatnonzero(head & (code < _FOLDED))
    at, line_end, code, message = at[keep], line_end[keep], code[keep], message[keep]
    field, value = _names(data, at + 1, line_end, code, wanted)
    real = np.flatnonzero(field >= 0)[::-1]
    shape = len(wanted.fields), n
    begin, stop = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
    first, last = _trim(data, value[real], line_end[real])
    place = field[real], message[real]
    begin[place], stop[place] = first, last
    return HeaderTable(begin, stop, first_line_end, head_end, changed)


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
    fields = len(wanted.fields)
    field = np.where(code <= fields, code.astype(np.int64) - 1, -1)
    width = np.ones(len(line), np.int64)
    word = np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))
    for k, names in enumerate(wanted.groups):
        rows = np.flatnonzero(code == fields + 1 + k)
        if not len(rows):
            continue
        first = word[line[rows]]
        second = word[line[rows] + 8] if any(size > 8 for _, size, *_ in names) else None
        for index, size, case, mask, want in names:
            same = ((first | case[0]) & mask[0]) == want[0]
            if size > 8 and second is not None:
                same &= ((second | case[1]) & mask[1]) == want[1]
            field[rows[same]] = index
            width[rows[same]] = size
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
