"""RTP streams and RTCP reports, bound to calls where the signalling was captured.

A stream is believed when SDP names its destination or source, when it is the opposite direction of such a stream, or
when its headers alone prove it (RFC 3550 A.1 with a stricter bar, see ``rtp_groups.proven``): UDP of another protocol
whose first bits happen to be 10 must not become a stream.

Memory is bounded: the packets of BLOCK consecutive places in flow order are looked at together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import rtp as header
from netdiag.tables import rtp_binding, rtp_groups, rtp_lines, rtp_stats
from netdiag.tables.packets import FORWARD, FRAGMENT, IPV6, KIND_RTP, REASSEMBLED
from netdiag.tables.schema import U8, U16, U32, empty, schema

if TYPE_CHECKING:
    from netdiag.tables import Tables
    from netdiag.tables.packets import Packets

RTCP_HEADER = 8
"""Bytes of an RTCP packet up to its first SSRC (RFC 3550 §6.4.1)."""
BLOCK = 1 << 19
"""Packets in one block; a flow with more is a block of its own (practice: 40 MB of working memory)."""
LONE = 2
"""Packets of a stream that say too little about it (practice: noise seldom repeats an SSRC)."""
U32s = npt.NDArray[np.uint32]
I64s = npt.NDArray[np.int64]
F64s = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RtpStream:
    """One SSRC from one source to one destination at one capture point (RFC 3550)."""

    stream: U32
    point: str
    flow: U32
    source: str
    source_port: U16
    destination: str
    destination_port: U16
    ssrc: U32
    payload_type: U8
    """The most frequent one, the lowest of equals."""
    payload_types: tuple[U8, ...]
    codec: str
    """Encoding name from SDP ("PCMU"), else the static assignment of RFC 3551, else ""."""
    clock_rate: U32
    """Hz: from SDP, RFC 3551, else 8000 (then ``clock_guessed``)."""
    clock_guessed: bool
    packets: U32
    expected: U32
    """RFC 3550 A.3: extended highest sequence number - lowest + 1; after a restart counted anew and added."""
    lost: int
    """expected - distinct received: duplicates do not hide loss."""
    duplicates: U32
    reordered: U32
    """Arrived behind a higher sequence number (RFC 4737 §3); duplicates are not among them."""
    max_gap: U32
    """Longest run of missing sequence numbers."""
    gaps: U32
    """Number of such runs; lost / gaps is the mean burst length."""
    restarts: U32
    """Times the sequence went on elsewhere (RFC 3550 A.1: 3000 forward or 100 back); no loss is counted there."""
    strays: U32
    """Single packets far from the sequence before and behind them, left out of expected, lost and jitter."""
    jitter_mean_ms: float
    """RFC 3550 §6.4.1 interarrival jitter, mean over all packets but the first; without telephone-event packets."""
    jitter_max_ms: float
    max_delta_ms: float
    """Longest time between two packets in order of arrival."""
    first_ns: int
    last_ns: int
    first_packet: U32
    last_packet: U32
    wire_bytes: int
    """UDP payload on the wire."""
    marker_packets: U32
    dscp: U8 | None
    """RFC 2474 §3, of the first packet; None where its IP header does not stand right before the UDP header."""
    call: U32 | None
    """Call row it belongs to, where bound."""
    call_id: str | None
    bound_by: str
    """How it was bound: "sdp" (its destination, else its source, is an address and port of SDP), "ice" (a candidate,
    or where connectivity checks of these descriptions come from), "comedia" (the opposite direction of a bound stream,
    or from the address in SDP to where packets for it come from: RFC 4961, RFC 7362), "rtcp" (reports of the call
    name its SSRC), "heuristic" (no other call of these hosts has this time and payload type), "" (not bound)."""
    sender: str | None
    """"caller" or "callee" when bound."""
    media_index: U16 | None
    heuristic: bool
    """True when it belongs to no call and was recognised by its header sequence alone."""


@dataclass(frozen=True, slots=True)
class RtcpReport:
    """One SR or RR block about one stream (RFC 3550 §6.4)."""

    packet: U32
    point: str
    ts_ns: int
    flow: U32
    source: str
    destination: str
    sender_ssrc: U32
    about_ssrc: U32 | None
    """None: an SR without report blocks."""
    packet_type: U8
    """200 SR, 201 RR."""
    fraction_lost: float | None
    cumulative_lost: int | None
    highest_sequence: U32 | None
    jitter: U32 | None
    """In RTP timestamp units."""
    sender_packets: U32 | None
    """SR only: packets sent so far."""
    sender_ntp: U32 | None
    """SR only: middle 32 bits of the NTP timestamp, what the other side returns as ``last_sr``."""
    last_sr: U32 | None
    """LSR: ``sender_ntp`` of the last SR that the reporter received about this source, 0 when it received none."""
    delay_since_sr: U32 | None
    """DLSR in 1/65536 s; round trip = arrival of this report - LSR - DLSR (RFC 3550 §6.4.1), seen at the source."""
    call: U32 | None
    """Call row it belongs to, where bound."""
    call_id: str | None
    bound_by: str
    """"sdp" (from or to an RTCP address and port of SDP, candidates of ICE included), "rtcp" (it names the SSRC of a
    stream of the call that its host sends or receives), "" (not bound)."""


@dataclass(slots=True)
class RtpSeries:
    """Packets of one stream in order of arrival, columns of equal length."""

    packet: npt.NDArray[np.uint32]
    ts_ns: npt.NDArray[np.int64]
    sequence: npt.NDArray[np.uint16]
    timestamp: npt.NDArray[np.uint32]
    payload_type: npt.NDArray[np.uint8]
    marker: Mask


def series(tables: Tables, stream: RtpStream) -> RtpSeries:
    """The packets of ``stream``: for detectors that look at the few streams which survived a filter."""
    packets = tables.packets
    rows, fields, _ = _read(packets, candidates(packets, packets.flow_rows(stream.flow)))
    forward = packets.flags[stream.first_packet] & FORWARD
    mine = (fields.ssrc == stream.ssrc) & (packets.flags[rows] & FORWARD == forward)
    rows = rows[mine]
    return RtpSeries(rows, packets.ts[rows], fields.sequence[mine], fields.timestamp[mine],
                     fields.payload_type[mine], fields.marker[mine])


def build(tables: Tables) -> pl.DataFrame:
    """All RTP streams of all points, in order of their first packet."""
    packets = tables.packets
    binder = rtp_binding.Binder(tables)
    found = []
    reports: list[U32s] = []
    for places in flow_blocks(packets):
        rows = candidates(packets, places)
        short = packets.length[rows] < header.HEADER
        note(tables, "rtp", "packet captured shorter than the RTP header",
             rows[short & (packets.wire[rows] >= header.HEADER)])
        reports.append(rows[short])
        rows, fields, other = _read(packets, rows)
        reports.append(other)
        if len(rows):
            block = _block(tables, binder, rows, fields)
            if block is not None:
                found.append(block)
    # The pass over all packets has shown which are RTCP: nobody needs to look at them again.
    tables.__dict__.setdefault("rtcp_rows", rtcp_rows(packets, np.concatenate([*reports, np.zeros(0, np.uint32)])))
    if not found:
        return empty(RtpStream)
    streams = pl.concat(found)
    if binder.guessed:
        from netdiag.tables import rtp_leftover
        streams = rtp_leftover.uncrowded(streams)
    streams = streams.sort("first_packet").with_row_index("stream")
    return streams.select(pl.col(name).cast(dtype) for name, dtype in schema(RtpStream).items())


def flow_blocks(packets: Packets) -> Iterator[U32s]:
    """Packet rows in flow order, whole flows together, about BLOCK at a time."""
    starts = np.sort(packets.flow_start[packets.flow_size > 0])
    at = 0
    while at < len(packets.order):
        behind = int(np.searchsorted(starts, at + BLOCK))
        end = int(starts[behind]) if behind < len(starts) else len(packets.order)
        yield packets.order[at:end]
        at = end


def candidates(packets: Packets, rows: U32s) -> U32s:
    """Those of ``rows`` that start like RTP or RTCP; loose fragments are no packets."""
    rows = rows[packets.kind[rows] == KIND_RTP]
    loose = packets.flags[rows] & (FRAGMENT | REASSEMBLED) == FRAGMENT
    return np.asarray(rows[~loose], np.uint32)


def all_candidates(packets: Packets) -> U32s:
    """Candidates of the whole capture."""
    return np.concatenate([np.zeros(0, np.uint32), *(candidates(packets, np.arange(
        begin, min(begin + BLOCK, packets.n), dtype=np.uint32)) for begin in range(0, packets.n, BLOCK))])


def rtcp_rows(packets: Packets, rows: U32s) -> U32s:
    """Those of ``rows`` that start like RTCP and were captured as far as its header goes, ascending."""
    rows = np.sort(rows[packets.length[rows] >= RTCP_HEADER])
    return rows[header.looks_rtcp(packets.head(rows, 2)[:, 1])]


def note(tables: Tables, table: str, reason: str, rows: U32s) -> None:
    """Counts odd packets, file by file."""
    capture = tables.packets.locate(rows)[0]
    for index in np.unique(capture):
        mine = rows[capture == index]
        tables.anomaly_log.add(table, reason, int(mine[0]), len(mine))


def _read(packets: Packets, rows: U32s) -> tuple[U32s, header.RtpHeaders, U32s]:
    """RTP packets among candidates and their headers, without what is shorter than its own header; and RTCP."""
    rows = rows[packets.length[rows] >= header.HEADER]
    data = packets.head(rows, header.HEADER)
    fields = header.headers(data)
    reports = header.looks_rtcp(data[:, 1])
    good = ~reports & (packets.wire[rows] >= fields.minimum)
    if good.all():
        return rows, fields, rows[:0]
    return rows[good], fields.take(np.flatnonzero(good)), rows[reports]


def _block(tables: Tables, binder: rtp_binding.Binder, rows: U32s, fields: header.RtpHeaders) -> pl.DataFrame | None:
    """Streams of one block of packets: group, bind, drop what is not believed, measure. None without any."""
    packets = tables.packets
    order, start = rtp_groups.group(packets.flow[rows], packets.flags[rows] & FORWARD > 0, fields.ssrc)
    if order is not None:
        rows, fields = rows[order], fields.take(order)
    first = rows[start]
    last = rows[start + rtp_stats.sizes(start, len(rows)) - 1]
    seen = rtp_binding.Seen(
        packets.flow[first], packets.flags[first] & FORWARD > 0, fields.ssrc[start], packets.ts[first],
        packets.ts[last], rtp_lines.endpoint_keys(packets, first, destination=True),
        rtp_lines.endpoint_keys(packets, first, destination=False), first)
    bound = binder.bind(seen)
    believed = bound.call >= 0
    # noise to a media port: a packet or two with an SSRC of their own and a payload type that nobody agreed on
    few = np.flatnonzero(believed & (rtp_stats.sizes(start, len(rows)) <= LONE) & (bound.media >= 0))
    if len(few):
        known = np.isin(bound.media[few], binder.formats.places // 256)
        believed[few] = ~known | binder.formats.has(bound.media[few], fields.payload_type[start[few]])
    believed |= rtp_groups.proven(start, fields, ~believed)
    if not believed.all():
        size = rtp_stats.sizes(start, len(rows))
        mine = np.repeat(believed, size)
        note(tables, "rtp", "starts like RTP, but its sequence numbers are those of no stream", rows[~mine])
        kept = np.flatnonzero(mine)
        size = size[believed]
        rows, fields, start = rows[kept], fields.take(kept), np.cumsum(size) - size
        seen, bound = seen.take(believed), bound.take(believed)
    if not len(start):
        return None
    types = rtp_groups.payload_types(start, fields.payload_type)
    index = binder.settle(seen, bound, types.common)
    return _measure(tables, binder, bound, rows, fields, start, types).with_columns(
        pl.Series("flow", seen.flow), pl.Series("media_index", index, dtype=pl.Int64).replace(-1, None))


def _measure(tables: Tables, binder: rtp_binding.Binder, bound: rtp_binding.Bound, rows: U32s,
             fields: header.RtpHeaders, start: I64s, types: rtp_groups.PayloadTypes) -> pl.DataFrame:
    """Columns of RtpStream, except its number, flow and media line, for packets that stand stream by stream."""
    packets = tables.packets
    ts = packets.ts[rows]
    size = rtp_stats.sizes(start, len(rows))
    first, last = rows[start], rows[start + size - 1]
    codec = binder.formats.codecs(bound.media, types.common)
    order = rtp_stats.sequence_statistics(start, fields.sequence)
    event, rate = binder.formats.event_types(bound.media), codec["clock_rate"].to_numpy()
    mean, highest = _jitter(start, ts, fields, order, event, rate)
    return codec.with_columns(
        *binder.names(bound), payload_type=types.common, point=_names(np.array(tables.points), packets.points(first)),
        source=addresses(packets, first, packets.src), source_port=packets.sport[first],
        destination=addresses(packets, first, packets.dst), destination_port=packets.dport[first],
        ssrc=fields.ssrc[start], payload_types=types.used, packets=size, expected=order.expected, lost=order.lost,
        duplicates=order.duplicates, reordered=order.reordered, max_gap=order.max_gap, gaps=order.gaps,
        restarts=order.restarts, strays=order.strays, jitter_mean_ms=mean, jitter_max_ms=highest,
        max_delta_ms=rtp_stats.max_delta_ms(start, ts), first_ns=ts[start], last_ns=ts[start + size - 1],
        first_packet=first, last_packet=last, wire_bytes=np.add.reduceat(packets.wire[rows], start, dtype=np.int64),
        marker_packets=np.add.reduceat(fields.marker, start, dtype=np.int64),
        dscp=rtp_groups.dscp(packets, first), heuristic=bound.call < 0,
    )


def _jitter(start: I64s, ts: I64s, fields: header.RtpHeaders, order: rtp_stats.Sequences, event: npt.NDArray[np.uint8],
            rate: U32s) -> tuple[F64s, F64s]:
    """Mean and highest jitter of each stream, over packets that are neither strays nor telephone-event.

    All packets of an event carry the timestamp of its begin (RFC 4733 §2.2): the media clock seems to stand still.
    """
    segment, timestamp, payload_type = order.segment, fields.timestamp, fields.payload_type
    if order.kept is not None:
        start, ts = order.kept_start, ts[order.kept]
        timestamp, payload_type = timestamp[order.kept], payload_type[order.kept]
    size = rtp_stats.sizes(start, len(ts))
    media = payload_type != np.repeat(event, size)
    if not media.all():
        media |= np.repeat(~np.logical_or.reduceat(media, start), size)  # a stream of nothing but events
        piece = np.repeat(np.arange(len(segment)), rtp_stats.sizes(segment, len(ts)))[media]
        segment = np.flatnonzero(np.diff(piece, prepend=-1))
        size = np.add.reduceat(media, start, dtype=np.int64)
        start, ts, timestamp = np.cumsum(size) - size, ts[media], timestamp[media]
    return rtp_stats.jitter_ms(start, segment, ts, timestamp, rate)


def _names(names: npt.NDArray[np.str_], index: npt.NDArray[np.uint8]) -> pl.Series:
    return pl.Series(names.tolist(), dtype=pl.String).gather(index)


def addresses(packets: Packets, rows: U32s, column: U32s) -> pl.Series:
    """Text of the addresses in ``column`` (``packets.src`` or ``packets.dst``) of rows; each is formatted once."""
    key = column[rows].astype(np.uint64) << np.uint64(1) | (packets.flags[rows] & IPV6 > 0)
    values, index = np.unique(key, return_inverse=True)
    texts = [packets.address(value >> 1, IPV6 if value & 1 else 0) for value in values.tolist()]
    return pl.Series(texts, dtype=pl.String).gather(index)
