"""Registrations over TCP, and the connections and calls that depend on them."""

from __future__ import annotations

from typing import Any

import polars as pl

from netdiag.tables import Tables
from netdiag.tables.mappings import DEFAULT_EXPIRES
from netdiag.tables.registrations import Registration
from netdiag.tables.schema import empty
from netdiag.tables.sip_details import added
from netdiag.tables.tcp import Connection

PORTS = (5060, 5061)
"""SIP and SIP over TLS (RFC 3261 §19.1.2, IANA)."""
FLOW_FAILED, UNAVAILABLE = 430, 480
_PORT = r":(\d{1,5})(?:[;?]|$)"
_NOTHING = pl.lit(None, dtype=pl.Int64)
Row = dict[str, Any]


def bindings(tables: Tables) -> pl.DataFrame:
    """Registrations over streams: ``device``, ``contact_port``, until when they hold, the same device's next one."""
    streams = tables.transactions.filter((pl.col("method") == "REGISTER") & (pl.col("transport") != "udp"))
    data = tables.registrations if len(streams) else empty(Registration)
    device = pl.concat_str("point", pl.lit(" "), "aor", pl.lit(" "), pl.coalesce("instance", "call_id"))
    lifetime = pl.coalesce("expires_granted", "expires_asked").fill_null(DEFAULT_EXPIRES).cast(pl.Int64) * 10**9
    done = data.filter((pl.col("transport") != "udp") & pl.col("status").is_between(200, 299)).with_columns(
        device=device, contact_port=pl.col("contact_uri").str.extract(_PORT).cast(pl.UInt32, strict=False),
        until_ns=pl.col("ts_ns") + lifetime).sort("ts_ns", maintain_order=True)
    nexts = {f"next_{c}": pl.col(c).shift(-1).over("device") for c in ("ts_ns", "source_port", "request_packet")}
    return done.with_columns(**nexts)


def to_registered(failed: pl.DataFrame, bound: pl.DataFrame) -> list[Row]:
    """Failed connections of a registrar to a client whose registration holds, with it."""
    registered = bound.rename({"flow": "old_flow", "call_id": "register_id"})
    pairs = failed.join(registered, left_on=["point", "client", "server"], right_on=["point", "registrar", "source"],
                        suffix="_reg").filter(
        pl.any_horizontal(pl.col("server_port") == pl.col("source_port"), pl.col("server_port") == pl.col(
            "contact_port")) & (pl.col("ts_ns") < pl.col("first_ns")) & (pl.col("first_ns") < pl.col("until_ns")))
    return pairs.sort("ts_ns").unique("connection", keep="last").sort("connection").to_dicts()


def to_spoken(failed: pl.DataFrame, spoken: pl.DataFrame, bound: pl.DataFrame) -> list[Row]:
    """Failed connections to the port that a client of a SIP server had used; not where its registrations are read."""
    unread = spoken.filter(~pl.col("flow").is_in(bound["flow"].implode())).select(
        "point", "client", "client_port", "server", old_flow="flow", ts_ns="first_ns")
    pairs = failed.join(unread, left_on=["point", "client", "server", "server_port"],
                        right_on=["point", "server", "client", "client_port"], suffix="_old").filter(
        pl.col("ts_ns") < pl.col("first_ns"))
    pairs = pairs.sort("ts_ns").unique("connection", keep="last").sort("connection")
    return pairs.with_columns(next_ts_ns=_NOTHING, aor=pl.lit(""), request_packet=_NOTHING).to_dicts()


def newer(tables: Tables, row: Row, bound: pl.DataFrame, old: Connection, until_ns: int) -> bool:
    """Whether the client opened a later connection to the server by then, and spoke over it.

    Where its registrations are read, it registered the same address of record over it.
    """
    later = tables.tcp.filter(
        (pl.col("point") == row["point"]) & (pl.col("client") == row["server"]) & (pl.col("server") == row["client"])
        & (pl.col("server_port") == old.server_port) & (pl.col("data_client") > 0) & (pl.col("data_server") > 0)
        & pl.col("first_ns").is_between(old.last_ns, until_ns))
    if row["aor"]:
        mine = bound.filter((pl.col("aor") == row["aor"]) & (pl.col("ts_ns") <= until_ns))
        later = later.filter(pl.col("flow").is_in(mine["flow"].implode()))
    return bool(later.height)


def calls(tables: Tables, refused: pl.DataFrame, bound: pl.DataFrame) -> list[Row]:
    """430 to anybody, and 480 to whose registration over TCP holds."""
    if not len(refused):
        return []
    asked = added(tables, refused.with_columns(request=pl.col("request_messages").list.first()), ("to_uri",), "request")
    asked = asked.with_columns(aor=pl.col("to_uri").str.split(";").list.first())
    registered = bound.select("point", "aor", "ts_ns", "until_ns", "next_ts_ns", "next_source_port", "source_port",
                              "next_request_packet", "request_packet", "source", "registrar", old_flow="flow")
    pairs = asked.join(registered, left_on=["point", "server", "aor"], right_on=["point", "registrar", "aor"]).filter(
        (pl.col("ts_ns") < pl.col("first_ns")) & (pl.col("first_ns") < pl.col("until_ns")))
    known = pairs.sort("ts_ns").unique("transaction", keep="last")
    rest = asked.filter((pl.col("status") == FLOW_FAILED)
                        & ~pl.col("transaction").is_in(known["transaction"].implode()))
    return pl.concat([known, rest], how="diagonal").sort("transaction").to_dicts()
