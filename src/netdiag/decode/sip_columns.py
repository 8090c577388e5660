"""Parts of SIP start lines and header values, as positions in a buffer of many messages.

The usual shapes are cut in columns. A row of any other shape is marked ``odd``, and the caller
parses its text with ``decode.sip``; both ways give the same answer for usual shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netdiag.decode.sip_headers import PAD

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ABSENT = -1
"""End of a span that does not exist."""

NONE: I64 = np.empty(0, np.int64)

_RESPONSE = np.frombuffer(b"SIP/2.0 ", "<u8")[0]
_VERSION = np.frombuffer(b" SIP/2.0", "<u8")[0]
_SCHEMES = np.frombuffer(b"sip:sipstel:urn:", "<u4")


@dataclass(slots=True)
class Span:
    """Begin and end of one value in each message; end ABSENT where there is none."""

    begin: I64
    end: I64


class Marks:
    """Ascending positions of the bytes that separate SIP values."""

    def __init__(self, data: U8) -> None:
        self.data = data
        self.size = len(data)
        mask = np.empty(len(data), np.bool_)  # one buffer: fresh pages cost more than the comparison

        def where(byte: int) -> I64:
            return np.flatnonzero(np.equal(data, byte, out=mask))

        self.space, self.less, self.greater, self.quote = where(32), where(60), where(62), where(34)
        self.comma = where(44)
        self.backslash = np.flatnonzero(mask) if np.equal(data, 92, out=mask).any() else NONE
        ends = np.count_nonzero(np.equal(data, 10, out=mask)) + np.count_nonzero(np.equal(data, 13, out=mask)) + PAD
        np.less(data, 32, out=mask)  # the PAD zeros are among these
        self.control = NONE if np.count_nonzero(mask) == ends else np.flatnonzero(mask & (data != 10) & (data != 13))
        semicolon = self.semicolon = where(59)
        after = data[semicolon + 1] | 0x20
        # a blank behind a semicolon is legal and rare; | 0x20 leaves a space as it is and makes TAB ")"
        self.loose = semicolon[(after == 32) | (data[semicolon + 1] == 9)]
        self.tag = self._named(semicolon[after == ord("t")], b"tag=")
        self.branch = self._named(semicolon[after == ord("b")], b"branch=")
        self.expires = self._named(semicolon[after == ord("e")], b"expires")

    def _named(self, semicolon: I64, name: bytes) -> I64:
        for i, c in enumerate(name):
            fold = 0x20 if chr(c).isalpha() else 0
            semicolon = semicolon[(self.data[semicolon + 1 + i] | fold) == c]
        return semicolon

    def next(self, marks: I64, at: I64) -> I64:
        """First mark at or behind each position; the size of the data where there is none."""
        return np.append(marks, self.size)[np.searchsorted(marks, at)]

    def any(self, marks: I64, begin: I64, end: I64) -> Mask:
        """Is there a mark in [begin, end)?"""
        return self.next(marks, begin) < end if len(marks) else np.zeros(len(begin), np.bool_)


@dataclass(slots=True)
class StartLines:
    method: Span
    uri: Span
    status: npt.NDArray[np.int64]
    """-1: a request."""
    reason: Span
    odd: Mask


def start_lines(marks: Marks, begin: I64, end: I64) -> StartLines:
    """Start lines ``[begin, end)``, line ends excluded."""
    data = marks.data
    word = np.ndarray((marks.size - 7,), "<u8", data, 0, (1,))
    half = np.ndarray((marks.size - 3,), "<u4", data, 0, (1,))
    response = word[begin] == _RESPONSE
    digit = [data[np.minimum(begin + 8 + i, marks.size - 1)].astype(np.int64) - 48 for i in range(3)]
    status = digit[0] * 100 + digit[1] * 10 + digit[2]
    good_status = (digit[0] >= 1) & (digit[0] <= 6)
    for d in digit[1:]:
        good_status &= (d >= 0) & (d <= 9)
    good_status &= (end >= begin + 12) & (data[np.minimum(begin + 11, marks.size - 1)] == 32)
    first = marks.next(marks.space, begin)
    second = marks.next(marks.space, first + 1)
    tail = np.maximum(end - 8, 0)
    good_request = (second == tail) & (word[tail] == _VERSION) & (tail > first + 5) & (first > begin)
    good_request &= np.isin(half[np.minimum(first + 1, marks.size - 4)], _SCHEMES)
    odd = ~np.where(response, good_status, good_request) | marks.any(marks.control, begin, end)
    request = ~response
    return StartLines(
        Span(begin, np.where(request, first, ABSENT)), Span(first + 1, np.where(request, tail, ABSENT)),
        np.where(response, status, -1), Span(begin + 12, np.where(response, end, ABSENT)), odd,
    )


def addresses(marks: Marks, value: Span) -> tuple[Span, Span, Mask]:
    """addr-spec, tag and odd rows of From or To values."""
    begin, end = value.begin, value.end
    there = end >= 0
    less = marks.next(marks.less, begin)
    greater = marks.next(marks.greater, less)
    usual = (greater < end) & (greater > less + 1)
    quotes = np.searchsorted(marks.quote, less) - np.searchsorted(marks.quote, begin)
    usual &= (quotes & 1) == 0
    usual &= ~marks.any(marks.backslash, begin, end) & ~marks.any(marks.quote, greater, end)
    usual &= ~marks.any(marks.loose, greater, end)
    inner = np.minimum(less + 1, marks.size - 1)
    usual &= (marks.data[inner] != 32) & (marks.data[np.minimum(greater, marks.size) - 1] != 32)
    tag = marks.next(marks.tag, greater)
    tagged = tag < end
    usual &= tagged | (greater + 1 >= end)
    stop = np.minimum(marks.next(marks.semicolon, tag + 1), end)
    usual &= ~tagged | (stop > tag + 5) & ~marks.any(marks.space, np.minimum(tag, stop), stop)
    ok = there & usual
    return (Span(less + 1, np.where(ok, greater, ABSENT)), Span(tag + 5, np.where(ok & tagged, stop, ABSENT)),
            there & ~usual)


def vias(marks: Marks, value: Span) -> tuple[Span, Span, Mask]:
    """Topmost Via, its branch, and odd rows."""
    begin, end = value.begin, value.end
    there = end >= 0
    top = np.minimum(marks.next(marks.comma, begin), end)
    branch = marks.next(marks.branch, begin)
    stop = np.minimum(marks.next(marks.semicolon, branch + 1), top)
    usual = (branch < top) & (stop > branch + 8) & (top > begin)
    usual &= (marks.data[np.maximum(top - 1, 0)] != 32) & ~marks.any(marks.quote, begin, top)
    usual &= ~marks.any(marks.space, np.minimum(branch, stop), stop) & ~marks.any(marks.loose, begin, top)
    ok = there & usual
    return Span(begin, np.where(ok, top, ABSENT)), Span(branch + 8, np.where(ok, stop, ABSENT)), there & ~usual


def contacts(marks: Marks, value: Span) -> tuple[Span, Span, Mask]:
    """First Contact value, digits of its expires parameter, and odd rows."""
    begin, end = value.begin, value.end
    there = end >= 0
    expires = marks.next(marks.expires, begin)
    has = expires < end
    stop = np.minimum(marks.next(marks.semicolon, expires + 1), end)
    odd = marks.any(marks.comma, begin, end) | marks.any(marks.loose, begin, end)
    odd |= has & (marks.data[np.minimum(expires + 8, marks.size - 1)] != ord("="))
    odd |= has & (marks.any(marks.quote, begin, end) | (marks.next(marks.greater, expires) < end))
    ok = there & ~odd
    return Span(begin, np.where(ok, end, ABSENT)), Span(expires + 9, np.where(ok & has, stop, ABSENT)), there & odd


def numbers(data: U8, value: Span) -> tuple[I64, I64]:
    """Leading digits of each value as a number (-1: none, or over 32 bits) and where they end."""
    at = value.begin.copy()
    out = np.zeros(len(at), np.int64)
    running = value.end > at
    for _ in range(11):
        digit = data[np.minimum(at, len(data) - PAD)].astype(np.int64) - 48
        running = running & (digit >= 0) & (digit <= 9) & (at < value.end)
        if not running.any():
            break
        out = np.where(running, out * 10 + digit, out)
        at = at + running
    return np.where((at > value.begin) & (out <= 0xFFFFFFFF), out, -1), at
