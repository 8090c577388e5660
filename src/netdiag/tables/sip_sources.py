"""Where SIP messages lie in the captures: datagrams, and messages framed out of TCP streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from netdiag.decode import sip as decode
from netdiag.tables.packets import FRAGMENT, KIND_NONE, KIND_SIP, REASSEMBLED, TCP, UDP

if TYPE_CHECKING:
    import polars as pl

    from netdiag.tables import Tables

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PORTS = (5060, 5061)
"""Registered for SIP and SIP over TLS (RFC 3261 §18.2.1, IANA)."""
SHORTEST = 16
"""Bytes below which no start line fits: "A a: SIP/2.0" and a line end."""
STREAM_LIMIT = 1 << 28
"""Bytes of one direction of a TCP connection that are searched (practice)."""
CUT_FACTOR = 64
"""Bytes searched for each byte captured: a stream cut by the snap length is mostly holes (practice: 22 of 1400)."""
_STARTS = np.frombuffer(b"".join(word[:4] for word in (
    b"SIP/", b"INVITE", b"ACK ", b"BYE ", b"CANCEL", b"REGISTER", b"OPTIONS", b"INFO", b"PRACK", b"UPDATE",
    b"SUBSCRIBE", b"NOTIFY", b"REFER", b"MESSAGE", b"PUBLISH")), "<u4")
"""First four bytes of messages with the methods that IANA lists."""


LONG_STREAM = "rest of a very long TCP stream was not searched for SIP"

Found = tuple[int, int, int, int, bool]
"""A message on a stream: packet row, time (ns), offset in ``packets.space``, length, is some of it missing."""


@dataclass(slots=True)
class Pieces:
    """Byte ranges that may hold one message each; arrays of equal length."""

    packet: I64
    ts: I64
    offset: I64
    """In ``packets.space``."""
    length: I64
    wire: I64
    partial: Mask
    """More bytes were on the wire than are here."""
    sure: Mask
    """It looked like SIP at first sight: a bad start line is worth a note."""
    transport: str


def log(tables: Tables, reason: str, packets: npt.NDArray[np.int64], table: str = "sip") -> None:
    """Counts an anomaly for each of these packet rows."""
    if not len(packets):
        return
    capture, _ = tables.packets.locate(packets)
    for index in np.unique(capture).tolist():
        rows = packets[capture == index]
        tables.anomaly_log.add(table, reason, int(rows[0]), len(rows))


def datagrams(tables: Tables) -> Pieces:
    """UDP payloads that start like SIP, and others on SIP's ports or on flows that carry SIP."""
    p = tables.packets
    udp = (p.proto == UDP) & (p.flow < len(p.flow_start))  # no packet captured twice
    whole = (p.flags & (FRAGMENT | REASSEMBLED)) != FRAGMENT
    sure = udp & (p.kind == KIND_SIP)
    sure &= whole
    _log_lost_fragments(tables, np.flatnonzero(udp & ~whole & ((p.sport | p.dport) != 0)))
    maybe = udp & whole & (p.kind == KIND_NONE) & (p.length >= SHORTEST)
    if maybe.any():
        carries = np.zeros(int(p.flow.max(initial=0)) + 1, np.bool_)
        carries[p.flow[sure]] = True
        port = np.isin(p.sport, PORTS) | np.isin(p.dport, PORTS)
        maybe &= port | carries[p.flow]
    rows = np.flatnonzero(sure | maybe)
    offset, length = p.offset[rows].copy(), p.length[rows].astype(np.int64)
    wire = p.wire[rows].astype(np.int64)
    skip = _leading_line_ends(tables, rows)
    offset += skip
    length -= skip
    return Pieces(rows, p.ts[rows], offset, length, wire, wire - skip > length, sure[rows], "udp")


def _leading_line_ends(tables: Tables, rows: I64) -> I64:
    """Line ends before the start line, which RFC 3261 §7.5 says to ignore."""
    p = tables.packets
    skip = np.zeros(len(rows), np.int64)
    first = p.head(rows, 1)[:, 0] if len(rows) else np.empty(0, np.uint8)
    for i in np.flatnonzero((first == 13) | (first == 10)).tolist():
        payload = p.payload(int(rows[i]))
        skip[i] = len(payload) - len(payload.lstrip(b"\r\n"))
    return skip


def _log_lost_fragments(tables: Tables, rows: I64) -> None:
    """Notes first fragments that no reassembled datagram belongs to: they are no message, as in Wireshark."""
    p = tables.packets
    if len(rows):  # the payload of a piece begins with the UDP header (RFC 768: 8 bytes)
        starts = np.ascontiguousarray(p.head(rows, 12)[:, 8:]).view("<u4")[:, 0]
        rows = rows[np.isin(starts, _STARTS)]
    if not len(rows):
        return
    done = np.flatnonzero((p.flags & REASSEMBLED) != 0)
    seen = set(zip(p.flow[done].tolist(), p.ip_id[done].tolist(), strict=True))
    lost = [r for r in rows.tolist() if (int(p.flow[r]), int(p.ip_id[r])) not in seen]
    log(tables, "SIP in an IP fragment whose other pieces are missing", np.array(lost, np.int64))


def stream_messages(tables: Tables) -> Pieces | None:
    """Messages on TCP connections of which a segment starts like SIP; None when there is none."""
    p = tables.packets
    rows = np.flatnonzero((p.proto == TCP) & (p.kind == KIND_SIP))
    if not len(rows):
        return None
    found: list[Found] = []
    for connection, *limits in carrying(tables, rows):
        for from_client, limit in zip((True, False), limits, strict=True):
            if limit:
                found += _one_direction(tables, connection, from_client, limit)
    return pieces_of(found, "tcp")


def pieces_of(found: list[Found], transport: str) -> Pieces | None:
    """Pieces of messages on streams; None without any."""
    if not found:
        return None
    packet, ts, offset, length, partial = (np.array(c, np.int64) for c in zip(*found, strict=True))
    return Pieces(packet, ts, offset, length, length, partial.astype(np.bool_), np.zeros(len(packet), np.bool_),
                  transport)


def carrying(tables: Tables, rows: I64) -> Iterator[tuple[int, int, int]]:
    """Connections that these packet rows belong to, as numbers of ``Tables.tcp``, ascending.

    With each, how many bytes of what the client and of what the server sent are worth reading; 0: nothing was sent.
    """
    p = tables.packets
    connections = tables.tcp.select("connection", "flow", "first_packet", "last_packet", "data_client", "data_server")
    connections = connections.sort("flow", "first_packet")
    # the last connection of the flow that began before the row, if it still ran
    begun = _flow_and_packet(connections["flow"].to_numpy(), connections["first_packet"].to_numpy())
    candidate = np.searchsorted(begun, _flow_and_packet(p.flow[rows], rows), side="right") - 1
    candidate, rows = candidate[candidate >= 0], rows[candidate >= 0]
    inside = (connections["flow"].to_numpy()[candidate] == p.flow[rows]) & (
        connections["last_packet"].to_numpy()[candidate] >= rows)
    yield from limits(tables, connections[np.unique(candidate[inside])].sort("connection"))


def limits(tables: Tables, connections: pl.DataFrame) -> Iterator[tuple[int, int, int]]:
    """What ``carrying`` gives, for rows of ``Tables.tcp``."""
    p = tables.packets
    room: dict[int, int] = {}
    for connection, flow, client, server in connections.select(
            "connection", "flow", "data_client", "data_server").iter_rows():
        if flow not in room:
            room[flow] = CUT_FACTOR * int(p.length[p.flow_rows(flow)].sum(dtype=np.int64))
        of_client, of_server = (min(max(1 << 22, min(2 * size, room[flow])), STREAM_LIMIT) if size else 0
                                for size in (client, server))
        yield connection, of_client, of_server


def _flow_and_packet(flow: npt.NDArray[np.uint32], packet: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    return flow.astype(np.uint64) << np.uint64(32) | packet.astype(np.uint64)


def _one_direction(tables: Tables, connection: int, from_client: bool, limit: int) -> list[Found]:
    p = tables.packets
    stream = tables.streams.get(connection, from_client, limit=limit)
    out = []
    last = -1
    for message in decode.frame_stream(stream.data, stream.holes):
        last = stream.packet_at(message.end - 1)
        carriers = stream.packets(message.start, message.end)
        data = stream.data[message.start : message.end]
        inside = p.payload(int(carriers[0])).find(data) if len(carriers) == 1 else -1
        offset = int(p.offset[carriers[0]]) + inside if inside >= 0 else p.space.append(data)
        out.append((last, stream.time_at(message.end - 1), offset, len(data), not message.complete))
        if message.note:
            log(tables, message.note, np.array([last], np.int64))
    if stream.truncated and last >= 0:
        log(tables, LONG_STREAM, np.array([last], np.int64))
    return out
