"""Reads DNS messages over UDP and TCP and matches answers with queries."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import dns
from netdiag.tables.columns import frame_of
from netdiag.tables.lookups import Lookup
from netdiag.tables.packets import FRAGMENT, IPV6, REASSEMBLED, UDP
from netdiag.tables.packets import U32 as Rows
from netdiag.tables.schema import schema

if TYPE_CHECKING:
    from netdiag.tables import Tables

RETRY_NS = 30_000_000_000
"""Window in which the same question counts as a retry: resolv.conf(5) gives up after at most 5 s × 5 attempts a server
(practice)."""
MAX_DETAILED = 100_000
"""Answers whose records are read; of the rest only header and question (practice: some seconds of work)."""
DETAIL_BYTES = 1 << 26
"""Bytes of the answers whose records are read, in all (practice: a minute at worst)."""
MAX_MESSAGES = 1_000_000
"""Messages that become rows (practice: some 1.7 kB of memory each while the table is built)."""
TCP_LIMIT = 1 << 20
"""Bytes of one direction of a TCP connection that are read: sixteen messages of the largest size (RFC 1035 §4.2.2),
zone transfers are cut (practice)."""


class _Message(NamedTuple):
    """One message that passed the header test."""

    packet: int
    point: int
    ts: int
    wire: bytes
    flow: int
    transport: str
    id: int
    response: bool
    opcode: int
    bits: tuple[bool, bool, bool, bool, bool]
    """Authoritative, truncated, recursion desired, recursion available, checking disabled."""
    rcode: int
    counts: tuple[int, int, int, int]


@dataclass(slots=True)
class _Draft:
    """A row of ``Lookup`` that can still change; the fields mean what they mean there."""

    point: str
    flow: int
    client: str
    client_port: int
    server: str
    server_port: int
    transport: str
    id: int
    name: str
    type: str
    query_ns: int
    opcode: int
    recursion_desired: bool
    checking_disabled: bool
    lookup: int = 0
    query_packet: int | None = None
    answer_packet: int | None = None
    answer_ns: int | None = None
    rcode: str | None = None
    truncated: bool = False
    answers: tuple[str, ...] = ()
    retry: int = 0
    edns_size: int | None = None
    duplicate: bool = False
    authoritative: bool | None = None
    recursion_available: bool | None = None
    answer_count: int | None = None
    authority_count: int | None = None
    answer_size: int | None = None
    answer_edns_size: int | None = None
    extended_errors: tuple[int, ...] = ()


_Key = tuple[int, int, str, str]


@dataclass(slots=True)
class _Builder:
    """Rows in the order of their messages."""

    tables: Tables
    rows: list[_Draft] = field(default_factory=list)
    open: dict[_Key, list[_Draft]] = field(default_factory=dict)
    """(flow, id, name, type) to rows without an answer; an emptied list stays: it marks what was answered."""
    latest: dict[tuple[int, int], _Key] = field(default_factory=dict)
    """(flow, id) to the key of its last query."""
    addresses: dict[tuple[int, int], str] = field(default_factory=dict)
    detailed: int = 0
    """Answers with records."""
    first_skipped: int = 0
    skipped: int = 0
    detail_bytes: int = 0
    read: int = 0
    first_left_out: int = 0

    def odd(self, reason: str, packet: int) -> None:
        self.tables.anomaly_log.add("lookups", reason, packet)

    def _address(self, value: int, flags: int) -> str:
        key = value, flags & IPV6
        known = self.addresses.get(key)
        if known is None:
            known = self.addresses[key] = self.tables.packets.address(*key)
        return known

    def add(self, message: _Message) -> None:
        self.read += 1
        if self.read > MAX_MESSAGES:
            self.first_left_out = self.first_left_out or message.packet
            return
        name = kind = ""
        end = dns.HEADER
        if message.counts[0]:
            try:
                asked = dns.question(message.wire)
            except ValueError as error:
                self.odd(f"DNS message not read: {error}", message.packet)
                return
            name, kind, end = asked.name, asked.type, asked.end
        if message.response:
            self._answer(message, name, kind, end)
        else:
            self._query(message, name, kind, end)

    def _query(self, message: _Message, name: str, kind: str, end: int) -> None:
        row = self._row(message, name, kind)
        tail = message.wire[end : end + 5]
        if message.counts == (1, 0, 0, 1) and tail[:3] == b"\0\0\x29" and len(tail) == 5:
            row.edns_size = tail[3] << 8 | tail[4]
        elif any(message.counts[1:]):
            found = dns.details(message.wire, end, message.counts, 0)
            row.edns_size = found.edns_size
            if found.problem:
                self.odd(f"DNS query: {found.problem}", message.packet)
        row.query_packet = message.packet
        key = message.flow, message.id, name, kind
        self.open.setdefault(key, []).append(row)
        self.latest[message.flow, message.id] = key

    def _answer(self, message: _Message, name: str, kind: str, end: int) -> None:
        key = message.flow, message.id, name, kind
        if not message.counts[0]:  # errors may come back without the question
            key = self.latest.get((message.flow, message.id), key)
        waiting = self.open.get(key)
        if waiting:
            # A repeated query with the same id: the answer belongs to the last one sent before it.
            row = waiting.pop()
        else:
            row = self._row(message, name, kind)
            row.duplicate = waiting is not None
        row.authoritative, row.truncated, _, row.recursion_available, _ = message.bits
        row.answer_packet, row.answer_ns = message.packet, message.ts
        row.answer_count, row.authority_count = message.counts[1], message.counts[2]
        row.answer_size = min(len(message.wire), 0xFFFF)
        rcode = message.rcode
        if any(message.counts[1:]):
            self.detailed += 1
            self.detail_bytes += len(message.wire)
            if self.detailed <= MAX_DETAILED and self.detail_bytes <= DETAIL_BYTES:
                found = dns.details(message.wire, end, message.counts, rcode)
                rcode = found.rcode
                row.answers, row.answer_edns_size, row.extended_errors = found.answers, found.edns_size, found.errors
                if found.problem and not (row.truncated and not found.answers):
                    self.odd(f"DNS answer: {found.problem}", message.packet)
            else:
                self.skipped += 1
                self.first_skipped = self.first_skipped or message.packet
        row.rcode = dns.rcode_text(rcode)

    def _row(self, message: _Message, name: str, kind: str) -> _Draft:
        packets, packet = self.tables.packets, message.packet
        flags = int(packets.flags[packet])
        sender = self._address(int(packets.src[packet]), flags), int(packets.sport[packet])
        receiver = self._address(int(packets.dst[packet]), flags), int(packets.dport[packet])
        client, server = (receiver, sender) if message.response else (sender, receiver)
        row = _Draft(self.tables.points[message.point], message.flow, *client, *server, message.transport, message.id,
                     name, kind, message.ts, message.opcode, message.bits[2], message.bits[4])
        self.rows.append(row)
        return row

    def frame(self) -> pl.DataFrame:
        if self.skipped:
            self.tables.anomaly_log.add(
                "lookups", f"DNS answers behind the first {MAX_DETAILED} or {DETAIL_BYTES >> 20} MiB: records not read",
                self.first_skipped, self.skipped)
        if self.read > MAX_MESSAGES:
            self.tables.anomaly_log.add("lookups", f"DNS messages behind the first {MAX_MESSAGES} left out",
                                        self.first_left_out, self.read - MAX_MESSAGES)
        self.rows.sort(key=lambda r: r.query_ns)
        for number, row in enumerate(self.rows):
            row.lookup = number
        _count_retries(self.rows)
        return frame_of(Lookup, {name: [getattr(r, name) for r in self.rows] for name in schema(Lookup)})


def _count_retries(rows: list[_Draft]) -> None:
    """Sets ``retry`` of rows, which are in order of time."""
    recent: dict[tuple[str, str, str, str], deque[int]] = {}
    for row in rows:
        if row.query_packet is None:
            continue
        times = recent.setdefault((row.point, row.client, row.name, row.type), deque())
        while times and times[0] < row.query_ns - RETRY_NS:
            times.popleft()
        row.retry = min(len(times), 255)
        times.append(row.query_ns)


def read(tables: Tables, dns_rows: npt.NDArray[np.intp]) -> pl.DataFrame:
    """Frame of ``Lookup`` from the packet rows of a DNS port, in order of time of the queries."""
    packets = tables.packets
    flags = packets.flags[dns_rows]
    # A piece of a fragmented datagram is no message; the reassembled whole stands at its last piece.
    whole = ((flags & FRAGMENT) == 0) | ((flags & REASSEMBLED) != 0)
    rows = dns_rows[(packets.proto[dns_rows] == UDP) & whole].astype(np.uint32)
    builder = _Builder(tables)
    for message in _datagrams(tables, rows):
        builder.add(message)
    if len(rows) < len(dns_rows):
        for message in sorted(_streamed(tables), key=lambda m: m.packet):
            builder.add(message)
    return builder.frame()


def _datagrams(tables: Tables, rows: Rows) -> Iterator[_Message]:
    packets = tables.packets
    size = packets.length[rows]
    for row in rows[(size < dns.HEADER) & (size > 0)].tolist():
        tables.anomaly_log.add("lookups", "DNS message shorter than its header", row)
    rows = rows[size >= dns.HEADER]
    wires = (packets.payload(row) for row in rows.tolist())
    yield from _messages(rows.tolist(), packets.points(rows).tolist(), packets.ts[rows].tolist(),
                         packets.flow[rows].tolist(), wires, dns.headers(packets.head(rows, dns.HEADER)), "udp")


def _messages(rows: list[int], points: list[int], times: list[int], flows: list[int], wires: Iterator[bytes],
              h: dns.Headers, transport: str) -> Iterator[_Message]:
    bits = zip(h.authoritative.tolist(), h.truncated.tolist(), h.recursion_desired.tolist(),
               h.recursion_available.tolist(), h.checking_disabled.tolist(), strict=True)
    counts = map(tuple, h.counts.tolist())
    columns = zip(rows, points, times, wires, flows, h.id.tolist(), h.response.tolist(), h.opcode.tolist(), bits,
                  h.rcode.tolist(), counts, strict=True)
    for row, point, ts, wire, flow, number, response, opcode, flag, rcode, count in columns:
        yield _Message(row, point, ts, wire, flow, transport, number, response, opcode, flag, rcode, count)


def _streamed(tables: Tables) -> Iterator[_Message]:
    """Messages of TCP connections on port 53, each behind its two bytes of length (RFC 1035 §4.2.2)."""
    connections = tables.tcp.filter((pl.col("client_port") == 53) | (pl.col("server_port") == 53))
    for number, flow in connections.select("connection", "flow").iter_rows():
        for from_client in (True, False):
            stream = tables.streams.get(number, from_client, TCP_LIMIT)
            data = stream.data
            stop = min((start for start, _ in stream.holes), default=len(data))
            found: list[tuple[int, int, bytes]] = []
            at = 0
            while stream.start_known and at + 2 <= stop:
                end = at + 2 + (data[at] << 8 | data[at + 1])
                if end > stop:
                    break
                if end - at >= 2 + dns.HEADER:
                    found.append((stream.packet_at(end - 1), stream.time_at(end - 1), bytes(data[at + 2 : end])))
                else:
                    tables.anomaly_log.add("lookups", "DNS message shorter than its header", stream.packet_at(at))
                at = end
            if at < len(data):
                tables.anomaly_log.add("lookups", "DNS over TCP not read to its end", stream.packet_at(at))
            if found:
                heads = np.frombuffer(b"".join(wire[: dns.HEADER] for _, _, wire in found), np.uint8)
                points = tables.packets.points([f[0] for f in found]).tolist()
                yield from _messages([f[0] for f in found], points, [f[1] for f in found], [flow] * len(found),
                                     iter([f[2] for f in found]), dns.headers(heads.reshape(-1, dns.HEADER)), "tcp")
