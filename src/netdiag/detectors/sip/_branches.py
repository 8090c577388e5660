"""2xx of several branches of one forked INVITE."""

from __future__ import annotations

import polars as pl

from netdiag.tables import Tables


def others(tables: Tables, answered: pl.DataFrame, least: float) -> pl.DataFrame:
    """Transactions of ``answered`` once more for each 2xx of another branch of a fork, with that as the final one."""
    several = answered.filter(pl.col("response_messages").list.len() > pl.col("final_sends") + least - 1)
    if not several.height:
        return several
    each = several.select("transaction", "final_message", message="response_messages").explode("message")
    sip = tables.sip.select("message", "status", "to_tag")
    each = each.join(sip, on="message").join(sip.select(final_message="message", own="to_tag"), on="final_message")
    other = each.filter(pl.col("status").is_between(200, 299) & (pl.col("to_tag") != pl.col("own"))).sort("message")
    branches = other.group_by("transaction", "to_tag", maintain_order=True).agg(
        again=pl.len(), first=pl.col("message").first(), code=pl.col("status").first())
    joined = branches.join(several, on="transaction", suffix="_asked", maintain_order="left")
    return joined.with_columns(
        final_message=pl.col("first"), status=pl.col("code"), to_tag=pl.col("to_tag_asked"),
        final_sends=pl.col("again").cast(answered.schema["final_sends"])).select(answered.columns)
