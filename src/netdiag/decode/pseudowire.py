"""L2TPv3 (RFC 3931): Ethernet frames behind a header whose length the packet does not tell, in columns.

Length of the cookie (0, 4 or 8 bytes) and presence of the L2-specific sublayer (4 bytes) were agreed on when the
session began (RFC 3931 §4.1, §4.6). A frame is taken to be there only where exactly one of the places it can start at
has an Ethernet header and an IP packet that fills the rest. A VLAN tag has four bytes as well, so that most tagged
frames can be read in two ways, and are left alone.
"""

from __future__ import annotations

import numpy as np

from netdiag.capture.space import Space
from netdiag.decode import ip
from netdiag.decode.ethertype import I64, IP4, IP6, Mask

_VLAN = (0x8100, 0x88A8)
_TAGS = 2
"""VLAN tags looked behind (IEEE 802.1ad has two)."""
_PLACES = (0, 4, 8, 12)
"""Bytes of cookie and sublayer together."""


def ethernet(space: Space, at: I64, end: I64, stop: I64) -> tuple[Mask, I64]:
    """Is there one reading of what follows the session id at ``at``, and where does its frame start?

    ``end`` is where the captured bytes stop, ``stop`` where the packet did on the wire.
    """
    readings, found = np.zeros(len(at), np.int64), at.copy()
    for size in _PLACES:
        there = _holds(space, at + size, end, stop)
        readings += there
        found[there] = (at + size)[there]
    return readings == 1, found


def _holds(space: Space, at: I64, end: I64, stop: I64) -> Mask:
    u2 = space.numbers(">u2")
    here = np.minimum(at + 12, end)
    for _ in range(_TAGS):
        here = np.minimum(here + np.where(np.isin(u2[here], _VLAN), 4, 0), end)
    kind, here = u2[here], here + 2
    out: Mask = ((kind == IP4) | (kind == IP6)) & ip.fills(space, here, end, stop, kind == IP6)
    return out
