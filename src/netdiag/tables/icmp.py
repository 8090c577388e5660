"""ICMP and ICMPv6 error messages with the packet that they quote."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import icmp as messages
from netdiag.tables.flows import address_texts
from netdiag.tables.packets import FRAGMENT, ICMP, ICMPV6, IPV6, REASSEMBLED, Packets
from netdiag.tables.schema import U8, U16, U32, empty, schema

if TYPE_CHECKING:
    from netdiag.tables import Tables

REDIRECT = 5
"""Type of an ICMPv4 redirect (RFC 792); ICMPv6's is no error message (RFC 4443 §2.1)."""
ROW_LIMIT = 200_000
"""Errors read at each capture point; a flood says nothing new after that many, the rest is counted (practice)."""


@dataclass(frozen=True, slots=True)
class IcmpError:
    """One error message (unreachable, time exceeded, packet too big…) at one capture point."""

    packet: U32
    point: str
    ts_ns: int
    version: U8
    """4 or 6: the IP version."""
    type: U8
    code: U8
    name: str
    """For example "host unreachable", "communication administratively prohibited", "packet too big"."""
    source: str
    """Who reports: the rejecting hop or host."""
    destination: str
    ttl: U8
    mtu: U32 | None
    """Next-hop MTU of "fragmentation needed" (RFC 1191 §4) and "packet too big" (RFC 4443 §3.2)."""
    quoted_proto: U8 | None
    quoted_source: str | None
    """Who sent the packet that failed."""
    quoted_source_port: U16 | None
    quoted_destination: str | None
    quoted_destination_port: U16 | None
    quoted_flow: U32 | None
    """Flow id of the quoted packet, where that flow was captured at the same point."""


def build(tables: Tables) -> pl.DataFrame:
    """One row for each error message, in packet order."""
    p = tables.packets
    rows = _errors(p)
    point = p.points(rows)
    for number in np.unique(point).tolist():
        mine = np.flatnonzero(point == number)
        if len(mine) > ROW_LIMIT:
            over = mine[ROW_LIMIT:]
            reason = f"more than {ROW_LIMIT} ICMP errors at one point, the rest was not read"
            tables.anomaly_log.add("icmp", reason, int(rows[over[0]]), len(over))
            point[over] = 255
    rows = rows[point != 255]
    if not len(rows):
        return empty(IcmpError)
    flags = p.flags[rows]
    version = np.where(flags & IPV6, 6, 4).tolist()
    heads = p.head(rows, messages.WIDTH)
    raw, have = heads.tobytes(), np.minimum(p.length[rows], messages.WIDTH).tolist()
    texts = [raw[i * messages.WIDTH : i * messages.WIDTH + size] for i, size in enumerate(have)]
    pairs = list(zip(version, texts, strict=True))
    quotes = [messages.quote(v, m) for v, m in pairs]
    lost = [i for i, q in enumerate(quotes) if q is None]
    if lost:
        tables.anomaly_log.add("icmp", "ICMP error quotes too little of the packet", int(rows[lost[0]]), len(lost))
    columns: dict[str, pl.Series | npt.NDArray[np.generic] | list[object]] = {
        "packet": rows, "point": pl.Series(tables.points, dtype=pl.String).gather(p.points(rows)),
        "ts_ns": p.ts[rows], "version": np.array(version), "type": heads[:, 0], "code": heads[:, 1],
        "name": [messages.name(v, m[0], m[1]) for v, m in pairs],
        "source": address_texts(p, p.src[rows], flags), "destination": address_texts(p, p.dst[rows], flags),
        "ttl": p.ttl[rows], "mtu": [messages.mtu(v, m) for v, m in pairs],
        "quoted_proto": [q and q.proto for q in quotes],
        "quoted_source": [q and _text(q.source) for q in quotes],
        "quoted_source_port": [q and q.source_port for q in quotes],
        "quoted_destination": [q and _text(q.destination) for q in quotes],
        "quoted_destination_port": [q and q.destination_port for q in quotes],
        "quoted_flow": _flows(p, rows, quotes),
    }
    wanted = schema(IcmpError)
    return pl.DataFrame({n: pl.Series(n, columns[n]).cast(wanted[n]) for n in wanted}, schema=wanted)


def complained(tables: Tables) -> pl.Series:
    """Flows of which a router or host says that a packet did not get there. A redirect (type 5) is advice: the router
    that gives it has forwarded the packet (RFC 1122 §3.2.2.2)."""
    failed = (pl.col("version") == 6) | (pl.col("type") != REDIRECT)
    return tables.icmp.filter(failed)["quoted_flow"].drop_nulls().unique()


def _errors(p: Packets) -> npt.NDArray[np.int64]:
    """Packet rows that hold the start of an error message."""
    whole = (p.flags & (FRAGMENT | REASSEMBLED)) != FRAGMENT
    whole &= p.flow < len(p.flow_start)  # no packet captured twice
    rows = np.flatnonzero(((p.proto == ICMP) | (p.proto == ICMPV6)) & whole & (p.length >= 2))
    kind = p.head(rows, 1)[:, 0]
    six = (p.flags[rows] & IPV6) != 0
    # ICMP inside IPv6 and ICMPv6 inside IPv4 are nonsense that would be read by the wrong rules.
    four = ~six & (p.proto[rows] == ICMP) & np.isin(kind, messages.ERRORS4)
    errors: npt.NDArray[np.int64] = rows[four | (six & (p.proto[rows] == ICMPV6) & np.isin(kind, messages.ERRORS6))]
    return errors


def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def _flows(p: Packets, rows: npt.NDArray[np.int64], quotes: list[messages.Quote | None]) -> pl.Series:
    """Flow id of each quoted packet at the same point, null where that flow was not captured there."""
    known6 = {address: i for i, address in enumerate(p.v6)}
    points = p.points(rows).tolist()
    asked: dict[str, list[int]] = {n: [] for n in ("i", "point", "six", "proto", "low", "high")}
    for i, (point, q) in enumerate(zip(points, quotes, strict=True)):
        if q is None:
            continue
        ends = []
        for address, port in ((q.source, q.source_port), (q.destination, q.destination_port)):
            number = known6.get(address) if q.version == 6 else int.from_bytes(address, "big")
            if number is not None:
                ends.append(number << 16 | (port or 0))
        if len(ends) == 2:
            for name, value in zip(asked, (i, point, q.version == 6, q.proto, min(ends), max(ends)), strict=True):
                asked[name].append(int(value))
    first = p.order[p.flow_start]
    a = p.src[first].astype(np.int64) << 16 | p.sport[first]
    b = p.dst[first].astype(np.int64) << 16 | p.dport[first]
    flows = pl.DataFrame({
        "point": p.points(first).astype(np.int64), "six": ((p.flags[first] & IPV6) != 0).astype(np.int64),
        "proto": p.proto[first].astype(np.int64), "low": np.minimum(a, b), "high": np.maximum(a, b),
        "flow": np.arange(len(first), dtype=np.uint32)})
    wanted = pl.DataFrame(asked, schema=dict.fromkeys(asked, pl.Int64))
    # The errors are few: keep only the flows between those ends before joining.
    flows = flows.filter(pl.col("low").is_in(wanted["low"].unique().implode()))
    hits = wanted.join(flows, on=["point", "six", "proto", "low", "high"], how="inner")
    return pl.DataFrame({"i": np.arange(len(rows))}).join(
        hits.select("i", "flow").unique("i"), on="i", how="left", maintain_order="left")["flow"]
