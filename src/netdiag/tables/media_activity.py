"""When media of a call was last seen: RTP and RTCP of each side (RFC 3550), by the flows of its streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from netdiag.tables import Tables


def last_heard(tables: Tables) -> pl.DataFrame:
    """For each call with RTP of its own: ``call``, ``caller_ns`` and ``callee_ns`` (last packet *from* that side, null
    without any), ``rtcp_ns`` (last RTCP of either), and the packets ``caller_packet`` and ``callee_packet``.
    """
    bound = tables.rtp.filter(pl.col("call").is_not_null()).sort("last_ns")
    sides = bound.group_by("call", "sender").agg(last=pl.col("last_ns").last(), packet=pl.col("last_packet").last())
    out = bound.select("call").unique(maintain_order=True)
    for side in ("caller", "callee"):
        mine = sides.filter(pl.col("sender") == side)
        out = out.join(mine.select("call", pl.col("last").alias(side + "_ns"), pl.col("packet").alias(
            side + "_packet")), on="call", how="left", maintain_order="left")
    if not tables.rtcp.height:
        return out.with_columns(rtcp_ns=pl.lit(None, pl.Int64))
    heard = tables.rtcp.filter(pl.col("call").is_not_null()).select("call", "ts_ns").join(
        tables.calls.select("call", "end_ns"), on="call")
    heard = heard.filter(pl.col("ts_ns") <= pl.col("end_ns").fill_null(2**62))
    return out.join(heard.group_by("call").agg(rtcp_ns=pl.col("ts_ns").max()), on="call", how="left",
                    maintain_order="left")
