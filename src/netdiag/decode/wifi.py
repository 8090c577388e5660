"""IEEE 802.11 frames, and the radio headers that capture tools put in front of them."""

from __future__ import annotations

import numpy as np

from netdiag.capture.space import Space
from netdiag.decode import llc
from netdiag.decode.ethertype import AGGREGATE, CUT, I64, LLC, NO_DATA, PIECE, PROTECTED, U16, Mask, bounded, skip

_DATA = 2
"""Frame type of data (IEEE 802.11 §9.2.4.1.3); bits of the subtype: no data, with QoS control."""
_NULL, _QOS = 4, 8
_TO_DS, _FROM_DS, _PROTECTED, _ORDER = 0x01, 0x02, 0x40, 0x80
_AMSDU = 0x80
"""Bit of the QoS control field (§9.2.4.5.9)."""
_FRAGMENT = 0x0F
"""Number of the fragment in the first byte of the sequence control field (§9.2.4.4)."""
_WORDS = 32
"""Presence words of a radiotap header that are followed; real ones have up to five (practice)."""
_TSFT, _FLAGS, _MORE = 1, 2, 1 << 31
"""Presence bits of radiotap: time, flags, another presence word (radiotap.org)."""
_PADDED = 0x20
"""Flag of radiotap: bytes between header and body bring the body to a multiple of four."""
_PRISM = (0x41, 0x44)
"""Message codes of the Prism header, in the byte order of the capturing host."""


def frame(space: Space, at: I64, end: I64, padded: Mask | None = None) -> tuple[I64, U16]:
    """What follows the MAC and LLC headers of an 802.11 frame at ``at``; ``NO_DATA`` where it carries no data."""
    octets = space.array
    control, flags = octets[at], octets[at + 1]
    subtype = control >> 4
    qos = (subtype & _QOS) != 0
    mac = 24 + 6 * ((flags & (_TO_DS | _FROM_DS)) == (_TO_DS | _FROM_DS)) + 2 * qos
    aggregate = qos & ((octets[at + mac - 2] & _AMSDU) != 0)
    mac = mac + 4 * (qos & ((flags & _ORDER) != 0))
    if padded is not None:
        mac = np.where(padded, (mac + 3) // 4 * 4, mac)
    body = at + mac
    after, protocol = llc.header(space, skip(body, 14 * aggregate, end), end)
    several = np.flatnonzero(aggregate)
    if len(several):
        first = (14 + space.numbers(">u2")[body[several] + 12].astype(np.int64) + 3) // 4 * 4
        # What is left behind one subframe is its padding and a checksum, or the next subframe (§9.3.2.2.2).
        protocol[several[end[several] - body[several] > first + 4]] = AGGREGATE
    bounded(after, protocol, end)
    protocol[(protocol == LLC) & ((octets[at + 22] & _FRAGMENT) != 0)] = PIECE
    protocol[(flags & _PROTECTED) != 0] = PROTECTED
    protocol[((control & 3) != 0) | ((control >> 2 & 3) != _DATA) | ((subtype & _NULL) != 0)] = NO_DATA
    none = (protocol == PROTECTED) | (protocol == NO_DATA) | (protocol == PIECE)
    after[none] = at[none]  # such frames need not reach as far as a body
    protocol[at + 2 > end] = CUT
    return after, protocol


def radiotap(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """Radiotap header (radiotap.org), then 802.11."""
    u4 = space.numbers("<u4")
    size = space.numbers("<u2")[at + 2].astype(np.int64)
    present = u4[at + 4]
    field = at + 8
    more = np.flatnonzero((present & _MORE) != 0)
    for _ in range(_WORDS):
        if not len(more):
            break
        word = u4[field[more]]
        field[more] += 4
        more = more[(word & _MORE) != 0]
    timed = (present & _TSFT) != 0
    field = np.where(timed, at + (field - at + 7) // 8 * 8 + 8, field)
    padded = ((present & _FLAGS) != 0) & ((space.array[field] & _PADDED) != 0) & (field < at + size)
    return frame(space, skip(at, np.maximum(size, 8), end), end, padded)


def prism(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """Prism monitor header, or an AVS header in its place, then 802.11."""
    little = np.isin(space.numbers("<u4")[at], _PRISM)
    size = np.where(little, space.numbers("<u4")[at + 4], space.numbers(">u4")[at + 4]).astype(np.int64)
    return frame(space, skip(at, np.maximum(size, 8), end), end)


def avs(space: Space, at: I64, end: I64) -> tuple[I64, U16]:
    """AVS header: version, length, both big-endian; then 802.11."""
    size = space.numbers(">u4")[at + 4].astype(np.int64)
    return frame(space, skip(at, np.maximum(size, 8), end), end)
