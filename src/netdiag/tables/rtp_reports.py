"""What receivers say about streams: their RTCP report blocks, joined to the streams that they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from netdiag.decode.rtcp_xr import DELAY, REFERENCE_TIME, VOIP

if TYPE_CHECKING:
    from netdiag.tables import Tables

NEAR_NS = 10_000_000_000
"""A report about a stream comes no later than this after its last packet (practice: two RTCP intervals)."""


def about(tables: Tables) -> pl.DataFrame:
    """Report blocks with the ``stream`` that they are about: reports come from where the stream goes to.

    Columns ``stream``, ``packet``, ``ts_ns``, ``sender_ssrc``, ``fraction_lost``, ``cumulative_lost``,
    ``highest_sequence``, ``jitter`` (RTP timestamp units), ``last_sr``, ``delay_since_sr``; in order of stream and
    time.
    """
    blocks = tables.rtcp.filter(pl.col("about_ssrc").is_not_null()).select(
        "point", "packet", "ts_ns", "sender_ssrc", "fraction_lost", "cumulative_lost", "highest_sequence", "jitter",
        "last_sr", "delay_since_sr", ssrc="about_ssrc", destination="source")
    streams = tables.rtp.select("stream", "point", "ssrc", "destination", "first_ns", "last_ns")
    both = blocks.join(streams, on=["point", "ssrc", "destination"], how="inner")
    during = (pl.col("ts_ns") >= pl.col("first_ns")) & (pl.col("ts_ns") <= pl.col("last_ns") + NEAR_NS)
    return both.filter(during).drop("point", "ssrc", "destination", "first_ns", "last_ns").sort("stream", "ts_ns")


def counted(tables: Tables) -> pl.DataFrame:
    """One row for each stream that is reported on: ``counted`` (highest cumulative loss), ``report`` (its packet)."""
    reports = about(tables).sort("cumulative_lost", maintain_order=True)
    return reports.group_by("stream").agg(counted=pl.col("cumulative_lost").last(), report=pl.col("packet").last())


def metrics(tables: Tables) -> pl.DataFrame:
    """VoIP metrics (RFC 3611 §4.7) with the ``stream`` that they are about, the last block of each.

    ``packet``, ``loss_rate``, ``discard_rate``, ``burst_density``, ``burst_ms``, ``round_trip_ms``, ``r_factor``,
    ``mos_lq``, ``mos_cq``, ``buffer``, ``buffer_ms``: see ``RtcpXr``.
    """
    blocks = tables.rtcp_xr.filter(pl.col("block") == VOIP).select(
        "point", "packet", "ts_ns", "loss_rate", "discard_rate", "burst_density", "burst_ms", "round_trip_ms",
        "r_factor", "mos_lq", "mos_cq", "buffer", "buffer_ms", ssrc="about_ssrc", destination="source")
    streams = tables.rtp.select("stream", "point", "ssrc", "destination", "first_ns", "last_ns")
    both = blocks.join(streams, on=["point", "ssrc", "destination"], how="inner")
    during = (pl.col("ts_ns") >= pl.col("first_ns")) & (pl.col("ts_ns") <= pl.col("last_ns") + NEAR_NS)
    last = both.filter(during).sort("ts_ns", "packet").unique("stream", keep="last", maintain_order=True)
    return last.drop("point", "ssrc", "destination", "first_ns", "last_ns", "ts_ns")


def in_words(metric: dict[str, Any]) -> str:
    """A row of ``metrics`` for a reader: "R 62, MOS-LQ 3.1, 4.7% lost, 2.0% discarded, a play-out buffer of 60 ms"."""
    parts = [f"{name} {metric[column]:.{digits}f}" for name, column, digits in (
        ("R", "r_factor", 0), ("MOS-LQ", "mos_lq", 1), ("MOS-CQ", "mos_cq", 1)) if metric[column] is not None]
    parts += [f"{metric['loss_rate']:.1%} lost", f"{metric['discard_rate']:.1%} discarded"]
    if metric["burst_density"]:
        parts.append(f"bursts of {metric['burst_ms']} ms with {metric['burst_density']:.0%} missing")
    if metric["buffer_ms"]:
        parts.append(f"a play-out buffer of {metric['buffer_ms']} ms")
    return ", ".join(parts)


def told(tables: Tables) -> pl.DataFrame:
    """What RTCP tells about each of ``Tables.rtp``, in their order: ``rtt_ms``, ``reported_lost``, ``reported_mos``.

    Median round trip between here and the receiver, the highest cumulative loss that the receiver reports, and the
    listening (else conversational) MOS of its own last VoIP metrics; null where nothing tells it.
    """
    streams = tables.rtp.select("stream", "point", "ssrc")
    if not tables.rtcp.height and not tables.rtcp_xr.height:
        return streams.clear().select(rtt_ms=pl.lit(None, pl.Float64), reported_lost=pl.lit(None, pl.Int64),
                                      reported_mos=pl.lit(None, pl.Float64)).clear(len(streams))
    trips = round_trips(tables).group_by("point", "ssrc").agg(rtt_ms=pl.col("rtt_ms").median())
    losses = counted(tables).select("stream", reported_lost="counted")
    quality = metrics(tables).select("stream", reported_mos=pl.coalesce("mos_lq", "mos_cq"))
    for frame, on in ((trips, ["point", "ssrc"]), (losses, ["stream"]), (quality, ["stream"])):
        streams = streams.join(frame, on=on, how="left", maintain_order="left")
    return streams.select("rtt_ms", "reported_lost", "reported_mos")


def round_trips(tables: Tables) -> pl.DataFrame:
    """Time from a sender report at this point to the report that answers it, without the answering host's delay.

    ``flow``, ``point``, ``ssrc`` (whose sender report it was), ``ts_ns``, ``packet``, ``sender_report``, ``rtt_ms``:
    from the capture point to the receiver and back (RFC 3550 §6.4.1, with this point's times in place of the source's).
    Receiver reference times and the DLRR blocks that answer them (RFC 3611 §4.4, §4.5) tell it in the same way.
    """
    sent = tables.rtcp.filter(pl.col("sender_ntp").is_not_null() & (pl.col("sender_ntp") != 0)).select(
        "point", ssrc="sender_ssrc", last_sr="sender_ntp", left="ts_ns", sender_report="packet")
    back = tables.rtcp.filter(pl.col("last_sr").is_not_null() & (pl.col("last_sr") != 0)).select(
        "point", "flow", "ts_ns", "packet", "last_sr", "delay_since_sr", ssrc="about_ssrc")
    extended = tables.rtcp_xr.filter(pl.col("block").is_in([REFERENCE_TIME, DELAY]))
    if len(extended):
        sent = pl.concat([sent, extended.filter(pl.col("ntp") != 0).select(
            "point", ssrc="sender_ssrc", last_sr="ntp", left="ts_ns", sender_report="packet")])
        back = pl.concat([back, extended.filter(pl.col("last_rr") != 0).select(
            "point", "flow", "ts_ns", "packet", last_sr="last_rr", delay_since_sr="delay_since_rr", ssrc="about_ssrc")])
    sent = sent.unique(["point", "ssrc", "last_sr"], keep="first", maintain_order=True)
    both = back.join(sent, on=["point", "ssrc", "last_sr"], how="inner").with_columns(
        rtt_ms=(pl.col("ts_ns") - pl.col("left")) / 1e6 - pl.col("delay_since_sr") / 65.536)
    # A report is repeated until the next SR comes; clocks of phones run unevenly by a little.
    return both.filter(pl.col("rtt_ms") >= 0).sort("ts_ns").select(
        "flow", "point", "ssrc", "ts_ns", "packet", "sender_report", "rtt_ms")
