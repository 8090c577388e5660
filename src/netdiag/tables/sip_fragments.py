"""SIP over fragmented UDP: the pieces of a message, and messages of which only the first fragment was captured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import polars as pl

from netdiag.decode import sip as decode
from netdiag.tables.packets import UDP

if TYPE_CHECKING:
    from netdiag.tables import Tables

READ_LIMIT = 20_000
"""First fragments that are looked at (practice); the rest is counted among the anomalies."""
_UDP_HEADER = 8
"""RFC 768. A first fragment carries it; its fourth field is the length of the whole datagram."""


@dataclass(frozen=True, slots=True)
class FirstFragment:
    """A SIP message that was not put together, as far as its first fragment shows it."""

    point: str
    packets: tuple[int, ...]
    """Packet rows of the fragments that were captured."""
    ts_ns: int
    flow: int
    source: str
    source_port: int
    destination: str
    destination_port: int
    method: str
    """Of the request; "" for a response."""
    call_id: str
    cseq: str
    """Number and method, as written."""
    branch: str
    missing: int
    """Bytes of it that no captured fragment brings."""
    size: int
    """Bytes of the message, from the length in its UDP header."""


_cache: WeakKeyDictionary[Tables, list[FirstFragment]] = WeakKeyDictionary()


def first_fragments(tables: Tables) -> list[FirstFragment]:
    """SIP messages over UDP whose first fragment was captured and others were not, in order of time; read once."""
    if not tables.datagrams:
        return []
    found = _cache.get(tables)
    if found is None:
        found = _cache[tables] = _read(tables)
    return found


def _read(tables: Tables) -> list[FirstFragment]:
    p = tables.packets
    torn = tables.fragments.filter(~pl.col("complete") & pl.col("has_first") & (pl.col("protocol") == UDP)
                                   & pl.col("missing").fill_null(1).gt(0))
    if len(torn) > READ_LIMIT:
        tables.anomaly_log.add("sip", f"more than {READ_LIMIT} first fragments without the others, the rest was not "
                               "read", int(torn["first_packet"][READ_LIMIT]), len(torn) - READ_LIMIT)
    out = []
    starts = {d.rows[0]: d.first_row for d in tables.datagrams}
    for point, source, destination, packets, seen in torn.select(
            "point", "source", "destination", "packets", "seen").head(READ_LIMIT).iter_rows():
        row = starts.get(packets[0])
        if row is None:
            continue
        raw = p.payload(row)
        size, text = int.from_bytes(raw[4:6], "big"), raw[_UDP_HEADER:].decode("latin-1")
        line = decode.start_line(text.partition("\n")[0].rstrip("\r"))
        if line is None:
            continue
        fields = dict(reversed(decode.header_lines(text)))
        via = fields.get("via", fields.get("v", ""))
        out.append(FirstFragment(
            point=point, packets=tuple(packets), ts_ns=int(p.ts[row]), flow=int(p.flow[row]), source=source,
            source_port=int(p.sport[row]), destination=destination, destination_port=int(p.dport[row]),
            method=line.method or "", call_id=decode.readable(fields.get("call-id", fields.get("i", ""))),
            cseq=" ".join(decode.readable(fields.get("cseq", "")).split()), branch=decode.via(via)[1] or "",
            missing=max(size - seen, 0), size=max(size - _UDP_HEADER, 0)))
    return sorted(out, key=lambda f: f.ts_ns)


def pieces(tables: Tables, packets: list[int]) -> list[int]:
    """``packets`` with all the fragments of those that complete a datagram; in order."""
    if not tables.datagrams:
        return sorted(packets)
    whole = tables.fragments.filter(pl.col("complete") & pl.col("last_packet").is_in(packets))
    return sorted({*packets, *whole["packets"].explode().drop_nulls().to_list()})
