"""TURN allocations with their lifetimes, and each peer with its permission, channel and data (RFC 8656)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from netdiag.decode import stun as decode
from netdiag.tables.packets import KIND_STUN
from netdiag.tables.schema import U16, U32, empty, frame
from netdiag.tables.stun_messages import Endpoint, Traffic

if TYPE_CHECKING:
    from netdiag.tables import Tables

PERMISSION_NS = 300_000_000_000
"""RFC 8656 §9: a permission lasts 300 s, no more and no less."""
CHANNEL_NS = 600_000_000_000
"""RFC 8656 §12; ChannelBind also refreshes the permission (§12.2)."""
LIFETIME = 600
"""RFC 8656 §3.2: seconds, where a response without LIFETIME was captured."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """One allocation: from the successful Allocate to the Refresh with lifetime 0, or to when it lapses."""

    allocation: U32
    point: str
    flow: U32
    transport: str
    """Between client and server: "udp" or "tcp"."""
    client: str
    client_port: U16
    server: str
    server_port: U16
    username: str | None
    relay: str | None
    """The relayed transport address."""
    relay_port: U16 | None
    granted_ns: int
    """Success response to the Allocate."""
    lifetime: U32
    """Seconds granted last."""
    refreshed_ns: tuple[int, ...]
    """Success responses to a Refresh that did not delete."""
    deleted_ns: int | None
    """First Refresh with lifetime 0."""
    lapses_ns: int
    """Last grant and its lifetime."""
    transactions: tuple[U32, ...]
    """Rows of ``stun``: the Allocate and each Refresh, answered or not."""


@dataclass(frozen=True, slots=True)
class TurnPeer:
    """One peer of one client at one server: what lets its data through, and the data."""

    point: str
    flow: U32
    """Of client and server."""
    path: U32 | None
    """Path of the data, None without any."""
    client: str
    client_port: U16
    server: str
    server_port: U16
    peer: str
    """"channel 0x4000" where the ChannelBind was not captured."""
    peer_port: U16
    permitted_ns: tuple[int, ...]
    """Success responses to each CreatePermission and ChannelBind for this address; a port does not matter (§9)."""
    channel: U16 | None
    bound_ns: tuple[int, ...]
    """Success responses to each ChannelBind of this address and port."""
    sent: U32
    """Datagrams to the peer that the client gave to the server."""
    sent_first_ns: int | None
    sent_last_ns: int | None
    sent_last_packet: U32 | None
    channel_sent_last_ns: int | None
    """The last of them as ChannelData."""
    received: U32
    received_first_ns: int | None
    received_last_ns: int | None
    received_last_packet: U32 | None
    channel_received_last_ns: int | None
    """The last of them as ChannelData: without a channel the server sends Data indications (RFC 8656 §12.7)."""
    channel_received_last_packet: U32 | None

    @property
    def permission_ends_ns(self) -> int | None:
        return self.permitted_ns[-1] + PERMISSION_NS if self.permitted_ns else None

    @property
    def channel_ends_ns(self) -> int | None:
        return self.bound_ns[-1] + CHANNEL_NS if self.bound_ns else None


def build(tables: Tables) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Frames of ``Allocation`` and ``TurnPeer``."""
    t = tables.stun_traffic
    if t is None or not t.turn_clients:
        return empty(Allocation), empty(TurnPeer)
    methods = [decode.ALLOCATE, decode.REFRESH, decode.CREATE_PERMISSION, decode.CHANNEL_BIND]
    asked = tables.stun.filter(pl.col("method").is_in(methods) & ~pl.col("relayed"))
    allocations: list[_Open] = []
    latest: dict[int, _Open] = {}
    permits: dict[int, list[tuple[int, list[Endpoint], int | None]]] = {}
    for row in asked.iter_rows(named=True):
        flow, done = row["flow"], row["response"] == "success"
        if row["method"] == decode.ALLOCATE and done:
            latest[flow] = _Open(row, row["response_ns"], row["lifetime"] or LIFETIME)
            allocations.append(latest[flow])
        elif row["method"] == decode.REFRESH and flow in latest:
            latest[flow].refresh(row, done)
        elif row["method"] in (decode.CREATE_PERMISSION, decode.CHANNEL_BIND) and done:
            peers = _peers(tables, t, row)
            permits.setdefault(flow, []).append((row["response_ns"], peers, row["channel"]))
    made = [a.close(i) for i, a in enumerate(allocations)]
    return frame(Allocation, made), _peer_rows(tables, t, asked, permits)


@dataclass(slots=True)
class _Open:
    row: dict[str, Any]
    granted_ns: int
    lifetime: int
    refreshed: list[int] = field(default_factory=list)
    transactions: list[int] = field(default_factory=list)
    deleted_ns: int | None = None

    def refresh(self, row: dict[str, Any], done: bool) -> None:
        self.transactions.append(row["transaction"])
        if row["lifetime_asked"] == 0:
            self.deleted_ns = self.deleted_ns or row["first_ns"]
        elif done:
            self.refreshed.append(row["response_ns"])
            self.lifetime = row["lifetime"] if row["lifetime"] is not None else self.lifetime

    def close(self, number: int) -> Allocation:
        r = self.row
        last = self.refreshed[-1] if self.refreshed else self.granted_ns
        return Allocation(
            number, r["point"], r["flow"], r["transport"], r["client"], r["client_port"], r["server"],
            r["server_port"], r["username"], r["relay"], r["relay_port"], self.granted_ns, self.lifetime,
            tuple(self.refreshed), self.deleted_ns, last + self.lifetime * 10**9,
            (r["transaction"], *self.transactions))


def _peers(tables: Tables, t: Traffic, row: dict[str, Any]) -> list[Endpoint]:
    """All peers that a request names; a CreatePermission may name several (RFC 8656 §10.1)."""
    if row["method"] == decode.CREATE_PERMISSION and row["request_packets"] and row["transport"] == "udp":
        packets = tables.packets
        message = decode.read(packets.payload(row["request_packets"][0]))
        if message is not None:
            return message.endpoints(decode.XOR_PEER_ADDRESS)
    return [(row["peer"], row["peer_port"])] if row["peer"] is not None else []


def _peer_rows(tables: Tables, t: Traffic, asked: pl.DataFrame,
               permits: dict[int, list[tuple[int, list[Endpoint], int | None]]]) -> pl.DataFrame:
    """One row for each path with data, and for each permitted address without."""
    data = _data(tables, t)
    base = len(tables.packets.flow_start)
    wanted: list[tuple[int, int | None, Endpoint]] = [
        (relay.flow, base + i, relay.peer) for i, relay in enumerate(t.relays)]
    have = {(flow, peer[0]) for flow, _, peer in wanted}
    for flow, items in permits.items():
        for _, peers, _ in items:
            for peer in peers:
                if (flow, peer[0]) not in have:
                    have.add((flow, peer[0]))
                    wanted.append((flow, None, peer))
    ends = {r["flow"]: r for r in asked.unique("flow", keep="first").iter_rows(named=True)}
    out = []
    for flow, path, peer in wanted:
        known = ends.get(flow) or _unasked(tables, t, flow)
        items = permits.get(flow, [])
        bound = [(ns, channel) for ns, peers, channel in items if channel and peer in peers]
        sent = data.get((path, True), _NO_DATA)
        received = data.get((path, False), _NO_DATA)
        out.append(TurnPeer(
            known["point"], flow, path, known["client"], known["client_port"], known["server"], known["server_port"],
            peer[0], peer[1], tuple(ns for ns, peers, _ in items if peer[0] in {p[0] for p in peers}),
            bound[-1][1] if bound else None, tuple(ns for ns, _ in bound), sent["len"], sent["first"], sent["last"],
            sent["packet"], sent["by_channel"], received["len"], received["first"], received["last"],
            received["packet"], received["by_channel"], received["channel_packet"]))
    return frame(TurnPeer, out).sort("flow", "peer", "peer_port")


_NO_DATA: dict[str, Any] = {"len": 0} | dict.fromkeys(("first", "last", "packet", "by_channel", "channel_packet"))


def _data(tables: Tables, t: Traffic) -> dict[tuple[int | None, bool], dict[str, Any]]:
    """Count, times and last packet of the datagrams of each path and direction; True is from the client."""
    p = tables.packets
    inside = t.where.path >= len(p.flow_start)
    packet = np.concatenate([t.where.packet[inside], t.carried.packet])
    data = pl.DataFrame({
        "path": np.concatenate([t.where.path[inside], t.carried.path]),
        "out": np.concatenate([t.where.forward[inside], t.carried.forward]), "packet": packet, "ts": p.ts[packet],
        "channel": p.kind[packet] != KIND_STUN}).sort("packet")
    sums = data.group_by("path", "out").agg(
        pl.len(), first=pl.col("ts").first(), last=pl.col("ts").last(), packet=pl.col("packet").last(),
        by_channel=pl.col("ts").filter("channel").last(), channel_packet=pl.col("packet").filter("channel").last())
    return {(row["path"], row["out"]): row for row in sums.iter_rows(named=True)}


def _unasked(tables: Tables, t: Traffic, flow: int) -> dict[str, Any]:
    """Ends of a flow of which only indications were captured."""
    p = tables.packets
    row = int(p.order[p.flow_start[flow]])
    a, b = (p.source(row), int(p.sport[row])), (p.destination(row), int(p.dport[row]))
    client, server = (a, b) if t.turn_clients[flow] else (b, a)
    return {"point": tables.points[int(p.points([row])[0])], "client": client[0], "client_port": client[1],
            "server": server[0], "server_port": server[1]}
