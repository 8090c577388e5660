"""What identifies a SIP message, for many messages at once: start line, CSeq, tags, branch.

The usual shapes are cut in columns. A row of any other shape is marked ``odd``, and the caller
parses its text with ``decode.sip``; both ways give the same answer for usual shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.decode.bits import NOWHERE, WIDTH, Texts, behind, below, first, single
from netdiag.decode.sip_headers import PAD

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ABSENT = -1
"""End of a span that does not exist."""

METHODS = ("INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "PRACK", "UPDATE", "INFO", "REFER", "NOTIFY",
           "MESSAGE", "PUBLISH", "SUBSCRIBE")
"""The SIP methods that IANA lists; a code is an index into this."""
_SEPARATORS = 6
"""Parameters passed over before the wanted one; behind that the row is odd."""


class Span(NamedTuple):
    """Begin and end of one value in each message; end ABSENT where there is none."""

    begin: I64
    end: I64


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text[:8].ljust(8, b"\0"), "little"))


def _mask(size: int) -> np.uint64:
    return np.uint64((1 << 8 * min(size, 8)) - 1)


_RESPONSE, _VERSION = _word(b"SIP/2.0 "), _word(b" SIP/2.0")
_SCHEMES = np.frombuffer(b"sip:sipstel:urn:", "<u4")
_BRANCH, _TAG = _word(b"branch="), np.uint32(int.from_bytes(b"tag=", "little"))
_FOLD8, _FOLD4 = _word(b" " * 6), np.uint32(0x20202020)
_LONG = 8
"""Bytes of a word; the longest method, SUBSCRIBE, has one more."""


def method_codes(data: U8, at: I64, length: I64) -> I64:
    """Index into METHODS of the words of ``length`` at ``at``; -1 for any other word."""
    word = np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))[np.minimum(at, len(data) - 8)]
    out = np.full(len(at), -1, np.int64)
    for code, name in enumerate(METHODS):
        same = (length == len(name)) & ((word & _mask(len(name))) == _word(name.encode()))
        if len(name) > _LONG:
            rows = np.flatnonzero(same)
            same[rows] = data[at[rows] + _LONG] == ord(name[_LONG])
        out[same] = code
    return out


class StartLines(NamedTuple):
    method: I64
    """Index into METHODS; -1 for a response."""
    status: I64
    """-1 for a request."""
    odd: Mask


def start_lines(data: U8, begin: I64, end: I64) -> StartLines:
    """Start lines ``[begin, end)``, line ends excluded."""
    words = np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))
    halves = np.ndarray((len(data) - 3,), "<u4", data, 0, (1,))
    length = end - begin
    text = Texts(data, begin, length)
    response = words[begin] == _RESPONSE
    digits = text.bytes[:, 8:11].astype(np.int64) - 48
    status = digits @ np.array([100, 10, 1])
    usual_status = ((digits >= 0) & (digits <= 9)).all(axis=1) & (digits[:, 0] >= 1) & (digits[:, 0] <= 6)
    usual_status &= (length >= 12) & (text.bytes[:, 11] == 32) & (text.at_most(31) == 0)

    blanks = text.at_most(32)
    space = first(blanks)
    method = method_codes(data, begin, space)
    tail = np.maximum(length - 8, 0)
    # Just two bytes of the line are blank or control: one behind the method, one before the version.
    usual = (method >= 0) & (tail > space + 5) & (words[begin + tail] == _VERSION)
    short = length <= WIDTH
    usual &= np.where(short, blanks == single(np.minimum(space, WIDTH - 1)) | single(np.minimum(tail, WIDTH - 1)),
                      blanks == single(np.minimum(space, WIDTH - 1)))
    usual &= np.isin(halves[begin + np.minimum(space + 1, tail)], _SCHEMES)
    long = np.flatnonzero((usual | (response & usual_status)) & ~short)
    if len(long):  # the rest of a line that is longer than a word has bits
        lengths, here = length[long] - np.where(response[long], 0, 8), begin[long]
        floor = np.where(response[long], 31, 32)
        for at in range(WIDTH, int(lengths.max()), WIDTH):
            rest = Texts(data, np.minimum(here + at, len(data) - WIDTH), np.maximum(lengths - at, 0))
            clean = np.where(floor == 31, rest.at_most(31), rest.at_most(32)) == 0
            usual[long[~clean]] = usual_status[long[~clean]] = False
    odd = ~np.where(response, usual_status, usual)
    return StartLines(np.where(response, -1, method), np.where(response, status, -1), odd)


def cseqs(data: U8, value: Span) -> tuple[I64, I64, Mask]:
    """Number, method (index into METHODS, -1 without) and odd rows of CSeq values."""
    number, at = numbers(data, value)
    there = value.end >= 0
    method = method_codes(data, np.minimum(at + 1, len(data) - 8), value.end - at - 1)
    usual = there & (number >= 0) & (data[np.minimum(at, len(data) - 1)] == 32) & (method >= 0)
    return np.where(usual, number, -1), np.where(usual, method, -1), there & ~usual


def tags(data: U8, value: Span) -> tuple[Span, Mask]:
    """Tag and odd rows of From or To values."""
    begin, there = value.begin, value.end >= 0
    length = np.where(there, value.end - begin, 0)
    text = Texts(data, begin, length)
    less = first(text.equal(60))
    greater = first(behind(text.equal(62), less))
    quotes = text.equal(34)
    usual = (greater < length) & (greater > less + 1) & (length <= WIDTH) & (text.equal(92) == 0)
    usual &= np.bitwise_count(quotes & below(less)) & 1 == 0
    usual &= behind(quotes, greater) == 0
    found, stop, loose = _parameter(data, text, begin, greater, length, _named_tag, 5)
    usual &= ~loose
    # Without a tag nothing may follow the bracket: other shapes hold blanks around the parameter.
    has = found < length
    usual &= has | (greater + 1 >= length)
    ok = there & usual
    return Span(begin + found + 5, np.where(ok & has, begin + stop, ABSENT)), there & ~usual


def branches(data: U8, value: Span) -> tuple[Span, Mask]:
    """Branch of the topmost Via, and odd rows (also those without a branch in the first 64 bytes)."""
    begin, there = value.begin, value.end >= 0
    length = np.where(there, value.end - begin, 0)
    text = Texts(data, begin, length)
    comma = np.minimum(first(text.equal(44)), np.minimum(length, WIDTH))
    found, stop, loose = _parameter(data, text, begin, np.zeros(len(begin), np.int64), comma, _named_branch,
                                    8)
    # A branch that reaches the end of the window may go on behind it.
    usual = (found < comma) & ~loose & ((stop < WIDTH) | (length <= WIDTH))
    usual &= (text.equal(34) & below(np.minimum(stop, WIDTH))) == 0
    ok = there & usual
    return Span(begin + found + 8, np.where(ok, begin + stop, ABSENT)), there & ~usual


def _named_tag(data: U8, at: I64) -> Mask:
    word = np.ndarray((len(data) - 3,), "<u4", data, 0, (1,))
    out: Mask = (word[at] | _FOLD4) == _TAG
    return out


def _named_branch(data: U8, at: I64) -> Mask:
    word = np.ndarray((len(data) - 7,), "<u8", data, 0, (1,))
    out: Mask = ((word[at] & _mask(7)) | _FOLD8) == _BRANCH
    return out


def _parameter(data: U8, text: Texts, begin: I64, start: I64, limit: I64, named: Callable[[U8, I64], Mask],
               lead: int) -> tuple[I64, I64, Mask]:
    """Position of the semicolon before a parameter (NOWHERE without), where its value ends, and rows to look at closer.

    ``named`` tells whether the wanted name and "=" stand at a position; with the semicolon these are ``lead`` bytes.
    """
    semicolons = text.equal(59)
    blanks = text.at_most(32)
    left = behind(semicolons, start) & below(np.minimum(limit, WIDTH))
    found = np.full(len(begin), NOWHERE, np.int64)
    odd = np.zeros(len(begin), np.bool_)
    todo = np.flatnonzero(left)
    for _ in range(_SEPARATORS):
        if not len(todo):
            break
        at = first(left[todo])
        hit = named(data, begin[todo] + at + 1)
        found[todo[hit]] = at[hit]
        # a blank behind a semicolon is legal and rare
        odd[todo] |= (blanks[todo] >> np.minimum(at + 1, WIDTH - 1).astype(np.uint64)) & np.uint64(1) != 0
        left[todo] &= left[todo] - np.uint64(1)
        todo = todo[~hit & (left[todo] != 0)]
    odd[todo] = True
    stop = np.minimum(first(behind(semicolons, np.minimum(found + 1, WIDTH))), limit)
    inside = behind(blanks, found) & below(np.minimum(stop, WIDTH))
    odd |= (found < NOWHERE) & ((inside != 0) | (stop <= found + lead))
    return found, stop, odd


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
