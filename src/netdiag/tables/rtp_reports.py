"""What receivers say about streams: their RTCP report blocks, joined to the streams that they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

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


def round_trips(tables: Tables) -> pl.DataFrame:
    """Time from a sender report at this point to the report that answers it, without the answering host's delay.

    ``flow``, ``point``, ``ssrc`` (whose sender report it was), ``ts_ns``, ``packet``, ``sender_report``, ``rtt_ms``:
    from the capture point to the receiver and back (RFC 3550 §6.4.1, with this point's times in place of the source's).
    """
    sent = tables.rtcp.filter(pl.col("sender_ntp").is_not_null() & (pl.col("sender_ntp") != 0)).select(
        "point", ssrc="sender_ssrc", last_sr="sender_ntp", left="ts_ns", sender_report="packet").unique(
        ["point", "ssrc", "last_sr"], keep="first")
    back = tables.rtcp.filter(pl.col("last_sr").is_not_null() & (pl.col("last_sr") != 0)).select(
        "point", "flow", "ts_ns", "packet", "last_sr", "delay_since_sr", ssrc="about_ssrc")
    both = back.join(sent, on=["point", "ssrc", "last_sr"], how="inner").with_columns(
        rtt_ms=(pl.col("ts_ns") - pl.col("left")) / 1e6 - pl.col("delay_since_sr") / 65.536)
    # A report is repeated until the next SR comes; clocks of phones run unevenly by a little.
    return both.filter(pl.col("rtt_ms") >= 0).sort("ts_ns").select(
        "flow", "point", "ssrc", "ts_ns", "packet", "sender_report", "rtt_ms")
