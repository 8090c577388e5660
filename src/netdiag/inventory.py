"""What is in the captures, and what did not succeed there: counts for the head of the report. Nothing here judges."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import polars as pl

from netdiag.decode import tls_alerts

if TYPE_CHECKING:
    from netdiag.tables import Tables

_COUNTED = {
    "tcp_connections": "tcp", "icmp_errors": "icmp", "sip_messages": "sip", "calls": "calls",
    "registrations": "registrations", "rtp_streams": "rtp", "stun_transactions": "stun", "dtls_handshakes": "dtls",
    "tls_handshakes": "handshakes", "certificates": "certs", "dns_lookups": "lookups",
}
_SAME = {"calls": ("call_id",), "registrations": ("aor", "call_id", "cseq")}
"""What makes a row at one capture point or hop and a row at another one thing: it is counted once."""

PATIENCE_NS = 5_000_000_000
"""A ClientHello that is younger when the capture ends may still be answered (practice)."""


def inventory(tables: Tables) -> dict[str, int]:
    """What is in the captures. A table that cannot be built is left out.

    Encapsulated packets are in VLANs or tunnels; copied ones are there twice, and in no other count.

    Calls and registrations are counted once, however many points saw them; all else is a sum over the points.
    """
    p = tables.packets
    out = {"packets": p.n, "encapsulated_packets": 0 if p.encap is None else int((p.encap > 0).sum()),
           "copied_packets": 0 if p.duplicates is None else len(p.duplicates.row), "flows": len(p.flow_start)}
    for name, table in _COUNTED.items():
        try:
            rows = getattr(tables, table)
            out[name] = len(rows.select(_SAME[name]).unique()) if name in _SAME else rows.height
        except Exception as error:
            tables.anomaly_log.add(table, f"the table could not be built ({type(error).__name__})", 0)
    return out


def failures(tables: Tables) -> dict[str, dict[str, int]]:
    """How often what did not succeed, by kind as in `inventory`, then by outcome, the most frequent first.

    What several points saw counts as often as the point that saw most of it. A busy callee or a name that does not
    exist is no fault; but whoever looks for one wants to know.
    """
    out: dict[str, dict[str, int]] = {}
    for name, outcomes in _OUTCOMES.items():
        try:
            rows = outcomes(tables)
        except Exception:  # said by `inventory`
            continue
        each = rows.drop_nulls("outcome").group_by("outcome", "point").len().group_by("outcome").agg(
            pl.col("len").max()).sort("len", "outcome", descending=[True, False])
        if each.height:
            out[name] = {outcome: int(n) for outcome, n in each.iter_rows()}
    return out


def _calls(tables: Tables) -> pl.DataFrame:
    failed = pl.col("state") == "failed"
    return tables.calls.select("point", "call_id", outcome=pl.when(failed).then(pl.col("status").cast(pl.String)).when(
        pl.col("state") == "timeout").then(pl.lit("no answer"))).unique()


def _registrations(tables: Tables) -> pl.DataFrame:
    last = tables.registrations.sort("ts_ns").group_by("point", "aor", "call_id", maintain_order=True).last()
    return last.select("point", outcome=pl.when(pl.col("status") >= 300).then(pl.col("status").cast(pl.String)).when(
        pl.col("status").is_null()).then(pl.lit("no answer")))


def _handshakes(tables: Tables) -> pl.DataFrame:
    cut_off = pl.when(pl.col("closed_by").is_not_null()).then(pl.format("closed by {}", "closed_by"))
    late = pl.col("end") - pl.col("start_ns") >= PATIENCE_NS
    silent = pl.when(pl.col("server_hello_packet").is_null() & ~pl.col("truncated") & late).then(pl.lit("no answer"))
    # An alert in clear says that a handshake failed, also where no hello could be read (cut or not captured).
    lone = tables.alerts.filter(pl.col("handshake").is_null() & (pl.col("level") == tls_alerts.FATAL)).unique(
        "connection", keep="first").select("point", outcome="name")
    return pl.concat([tables.handshakes.filter(~pl.col("completed")).join(
        tables.quality.select("point", end="last_ns"), on="point", how="left").select(
        "point", outcome=pl.coalesce(_alert_name(), cut_off, silent)), lone])


def _dtls(tables: Tables) -> pl.DataFrame:
    """Silence counts after three repeats: ICE can change the pair, and the answer comes on the other."""
    unheard = pl.col("server_hello_packet").is_null() & (pl.col("client_repeated") == "ClientHello")
    silent = pl.when(pl.max_horizontal("client_repeats", "server_repeats") >= 3).then(
        pl.when(unheard).then(pl.lit("no answer")).otherwise(pl.lit("flights repeated")))
    return tables.dtls.filter(~pl.col("completed")).select("point", outcome=pl.coalesce(
        pl.when(pl.col("alert_level") == tls_alerts.FATAL).then(_alert_name()), silent))


def _alert_name() -> pl.Expr:
    named = pl.col("alert").map_elements(tls_alerts.name, return_dtype=pl.String)
    return pl.coalesce(named, pl.when(pl.col("alert_by").is_not_null()).then(pl.format("alert by {}", "alert_by")))


def _connections(tables: Tables) -> pl.DataFrame:
    return tables.tcp.select("point", outcome=pl.col("state").replace_strict(
        {"refused": "refused", "syn-sent": "no answer"}, default=None, return_dtype=pl.String))


def _lookups(tables: Tables) -> pl.DataFrame:
    return tables.lookups.select("point", outcome=pl.when(pl.col("rcode") != "NOERROR").then(pl.col("rcode")).when(
        pl.col("rcode").is_null()).then(pl.lit("no answer")))


_OUTCOMES: dict[str, Callable[[Tables], pl.DataFrame]] = {
    "calls": _calls, "registrations": _registrations, "tls_handshakes": _handshakes, "dtls_handshakes": _dtls,
    "tcp_connections": _connections, "dns_lookups": _lookups,
}
