"""How much of each frame facts are made of: what of a stream has to be kept."""

from __future__ import annotations

import numpy as np

from netdiag.capture.records import U32, Records
from netdiag.capture.space import Space
from netdiag.decode.frames import FRAGMENT, REASSEMBLED
from netdiag.decode.rtp import looks_rtcp
from netdiag.decode.store import Columns
from netdiag.decode.transport import RTP

MEDIA = 96
"""Payload bytes kept of an RTP packet: its fixed header, fifteen sources and the head of an extension are 76 (RFC 3550
§5.1, §5.3.1), a telephone event 4 (RFC 4733 §2.3); what compares packets of two points looks at 64.
"""
WHOLE = 1 << 26
"""Bytes at the start of a stream of which nothing is left out (practice): most captures end before."""
SAMPLED = 16
"""One in so many media packets is kept whole, for what is checked on a sample (checksums; practice)."""
_UDP = 17


def sizes(space: Space, records: Records, columns: Columns) -> U32:
    """Bytes to keep of each frame of a decoded batch: all, but of most opaque media its first part.

    ``length`` in ``columns`` becomes what is kept of the payload; the flag CUT stays what the capture itself says.
    """
    out = records.captured.copy()
    rows = np.flatnonzero((columns["kind"] == RTP) & (columns["proto"] == _UDP) & (columns["length"] > MEDIA)
                          & (columns["flags"] & (FRAGMENT | REASSEMBLED) == 0))
    at = columns["offset"][rows]
    media = ~looks_rtcp(space.array[at + 1])
    # A payload outside its frame was put together from others, and is not part of the stream.
    media &= (at >= records.offset[rows]) & (at + MEDIA <= records.offset[rows] + records.captured[rows])
    media[SAMPLED - 1 :: SAMPLED] = False
    rows, at = rows[media], at[media]
    columns["length"][rows] = MEDIA
    out[rows] = (at + MEDIA - records.offset[rows]).astype(np.uint32)
    return out
