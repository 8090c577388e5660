"""DTMF in RTP: telephone events put together from their packets (RFC 4733), for the streams somebody asks about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from netdiag.tables import rtp_packets

if TYPE_CHECKING:
    from netdiag.tables import Tables

BYTES = 4
"""Payload of one event (RFC 4733 §2.3)."""
DIGITS = "0123456789*#ABCD"
"""Events 0 to 15 (RFC 4733 §3.2)."""
LONGEST = 0xFFFF
"""Duration at which a long event goes on under a new time stamp (RFC 4733 §2.5.1.3)."""
PACKETS = 20_000
"""Event packets of one stream that are read (practice: a press is a few dozen)."""


@dataclass(frozen=True, slots=True)
class Event:
    """One pressed key, or one segment of a long one: packets of one time stamp."""

    stream: int
    payload_type: int
    code: int
    begin_ns: int
    end_ns: int
    packets: int
    ends: int
    """Packets with the end bit; three are sent (RFC 4733 §2.5.1.4)."""
    duration: int
    """Highest one, in time stamp units."""
    first_packet: int
    last_packet: int
    followed: bool
    """The next sequence number of the stream came: no packet behind the last one is missing."""

    @property
    def digit(self) -> str:
        return DIGITS[self.code] if self.code < len(DIGITS) else f"event {self.code}"


def events(tables: Tables, streams: pl.DataFrame, types: dict[int, set[int]]) -> list[Event]:
    """Events of ``streams`` in order of stream and time; ``types``: payload types of events, by stream number.

    Packets of these types that are not four bytes long, or whose event is none of RFC 4733 §3.2, are left out.
    """
    if not streams.height:
        return []
    p = tables.packets
    s = rtp_packets.read(tables, streams)
    behind = np.append(s.start[1:], len(s.packet))
    out: list[Event] = []
    for i, stream in enumerate(s.stream.tolist()):
        part = slice(int(s.start[i]), int(behind[i]))
        kinds, sequence = s.payload_type[part], s.sequence[part]
        at = np.flatnonzero(np.isin(kinds, sorted(types.get(stream, ()))))[:PACKETS]
        rows = s.packet[part][at]
        head = p.head(rows, 12)
        # An extension (RFC 3550 §5.3.1) would move the payload; senders of events set none.
        skip = 12 + 4 * (head[:, 0] & 15).astype(np.int64)
        plain = (head[:, 0] & 0x30 == 0) & (p.wire[rows] == skip + BYTES) & (p.length[rows] >= skip + BYTES)
        at, rows, skip = at[plain], rows[plain], skip[plain]
        body = p.space.gather(p.offset[rows] + skip, BYTES)
        found: dict[tuple[int, int], list[int]] = {}
        stamps = s.timestamp[part][at].tolist()
        for k, stamp in enumerate(stamps):
            if body[k, 0] < len(DIGITS) and not body[k, 1] & 0x40:
                found.setdefault((stamp, int(body[k, 0])), []).append(k)
        for (_, code), members in found.items():
            last = int(at[members[-1]])
            on = last + 1 < len(sequence) and (int(sequence[last + 1]) - int(sequence[last])) & 0xFFFF == 1
            out.append(Event(
                stream, int(kinds[at[members[0]]]), code, int(p.ts[rows[members[0]]]), int(p.ts[rows[members[-1]]]),
                len(members), int((body[members, 1] >> 7).sum()),
                int((body[members, 2].astype(np.int64) << 8 | body[members, 3]).max()), int(rows[members[0]]),
                int(rows[members[-1]]), bool(on)))
    return out
