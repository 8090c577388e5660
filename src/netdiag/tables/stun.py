"""STUN and TURN transactions: each request with its retransmissions and what answered it (RFC 8489 §6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import stun as decode
from netdiag.tables.flows import address_texts
from netdiag.tables.schema import U16, U32, empty, schema
from netdiag.tables.stun_messages import Relayed, Traffic

if TYPE_CHECKING:
    from netdiag.tables import Tables

REUSE_NS = 30_000_000_000
"""A request with the id of an earlier one is another transaction after such a silence: retransmissions are 16 s apart
at most (RFC 8489 §6.2.1, RTO 500 ms doubled), some clients use one id for ever."""
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StunTransaction:
    """One transaction on one path at one capture point."""

    transaction: U32
    """Row number of this table; in the order of first packets."""
    point: str
    flow: U32
    path: U32
    """The flow, or where TURN carries it a number of its own (``ice.paths``)."""
    relayed: bool
    """It went inside TURN: the client's end is the relayed transport address, where that is known."""
    transport: str
    """"udp" or "tcp"; inside TURN "udp"."""
    client: str
    """Who asks."""
    client_port: U16
    server: str
    server_port: U16
    method: U16
    """1 Binding, 3 Allocate, 4 Refresh, 8 CreatePermission, 9 ChannelBind."""
    id: bytes
    """The 16 bytes behind the length: cookie and transaction id, or the id of RFC 3489. The same behind a NAT."""
    classic: bool
    """Without magic cookie (RFC 3489)."""
    first_ns: int
    """First request, or the response where none was captured."""
    last_ns: int
    """Last request."""
    sends: U32
    """Requests captured: 1 and the retransmissions; 0 when only a response was."""
    response: str | None
    """"success", "error", None without."""
    response_ns: int | None
    error: U16 | None
    """RFC 8489 §14.8, RFC 8656 §19; None without, 0 where the response has no ERROR-CODE."""
    username: str | None
    """As in the request: in ICE the ufrag of the server, a colon, and the ufrag of the client (RFC 8445 §7.2.2)."""
    signed: bool
    """The request has MESSAGE-INTEGRITY: credentials were used."""
    priority: U32 | None
    use_candidate: bool
    controlling: bool
    controlled: bool
    mapped: str | None
    """XOR-MAPPED-ADDRESS (or MAPPED-ADDRESS) of the response: where the server saw the request come from."""
    mapped_port: U16 | None
    relay: str | None
    """XOR-RELAYED-ADDRESS of the response to an Allocate."""
    relay_port: U16 | None
    peer: str | None
    """First XOR-PEER-ADDRESS of the request."""
    peer_port: U16 | None
    channel: U16 | None
    """CHANNEL-NUMBER of the request."""
    lifetime_asked: U32 | None
    """Seconds; 0 in a Refresh deletes the allocation."""
    lifetime: U32 | None
    """Seconds granted by the response."""
    family: U16
    """REQUESTED-ADDRESS-FAMILY: 2 asks for IPv6, 0 without."""
    astray: str | None
    """Address and port that a response to this unanswered request came from at this point, when it was another."""
    cut: bool
    """A message was captured in part: attributes may be missing."""
    request_packets: tuple[U32, ...]
    response_packets: tuple[U32, ...]


def build(tables: Tables) -> pl.DataFrame:
    """One row for each transaction; indications are none."""
    t = tables.stun_traffic
    if t is None or not (t.head.kind != decode.INDICATION).any():
        return empty(StunTransaction)
    rows = np.flatnonzero(t.head.kind != decode.INDICATION)
    grouped = _grouped(tables, t, rows)
    asked, answered = grouped["asked"].to_numpy(), grouped["answered"].to_numpy()
    first = np.where(asked >= 0, asked, answered)
    request, reply = asked >= 0, answered >= 0
    w, h, f = t.where, t.head, t.fields
    toward = w.forward[first] == request
    columns: dict[str, Any] = ends(tables, t.relays, w.path[first], toward, w.packet[first], w.forward[first])
    columns |= {
        "transaction": np.arange(len(first)), "point": pl.Series(tables.points, dtype=pl.String).gather(
            tables.packets.points(w.packet[first])),
        "flow": tables.packets.flow[w.packet[first]], "path": w.path[first],
        "relayed": w.path[first] >= len(tables.packets.flow_start),
        "transport": pl.Series(["udp", "tcp"]).gather(t.tcp[first].astype(np.uint32)),
        "method": h.method[first], "id": _ids(h, first), "classic": ~h.cookie[first],
        "first_ns": tables.packets.ts[w.packet[first]], "last_ns": grouped["last_ns"], "sends": grouped["sends"],
        "response": pl.Series([None, "success", "error"]).gather(
            np.where(reply, h.kind[answered] - 1, 0).astype(np.uint32)),
        "response_ns": _where(reply, tables.packets.ts[w.packet[answered]]),
        "error": _where(reply & (h.kind[answered] == decode.ERROR), f.error[answered]),
        "username": _usernames(tables, t, np.where(request, asked, -1)),
        "signed": request & f.signed[asked], "use_candidate": request & f.use_candidate[asked],
        "controlling": request & f.controlling[asked], "controlled": request & f.controlled[asked],
        "priority": _where(request & (f.priority[asked] >= 0), f.priority[asked]),
        "channel": _where(request & (f.channel[asked] > 0), f.channel[asked]),
        "lifetime_asked": _where(request & (f.lifetime[asked] >= 0), f.lifetime[asked]),
        "lifetime": _where(reply & (f.lifetime[answered] >= 0), f.lifetime[answered]),
        "family": np.where(request, f.family[asked], 0), "cut": _cut(t, asked, answered),
        "request_packets": grouped["request_packets"], "response_packets": grouped["response_packets"],
    }
    for name, have, index in (("mapped", reply, f.mapped[answered]), ("relay", reply, f.relayed[answered]),
                              ("peer", request, f.peer[asked])):
        columns[name], columns[name + "_port"] = _named(t, np.where(have, index, -1))
    columns["astray"] = _astray(tables, t, grouped, columns)
    wanted = schema(StunTransaction)
    return pl.DataFrame({n: pl.Series(n, columns[n], strict=False).cast(wanted[n]) for n in wanted}, schema=wanted)


def _grouped(tables: Tables, t: Traffic, rows: I64) -> pl.DataFrame:
    """``asked`` and ``answered``: first request and first response of each transaction as places in ``t``, or -1."""
    w, h = t.where, t.head
    request = h.kind[rows] == decode.REQUEST
    data = pl.DataFrame({
        "i": rows, "path": w.path[rows], "ahead": w.forward[rows] == request, "high": h.high[rows],
        "low": h.low[rows], "request": request, "packet": w.packet[rows].astype(np.uint32),
        "ts": tables.packets.ts[w.packet[rows]]})
    key = ["path", "ahead", "high", "low"]
    again = data.select(pl.struct(key).is_duplicated() & pl.col("request")).to_series()
    if again.any():
        data = data.with_columns(late=(pl.col("request") & (pl.col("ts").diff().over(key) > REUSE_NS)).fill_null(False))
        data = data.with_columns(turn=pl.col("late").cum_sum().over(key))
        key.append("turn")
    asks = pl.col("request")
    return data.group_by(key, maintain_order=True).agg(
        asked=pl.col("i").filter(asks).first().fill_null(-1),
        answered=pl.col("i").filter(~asks).first().fill_null(-1), sends=asks.sum(),
        last_ns=pl.coalesce(pl.col("ts").filter(asks).last(), pl.col("ts").first()),
        request_packets=pl.col("packet").filter(asks), response_packets=pl.col("packet").filter(~asks))


def ends(tables: Tables, relays: list[Relayed], path: I64, ahead: Mask, packet: I64, forward: Mask) -> dict[str, Any]:
    """``client``, ``client_port``, ``server``, ``server_port`` of paths; ``ahead``: the client is side a.

    ``packet`` is a packet of each path, and ``forward`` says that side a sent it.
    """
    p = tables.packets
    backward = ahead != forward
    flags = p.flags[packet]
    source, destination = np.where(backward, p.dst[packet], p.src[packet]), np.where(
        backward, p.src[packet], p.dst[packet])
    out: dict[str, Any] = {
        "client": address_texts(p, source, flags), "server": address_texts(p, destination, flags),
        "client_port": np.where(backward, p.dport[packet], p.sport[packet]).astype(np.int64),
        "server_port": np.where(backward, p.sport[packet], p.dport[packet]).astype(np.int64)}
    inside = np.flatnonzero(path >= len(p.flow_start))
    if len(inside):
        texts = {n: out[n].to_list() for n in ("client", "server")}
        for i in inside.tolist():
            relay = relays[int(path[i]) - len(p.flow_start)]
            near, far = ("client", "server") if ahead[i] else ("server", "client")
            row = int(packet[i])
            # Without a response that names the relayed address the TURN client stands for it.
            own = relay.local
            if own is None:
                own = (p.source(row), int(p.sport[row])) if forward[i] else (p.destination(row), int(p.dport[row]))
            texts[near][i], out[near + "_port"][i] = own
            texts[far][i], out[far + "_port"][i] = relay.peer
        out |= {n: pl.Series(v, dtype=pl.String) for n, v in texts.items()}
    return out


def _ids(h: decode.Headers, rows: I64) -> pl.Series:
    raw = np.stack([h.high[rows], h.low[rows]], axis=1).astype(">u8").tobytes()
    return pl.Series([raw[i : i + 16] for i in range(0, len(raw), 16)], dtype=pl.Binary)


def _where(have: Mask, values: npt.NDArray[Any]) -> pl.Series:
    """``values`` with null where there are none."""
    return pl.select(pl.when(pl.Series(have)).then(pl.Series(values.astype(np.int64)))).to_series()


def _usernames(tables: Tables, t: Traffic, rows: I64) -> pl.Series:
    space, f = tables.packets.space, t.fields
    known: dict[bytes, str] = {}
    out: list[str | None] = []
    place = np.where(rows >= 0, f.username[rows], -1).tolist()
    for at, size in zip(place, f.username_size[rows].tolist(), strict=True):
        if at < 0:
            out.append(None)
            continue
        raw = space.read(at, size)
        if raw not in known:
            known[raw] = decode.text(raw)
        out.append(known[raw])
    return pl.Series(out, dtype=pl.String)


def _named(t: Traffic, index: I64) -> tuple[pl.Series, pl.Series]:
    """Address and port of ends, null for -1."""
    names = pl.Series([e[0] for e in t.ends], dtype=pl.String)
    ports = pl.Series([e[1] for e in t.ends], dtype=pl.Int64)
    at = pl.Series(index).replace(-1, None)
    return names.gather(at.cast(pl.UInt32)), ports.gather(at.cast(pl.UInt32))


def _cut(t: Traffic, asked: I64, answered: I64) -> Mask:
    cut = t.where.size < t.where.wire
    out: Mask = (cut[asked] & (asked >= 0)) | (cut[answered] & (answered >= 0))
    return out


def _astray(tables: Tables, t: Traffic, grouped: pl.DataFrame, columns: dict[str, Any]) -> pl.Series:
    """For unanswered requests: who else sent a response with their id to the same point."""
    sends, replies = grouped["sends"].to_numpy(), grouped["answered"].to_numpy() >= 0
    lone = np.flatnonzero((sends == 0) & replies)
    if not len(lone):
        return pl.repeat(None, len(sends), dtype=pl.String, eager=True)
    frame = pl.DataFrame({"i": np.arange(len(sends)), "id": columns["id"], "point": columns["point"]})
    text = pl.concat_str(columns["server"], pl.lit(":"), pl.Series(columns["server_port"]).cast(pl.String))
    foreign = frame.with_columns(text=text, first=pl.Series(columns["client"]))[lone].unique(
        ["id", "point"], keep="first", maintain_order=True)
    silent = frame.filter(pl.Series((sends > 0) & ~replies))
    found = silent.join(foreign.select("id", "point", "text"), on=["id", "point"])
    return frame.join(found.select("i", "text"), on="i", how="left", maintain_order="left")["text"]
