"""STUN messages of a capture as columns, and the datagrams that TURN carries for its clients.

Messages come from UDP, from TCP on TURN's port, and from inside TURN: ICE checks on a relayed candidate travel in
Send and Data indications and in ChannelData (RFC 8656 §11, §12). All of a kind are read together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.decode import stun
from netdiag.tables.packets import FORWARD, FRAGMENT, KIND_NONE, KIND_STUN, REASSEMBLED, TCP, UDP, Packets

if TYPE_CHECKING:
    from netdiag.tables import Tables

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

CHUNK = 1 << 15
"""Messages whose attributes are looked for together: bounds the working memory (practice)."""
CHANNEL_HEADER = 4
"""RFC 8656 §12.4."""
Endpoint = tuple[str, int]
_SHIFT, _BY_CHANNEL = 32, 1 << 31
"""Keys of paths inside TURN: flow id, then a channel number with that bit, or an index of an end."""


class Relayed(NamedTuple):
    """What goes to and from one peer by one TURN client: a path of its own inside the client's flow."""

    flow: int
    local: Endpoint | None
    """The relayed transport address, None where no response that names it was captured."""
    peer: Endpoint


@dataclass(slots=True)
class Datagrams:
    """Payloads with their paths; arrays of equal length."""

    packet: I64
    at: I64
    """Offset in ``packets.space``."""
    size: I64
    """Bytes captured."""
    wire: I64
    path: I64
    """A flow id, or behind the flows an index into ``relays``."""
    forward: Mask
    """Sent by side a of the flow; inside TURN by the client."""

    @staticmethod
    def join(parts: list[Datagrams]) -> Datagrams:
        return Datagrams(*(np.concatenate([getattr(p, n) for p in parts])
                           for n in ("packet", "at", "size", "wire", "path", "forward")))

    def take(self, index: I64 | Mask) -> Datagrams:
        return Datagrams(self.packet[index], self.at[index], self.size[index], self.wire[index], self.path[index],
                         self.forward[index])


@dataclass(slots=True)
class Fields:
    """Attributes of messages; arrays of equal length."""

    username: I64
    """Offset of the value, -1 without."""
    username_size: I64
    mapped: I64
    """Index into ``ends``, -1 without; XOR-MAPPED-ADDRESS before MAPPED-ADDRESS."""
    peer: I64
    """The first XOR-PEER-ADDRESS."""
    relayed: I64
    error: I64
    """Code, 0 without."""
    lifetime: I64
    """Seconds, -1 without."""
    channel: I64
    """Number, 0 without."""
    family: I64
    """REQUESTED-ADDRESS-FAMILY: 1 is IPv4, 2 is IPv6, 0 without."""
    priority: I64
    data: I64
    """Offset of DATA, -1 without."""
    data_size: I64
    use_candidate: Mask
    controlling: Mask
    controlled: Mask
    signed: Mask
    """MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256."""
    fingerprint: Mask
    """FINGERPRINT at the end, where it belongs (RFC 8489 §14.7)."""


@dataclass(slots=True)
class Traffic:
    """All STUN of the captures."""

    where: Datagrams
    head: stun.Headers
    fields: Fields
    tcp: Mask
    ends: list[Endpoint]
    relays: list[Relayed]
    """Path number less the number of flows."""
    carried: Datagrams
    """Datagrams inside TURN that are no STUN themselves: media, DTLS."""
    turn_clients: dict[int, bool] = field(default_factory=dict)
    """Flows with TURN: is the client side a?"""

    @property
    def n(self) -> int:
        return len(self.where.packet)


def read(tables: Tables) -> Traffic | None:
    """All messages in the order of their packets; None when there is no STUN."""
    p = tables.packets
    parts, tcp = [_datagrams(tables)], [False]
    streams, channels = _streams(tables)
    if len(streams.packet):
        parts.append(streams)
        tcp.append(True)
    where = Datagrams.join(parts)
    if not len(where.packet):
        return None
    over_tcp = np.repeat(tcp, [len(part.packet) for part in parts])
    ends: dict[Endpoint, int] = {}
    head = stun.headers(p.space.gather(where.at, stun.HEADER))
    fields = _fields(tables, where, head, ends)
    inner, relays, clients = _inside_turn(tables, where, head, fields, channels, list(ends))
    first = p.space.gather(inner.at, stun.HEADER)
    nested = stun.headers(first)
    found = stun.plausible(nested, first[:, 0], inner.wire) & nested.cookie & (inner.size >= stun.HEADER)
    carried, inner = inner.take(~found), inner.take(found)
    if len(inner.packet):
        more = stun.headers(first[found])
        fields = _joined(fields, _fields(tables, inner, more, ends))
        head = stun.Headers(*(np.concatenate([getattr(h, n) for h in (head, more)]) for n in (
            "kind", "method", "length", "high", "low", "cookie")))
        where, over_tcp = Datagrams.join([where, inner]), np.append(over_tcp, np.zeros(len(inner.packet), np.bool_))
    order = np.argsort(where.packet, kind="stable")
    if (order[1:] < order[:-1]).any():
        where, over_tcp = where.take(order), over_tcp[order]
        head = stun.Headers(head.kind[order], head.method[order], head.length[order], head.high[order],
                            head.low[order], head.cookie[order])
        fields = Fields(*(getattr(fields, n)[order] for n in Fields.__slots__))
    _check_fingerprints(tables, where, fields)
    return Traffic(where, head, fields, over_tcp, list(ends), relays, carried, clients)


def note(tables: Tables, reason: str, packets: I64) -> None:
    """Counts odd messages, file by file."""
    capture = tables.packets.locate(packets)[0]
    for index in np.unique(capture).tolist():
        mine = packets[capture == index]
        tables.anomaly_log.add("stun", reason, int(mine[0]), len(mine))


def _datagrams(tables: Tables) -> Datagrams:
    """UDP payloads that are STUN; without the cookie on TURN's port, or between ends that also send it with cookie."""
    p = tables.packets
    sure = p.kind == KIND_STUN
    first = p.order[p.flow_start]
    some = np.zeros(len(p.flow_start) + 1, np.bool_)
    some[:-1] = (p.proto[first] == UDP) & ((p.sport[first] == stun.PORT) | (p.dport[first] == stun.PORT))
    some[p.flow[sure]] = True
    some[-1] = False  # no packet captured twice
    if not some.any():
        return _rows(p, np.zeros(0, np.int64))
    maybe = (p.kind == KIND_NONE) & (p.length >= stun.HEADER) & some[p.flow]
    whole = (p.flags & (FRAGMENT | REASSEMBLED)) != FRAGMENT
    rows = np.flatnonzero((sure & some[p.flow] | maybe) & (p.proto == UDP) & whole)
    head = p.head(rows, stun.HEADER)
    h = stun.headers(head)
    good = stun.plausible(h, head[:, 0], p.wire[rows].astype(np.int64))
    odd = rows[~good & sure[rows]]
    if len(odd):
        note(tables, "STUN cookie in a datagram that its length does not fit", odd)
    return _rows(p, rows[good])


def _rows(p: Packets, rows: I64) -> Datagrams:
    wire = p.wire[rows].astype(np.int64)
    return Datagrams(rows, p.offset[rows], np.minimum(p.length[rows].astype(np.int64), wire), wire,
                     p.flow[rows].astype(np.int64), (p.flags[rows] & FORWARD) != 0)


def _streams(tables: Tables) -> tuple[Datagrams, Datagrams]:
    """STUN messages, and ChannelData messages, of TCP connections on TURN's port."""
    p = tables.packets
    none = _rows(p, np.zeros(0, np.int64))
    first = p.order[p.flow_start]
    flows = np.flatnonzero((p.proto[first] == TCP) & ((p.sport[first] == stun.PORT) | (p.dport[first] == stun.PORT)))
    if not len(flows):
        return none, none
    wanted = np.isin(tables.tcp["flow"].to_numpy(), flows)
    connections = np.flatnonzero(wanted).tolist()
    some = tables.tcp.select("flow", "client", "client_port", "first_packet").filter(wanted)
    found: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] = [], []
    for (flow, _, client_port, packet), sides in zip(some.iter_rows(), tables.streams.each(connections), strict=True):
        ahead = bool(p.flags[packet] & FORWARD) == (int(p.sport[packet]) == client_port)
        for from_client, stream in zip((True, False), sides, strict=True):
            for start, end in _framed(stream.data, stream.holes):
                carriers = stream.packets(start, end)
                data = stream.data[start:end]
                inside = p.payload(int(carriers[0])).find(data) if len(carriers) == 1 else -1
                offset = int(p.offset[carriers[0]]) + inside if inside >= 0 else p.space.append(data)
                found[data[0] >> 6].append((stream.packet_at(end - 1), offset, end - start, flow, from_client == ahead))
            if stream.truncated and stream.data:
                tables.anomaly_log.add("stun", "rest of a very long TCP stream was not searched for STUN",
                                       stream.packet_at(len(stream.data) - 1))
    out = []
    for kind in found:
        columns = np.array(kind, np.int64).reshape(-1, 5).T
        out.append(Datagrams(columns[0], columns[1], columns[2], columns[2], columns[3], columns[4] != 0))
    return out[0], out[1]


def _framed(data: bytes, holes: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Begin and end of STUN and ChannelData messages in a stream (RFC 8489 §6.2.2, RFC 8656 §12.5).

    Behind a hole, or what is neither, it goes on at the next cookie.
    """
    out: list[tuple[int, int]] = []
    cookie, at, known = stun.COOKIE.to_bytes(4, "big"), 0, 0
    while at + 4 <= len(data):
        while known < len(holes) and holes[known][1] <= at:
            known += 1
        limit = holes[known][0] if known < len(holes) else len(data)
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        message = data[at] >> 6 == 0 and data[at + 4 : at + 8] == cookie and size & 3 == 0
        channel = data[at] >> 6 == 1 and bool(out)
        end = at + (stun.HEADER + size if message else CHANNEL_HEADER + size)
        if (message or channel) and end <= limit:
            out.append((at, end))
            at = end if message else at + CHANNEL_HEADER + (size + 3 & ~3)
            continue
        following = data.find(cookie, at + 5)
        if following < 0:
            break
        at = following - 4
    return out


def _fields(tables: Tables, where: Datagrams, head: stun.Headers, ends: dict[Endpoint, int]) -> Fields:
    parts = [_some_fields(tables, where.take(index), stun.Headers(
        head.kind[index], head.method[index], head.length[index], head.high[index], head.low[index],
        head.cookie[index]), ends) for index in np.split(
            np.arange(len(where.packet)), np.arange(CHUNK, len(where.packet), CHUNK))]
    return Fields(*(np.concatenate([getattr(f, n) for f in parts]) for n in Fields.__slots__))


def _joined(a: Fields, b: Fields) -> Fields:
    return Fields(*(np.concatenate([getattr(a, n), getattr(b, n)]) for n in Fields.__slots__))


def _some_fields(tables: Tables, where: Datagrams, head: stun.Headers, ends: dict[Endpoint, int]) -> Fields:
    space = tables.packets.space
    found = stun.attributes(space, where.at, where.at + np.minimum(where.size, stun.HEADER + head.length))
    odd = found.broken & (where.size == where.wire)
    if odd.any():
        note(tables, "STUN attribute reaches beyond its message", where.packet[odd])

    def number(kind: int, width: int, none: int, skip: int = 0) -> I64:
        out = np.full(len(where.packet), none, np.int64)
        rows = np.flatnonzero(found.there(kind) & (found.size(kind) >= skip + width))
        out[rows] = space.gather(found.at(kind)[rows] + skip, width).view(f">u{width}")[:, 0]
        return out

    def address(kind: int, xor: bool) -> I64:
        out = np.full(len(where.packet), -1, np.int64)
        rows = np.flatnonzero(found.there(kind) & (found.size(kind) >= 8))
        values = stun.plain_addresses(space, found.at(kind)[rows], head.high[rows], head.low[rows], xor)
        values *= np.arange(20) < found.size(kind)[rows, None]
        values[(found.size(kind)[rows] < 20) & (values[:, 1] == 2), 1] = 0
        known: dict[bytes, int] = {}
        raw = values.tobytes()
        for i, row in enumerate(rows.tolist()):
            value = raw[20 * i : 20 * i + 20]
            if value not in known:
                end = stun.endpoint(value)
                known[value] = -1 if end is None else ends.setdefault(end, len(ends))
            out[row] = known[value]
        return out

    error = number(stun.ERROR_CODE, 2, 0, 2)
    mapped = address(stun.XOR_MAPPED_ADDRESS, True)
    for kind, xor in ((stun.OLD_XOR_MAPPED_ADDRESS, True), (stun.MAPPED_ADDRESS, False)):
        mapped = np.where(mapped < 0, address(kind, xor), mapped)
    return Fields(
        username=found.at(stun.USERNAME), username_size=found.size(stun.USERNAME).astype(np.int64), mapped=mapped,
        peer=address(stun.XOR_PEER_ADDRESS, True), relayed=address(stun.XOR_RELAYED_ADDRESS, True),
        error=(error >> 8 & 7) * 100 + (error & 255), lifetime=number(stun.LIFETIME, 4, -1),
        channel=number(stun.CHANNEL_NUMBER, 2, 0), family=number(stun.REQUESTED_FAMILY, 1, 0),
        priority=number(stun.PRIORITY, 4, -1), data=found.at(stun.DATA),
        data_size=found.size(stun.DATA).astype(np.int64), use_candidate=found.there(stun.USE_CANDIDATE),
        controlling=found.there(stun.ICE_CONTROLLING), controlled=found.there(stun.ICE_CONTROLLED),
        signed=found.there(stun.MESSAGE_INTEGRITY) | found.there(stun.MESSAGE_INTEGRITY_SHA256),
        fingerprint=found.at(stun.FINGERPRINT) == where.at + stun.HEADER + head.length - 4)


def _inside_turn(tables: Tables, where: Datagrams, head: stun.Headers, fields: Fields, channels: Datagrams,
                 ends: list[Endpoint]) -> tuple[Datagrams, list[Relayed], dict[int, bool]]:
    """Datagrams of Send and Data indications and of ChannelData, on paths behind the flows."""
    p = tables.packets
    turn = np.isin(head.method, list(stun.TURN)) & head.cookie
    none = _rows(p, np.zeros(0, np.int64))
    if not turn.any():
        return none, [], {}
    # Who asks is the client, and so is who sends Send; the server answers, and sends Data.
    asks = (head.kind == stun.REQUEST) | (head.kind == stun.INDICATION) & (head.method == stun.SEND)
    client: dict[int, bool] = {}
    local: dict[int, Endpoint] = {}
    bound: dict[tuple[int, int], Endpoint] = {}
    for i in np.flatnonzero(turn & (head.kind != stun.INDICATION)).tolist():
        flow = int(where.path[i])
        client.setdefault(flow, bool(where.forward[i] == asks[i]))
        if head.kind[i] == stun.SUCCESS and fields.relayed[i] >= 0:
            local.setdefault(flow, ends[fields.relayed[i]])
        if head.method[i] == stun.CHANNEL_BIND and fields.channel[i] and fields.peer[i] >= 0:
            bound.setdefault((flow, int(fields.channel[i])), ends[fields.peer[i]])
    for i in np.flatnonzero(turn & (head.kind == stun.INDICATION)).tolist():
        client.setdefault(int(where.path[i]), bool(where.forward[i] == asks[i]))
    rows = np.flatnonzero(turn & (head.kind == stun.INDICATION) & (fields.data >= 0) & (fields.peer >= 0))
    sent = Datagrams(where.packet[rows], fields.data[rows], fields.data_size[rows], fields.data_size[rows],
                     where.path[rows], where.forward[rows])
    framed = Datagrams.join([_channel_data(p, client), channels.take(np.isin(channels.path, list(client)))])
    numbers = p.space.gather(framed.at, 4).view(">u2").astype(np.int64).reshape(-1, 2)
    fits = (numbers[:, 1] + CHANNEL_HEADER <= framed.wire) & (framed.size > CHANNEL_HEADER)
    framed, numbers = framed.take(fits), numbers[fits]
    framed.at = framed.at + CHANNEL_HEADER
    framed.wire = numbers[:, 1]
    framed.size = np.minimum(framed.size - CHANNEL_HEADER, framed.wire)
    inner = Datagrams.join([sent, framed])
    keys, back = np.unique(inner.path << _SHIFT | np.append(fields.peer[rows], numbers[:, 0] | _BY_CHANNEL),
                           return_inverse=True)
    relays: dict[Relayed, int] = {}
    numbered, ahead = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
    for i, key in enumerate(keys.tolist()):
        flow, what = key >> _SHIFT, key & (1 << _SHIFT) - 1
        number = what & _BY_CHANNEL - 1
        peer = bound.get((flow, number), (f"channel 0x{number:04x}", 0)) if what & _BY_CHANNEL else ends[what]
        numbered[i] = relays.setdefault(Relayed(flow, local.get(flow), peer), len(relays))
        ahead[i] = client[flow]
    inner.forward = inner.forward == ahead[back]
    inner.path = numbered[back] + len(p.flow_start)
    return inner, list(relays), client


def _channel_data(p: Packets, client: dict[int, bool]) -> Datagrams:
    """UDP payloads of flows with TURN that begin with a channel number: bits 01 (RFC 8656 §12, RFC 7983 §7)."""
    flows = np.zeros(len(p.flow_start) + 1, np.bool_)
    flows[list(client)] = True
    rows = np.flatnonzero(flows[p.flow] & (p.kind == KIND_NONE) & (p.proto == UDP) & (p.length > CHANNEL_HEADER))
    return _rows(p, rows[p.head(rows, 1)[:, 0] >> 6 == 1])


def _check_fingerprints(tables: Tables, where: Datagrams, fields: Fields) -> None:
    """Notes messages that were damaged: their CRC says so."""
    whole = np.flatnonzero((where.size == where.wire) & fields.fingerprint)
    view = tables.packets.space.view
    bad = [i for i, at, size in zip(whole.tolist(), where.at[whole].tolist(), where.size[whole].tolist(), strict=True)
           if stun.fingerprint_fits(view(at, size)) is False]
    if bad:
        note(tables, "STUN message with a wrong FINGERPRINT", where.packet[bad])
