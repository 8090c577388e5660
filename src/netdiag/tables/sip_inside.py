"""SIP messages inside TLS, as far as the key log opens it, and inside WebSockets (RFC 7118), in clear or in TLS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from netdiag.decode import sip as decode
from netdiag.tables.packets import KIND_HTTP, TCP
from netdiag.tables.sip_sources import LONG_STREAM, Found, Pieces, carrying, limits, log, pieces_of

if TYPE_CHECKING:
    from netdiag.decode.websocket import Upgrade
    from netdiag.tables import Tables
    from netdiag.tables.decrypted import Cleartext
    from netdiag.tables.streams import Stream

FIRST_LIMIT = 1 << 15
"""Bytes of a direction that are read to see what a connection carries: hellos, certificates and a first message
(practice)."""
TLS_LIMIT = 1 << 26
"""Bytes of one direction of a TLS connection that are decrypted (practice: some 100,000 messages): both directions are
in memory, with what they say."""
KEPT = 1 << 28
"""Bytes of messages that are kept because no packet holds them as they are (practice: some 300,000 messages)."""
_HEAD = 1 << 12
"""Bytes of a GET in which "websocket" is looked for (practice)."""


@dataclass(slots=True)
class _Collector:
    tables: Tables
    found: dict[str, list[Found]] = field(default_factory=lambda: {"tls": [], "ws": [], "wss": []})
    kept: int = 0

    def add(self, transport: str, packet: int, ts: int, data: bytes, complete: bool, note: str) -> None:
        if note:
            self.note(note, packet)
        if self.kept + len(data) > KEPT:
            self.note(f"SIP inside TLS or WebSocket behind the first {KEPT >> 20} MiB is left out", packet)
            return
        self.kept += len(data)
        self.tables.packets.space.decrypted |= transport != "ws"
        self.found[transport].append((packet, ts, self.tables.packets.space.append(data), len(data), not complete))

    def note(self, reason: str, packet: int) -> None:
        log(self.tables, reason, np.array([packet], np.int64))


def wrapped_messages(tables: Tables) -> list[Pieces]:
    """Messages that are inside TLS or a WebSocket, one entry for each transport that occurs."""
    collector = _Collector(tables)
    for client, server in _web_connections(tables):
        _web(collector, "ws", client, server)
    for pair in _decrypted_connections(tables):
        if _speaks_sip(pair):
            for side in pair:
                _framed(collector, side)
        else:
            _web(collector, "wss", *pair)
    return [p for p in (pieces_of(found, transport) for transport, found in collector.found.items()) if p is not None]


def _web_connections(tables: Tables) -> Iterator[tuple[Stream, Stream]]:
    """What client and server said where a WebSocket begins in clear."""
    p = tables.packets
    rows = np.flatnonzero((p.proto == TCP) & (p.kind == KIND_HTTP))
    if not len(rows):
        return
    heads = (p.payload(row, _HEAD) for row in rows.tolist())
    rows = rows[np.fromiter((b"websocket" in h.lower() or b"\r\n\r\n" not in h for h in heads), np.bool_, len(rows))]
    if not len(rows):
        return
    for connection, of_client, of_server in carrying(tables, rows):
        client, server = tables.streams.both(connection, FIRST_LIMIT)
        if _upgrade(client, server) is not None:
            if client.truncated or server.truncated:
                client, server = tables.streams.both(connection, max(of_client, of_server))
            yield client, server


def _decrypted_connections(tables: Tables) -> Iterator[tuple[Cleartext, Cleartext]]:
    """What client and server said inside TLS where it is, or may be, SIP."""
    if not (tables.options.keylog or tables.secrets):
        return
    found = tables.decrypted.connections
    wanted: list[int] = []
    for connection, pair in zip(found, tables.decrypted.each(found, FIRST_LIMIT), strict=True):
        if pair is None:
            continue
        silent = not (pair[0].data or pair[1].data)
        longer = pair[0].truncated or pair[1].truncated
        if longer and (silent or _speaks_sip(pair) or _upgrade(*pair) is not None):
            wanted.append(connection)
        elif not silent:
            yield pair
    if wanted:
        for connection, *sizes in limits(tables, tables.tcp.filter(pl.col("connection").is_in(wanted))):
            pair = tables.decrypted.both(connection, min(max(sizes), TLS_LIMIT))
            if pair is not None:
                yield pair


def _speaks_sip(pair: tuple[Cleartext, Cleartext]) -> bool:
    return decode.starts(pair[0].data) or decode.starts(pair[1].data)


def _upgrade(client: Stream | Cleartext, server: Stream | Cleartext) -> Upgrade | None:
    """The upgrade to a WebSocket that carries SIP, or whose subprotocol nobody named."""
    from netdiag.decode import websocket
    if not client.data.startswith(b"GET "):
        return None
    found = websocket.upgrade(client.data, server.data)
    return found if found is not None and found.protocol.lower() in ("sip", "") else None


def _framed(collector: _Collector, side: Cleartext) -> None:
    last = -1
    for message in decode.frame_stream(side.data):
        last = side.packet_at(message.end - 1)
        collector.add("tls", last, side.time_at(message.end - 1), side.data[message.start : message.end],
                      message.complete, message.note)
    if side.truncated and last >= 0:
        collector.note(LONG_STREAM, last)


def _web(collector: _Collector, transport: str, client: Stream | Cleartext, server: Stream | Cleartext) -> None:
    from netdiag.decode import websocket
    opened = _upgrade(client, server)
    if opened is None:
        return
    if opened.problem:
        collector.note(opened.problem, client.packet_at(opened.client - 1))
    deflate = opened.deflate
    for side, start, of_client in ((client, opened.client, True), (server, opened.server, False)):
        if start is None:
            continue
        alone = deflate is not None and (deflate.client_alone if of_client else deflate.server_alone)
        last = -1
        for message in websocket.messages(side.data, start, side.holes, of_client, deflate is not None, alone):
            data = message.data.lstrip(b"\r\n")
            last = side.packet_at(message.end - 1)
            if decode.starts(data):
                collector.add(transport, last, side.time_at(message.end - 1), data, message.complete, message.note)
            elif message.note or (data and opened.protocol):  # line ends alone are a keep-alive (RFC 5626 §4.4.1)
                collector.note(message.note or "WebSocket message that is no SIP", last)
        if side.truncated and last >= 0:
            collector.note(LONG_STREAM, last)
