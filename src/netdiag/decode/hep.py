"""HEP3, in which capture agents send the signalling they see to a HOMER server: the message inside, in columns.

Chunks are named as in the HEP3 specification (draft by the SIPCAPTURE project, revision 36, §3). What was sent over
TCP comes as one whole message a datagram, without TCP's header: it counts as a datagram here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space
from netdiag.decode.ip import Addresses6

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

_CHUNKS = 32
"""Chunks followed in one message (practice: the specification defines 18)."""
_SOURCE4, _DESTINATION4, _SOURCE6, _DESTINATION6, _SPORT, _DPORT, _SECONDS, _MICRO, _TYPE, _AGENT, _PAYLOAD = (
    3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15)
_SIZES = {_SOURCE4: 4, _DESTINATION4: 4, _SOURCE6: 16, _DESTINATION6: 16, _SPORT: 2, _DPORT: 2, _SECONDS: 4,
          _MICRO: 4, _TYPE: 1, _AGENT: 4}
_NUMBERS = {2: ">u2", 4: ">u4"}
_SIP, _RTCP = 1, 5
"""Protocol types whose payload can be as it was on the wire; others are reports in JSON or logs, and so is RTCP of
most agents: it counts where its first byte has RTP's version (RFC 3550 §5.1), which no JSON has."""


class Hep(NamedTuple):
    """Messages of a batch; where ``good`` is False the others mean nothing."""

    good: npt.NDArray[np.bool_]
    six: npt.NDArray[np.bool_]
    src: U32
    dst: U32
    sport: npt.NDArray[np.uint16]
    dport: npt.NDArray[np.uint16]
    ts: I64
    """Time of the agent, nanoseconds since the epoch; 0 where it gives none."""
    agent: U32
    at: I64
    """Where the message starts."""
    size: I64
    """Its bytes as the agent sent them."""
    captured: I64


def decode(space: Space, at: I64, end: I64, addresses: Addresses6) -> Hep:
    """HEP3 messages at ``at``; ``end`` is where the captured payload stops."""
    n = len(at)
    u2 = space.numbers(">u2")
    where = {kind: np.full(n, -1, np.int64) for kind in (*_SIZES, _PAYLOAD)}
    size = np.zeros(n, np.int64)
    stop = at + u2[at + 4]
    here, todo = at + 6, np.arange(n)
    for _ in range(_CHUNKS):
        todo = todo[here[todo] + 6 <= np.minimum(stop, end)[todo]]
        if not len(todo):
            break
        place = here[todo]
        length = u2[place + 4].astype(np.int64)
        fits = (length >= 6) & (place + length <= stop[todo])
        kind = np.where(u2[place] == 0, u2[place + 2], 0)  # vendor 0 is the specification's own
        for chunk, wanted in _SIZES.items():
            mine = fits & (kind == chunk) & (length == 6 + wanted) & (place + length <= end[todo])
            where[chunk][todo[mine]] = place[mine] + 6
        mine = fits & (kind == _PAYLOAD)
        where[_PAYLOAD][todo[mine]], size[todo[mine]] = place[mine] + 6, length[mine] - 6
        here[todo] += length
        todo = todo[fits]

    def number(chunk: int) -> I64:
        there = where[chunk]
        view = space.array if _SIZES[chunk] == 1 else space.numbers(_NUMBERS[_SIZES[chunk]])
        return np.where(there >= 0, view[np.maximum(there, 0)], 0).astype(np.int64)

    six = (where[_SOURCE6] >= 0) & (where[_DESTINATION6] >= 0)
    good = six | ((where[_SOURCE4] >= 0) & (where[_DESTINATION4] >= 0))
    start = np.maximum(where[_PAYLOAD], 0)
    captured = np.clip(end - start, 0, size)
    packet = (number(_TYPE) == _SIP) | ((number(_TYPE) == _RTCP) & (space.array[start] >> 6 == 2))
    good &= (where[_SPORT] >= 0) & (where[_DPORT] >= 0) & (captured > 0) & packet
    src, dst = number(_SOURCE4).astype(np.uint32), number(_DESTINATION4).astype(np.uint32)
    rows = np.flatnonzero(six & good)
    if len(rows):
        for chunk, column in ((_SOURCE6, src), (_DESTINATION6, dst)):
            halves = space.gather(where[chunk][rows], 16).view("<u8").reshape(-1, 2)
            column[rows] = addresses.intern(halves[:, 0], halves[:, 1])
    ts = np.where(number(_SECONDS) > 0, number(_SECONDS) * 1_000_000_000 + number(_MICRO) * 1000, 0)
    return Hep(good, six, src, dst, number(_SPORT).astype(np.uint16), number(_DPORT).astype(np.uint16), ts,
               number(_AGENT).astype(np.uint32), start, size, captured)
