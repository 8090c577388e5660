"""Reports out of compound RTCP packets (RFC 3550 §6.1, §6.4), muxed with RTP or on their own port, before any call.

Every datagram is checked as RFC 3550 A.2 asks: version 2 throughout, a report first, lengths that end exactly where
the datagram ends. Encrypted RTCP (RFC 3711 §3.4) fails that: only its first header is in the clear, and an index and
a tag follow the last packet. It is counted, not read. A datagram that was cut cannot be checked to its end: it is
believed where its length on the wire is that of whole words, as RTCP is and SRTCP with its usual tag of 10 bytes is
not, and nothing else of its flow was encrypted. All datagrams go through the steps together, one packet of each
compound at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode.rtcp_xr import EXTENDED_REPORT
from netdiag.decode.rtp import looks_rtcp
from netdiag.tables.packets import CUT
from netdiag.tables.rtp import RtcpReport, addresses, note
from netdiag.tables.schema import schema

if TYPE_CHECKING:
    from netdiag.tables import Tables
    from netdiag.tables.packets import Packets

SENDER_REPORT, RECEIVER_REPORT = 200, 201
"""RFC 3550 §6.4.1, §6.4.2."""
MAX_PACKETS = 32
"""Packets read of one compound (practice: SR, SDES, BYE, XR and feedback are fewer than ten)."""
MAX_BLOCKS = 31
"""Report blocks read of one datagram: as many as the 5-bit count of one report can name (RFC 3550 §6.4.1)."""
CALL = ("call", "call_id", "bound_by")
"""Columns of ``RtcpReport`` that are added when calls are known."""
CHUNK = 1 << 18
"""Datagrams looked at together, which bounds the working memory (practice)."""

_HEAD, _SENDER_INFO, _BLOCK = 8, 20, 24  # bytes, RFC 3550 §6.4.1
_SENDER = np.dtype([("seconds", ">u2"), ("ntp", ">u4"), ("fraction", ">u2"), ("rtp", ">u4"), ("packets", ">u4"),
                    ("octets", ">u4")])
_REPORT = np.dtype([("ssrc", ">u4"), ("fraction", "u1"), ("lost_high", "i1"), ("lost_low", ">u2"), ("highest", ">u4"),
                    ("jitter", ">u4"), ("last_sr", ">u4"), ("delay", ">u4")])

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]


class Extended(NamedTuple):
    """Extended reports (RFC 3611), columns of equal length; in order of packets."""

    packet: U32
    at: I64
    """Offset of the RTCP header in the capture space."""
    end: I64
    """Where it ends, or was cut."""
    cut: npt.NDArray[np.bool_]


class RtcpPackets(NamedTuple):
    """What there is to read."""

    reports: pl.DataFrame
    """``RtcpReport`` without the columns that name a call."""
    extended: Extended


@dataclass(slots=True)
class _Reports:
    """SR and RR packets inside datagrams, columns of equal length."""

    packet: U32
    at: I64
    """Offset of the RTCP header in the capture space."""
    kind: npt.NDArray[np.uint8]
    blocks: I64
    """Report blocks that its length and the captured bytes have room for."""


def read(tables: Tables) -> RtcpPackets:
    """Reports, one row for each report block and one for each report without blocks, and places of extended reports."""
    rows = tables.rtcp_rows
    found, extended = [], []
    for begin in range(0, len(rows), CHUNK):
        reports, more = _walk(tables, rows[begin : begin + CHUNK])
        found.append(_frame(tables, reports))
        extended.append(more)
    none = Extended(np.zeros(0, np.uint32), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    types = {n: t for n, t in schema(RtcpReport).items() if n not in CALL}
    return RtcpPackets(
        pl.concat(found) if found else pl.DataFrame(schema=types),
        Extended(*(np.concatenate([getattr(e, name) for e in extended]) for name in ("packet", "at", "end", "cut")))
        if extended else none)


def _walk(tables: Tables, rows: U32) -> tuple[_Reports, Extended]:
    """Steps through the compound packets of ``rows`` and keeps the reports of those that hold together."""
    packets = tables.packets
    wire = packets.wire[rows].astype(np.int64)
    captured = np.minimum(packets.length[rows], wire)
    position = np.zeros(len(rows), np.int64)
    whole = np.zeros(len(rows), np.bool_)
    budget = np.full(len(rows), MAX_BLOCKS, np.int64)
    report_first = np.zeros(len(rows), np.bool_)
    parts: list[tuple[I64, I64, npt.NDArray[np.uint8], I64]] = []
    extended: list[tuple[I64, I64, I64]] = []
    crowded = np.zeros(len(rows), np.bool_)
    going = np.arange(len(rows))
    for step in range(MAX_PACKETS):
        head = packets.space.gather(packets.offset[rows[going]] + position[going], 4)
        kind = head[:, 1]
        end = position[going] + 4 + 4 * head[:, 2:4].copy().view(">u2")[:, 0].astype(np.int64)
        report = (kind == SENDER_REPORT) | (kind == RECEIVER_REPORT)
        good = (head[:, 0] >> 6 == 2) & looks_rtcp(kind) & (end <= wire[going])
        if step == 0:
            # RFC 3550 A.2: the first is a report without padding. RFC 5506 feedback alone holds nothing for this table.
            report_first[going] = report
            good &= report & (head[:, 0] & 32 == 0)
        room = np.minimum(end, captured[going]) - position[going] - _fixed(kind)
        count = (head[:, 0] & 31).astype(np.int64)
        blocks = np.minimum(np.minimum(count, room // _BLOCK), budget[going])
        kept = good & report & (room >= 0)
        crowded[going[kept & (blocks < count) & (end <= captured[going])]] = True
        budget[going[kept]] -= blocks[kept]
        parts.append((going[kept], position[going[kept]], kind[kept], blocks[kept]))
        more = good & (kind == EXTENDED_REPORT)
        if more.any():
            extended.append((going[more], position[going[more]], end[more]))
        seen = (end == wire[going]) | (end + 4 > captured[going]) & (captured[going] < wire[going])
        whole[going[good & seen]] = True
        position[going] = end
        going = going[good & (end < wire[going]) & (end + 4 <= captured[going])]
        if not len(going):
            break
    note(tables, "rtcp", "more RTCP packets in one datagram than are read", rows[going])
    note(tables, "rtcp", "more report blocks counted than its length holds or than are read", rows[crowded & whole])
    broken = report_first & ~whole
    broken[going] = False
    cut = captured < wire
    hidden = cut & whole & ((wire % 4 > 0) | np.isin(packets.flow[rows], packets.flow[rows[broken]]))
    whole &= ~hidden
    note(tables, "rtcp", "RTCP lengths do not add up (encrypted or damaged)", rows[broken | hidden])
    note(tables, "rtcp", "RTCP cut by the snap length", rows[whole & (packets.flags[rows] & CUT > 0)])
    whole[going] = True
    owner, at, kinds, blocks = (np.concatenate(column) for column in zip(*parts, strict=True))
    chosen = np.flatnonzero(whole[owner])
    chosen = chosen[np.lexsort((at[chosen], owner[chosen]))]
    packet = rows[owner[chosen]]
    return (_Reports(packet, packets.offset[packet] + at[chosen], kinds[chosen], blocks[chosen]),
            _extended(packets, rows, whole, captured, extended))


def _extended(packets: Packets, rows: U32, whole: npt.NDArray[np.bool_], captured: I64,
              found: list[tuple[I64, I64, I64]]) -> Extended:
    """Those of the extended reports ``found`` (index into ``rows``, begin, end) whose datagram holds together."""
    parts = found or [(np.zeros(0, np.int64),) * 3]
    owner, at, end = (np.concatenate(column) for column in zip(*parts, strict=True))
    chosen = np.flatnonzero(whole[owner])
    chosen = chosen[np.lexsort((at[chosen], owner[chosen]))]
    owner, at, end = owner[chosen], at[chosen], end[chosen]
    begin = packets.offset[rows[owner]]
    have = np.minimum(end, captured[owner])
    return Extended(rows[owner], begin + at, begin + have, have < end)


def _fixed(kind: npt.NDArray[np.uint8]) -> I64:
    """Bytes before the first report block."""
    return np.where(kind == SENDER_REPORT, _HEAD + _SENDER_INFO, _HEAD)


def _frame(tables: Tables, reports: _Reports) -> pl.DataFrame:
    packets: Packets = tables.packets
    lines = np.maximum(reports.blocks, 1)
    which = np.repeat(np.arange(len(lines)), lines)
    number = np.arange(len(which)) - np.repeat(np.cumsum(lines) - lines, lines)
    packet, at, kind = reports.packet[which], reports.at[which], reports.kind[which]
    sent = kind == SENDER_REPORT
    told = reports.blocks[which] > 0
    ssrc = packets.space.gather(at + 4, 4).view(">u4")[:, 0]
    sender = packets.space.gather(at + _HEAD, _SENDER_INFO).view(_SENDER)[:, 0]
    block = packets.space.gather(at + _fixed(kind) + _BLOCK * number, _BLOCK).view(_REPORT)[:, 0]
    cumulative = block["lost_high"].astype(np.int64) * 65536 + block["lost_low"]  # 24 bits, signed
    in_block = {
        "about_ssrc": block["ssrc"], "fraction_lost": block["fraction"] / 256, "cumulative_lost": cumulative,
        "highest_sequence": block["highest"], "jitter": block["jitter"], "last_sr": block["last_sr"],
        "delay_since_sr": block["delay"],
    }
    data = pl.DataFrame({
        "packet": packet, "ts_ns": packets.ts[packet], "flow": packets.flow[packet], "sender_ssrc": native(ssrc),
        "packet_type": kind, "sender_packets": native(sender["packets"]), "sender_ntp": native(sender["ntp"]),
        **{name: native(column) for name, column in in_block.items()}, "told": told, "sent": sent,
    }).with_columns(
        *(pl.when("told").then(pl.col(name)).alias(name) for name in in_block),
        *(pl.when("sent").then(pl.col(name)).alias(name) for name in ("sender_packets", "sender_ntp")),
        point=pl.Series(list(tables.points), dtype=pl.String).gather(packets.points(packet)),
        source=addresses(packets, packet, packets.src), destination=addresses(packets, packet, packets.dst),
    )
    return data.select(pl.col(name).cast(dtype) for name, dtype in schema(RtcpReport).items() if name not in CALL)


def native(column: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The same numbers in the byte order of this machine, as Polars wants them."""
    return np.ascontiguousarray(column.astype(column.dtype.newbyteorder("=")))
