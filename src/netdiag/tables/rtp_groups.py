"""Packets that look like RTP, grouped into streams, and which of those groups prove themselves to be RTP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode.rtp import RtpHeaders, assignable
from netdiag.tables.packets import IPV6, Packets
from netdiag.tables.rtp_stats import sizes

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MIN_PACKETS = 10
"""Packets that a stream without signalling needs (practice; the 2 of RFC 3550 A.1 are reached by chance too often)."""
MIN_ORDERLY = 0.9
"""Share of its steps that must go on in sequence and timestamp without a jump (practice)."""
MIN_NEXT = 0.4
"""Share of its steps that must be exactly +1: more loss than this and nobody talks any more (practice)."""
MAX_TYPES = 4
"""Payload types it may use: codec, comfort noise, events and one change of codec (practice)."""
MAX_STEP = 100
"""Widest step of sequence numbers that counts as orderly: 2 s of 20 ms packets lost (practice)."""
MAX_ADVANCE = 10 * 90_000
"""Widest step of timestamps that counts as orderly: 10 s of the 90 kHz clock of video (RFC 3551 table 5; practice)."""


def group(flow: U32, forward: Mask, ssrc: U32) -> tuple[I64 | None, I64]:
    """Brings packets, which stand flow by flow, into streams: one flow, one direction, one SSRC, order kept inside.

    Returns the order (None: as they stand) and the first place of each stream in that order. Both directions of a
    flow and SSRCs mostly come in long runs, so only the runs are sorted.
    """
    order: I64 | None = None
    if not (forward.all() or not forward.any()):
        order = np.concatenate([np.flatnonzero(forward), np.flatnonzero(~forward)])
        flow, forward, ssrc = flow[order], forward[order], ssrc[order]
    change = np.ones(len(flow), np.bool_)
    change[1:] = (flow[1:] != flow[:-1]) | (ssrc[1:] != ssrc[:-1]) | (forward[1:] != forward[:-1])
    start = np.flatnonzero(change)
    key = flow[start].astype(np.uint64) << np.uint64(32) | ssrc[start]
    by_key = np.lexsort((key, ~forward[start]))
    key, side = key[by_key], forward[start][by_key]
    first = np.ones(len(key), np.bool_)
    first[1:] = (key[1:] != key[:-1]) | (side[1:] != side[:-1])
    size = sizes(start, len(flow))[by_key]
    behind = np.cumsum(size)
    if not first.all() or (by_key[1:] < by_key[:-1]).any():
        places = np.arange(len(flow)) + np.repeat(start[by_key] - (behind - size), size)
        order = places if order is None else order[places]
    return order, (behind - size)[first]


def proven(start: I64, fields: RtpHeaders, wanted: Mask) -> Mask:
    """Which of the ``wanted`` streams are RTP by their headers alone.

    Enough packets; few payload types, all of them assignable; sequence numbers that go up mostly by one; timestamps
    that go up with them, on the whole by more than nothing. Counters of other protocols fail one of these: SSRC and
    sequence lie in one 12-byte header, and ciphertext repeats neither.
    """
    size = sizes(start, len(fields.sequence))
    result = np.zeros(len(start), np.bool_)
    chosen = np.flatnonzero(wanted & (size >= MIN_PACKETS))
    if not len(chosen):
        return result
    if len(chosen) < len(start):
        places = _places(start[chosen], size[chosen])
        fields, size = fields.take(places), size[chosen]
        start = np.cumsum(size) - size
    step = np.zeros(len(fields.sequence), np.int16)
    np.subtract(fields.sequence[1:], fields.sequence[:-1], out=step[1:].view(np.uint16))
    advance = np.zeros(len(step), np.int32)
    np.subtract(fields.timestamp[1:], fields.timestamp[:-1], out=advance[1:].view(np.uint32))
    step[start] = 0
    advance[start] = 0
    # A late packet (RFC 3550 A.1: up to 100 back) turns both steps around: signs must agree, not be positive.
    orderly = (step >= -MAX_STEP) & (step <= MAX_STEP) & (step != 0) & (step * np.sign(advance) >= 0)
    orderly &= (advance >= -MAX_ADVANCE) & (advance <= MAX_ADVANCE)
    steps = size - 1
    result[chosen] = (
        (np.add.reduceat(orderly, start, dtype=np.int64) >= MIN_ORDERLY * steps)
        & (np.add.reduceat(step == 1, start, dtype=np.int64) >= MIN_NEXT * steps)
        & (np.add.reduceat(advance * orderly, start, dtype=np.int64) > 0)
        & np.logical_and.reduceat(assignable(fields.payload_type), start)
        & (payload_types(start, fields.payload_type).used.list.len().to_numpy() <= MAX_TYPES)
    )
    return result


def _places(start: I64, size: I64) -> I64:
    """Places of all members of the runs that begin at ``start``."""
    places: I64 = np.arange(int(size.sum())) + np.repeat(start - (np.cumsum(size) - size), size)
    return places


@dataclass(slots=True)
class PayloadTypes:
    """Payload types of each stream."""

    common: U8
    """Most frequent, the lowest of equals."""
    used: pl.Series
    """List of all of them, ascending."""


def payload_types(start: I64, payload_type: U8) -> PayloadTypes:
    """Payload types of streams; most have one, only the others are counted."""
    common = np.minimum.reduceat(payload_type, start)
    mixed = np.flatnonzero(common != np.maximum.reduceat(payload_type, start))
    owner, value = np.arange(len(start)), common
    if len(mixed):
        size = sizes(start, len(payload_type))[mixed]
        code = np.repeat(mixed, size) << 7 | payload_type[_places(start[mixed], size)]
        pair, count = np.unique(code, return_counts=True)
        # The last of each stream in order of count, then of falling type, is its most frequent.
        by_count = np.lexsort((-pair, count, pair >> 7))
        last = by_count[np.flatnonzero(np.diff(pair[by_count] >> 7, append=-1))]
        common = common.copy()
        common[pair[last] >> 7] = pair[last] & 127
        single = np.ones(len(start), np.bool_)
        single[mixed] = False
        owner = np.concatenate([owner[single], pair >> 7])
        value = np.concatenate([value[single], (pair & 127).astype(np.uint8)])
    pairs = pl.DataFrame({"owner": owner, "value": value}).sort("owner", "value")
    return PayloadTypes(common, pairs.group_by("owner", maintain_order=True).agg("value")["value"])


def dscp(packets: Packets, rows: U32) -> pl.Series:
    """DSCP (RFC 2474 §3) of UDP packets from the IP header before the payload, null where it is not found there.

    The packet table does not keep it; a header is believed when it holds the addresses of the row.
    """
    value = np.full(len(rows), 255, np.uint8)
    v6 = packets.flags[rows] & IPV6 > 0
    for words in range(5, 16):  # header lengths of IPv4, RFC 791 §3.1
        open_ = np.flatnonzero(~v6 & (value == 255) & (packets.offset[rows] >= 8 + 4 * words))
        if not len(open_):
            break
        at = rows[open_]
        head = packets.space.gather(packets.offset[at] - 8 - 4 * words, 20)
        address = head[:, 12:20].copy().view(">u4")
        good = (head[:, 0] == 64 + words) & (address[:, 0] == packets.src[at]) & (address[:, 1] == packets.dst[at])
        value[open_[good]] = head[good, 1] >> 2
    open_ = np.flatnonzero(v6 & (packets.offset[rows] >= 48))  # RFC 8200 §3: 40 bytes, then UDP
    if len(open_):
        head = packets.space.gather(packets.offset[rows[open_]] - 48, 40)
        same = [bytes(h[8:24]) == packets.v6[s] for h, s in zip(head, packets.src[rows[open_]].tolist(), strict=True)]
        good = (head[:, 0] >> 4 == 6) & np.array(same)
        traffic_class = (head[:, 0] & 15) << 4 | head[:, 1] >> 4
        value[open_[good]] = traffic_class[good] >> 2
    return pl.Series(value).replace(255, None)
