"""Bindings: what REGISTER transactions made of an address of record, how long it held, and which requests used it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from netdiag.decode import sip as decode
from netdiag.tables import sip_head
from netdiag.tables.registrations import bare_uri
from netdiag.tables.schema import U16, U32, empty, schema
from netdiag.tables.sip_details import details

if TYPE_CHECKING:
    from netdiag.tables import Tables


@dataclass(frozen=True, slots=True)
class Binding:
    """A Contact that a client wanted bound to an address of record at one registrar, from its first REGISTER on.

    One row ends with the removal or the expiry of the binding; a later REGISTER begins another. Of several Contacts in
    one request the first counts.
    """

    binding: U32
    point: str
    aor: str
    contact_uri: str | None
    """None: the request asked for the bindings only (RFC 3261 §10.2.3)."""
    instance: str | None
    """+sip.instance; with ``reg_id`` it names the binding instead of the Contact (RFC 5626 §6)."""
    reg_id: U32 | None
    registrar: str
    registrar_port: U16
    source: str
    """Where the last REGISTER came from: its flow."""
    source_port: U16
    transport: str
    flow: U32
    """Flow of the last REGISTER."""
    flows: U16
    """How many flows were used: more than one when a NAT or the client changed it."""
    received: str | None
    """Address that the registrar says it saw (RFC 3261 §18.2.1)."""
    rport: U16 | None
    """Port that it says it saw (RFC 3581 §4)."""
    path_uris: tuple[str, ...]
    """URIs that requests to the binding go through (RFC 3327), the nearest to the registrar first."""
    public_gruu: str | None
    """pub-gruu of the answer (RFC 5627 §3.2)."""
    state: str
    """At the end of the capture: registered, removed, expired, refused, challenged, or unanswered."""
    status: U16 | None
    """Last final status."""
    first_ns: int
    last_ns: int
    """Last REGISTER."""
    expires_s: U32 | None
    """Lifetime that the last 2xx granted (RFC 3261 §10.2.4)."""
    until_ns: int | None
    """When the binding ends, or was removed."""
    refreshes: U32
    """2xx after the first."""
    registrations: tuple[U32, ...]
    """Rows of ``Tables.registrations``, in order."""
    requests: tuple[U32, ...]
    """First messages (rows of ``Tables.sip``) of requests outside dialogs that came to it, in order."""


_GRUU = re.compile(r";\s*pub-gruu\s*=\s*\"([^\"]*)\"", re.IGNORECASE)
_RECEIVED = re.compile(r";\s*received\s*=\s*\[?([^\s;,\]]+)", re.IGNORECASE)
_RPORT = re.compile(r";\s*rport\s*=\s*(\d{1,5})", re.IGNORECASE)


@dataclass(slots=True)
class _Series:
    rows: list[dict[str, Any]] = field(default_factory=list)
    done_ns: int | None = None
    """When it was removed."""

    @property
    def good(self) -> list[dict[str, Any]]:
        return [r for r in self.rows if r["ok"] and not r["removes"]]

    @property
    def until_ns(self) -> int | None:
        if self.done_ns is not None:
            return self.done_ns
        last = next((r for r in reversed(self.rows) if r["ok"]), None)
        return None if last is None or last["expires_granted"] is None else (
            last["answer_ns"] + last["expires_granted"] * 10**9)


def build(tables: Tables) -> pl.DataFrame:
    """All bindings in the order of their first REGISTER; schema of ``Binding``. Costs some 0.1 ms each."""
    data = tables.registrations
    if not len(data):
        return empty(Binding)
    asked = tables.transactions.select(request=pl.col("request_messages").list.first(), final="final_message")[
        data["transaction"]]
    contact = details(tables, asked["request"], ("contact",))["contact"]
    answer_ns = tables.sip["ts_ns"].gather(asked["final"])
    data = data.hstack(asked).with_columns(
        reg_id=contact.str.extract(r"(?i);\s*reg-id\s*=\s*(\d{1,9})").cast(pl.UInt32),
        answer_ns=pl.coalesce(answer_ns, "ts_ns"), ok=pl.col("status").is_between(200, 299).fill_null(False))
    series = _series(data)
    ends = dict(tables.quality.select("point", "last_ns").iter_rows())
    rows = [_row(tables, i, s, ends) for i, s in enumerate(series)]
    _use(tables, rows)
    names = schema(Binding)
    return pl.DataFrame({n: pl.Series(n, [row[n] for row in rows], dtype=t) for n, t in names.items()})


def _series(data: pl.DataFrame) -> list[_Series]:
    now: dict[tuple[object, ...], _Series] = {}
    of_aor: dict[tuple[object, ...], set[tuple[object, ...]]] = {}
    out: list[_Series] = []
    for row in data.to_dicts():
        registrar = row["point"], row["aor"], row["registrar"]
        uri = row["contact_uri"]
        if uri == "*":  # all of them (§10.2.2)
            gone = of_aor.pop(registrar, set()) if row["ok"] else set()
            for key in gone:
                ended = now.pop(key)
                if ended.done_ns is None:
                    ended.rows.append(row)
                    ended.done_ns = row["answer_ns"]
            if gone:
                continue
        named = row["instance"] and row["reg_id"] is not None
        key = (*registrar, row["instance"], row["reg_id"]) if named else (
            *registrar, bare_uri(uri or ""))
        one = now.get(key)
        until = one.until_ns if one else None
        if one is None or (until is not None and row["ts_ns"] > until):
            one = now[key] = _Series()
            out.append(one)
        of_aor.setdefault(registrar, set()).add(key)
        one.rows.append(row)
        if row["removes"] and row["ok"]:
            one.done_ns = row["answer_ns"]
    return out


def _row(tables: Tables, number: int, series: _Series, ends: dict[str, int]) -> dict[str, Any]:
    last, good, until = series.rows[-1], series.good, series.until_ns
    status = next((r["status"] for r in reversed(series.rows) if r["status"] is not None), None)
    if good:
        state = "removed" if series.done_ns is not None else (
            "expired" if until is not None and until < ends[last["point"]] else "registered")
    elif series.done_ns is not None:
        state = "removed"
    else:
        state = "unanswered" if status is None else "challenged" if status in (401, 407) else "refused"
    out = {name: last[name] for name in ("point", "aor", "registrar", "registrar_port", "source", "source_port",
                                         "transport", "flow")}
    named = next((r for r in reversed(series.rows) if r["contact_uri"] != "*"), last)
    seen = _answered(tables, good[-1]) if good else {}
    return out | {
        "binding": number, "contact_uri": named["contact_uri"], "instance": named["instance"],
        "reg_id": named["reg_id"], "flows": len({r["flow"] for r in series.rows}), "received": seen.get("received"),
        "rport": seen.get("rport"), "path_uris": seen.get("path", []), "public_gruu": seen.get("gruu"), "state": state,
        "status": status, "first_ns": series.rows[0]["ts_ns"], "last_ns": last["ts_ns"],
        "expires_s": good[-1]["expires_granted"] if good else None, "until_ns": until,
        "refreshes": max(len(good) - 1, 0), "registrations": [r["registration"] for r in series.rows], "requests": [],
        "valid_ns": good[0]["answer_ns"] if good else None,
        "ways": {(r["source"], r["source_port"]) for r in good},
    }


def _answered(tables: Tables, row: dict[str, Any]) -> dict[str, Any]:
    """What the headers of a REGISTER and of its 2xx say beyond the table."""
    asked, said = (sip_head.head(tables, row[name]) for name in ("request", "final"))
    via = said.get("via", [""])[0]
    received, rport = _RECEIVED.search(via), _RPORT.search(via)
    contacts = (c for value in said.get("contact", ()) for c in decode.elements(value))
    mine = next((c for c in contacts if row["contact_uri"] and bare_uri(
        decode.contact_uri(c) or "") == bare_uri(row["contact_uri"])), "")
    gruu = _GRUU.search(mine)
    port = int(rport[1]) if rport else 0
    path = [decode.contact_uri(p) or p for value in asked.get("path", ()) for p in decode.elements(value)]
    return {"received": received[1] if received else None, "rport": port if 0 < port <= 0xFFFF else None,
            "path": path, "gruu": gruu[1] if gruu else None}


def _use(tables: Tables, rows: list[dict[str, Any]]) -> None:
    """Adds to each binding the requests that came to its flow, or to its Contact, while it held."""
    places: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    named: dict[tuple[str, str, int, str], list[dict[str, Any]]] = {}
    for row in rows:
        for address, port in row["ways"]:
            place = row["point"], address, port
            places.setdefault(place, []).append(row)
            for uri in (row["contact_uri"], row["public_gruu"]):
                if uri:
                    named.setdefault((*place, bare_uri(uri)), []).append(row)
    if not places:
        return
    known = pl.DataFrame(list(places), schema={"point": pl.String, "destination": pl.String,
                                               "destination_port": pl.UInt16}, orient="row")
    came = tables.sip.filter(pl.col("method").is_not_null() & pl.col("to_tag").is_null() & ~pl.col("retransmission")
                             & ~pl.col("method").is_in(["REGISTER", "ACK", "CANCEL"])).join(
        known, on=["point", "destination", "destination_port"], how="semi", maintain_order="left")
    uris = details(tables, came["message"], ("uri",))["uri"].to_list()
    for (message, point, address, port, ns), uri in zip(came.select(
            "message", "point", "destination", "destination_port", "ts_ns").iter_rows(), uris, strict=True):
        all_ = places[point, address, port]
        wanted = named.get((point, address, port, bare_uri(uri or ""))) or (all_ if len(all_) == 1 else [])
        one = next((r for r in reversed(wanted) if r["valid_ns"] <= ns), None)
        if one is not None and (one["until_ns"] is None or ns <= one["until_ns"]):
            one["requests"].append(message)
