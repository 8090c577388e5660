"""Which calls deserve a close look: decided in columns, since most calls are healthy."""

from __future__ import annotations

import polars as pl

from netdiag.tables import Tables

JUDGED_NS = 8_000_000_000
"""3 s to settle and 5 s to look at (practice); shorter calls are not judged."""
FLOOR = 50
"""Packets in 5 s that count as audio: a fifth of 20 ms packets, most of 100 ms packets (practice)."""


def judged(tables: Tables) -> pl.DataFrame:
    """Answered calls that lasted long enough, with four more columns.

    ``caller_media``, ``callee_media``, ``caller_site`` and ``callee_site`` are address and
    signalling source of each side's first audio line; ``plain``: the call never was anything else than RTP both ways.
    """
    calls = tables.calls.filter(pl.col("answer_ns").is_not_null() & ~pl.col("cut")).join(
        tables.quality.select("point", "last_ns"), on="point", how="left")
    calls = calls.filter(pl.col("end_ns").fill_null(pl.col("last_ns")) - pl.col("answer_ns") >= JUDGED_NS)
    audio = tables.media.filter((pl.col("type") == "audio") & (pl.col("port") > 0) & pl.col("address").is_not_null())
    plain = tables.media.select("call", plain=(
        (pl.col("direction") == "sendrecv") & ~pl.col("ice") & pl.col("protocol").str.contains("RTP/", literal=True)
        & ~pl.col("address").is_in(["0.0.0.0", "::"]))).group_by("call").agg(pl.col("plain").all())
    calls = calls.join(plain, on="call", how="inner", maintain_order="left")
    for side in ("caller", "callee"):
        lines = audio.filter(pl.col("side") == side).unique("call", keep="first", maintain_order=True).select(
            "call", pl.col("address").alias(side + "_media"), pl.col("signalling_source").alias(side + "_site"))
        calls = calls.join(lines, on="call", how="inner", maintain_order="left")
    return calls


def flows(tables: Tables) -> pl.DataFrame:
    """Each call's RTP flows: ``packets``, ``first``, ``last`` and ``pause`` (ms) of both senders, and ``healthy``.

    Healthy: both directions run side by side without a pause in which only one of them could be heard.
    """
    bound = tables.rtp.filter(pl.col("call").is_not_null())
    sums = bound.group_by("call", "flow", "sender", maintain_order=True).agg(
        pl.col("packets").sum(), first=pl.col("first_ns").min(), last=pl.col("last_ns").max(),
        pause=pl.col("max_delta_ms").max())
    both = sums.filter(pl.col("sender") == "caller").drop("sender").join(
        sums.filter(pl.col("sender") == "callee").drop("sender"), on=["call", "flow"], how="full", coalesce=True)
    near = (pl.col("first") - pl.col("first_right")).abs() < JUDGED_NS
    together = near & ((pl.col("last") - pl.col("last_right")).abs() < 5_000_000_000)
    steady = (pl.col("pause") < 5_000) & (pl.col("pause_right") < 5_000)
    quoted = tables.icmp["quoted_flow"].drop_nulls().unique().implode()
    heard = pl.max_horizontal(pl.col("packets").fill_null(0), pl.col("packets_right").fill_null(0)) >= FLOOR
    return both.with_columns(healthy=(together & steady).fill_null(False) & ~pl.col("flow").is_in(quoted), heard=heard)


def two_way_hosts(tables: Tables, seen: pl.DataFrame) -> set[tuple[str, str]]:
    """Point and address of hosts whose audio is seen in both directions there."""
    good = seen.filter(pl.col("healthy"))["flow"].unique()
    ends = tables.rtp.filter(pl.col("flow").is_in(good.implode())).select("point", "source", "destination").unique()
    return {(point, host) for point, *pair in ends.iter_rows() for host in pair}
