"""Registrations: REGISTER transactions with the flow and the binding they made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from netdiag.decode import sip as decode
from netdiag.tables.schema import U16, U32, empty, schema
from netdiag.tables.sip_details import added, details
from netdiag.tables.sip_groups import taken

if TYPE_CHECKING:
    from netdiag.tables import Tables

READ_BYTES = 1 << 28
"""Bytes of 2xx headers that are read again for the binding of a Contact among several, in all (practice: a minute)."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One REGISTER transaction (challenge rounds are separate rows) at one capture point and hop."""

    registration: U32
    transaction: U32
    point: str
    ts_ns: int
    aor: str
    """To URI, without parameters."""
    contact_uri: str | None
    instance: str | None
    """+sip.instance (RFC 5626 §4.1)."""
    call_id: str
    cseq: U32
    source: str
    """Packet source: what the registrar sees."""
    source_port: U16
    registrar: str
    registrar_port: U16
    transport: str
    flow: U32
    request_packet: U32
    response_packet: U32 | None
    status: U16 | None
    expires_asked: U32 | None
    expires_granted: U32 | None
    """From the 2xx: the expires parameter of the matching Contact, else Expires."""
    removes: bool
    """Expires 0 or Contact *."""


def build(tables: Tables) -> pl.DataFrame:
    """All REGISTER transactions whose request was captured, in order; schema of ``Registration``."""
    data = tables.transactions.filter((pl.col("method") == "REGISTER") & ~pl.col("midstream"))
    data = data.with_columns(request=pl.col("request_messages").list.first())
    if not len(data):
        return empty(Registration)
    sip = tables.sip
    asked = sip.select("ts_ns", "packet", "flow", "source", "source_port", "destination", "destination_port")[
        data["request"]].hstack(details(tables, data["request"], ("contact", "expires", "to_uri")).drop("message"))
    final = data["final_message"].cast(pl.Int64).fill_null(-1).to_numpy()
    answers = added(tables, data.select("final_message"), ("contact", "expires"), "final_message")
    contact = asked["contact"].to_list()
    uri = [decode.contact_uri(c) for c in contact]
    status = data["status"].to_list()
    budget = _Budget(tables)
    granted = [
        _granted(budget, row, u, header, seconds) if row >= 0 and code is not None and 200 <= code < 300 else None
        for row, u, header, seconds, code in zip(
            final.tolist(), uri, answers["contact"].to_list(), answers["expires"].to_list(), status, strict=True)
    ]
    budget.close()
    expires = asked["expires"]
    out = data.select("transaction", "point", "call_id", "cseq", "transport", "status").with_columns(
        aor=asked["to_uri"].fill_null("").str.split(";").list.first(),
        registration=pl.int_range(pl.len(), dtype=pl.UInt32),
        ts_ns=asked["ts_ns"], contact_uri=pl.Series(uri, dtype=pl.String),
        instance=pl.Series([decode.contact_instance(c) for c in contact], dtype=pl.String),
        source=asked["source"], source_port=asked["source_port"], registrar=asked["destination"],
        registrar_port=asked["destination_port"], flow=asked["flow"], request_packet=asked["packet"],
        response_packet=taken(sip["packet"], final), expires_asked=expires,
        expires_granted=pl.Series(granted, dtype=pl.UInt32),
        removes=(expires == 0).fill_null(False) | pl.Series([u == "*" for u in uri]),
    )
    return out.select(pl.col(name).cast(dtype) for name, dtype in schema(Registration).items())


class _Budget:
    """Reads headers again, READ_BYTES in all, and tells of those that it did not."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._left = READ_BYTES
        self._left_out: list[int] = []

    def head(self, message: int) -> str:
        """Header of a row of ``Tables.sip`` as Latin-1; "" where the budget is used up."""
        packet, offset, length = self._tables.sip.select("packet", "raw_offset", "raw_length").row(message)
        size = min(length, decode.HEAD_LIMIT)
        if size > self._left:
            self._left_out.append(packet)
            return ""
        self._left -= size
        return self._tables.packets.space.read(offset, size).decode("latin-1")

    def close(self) -> None:
        if self._left_out:
            self._tables.anomaly_log.add(
                "registrations", "answers with several Contacts that were not all read: lifetime not known",
                self._left_out[0], len(self._left_out))


def _granted(budget: _Budget, message: int, uri: str | None, contact: str | None, expires: int | None) -> int | None:
    """Lifetime that a 2xx gives to the binding of ``uri``; None where it lists others only."""
    if uri is None or uri == "*" or contact is None:
        return expires
    if _same(decode.contact_uri(contact), uri):
        return expires
    lines = decode.header_lines(budget.head(message))
    common = next((value for name, value in lines if name == "expires"), None)
    for name, value in lines:
        if name in ("contact", "m"):
            for element in decode.elements(value):
                if _same(decode.contact_uri(element), uri):
                    own = decode.contact_expires(element)
                    return own if own is not None else decode.number(common)
    return None


def bare_uri(uri: str) -> str:
    """What bindings are compared by: registrars add and drop URI parameters."""
    return uri.partition(";")[0].lower()


def _same(a: str | None, b: str) -> bool:
    return a is not None and bare_uri(a) == bare_uri(b)
