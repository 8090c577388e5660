"""Puts IP datagrams together from their fragments (RFC 791 §3.2, RFC 8200 §4.5)."""

from __future__ import annotations

from dataclasses import dataclass, field

from netdiag.capture.space import Space
from netdiag.decode.frames import Piece
from netdiag.errors import CaptureError

_LARGEST = 65535
"""Largest IPv4 datagram, and IPv6 without a jumbo payload."""
_OPEN = 4096
"""Datagrams that may be open at once; the oldest is given up then (practice)."""
_PIECES = 8192
"""Fragments of one datagram: 65535 bytes in the smallest pieces of 8 bytes."""


@dataclass(slots=True)
class Datagram:
    """One datagram that could be put together."""

    first_row: int
    """Row of the piece with offset 0."""
    last_row: int
    """Row of the piece that completed it."""
    rows: list[int]
    offset: int
    """Where it lies in the space."""
    size: int


@dataclass(slots=True)
class _Open:
    pieces: list[Piece] = field(default_factory=list)
    total: int | None = None
    have: int = 0


@dataclass(slots=True)
class Result:
    whole: list[Datagram] = field(default_factory=list)
    odd: dict[str, list[int]] = field(default_factory=dict)
    """Reason to rows of pieces that came to nothing."""


def reassemble(space: Space, pieces: list[Piece], points: list[int]) -> Result:
    """Datagrams of ``pieces`` (in order of time); ``points`` is the capture point of each piece."""
    result = Result()
    waiting: dict[tuple[int, ...], _Open] = {}

    def odd(reason: str, rows: list[int]) -> None:
        result.odd.setdefault(reason, []).extend(rows)

    for piece, point in zip(pieces, points, strict=True):
        if piece.captured < piece.size:
            odd("IP fragment cut by the snap length", [piece.row])
            continue
        if piece.start + piece.size > _LARGEST:
            odd("IP fragment reaches beyond 65535 bytes", [piece.row])
            continue
        key = (point, piece.version, piece.src, piece.dst, piece.proto, piece.id)
        if key not in waiting and len(waiting) >= _OPEN:
            oldest = next(iter(waiting))
            odd("IP datagram given up: too many open at once", [p.row for p in waiting.pop(oldest).pieces])
        entry = waiting.setdefault(key, _Open())
        if len(entry.pieces) >= _PIECES:
            odd("more IP fragments than a datagram can have", [piece.row])
            continue
        entry.pieces.append(piece)
        entry.have += piece.size
        if not piece.more:
            entry.total = piece.start + piece.size
        # Complete datagrams have at least as many bytes in pieces as in all; only then it is worth looking closer.
        if entry.total is not None and entry.have >= entry.total:
            data = _join(space, entry.pieces, entry.total)
            if data is not None:
                del waiting[key]
                first = next(p.row for p in entry.pieces if p.start == 0)
                try:
                    offset = space.append(data)
                except CaptureError:
                    odd("no room left to put an IP datagram together", [p.row for p in entry.pieces])
                    continue
                result.whole.append(Datagram(first, piece.row, [p.row for p in entry.pieces], offset, len(data)))
    for entry in waiting.values():
        odd("IP fragments whose other pieces are missing", [p.row for p in entry.pieces])
    return result


def _join(space: Space, pieces: list[Piece], total: int) -> bytes | None:
    """The datagram, or None while bytes are missing; where pieces overlap the first one wins."""
    data = bytearray(total)
    done = 0
    for piece in sorted(pieces, key=lambda p: p.start):
        if piece.start > done:
            return None
        stop = min(piece.start + piece.size, total)
        if stop > done:
            data[done:stop] = space.read(piece.at + done - piece.start, stop - done)
            done = stop
    return bytes(data) if done == total else None
