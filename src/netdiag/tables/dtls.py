"""DTLS handshakes: hellos, flights that were repeated, certificates, alerts (RFC 6347, RFC 9147), and what SDP said.

Only datagrams with handshake records in clear, alerts and changes of the cipher are read one by one; encrypted data is
looked at in columns.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from netdiag.decode import dtls, tls_alerts
from netdiag.tables.dtls_flights import Handshake, hello_random
from netdiag.tables.packets import FORWARD, FRAGMENT, KIND_DTLS, REASSEMBLED, UDP
from netdiag.tables.schema import U8, U16, U32, empty, frame
from netdiag.tables.stun import ends
from netdiag.tables.stun_messages import Datagrams

if TYPE_CHECKING:
    from netdiag.tables import Tables

READ = 256
"""Handshake datagrams read on one path (practice: a handshake with certificates in small pieces has some fifty)."""
LISTED = 64
"""Packets listed of one kind (practice)."""
_HASHES = {"sha-1": "sha1", "sha-224": "sha224", "sha-256": "sha256", "sha-384": "sha384", "sha-512": "sha512"}
"""RFC 8122 §5, as far as it is still in use."""


@dataclass(frozen=True, slots=True)
class DtlsHandshake:
    """One handshake on one path at one capture point. The client is who sent the first ClientHello, else who received
    the first ServerHello, else the receiver of the first message."""

    dtls: U32
    point: str
    flow: U32
    path: U32
    """As in ``stun`` and ``checks``."""
    relayed: bool
    client: str
    client_port: U16
    server: str
    server_port: U16
    start_ns: int
    """First message."""
    end_ns: int
    """Last handshake, alert or change of the cipher that was read."""
    packets: tuple[U32, ...]
    """All datagrams with handshake messages in clear."""
    client_hello_packets: tuple[U32, ...]
    """Every sending of a ClientHello by the client, first 64."""
    client_hello_ns: tuple[int, ...]
    verified: bool
    """A HelloVerifyRequest was sent (RFC 6347 §4.2.1), or a HelloRetryRequest in 1.3."""
    rival_hello_packets: tuple[U32, ...]
    """ClientHellos of the *server*: both sides take the active role."""
    server_hello_packet: U32 | None
    version: U16 | None
    """Chosen: 0xFEFF is 1.0, 0xFEFD is 1.2, 0xFEFC is 1.3."""
    srtp: bool
    """The ClientHello offers use_srtp (RFC 5764 §4.1.1)."""
    client_repeats: U16
    """How often the client sent the fragment that it repeated most, less one."""
    client_repeated: str
    """The message that it belongs to: "ClientHello", "Certificate"."""
    client_repeat_ns: tuple[int, ...]
    """Times of all its sendings, first 64."""
    client_repeat_packets: tuple[U32, ...]
    server_repeats: U16
    server_repeated: str
    server_repeat_ns: tuple[int, ...]
    server_repeat_packets: tuple[U32, ...]
    server_certificate_packets: tuple[U32, ...]
    """First sending of each piece of the server's Certificate message."""
    client_certificate_packets: tuple[U32, ...]
    fragment_lengths: tuple[U32, ...]
    """Pieces of the server's Certificate message, bytes; of the client's where the server's is not there."""
    largest: U32
    """UDP payload of the largest handshake datagram, bytes on the wire."""
    server_fingerprint: str
    """SHA-256 of the server's certificate as RFC 8122 §5 writes it; "" where it was not seen whole (always in 1.3)."""
    client_fingerprint: str
    client_setup: str
    """a=setup of the client's SDP; "" where none was captured."""
    server_setup: str
    client_mismatch: bool
    """The client's certificate is none that its SDP names: no a=fingerprint of its agent fits."""
    server_mismatch: bool
    mismatch_sdp: str
    """An a=fingerprint that does not fit, and the packet of its SDP."""
    mismatch_packet: U32 | None
    alert_packet: U32 | None
    """First alert in clear that is fatal; else the first encrypted one."""
    alert_level: U8 | None
    alert: U8 | None
    """None when encrypted."""
    alert_by: str | None
    closed_ns: int | None
    """First alert of any kind, close_notify too."""
    encrypted_client: bool
    """Records under the new keys (epoch above 0) were sent."""
    encrypted_server: bool
    completed: bool
    """Both sides sent records under the new keys, and no fatal alert in clear."""
    cut: bool
    """A datagram of it was captured in part, or bytes of it did not hold together."""


def build(tables: Tables) -> pl.DataFrame:
    """One row for each handshake, in the order of first messages."""
    where = _datagrams(tables)
    if where is None:
        return empty(DtlsHandshake)
    data = tables.packets.space
    first = data.gather(where.at, 14)
    quiet = (first[:, 0] == dtls.APPLICATION_DATA) | (first[:, 0] == dtls.WITH_ID) | (first[:, 0] >> 5 == 1)
    encrypted = _encrypted(where, quiet)
    some = np.flatnonzero(~quiet)
    seen: dict[int, int] = defaultdict(int)
    open_: dict[int, Handshake] = {}
    every: list[Handshake] = []
    left_out: list[int] = []
    for i in some.tolist():
        path = int(where.path[i])
        seen[path] += 1
        if seen[path] > READ:
            left_out.append(int(where.packet[i]))
            continue
        now = open_.get(path)
        size = int(where.size[i])
        raw = data.read(int(where.at[i]), size)
        forward, packet = bool(where.forward[i]), int(where.packet[i])
        random = hello_random(raw)
        if now is None or (random and now.ends_with(random, forward)):
            now = Handshake(i, path, packet)
            open_[path] = now
            every.append(now)
        now.add(raw, forward, packet, int(tables.packets.ts[packet]), int(where.wire[i]), size < int(where.wire[i]))
    for packet in left_out[:1]:
        tables.anomaly_log.add("dtls", f"more than {READ} handshake datagrams between two ports, the rest was not read",
                               packet, len(left_out))
    every = [h for h in every if h.real]
    if not every:
        return empty(DtlsHandshake)
    return frame(DtlsHandshake, _rows(tables, where, every, encrypted))


def _datagrams(tables: Tables) -> Datagrams | None:
    """DTLS of UDP and inside TURN, in order of packets."""
    p = tables.packets
    whole = (p.flags & (FRAGMENT | REASSEMBLED)) != FRAGMENT
    rows = np.flatnonzero((p.kind == KIND_DTLS) & (p.proto == UDP) & whole & (p.flow < len(p.flow_start)))
    wire = p.wire[rows].astype(np.int64)
    parts = [Datagrams(rows, p.offset[rows], np.minimum(p.length[rows].astype(np.int64), wire), wire,
                       p.flow[rows].astype(np.int64), (p.flags[rows] & FORWARD) != 0)]
    t = tables.stun_traffic
    if t is not None and len(t.carried.packet):
        head = p.space.gather(t.carried.at, 2)
        parts.append(t.carried.take((head[:, 0] >= 20) & (head[:, 0] <= 25) & (head[:, 1] == 0xFE)))
    out = Datagrams.join(parts)
    if not len(out.packet):
        return None
    return out.take(np.argsort(out.packet, kind="stable"))


def _encrypted(where: Datagrams, quiet: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> set[tuple[int, bool]]:
    """Path and direction of datagrams that begin with an encrypted record."""
    keys = np.unique(where.path[quiet] << 1 | where.forward[quiet])
    return {(key >> 1, bool(key & 1)) for key in keys.tolist()}


def _rows(tables: Tables, where: Datagrams, every: list[Handshake],
          encrypted: set[tuple[int, bool]]) -> list[DtlsHandshake]:
    p, t = tables.packets, tables.stun_traffic
    index = np.array([h.index for h in every])
    ahead = np.array([h.client_ahead for h in every])
    names = ends(tables, [] if t is None else t.relays, where.path[index], ahead, where.packet[index],
                 where.forward[index])
    clients = list(zip(names["client"], names["client_port"].tolist(), strict=True))
    servers = list(zip(names["server"], names["server_port"].tolist(), strict=True))
    points = p.points([h.packet for h in every]).tolist()
    agents = _agents(tables, {h.path for h in every})
    said = _descriptions(tables, set(agents.values()))
    last = {h.path: i for i, h in enumerate(every)}
    out = []
    for i, h in enumerate(every):
        forward = bool(ahead[i])
        for way in (True, False):
            h.sides[way].encrypted |= last[h.path] == i and (h.path, way) in encrypted
        ends_ = clients[i], servers[i]
        both = [_described(said.get(agents.get((h.path, *end), ""), []), h.start_ns) for end in ends_]
        out.append(_row(i, h, forward, tables.points[points[i]], int(p.flow[h.packet]),
                        h.path >= len(p.flow_start), ends_, both))
    return out


def _agents(tables: Tables, paths: set[int]) -> dict[tuple[int, str, int], str]:
    """Path and transport address to the ufrag of the agent there."""
    checks = tables.checks.filter(pl.col("path").is_in(list(paths)))
    out: dict[tuple[int, str, int], str] = {}
    for path, local, local_port, remote, remote_port, mine, other in checks.select(
            "path", "local", "local_port", "remote", "remote_port", "local_ufrag", "remote_ufrag").iter_rows():
        out[path, local, local_port] = mine
        out[path, remote, remote_port] = other
    return out


class _Said(NamedTuple):
    setup: str
    fingerprints: tuple[str, ...]
    packet: int | None


def _descriptions(tables: Tables, ufrags: set[str]) -> dict[str, list[dict[str, Any]]]:
    said = tables.ice_descriptions.filter(pl.col("ufrag").is_in(list(ufrags)))
    out: dict[str, list[dict[str, Any]]] = {}
    for row in said.select("ufrag", "ts_ns", "packet", "setup", "fingerprints").iter_rows(named=True):
        out.setdefault(row["ufrag"], []).append(row)
    return out


def _described(known: list[dict[str, Any]], at_ns: int) -> _Said:
    """What the descriptions of one agent say; its role is that of the last one before the handshake."""
    if not known:
        return _Said("", (), None)
    last = ([d for d in known if d["ts_ns"] <= at_ns] or known[:1])[-1]
    return _Said(last["setup"], tuple(dict.fromkeys(f for d in known for f in d["fingerprints"])), last["packet"])


def _row(number: int, h: Handshake, forward: bool, point: str, flow: int, relayed: bool,
         ends_: tuple[tuple[str, int], tuple[str, int]], said: list[_Said]) -> DtlsHandshake:
    client, server = h.sides[forward], h.sides[not forward]
    mine, theirs = client.most_repeated(), server.most_repeated()
    wrong = [s for s, side in zip(said, (client, server), strict=True) if _differs(side.der, s.fingerprints)]
    fatal = [a for a in h.alerts if a[4] is not None and a[3] == tls_alerts.FATAL]
    alert = next(iter(fatal or [a for a in h.alerts if a[4] is None]), None)
    pieces = server.certificate or client.certificate
    answer = server.server_hello
    return DtlsHandshake(
        dtls=number, point=point, flow=flow, path=h.path, relayed=relayed, client=ends_[0][0],
        client_port=ends_[0][1], server=ends_[1][0], server_port=ends_[1][1], start_ns=h.start_ns, end_ns=h.end_ns,
        packets=tuple(h.packets),
        client_hello_packets=tuple(p for p, _ in client.hellos[:LISTED]),
        client_hello_ns=tuple(ns for _, ns in client.hellos[:LISTED]), verified=server.verify,
        rival_hello_packets=tuple(p for p, _ in server.hellos[:LISTED]),
        server_hello_packet=answer[0] if answer else None,
        version=answer[1].version if answer and answer[1] else None, srtp=client.srtp,
        client_repeats=max(len(mine[1]) - 1, 0), client_repeated=mine[0],
        client_repeat_ns=tuple(ns for _, ns in mine[1][:LISTED]),
        client_repeat_packets=tuple(p for p, _ in mine[1][:LISTED]),
        server_repeats=max(len(theirs[1]) - 1, 0), server_repeated=theirs[0],
        server_repeat_ns=tuple(ns for _, ns in theirs[1][:LISTED]),
        server_repeat_packets=tuple(p for p, _ in theirs[1][:LISTED]),
        server_certificate_packets=tuple(dict.fromkeys(p for p, _ in server.certificate[:LISTED])),
        client_certificate_packets=tuple(dict.fromkeys(p for p, _ in client.certificate[:LISTED])),
        fragment_lengths=tuple(size for _, size in pieces[:LISTED]), largest=h.largest,
        server_fingerprint=_fingerprint(server.der, "sha-256"), client_fingerprint=_fingerprint(client.der, "sha-256"),
        client_setup=said[0].setup, server_setup=said[1].setup,
        client_mismatch=said[0] in wrong, server_mismatch=said[1] in wrong,
        mismatch_sdp=wrong[0].fingerprints[0] if wrong else "",
        mismatch_packet=wrong[0].packet if wrong else None,
        alert_packet=alert[0] if alert else None, alert_level=alert[3] if alert else None,
        alert=alert[4] if alert else None,
        alert_by=None if alert is None else "client" if alert[2] == forward else "server",
        closed_ns=h.alerts[0][1] if h.alerts else None, encrypted_client=client.encrypted,
        encrypted_server=server.encrypted, completed=client.encrypted and server.encrypted and not fatal, cut=h.cut)


def _fingerprint(der: bytes, function: str) -> str:
    """Certificate fingerprint as SDP writes it (RFC 8122 §5); "" without certificate, or with an unknown function."""
    if not der or function not in _HASHES:
        return ""
    digest = hashlib.new(_HASHES[function], der, usedforsecurity=False).digest()
    return digest.hex(":").upper()


def _differs(der: bytes, fingerprints: tuple[str, ...]) -> bool:
    """Is the certificate none of those named? False where there is nothing to compare."""
    comparable = [(f, value) for f, _, value in (text.partition(" ") for text in fingerprints) if f in _HASHES]
    return bool(der and comparable) and all(_fingerprint(der, f) != value for f, value in comparable)
