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

PAD = 32
"""Zero bytes that must stand behind the last message: no read goes further."""

NAMES: dict[str, tuple[str, ...]] = {
    "call_id": ("call-id", "i"),
    "cseq": ("cseq",),
    "from": ("from", "f"),
    "to": ("to", "t"),
    "via": ("via", "v"),
    "contact": ("contact", "m"),
    "expires": ("expires",),
    "user_agent": ("user-agent",),
    "server": ("server",),
    "reason": ("reason",),
    "session_expires": ("session-expires", "x"),
    "content_type": ("content-type", "c"),
    "content_length": ("content-length", "l"),
}
"""Header fields that are looked for: key to full name and compact form."""

FIELDS = tuple(NAMES)

_LF, _CR, _SP, _TAB, _COLON = 10, 13, 32, 9, 58
_TRIM = 4
"""Blanks that are dropped in columns; longer runs are rare and go one by one."""
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


def _tables() -> tuple[U8, list[list[Name]]]:
    """First two bytes of a line to 0 (unwanted), 1..n (a field, compact form) or n + 1 + k (group k of full names)."""
    first = np.zeros(1 << 16, np.uint8)
    groups: dict[str, list[Name]] = {}
    for field, names in enumerate(NAMES.values()):
        for name in names:
            if len(name) == 1:
                for c in _either_case(name):
                    for after in ":", " ", "\t":
                        first[ord(c) | ord(after) << 8] = field + 1
            else:
                groups.setdefault(name[:2], []).append((field, len(name), *_words(name)))
    for k, prefix in enumerate(groups):
        for c in _either_case(prefix):
            first[ord(c[0]) | ord(c[1]) << 8] = len(NAMES) + 1 + k
    return first, list(groups.values())


_FIRST, _GROUPS = _tables()


@dataclass(slots=True)
class HeaderTable:
    """Positions in the buffer; arrays over messages, ``begin``/``end`` also over FIELDS (first axis)."""

    begin: I64
    end: I64
    """-1: the message has no such header. Blanks around the value are left out."""
    first_line_end: I64
    """Where the start line ends, CR LF excluded."""
    head_end: I64
    """Where the body starts; -1 where no empty line ends the header."""


def find_headers(data: U8, start: I64, end: I64) -> HeaderTable:
    """Header values of the messages ``data[start[i]:end[i]]``; the first header of a name wins.

    One line feed must stand between messages and behind the last, then PAD zero bytes.
    ``data`` is written to: line ends inside a folded header become spaces, a CR alone becomes LF.
    """
    n = len(start)
    feeds = np.flatnonzero(data == _LF)
    returns = data == _CR
    if np.count_nonzero(returns) != np.count_nonzero(data[feeds - 1] == _CR):  # a CR alone ends a line, as in Wireshark
        data[np.flatnonzero(returns[:-1] & (data[1:] != _LF))] = _LF
        feeds = np.flatnonzero(data == _LF)
    low = np.searchsorted(feeds, start)
    message = np.repeat(np.arange(n), np.diff(low, append=len(feeds)))
    limit = end[message]
    after, behind = data[feeds + 1], data[feeds + 2]
    inside = feeds + 1 < limit
    blank = inside & ((after == _LF) | ((after == _CR) & (behind == _LF) & (feeds + 2 < limit)))
    empty_line = np.full(n, len(feeds))
    rows = np.flatnonzero(blank)[::-1]
    empty_line[message[rows]] = rows
    head_end = np.full(n, -1, np.int64)
    has = empty_line < len(feeds)
    at = empty_line[has]
    head_end[has] = feeds[at] + np.where(after[at] == _LF, 2, 3)

    head = inside & (np.arange(len(feeds)) < empty_line[message])
    folded = head & ((after == _SP) | (after == _TAB))
    if folded.any():
        at = feeds[folded]
        data[at] = _SP
        data[at[data[at - 1] == _CR] - 1] = _SP
        keep = ~folded
        feeds, message, head, after, behind = feeds[keep], message[keep], head[keep], after[keep], behind[keep]
        low = np.searchsorted(feeds, start)
    line_end = np.append(feeds[1:], 0)
    line_end -= data[line_end - 1] == _CR
    first_line_end = feeds[low] - ((data[feeds[low] - 1] == _CR) & (feeds[low] > start))

    code = _FIRST[after.astype(np.uint16) | behind.astype(np.uint16) << 8]
    code[~head] = 0
    wanted = np.flatnonzero(code)
    field, value = _names(data, feeds[wanted] + 1, line_end[wanted], code[wanted])
    real = np.flatnonzero(field >= 0)[::-1]
    begin, stop = np.zeros((len(FIELDS), n), np.int64), np.full((len(FIELDS), n), -1, np.int64)
    at, lines = field[real], wanted[real]
    first, last = _trim(data, value[real], line_end[lines])
    begin[at, message[lines]] = first
    stop[at, message[lines]] = last
    return HeaderTable(begin, stop, first_line_end, head_end)


def _trim(data: U8, begin: I64, end: I64) -> tuple[I64, I64]:
    """Without blanks at both ends."""
    begin = np.minimum(begin, end)
    for _ in range(_TRIM):
        blank = (begin < end) & ((data[begin] == _SP) | (data[begin] == _TAB))
        if not blank.any():
            break
        begin = begin + blank
    else:
        for i in np.flatnonzero(blank).tolist():
            value = data[begin[i] : end[i]].tobytes()
            begin[i] += len(value) - len(value.lstrip(b" \t"))
    for _ in range(_TRIM):
        blank = (begin < end) & ((data[end - 1] == _SP) | (data[end - 1] == _TAB))
        if not blank.any():
            break
        end = end - blank
    else:
        for i in np.flatnonzero(blank).tolist():
            end[i] = begin[i] + len(data[begin[i] : end[i]].tobytes().rstrip(b" \t"))
    return begin, end


def _names(data: U8, line: I64, line_end: I64, code: U8) -> tuple[I64, I64]:
    """Field index (-1: another header after all) and value position of each candidate line."""
    field = np.where(code <= len(NAMES), code.astype(np.int64) - 1, -1)
    width = np.ones(len(line), np.int64)
    word = np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))
    for k, names in enumerate(_GROUPS):
        rows = np.flatnonzero(code == len(NAMES) + 1 + k)
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
    if len(odd):
        text = data.tobytes()
        for i in odd.tolist():
            match = _BLANKS_COLON.match(text, int(colon[i]), int(line_end[i]))
            if match:
                colon[i] = match.end() - 1
            else:
                field[i] = -1
    field[colon >= line_end] = -1  # the message ends inside the name
    value = colon + 1
    value += data[value] == _SP
    return field, value
