"""Estimated quality of RTP streams over time: the E-model (ITU-T G.107) on what the packets and RTCP tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from netdiag.decode import emodel
from netdiag.tables import rtp_reports, rtp_windows
from netdiag.tables.schema import U32, empty, schema

if TYPE_CHECKING:
    from netdiag.tables import Tables

CAUSES = ("delay", "loss", "late", "codec")
"""Terms of the rating: Id; Ie,eff - Ie shared between lost and late packets; Ie."""
ENOUGH = 50
"""Packets expected in a stretch before it is rated (practice)."""
GAIN = 16
"""One packet that is late by d lifts the jitter by d/16 (RFC 3550 §6.4.1); a stream with many has twice that."""


@dataclass(frozen=True, slots=True)
class StretchRating:
    """One stretch of one stream."""

    stream: U32
    begin_ns: int
    loss_percent: float
    """Lost and late packets."""
    burst_ratio: float
    r: float
    mos: float
    by_delay: float
    by_loss: float
    by_late: float
    by_codec: float
    latest: U32


def ratable(streams: pl.DataFrame) -> pl.DataFrame:
    """Those of ``streams`` with a codec that the narrow-band model knows, and packets enough."""
    return streams.filter(pl.col("codec").str.to_uppercase().is_in(list(emodel.CODECS)), ~pl.col("clock_guessed"),
                          pl.col("expected") >= ENOUGH)


def delays(tables: Tables, streams: pl.DataFrame, buffer_ms: float, assumed_ms: float) -> pl.DataFrame:
    """Mouth-to-ear delay of each of ``streams`` in ms, and where it is from.

    ``stream``, ``delay_ms``, ``round_trip_ms`` (median; null where RTCP does not tell it), ``part`` (where that was
    measured, "" for the whole way), ``report`` and ``sender_report`` (packets). Network delay is half the round trip,
    else ``assumed_ms``; packet length, look-ahead of the codec and ``buffer_ms`` are added (G.114 §A.2).
    """
    trips = rtp_reports.round_trips(tables).group_by("point", "ssrc").agg(
        rtt=pl.col("rtt_ms").median(), report=pl.col("packet").last(), sender_report=pl.col("sender_report").last())
    # The stream's own sender report goes on to its receiver and back; the way to its source is in the other's.
    own = streams.select("stream", "point", "flow", "ssrc", "source", "destination", "codec", "first_ns", "last_ns",
                         "expected").join(trips, on=["point", "ssrc"], how="left", maintain_order="left")
    known = own.filter(pl.col("rtt").is_not_null()).select(
        "flow", source="destination", back="rtt", back_report="report", back_sender="sender_report").unique(
        ["flow", "source"], keep="first")
    both = own.join(known, on=["flow", "source"], how="left", maintain_order="left")
    look = pl.col("codec").str.to_uppercase().replace_strict(
        {name: codec.frame_ms for name, codec in emodel.CODECS.items()}, default=0.0, return_dtype=pl.Float64)
    length = (pl.col("last_ns") - pl.col("first_ns")) / 1e6 / (pl.col("expected").cast(pl.Int64) - 1)
    trip = pl.when(pl.col("rtt").is_null() & pl.col("back").is_null()).then(None).otherwise(
        pl.col("rtt").fill_null(0.0) + pl.col("back").fill_null(0.0))
    network = pl.coalesce(trip / 2, pl.lit(float(assumed_ms)))
    return both.select(
        "stream", delay_ms=network + length.clip(0, 200) + look + buffer_ms, round_trip_ms=trip,
        part=pl.when(pl.col("back").is_null()).then(pl.lit(" between here and the receiver"))
        .when(pl.col("rtt").is_null()).then(pl.lit(" between here and the sender")).otherwise(pl.lit("")),
        report=pl.coalesce("report", "back_report"), sender_report=pl.coalesce("sender_report", "back_sender"))


def suspects(streams: pl.DataFrame, delay: pl.DataFrame, min_r: float, min_share: float, buffer_ms: float,
             ) -> pl.DataFrame:
    """Those of ``streams`` that can be below ``min_r`` in ``min_share`` of their stretches, the worst first.

    Decided by what the stream table says: loss that, put together in that share, would be enough.
    """
    both = streams.join(delay.select("stream", "delay_ms"), on="stream", how="left", maintain_order="left")
    # Delay in steps of 10 ms: a few different values, whatever the number of streams.
    keys = both.select(codec=pl.col("codec").str.to_uppercase(), step=(pl.col("delay_ms") / 10).ceil().clip(0, 1000))
    steps = keys.unique()
    limit = [emodel.worst_loss(emodel.CODECS[codec], step * 10, min_r) / 100 for codec, step in steps.iter_rows()]
    limits = keys.join(steps.with_columns(limit=pl.Series(limit, dtype=pl.Float64)), on=["codec", "step"], how="left",
                       maintain_order="left")["limit"]
    late = pl.when(pl.col("jitter_max_ms") >= 2 * buffer_ms / GAIN).then(pl.col("jitter_mean_ms") / (2 * buffer_ms))
    share = pl.col("lost") / pl.col("expected") + late.otherwise(0.0)
    both = both.with_columns(limit=limits, share=share)
    return both.filter(pl.col("share") >= min_share * pl.col("limit")).sort(
        pl.col("share") - pl.col("limit"), descending=True).drop("limit", "share", "delay_ms")


def ratings(tables: Tables, streams: pl.DataFrame, delay: pl.DataFrame, seconds: float, buffer_ms: float,
            ) -> pl.DataFrame:
    """Rating of each stretch of ``streams`` in which ENOUGH packets were expected; schema of ``StretchRating``."""
    stretches = rtp_windows.windows(tables, streams, seconds, buffer_ms).filter(pl.col("expected") >= ENOUGH)
    if not stretches.height:
        return empty(StretchRating)
    late = pl.when(pl.col("steady") & (pl.col("returns") > 0)).then("late").otherwise(0)
    known = stretches.select("stream", "expected", "lost", "runs", "begin_ns", "latest", late=late).join(
        streams.select("stream", "codec"), on="stream", how="left", maintain_order="left")
    known = known.join(delay.select("stream", "delay_ms"), on="stream", how="left", maintain_order="left")
    out: dict[str, list[float]] = {name: [] for name in schema(StretchRating)}
    for stream, expected, lost, runs, begin, latest, late, codec, ms in known.iter_rows():
        gone = min((lost + late) / expected, 1.0)
        # G.107 §3.5: mean run of missing packets over that of random loss of the same share.
        ratio = max((lost + late) / max(runs + late, 1) * (1 - gone), 1.0)
        rating = emodel.rate(emodel.CODECS[codec.upper()], ms, gone * 100, ratio)
        part = rating.loss / max(lost + late, 1)
        for name, value in zip(out, (stream, begin, gone * 100, ratio, rating.r, emodel.mos(rating.r), rating.delay,
                                     part * lost, part * late, rating.codec, latest), strict=True):
            out[name].append(value)
    return pl.DataFrame({n: pl.Series(np.array(v)).cast(t) for (n, t), v in zip(
        schema(StretchRating).items(), out.values(), strict=True)})
