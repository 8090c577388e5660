"""Puts IP datagrams together from their fragments (RFC 791 §3.2, RFC 8200 §4.5), and says what came of each one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from netdiag.capture.space import Space
from netdiag.decode.frames import Piece
from netdiag.errors import CaptureError

TIMEOUT_NS = 60 * 10**9
"""A datagram that is not whole by then is given up (RFC 8200 §4.5; RFC 1122 §3.3.2 asks for 60 to 120 s)."""
_LARGEST = 65535
"""Largest IPv4 datagram, and IPv6 without a jumbo payload."""
_OPEN = 4096
"""Datagrams that may be open at once; the oldest is given up then (practice)."""
_PIECES = 8192
"""Fragments of one datagram: 65535 bytes in the smallest pieces of 8 bytes."""

MISSING = "IP fragments whose other pieces are missing"
CUT = "IP fragment cut by the snap length"
LATE = "IP datagram given up: its pieces are more than 60 s apart"
CROWDED = "IP datagram given up: too many open at once"
TOO_MANY = "more IP fragments than a datagram can have"
TOO_LONG = "IP fragment reaches beyond 65535 bytes"
NO_ROOM = "no room left to put an IP datagram together"


@dataclass(slots=True)
class Datagram:
    """One datagram of which fragments were captured."""

    point: int
    piece: Piece
    """Its first fragment to arrive: what it says of addresses, protocol and identification holds for all."""
    rows: list[int] = field(default_factory=list)
    """Rows of its pieces in order of arrival."""
    first_row: int | None = None
    """Row of the first piece with offset 0."""
    last_row: int = 0
    """Row of the piece that arrived last; of a whole one, the piece that completed it."""
    total: int | None = None
    """Bytes of the IP payload; None while the last piece (no more fragments) has not come."""
    have: int = 0
    """Distinct bytes of it on the wire, up to ``total``."""
    overlap: bool = False
    """Pieces brought the same bytes twice: repeated on the way, or made to deceive."""
    conflict: bool = False
    """Pieces disagree about bytes or about the length."""
    cut: bool = False
    offset: int = -1
    """Where it lies in the space; -1: it was not put together."""
    size: int = 0
    """Bytes there."""
    given_up: str = ""
    """Why it was not put together."""
    again: list[int] = field(default_factory=list)
    """Rows of pieces that came again when it was whole."""
    _start: list[int] = field(default_factory=list)
    _end: list[int] = field(default_factory=list)
    _at: list[int] = field(default_factory=list)
    """Disjoint intervals in order of place, and where their bytes lie: what came first stays."""


@dataclass(slots=True)
class Result:
    whole: list[Datagram] = field(default_factory=list)
    broken: list[Datagram] = field(default_factory=list)
    odd: dict[str, list[int]] = field(default_factory=dict)
    """Reason to rows of pieces that came to nothing."""

    def add(self, other: Result) -> None:
        """Takes over what ``other`` found: fragments inside a tunnel that was itself fragmented."""
        self.whole += other.whole
        self.broken += other.broken
        for reason, rows in other.odd.items():
            self.odd.setdefault(reason, []).extend(rows)

    def take_missing(self) -> set[int]:
        """Removes datagrams that lack pieces, of which more may come, and gives the rows of what is there of them."""
        rows = {row for datagram in self.broken if datagram.given_up == MISSING for row in datagram.rows}
        self.broken = [datagram for datagram in self.broken if datagram.given_up != MISSING]
        if MISSING in self.odd:
            self.odd[MISSING] = [row for row in self.odd[MISSING] if row not in rows]
        return rows


def reassemble(space: Space, pieces: list[Piece], points: list[int], times: Sequence[int] = ()) -> Result:
    """Datagrams of ``pieces`` (in order of time); ``points`` and ``times`` (ns) are those of each piece.

    Time and memory are linear in the bytes of the pieces, whatever their order.
    """
    result = Result()
    waiting: dict[tuple[int, ...], tuple[Datagram, int]] = {}
    recent: dict[tuple[int, ...], tuple[Datagram, int]] = {}  # what was whole last, and when it began

    def odd(reason: str, rows: list[int]) -> None:
        result.odd.setdefault(reason, []).extend(rows)

    def give_up(datagram: Datagram, reason: str) -> None:
        datagram.given_up = CUT if reason == MISSING and datagram.cut else reason
        result.broken.append(datagram)
        if not datagram.cut:  # its cut pieces have been counted
            odd(reason, datagram.rows)

    for piece, point, now in zip(pieces, points, times or [0] * len(pieces), strict=True):
        if piece.start + piece.size > _LARGEST:
            odd(TOO_LONG, [piece.row])
            continue
        if piece.captured < piece.size:
            odd(CUT, [piece.row])
        # RFC 8200 §4.5 leaves the next header out: only the first fragment's counts.
        key = (point, piece.version, piece.src, piece.dst, piece.proto if piece.version == 4 else 0, piece.id,
               piece.path)
        found = waiting.get(key)
        if found is not None and now - found[1] > TIMEOUT_NS:
            give_up(waiting.pop(key)[0], LATE)
            found = None
        if found is None:
            if len(waiting) >= _OPEN:
                give_up(waiting.pop(next(iter(waiting)))[0], CROWDED)
            found = waiting[key] = (Datagram(point, piece), now)
        datagram = found[0]
        if len(datagram.rows) >= _PIECES:
            odd(TOO_MANY, [piece.row])
            continue
        _add(space, datagram, piece)
        if datagram.have == datagram.total:
            began = waiting.pop(key)[1]
            if datagram.cut:
                give_up(datagram, CUT)
                continue
            try:
                _join(space, datagram)
            except CaptureError:
                give_up(datagram, NO_ROOM)
                continue
            result.whole.append(datagram)
            recent.pop(key, None)
            recent[key] = datagram, began
            if len(recent) > _OPEN:
                del recent[next(iter(recent))]
    for what, (datagram, now) in waiting.items():
        before = recent.get(what)
        if before is not None and 0 <= now - before[1] <= TIMEOUT_NS and _repeats(space, datagram, before[0]):
            before[0].again += datagram.rows
        else:
            give_up(datagram, MISSING)
    return result


def _repeats(space: Space, datagram: Datagram, whole: Datagram) -> bool:
    """Is all that came of this datagram there in the other one, which has the same identification?"""
    if datagram.cut or datagram.conflict or datagram.total not in (None, whole.total):
        return False
    parts = zip(datagram._start, datagram._end, datagram._at, strict=True)
    return all(end <= whole.size and space.read(at, end - start) == space.read(whole.offset + start, end - start)
               for start, end, at in parts)


def _add(space: Space, datagram: Datagram, piece: Piece) -> None:
    datagram.rows.append(piece.row)
    datagram.last_row = piece.row
    datagram.cut |= piece.captured < piece.size
    begin, end = piece.start, piece.start + piece.size
    if begin == 0 and datagram.first_row is None:
        datagram.first_row = piece.row
    limit = datagram.total
    if not piece.more:
        if limit is None:
            datagram.total = limit = end
            _shorten(datagram, end)
        else:
            datagram.conflict |= limit != end
    if limit is not None and end > limit:  # the first piece without more behind it says where the datagram ends
        datagram.conflict = True
        end = limit
    if begin >= end:
        return
    if not datagram._end or begin >= datagram._end[-1]:
        datagram._start.append(begin)
        datagram._end.append(end)
        datagram._at.append(piece.at)
        datagram.have += end - begin
    else:
        _fill(space, datagram, piece, begin, end)


def _fill(space: Space, datagram: Datagram, piece: Piece, begin: int, end: int) -> None:
    """Puts the bytes begin..end of a piece into the gaps between the intervals that are there."""
    starts, ends, places = datagram._start, datagram._end, datagram._at
    base = piece.at - piece.start
    low = high = bisect_right(ends, begin)
    merged: list[tuple[int, int, int]] = []
    here = begin
    while high < len(starts) and starts[high] < end:
        start, stop, place = starts[high], ends[high], places[high]
        if start > here:
            merged.append((here, start, base + here))
            datagram.have += start - here
        merged.append((start, stop, place))
        a, b = max(start, begin), min(stop, end)
        if not (datagram.conflict or datagram.cut):
            datagram.conflict = space.read(place + a - start, b - a) != space.read(base + a, b - a)
        here = stop
        high += 1
    datagram.overlap |= high > low
    if here < end:
        merged.append((here, end, base + here))
        datagram.have += end - here
    starts[low:high] = [m[0] for m in merged]
    ends[low:high] = [m[1] for m in merged]
    places[low:high] = [m[2] for m in merged]


def _shorten(datagram: Datagram, total: int) -> None:
    """Drops what had come from behind the end that is known now."""
    while datagram._end and datagram._end[-1] > total:
        datagram.conflict = True
        start, end = datagram._start[-1], datagram._end[-1]
        datagram.have -= end - max(start, total)
        if start < total:
            datagram._end[-1] = total
        else:
            for values in (datagram._start, datagram._end, datagram._at):
                values.pop()


def _join(space: Space, datagram: Datagram) -> None:
    parts = zip(datagram._start, datagram._end, datagram._at, strict=True)
    data = b"".join([space.view(at, end - start) for start, end, at in parts])
    datagram.offset = space.append(data)
    datagram.size = len(data)
    datagram._start, datagram._end, datagram._at = [], [], []
