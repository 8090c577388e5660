"""SIP messages, over UDP and over TCP: what identifies each. ``sip_details`` has the other header fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables.call_ids import separate
from netdiag.tables.flows import address_texts
from netdiag.tables.outside import laid
from netdiag.tables.packets import FORWARD
from netdiag.tables.schema import U16, U32, schema
from netdiag.tables.sip_chunk import Chunk, decode_chunk, finish
from netdiag.tables.sip_groups import repeats
from netdiag.tables.sip_inside import wrapped_messages
from netdiag.tables.sip_sources import Pieces, datagrams, stream_messages

if TYPE_CHECKING:
    from netdiag.tables import Tables


@dataclass(frozen=True, slots=True)
class SipMessage:
    """One SIP message at one capture point; the header fields are text with bad bytes replaced."""

    message: U32
    """Row number of this table, ascending with point and time."""
    packet: U32
    """Packet that holds its start (TCP: its last byte, as tshark counts; TLS: that of its last record)."""
    point: str
    ts_ns: int
    flow: U32
    source: str
    source_port: U16
    destination: str
    destination_port: U16
    transport: str
    """"udp", "tcp", "tls" (opened with the key log), "ws" or, opened with the key log, "wss"."""
    method: str | None
    """Request method; None for a response."""
    status: U16 | None
    """Response code; None for a request."""
    call_id: str | None
    """Call-ID; of the second call that uses one, and further ones, with what tells it apart (see ``call_ids``)."""
    cseq: U32 | None
    cseq_method: str | None
    from_tag: str | None
    to_tag: str | None
    branch: str | None
    """Branch of the topmost Via."""
    has_reason: bool
    """A Reason header (RFC 3326) is there."""
    sdp_offset: int | None
    """Where the SDP body starts in the message, bytes; None without SDP."""
    size: U32
    """Bytes of the message on the wire (UDP: payload)."""
    cut: bool
    """Not all of the message was captured: missing fields are unknown, not absent."""
    retransmission: bool
    """Same identity (method/status, Call-ID, CSeq, branch, To tag, flow, direction) seen before."""
    raw_offset: int
    """Where the message starts in the capture's address space (``packets.space``)."""
    raw_length: U32
    """Captured bytes from there."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One SIP client transaction at one capture point and one hop (RFC 3261 §17): same branch, CSeq method, hop."""

    transaction: U32
    point: str
    call_id: str
    method: str
    cseq: U32
    branch: str | None
    client: str
    """Address that sent the request (this hop)."""
    client_port: U16
    server: str
    server_port: U16
    transport: str
    to_tag: str | None
    """To tag of the request: set for requests inside a dialog."""
    request_messages: tuple[U32, ...]
    """Message rows of the request and its retransmissions."""
    response_messages: tuple[U32, ...]
    final_message: U32 | None
    """First final response."""
    provisional_status: U16 | None
    """Highest provisional status seen."""
    status: U16 | None
    """First final status."""
    first_ns: int
    last_request_ns: int
    last_ns: int
    sends: U16
    """How often the request was sent."""
    final_sends: U16
    """How often the first final response was sent."""
    ack_messages: tuple[U32, ...]
    """For INVITE: the ACKs to its final response at this hop.

    For 2xx those with the same Call-ID and CSeq number that share most of the hop, client to server.
    """
    cancelled: bool
    """For INVITE: a CANCEL with the same branch was seen."""
    midstream: bool
    """The request itself was not captured."""
    response_s: float | None
    """Request to first response, seconds."""



CHUNK_BYTES = 1 << 22
"""Message bytes decoded together: bounds the memory of a pass, and stays near the cache (measured)."""
CHUNK_MESSAGES = 1 << 15
FRAME_MESSAGES = 1 << 16
"""Messages whose columns are put together at once: bounds what that takes on its way (practice)."""
_WANTED = {k: v for k, v in schema(SipMessage).items() if k not in ("message", "retransmission")}


def build(tables: Tables) -> pl.DataFrame:
    """All SIP messages, in the order of packets; schema of ``SipMessage``."""
    parts = [_messages(tables, datagrams(tables))]
    streams = stream_messages(tables)
    on_streams = ([] if streams is None else [streams]) + wrapped_messages(tables)
    parts += [_messages(tables, pieces) for pieces in on_streams]
    data = pl.concat(parts) if len(parts) > 1 else parts[0]
    if len(parts) > 1:
        data = data.sort("packet", maintain_order=True)
    data = laid(data, tables.packets.space)
    return separate(tables, data).with_columns(
        message=pl.int_range(pl.len(), dtype=pl.UInt32),
        retransmission=_repeated(tables, data),
    ).select(list(schema(SipMessage)))


def _repeated(tables: Tables, data: pl.DataFrame) -> pl.Series:
    """Messages that came before in the same flow and direction."""
    way = tables.packets.flags[data["packet"].to_numpy()] & FORWARD
    return pl.Series(repeats(data.select(
        "flow", "method", "status", "call_id", "cseq", "cseq_method", "branch", "to_tag", way=pl.Series(way))))


def _messages(tables: Tables, pieces: Pieces) -> pl.DataFrame:
    """Frame of SipMessage without ``message`` and ``retransmission``."""
    total = np.cumsum(pieces.length)
    frames: list[pl.DataFrame] = []
    parts: list[Chunk] = []
    at, n, begun = 0, len(pieces.packet), 0
    while at < n:
        before = int(total[at - 1]) if at else 0
        end = int(np.searchsorted(total, before + CHUNK_BYTES, side="right"))
        end = min(max(end, at + 1), at + CHUNK_MESSAGES)
        parts.append(decode_chunk(tables, pieces, slice(at, end)))
        at = end
        if at - begun >= FRAME_MESSAGES or at == n:
            frames.append(_frame(tables, parts, pieces.transport))
            parts, begun = [], at
    return pl.concat(frames, rechunk=False) if frames else pl.DataFrame(schema=_WANTED)


def _frame(tables: Tables, parts: list[Chunk], transport: str) -> pl.DataFrame:
    data = finish(tables, parts)
    return (
        data.hstack(_endpoints(tables, data["packet"].to_numpy()))
        .with_columns(transport=pl.lit(transport))
        .select(pl.col(name).cast(dtype) for name, dtype in _WANTED.items())
    )


def _endpoints(tables: Tables, packet: npt.NDArray[np.uint32]) -> pl.DataFrame:
    """Flow, point, addresses and ports of packet rows."""
    p = tables.packets
    return pl.DataFrame({
        "flow": p.flow[packet].astype(np.uint32),
        "point": _text(p.points(packet), list(tables.points)),
        "source": address_texts(p, p.src[packet], p.flags[packet]),
        "source_port": p.sport[packet],
        "destination": address_texts(p, p.dst[packet], p.flags[packet]),
        "destination_port": p.dport[packet],
    })


def _text(code: npt.NDArray[Any], names: list[str]) -> pl.Series:
    return pl.Series(names, dtype=pl.String).gather(pl.Series(code.astype(np.uint32)))
