"""Challenges that a client leaves alone: each in a call of its own, and never one request with credentials."""

from __future__ import annotations

import polars as pl

from netdiag.tables.sip_auth import CHALLENGED

METHODS = ("INVITE", "REGISTER", "SUBSCRIBE", "PUBLISH", "MESSAGE")
"""Not OPTIONS: a probe that is challenged has done its work (RFC 3261 §11)."""
_PAIR = ["point", "client", "server"]


def left_alone(transactions: pl.DataFrame, least: int) -> pl.DataFrame:
    """Call-IDs, with point, of ``least`` or more challenges that one client of one server leaves alone.

    The server knows the client: it sends requests to it, or accepts others of it. Strangers that try numbers do not
    come back with credentials either.
    """
    asked = pl.col("status").is_in(CHALLENGED)
    data = transactions.filter(pl.col("method").is_in(METHODS) & ~pl.col("midstream") & pl.col("status").is_not_null())
    pairs = data.filter(asked & ~pl.col("call_id").is_in(data.filter(~asked)["call_id"].unique().implode()))
    if len(pairs) < least:
        return pairs.select("point", "call_id").clear()
    pairs = pairs.select(_PAIR).unique()
    calls = data.join(pairs, on=_PAIR, how="semi").group_by(*_PAIR, "call_id").agg(
        asked=asked.sum(), alone=(pl.len() == 1) & asked.any(), accepted=pl.col("status").is_between(200, 299).any())
    alone = calls.group_by(_PAIR).agg(pl.col("alone").sum(), asked=(pl.col("asked") > 0).sum(),
                                      accepted=pl.col("accepted").any()).filter(
        (pl.col("alone") == pl.col("asked")) & (pl.col("alone") >= least))
    back = transactions.select("point", client="server", server="client").unique().with_columns(back=True)
    known = alone.join(back, on=_PAIR, how="left").filter(pl.col("accepted") | pl.col("back").fill_null(False))
    return calls.filter(pl.col("alone")).join(known, on=_PAIR, how="semi").select("point", "call_id")
