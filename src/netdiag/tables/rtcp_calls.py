"""Which call RTCP belongs to: by the addresses in SDP (RFC 3605, RFC 5761), else by the SSRCs that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from netdiag.decode.sdp_sections import is_secure
from netdiag.tables import rtp_lines

if TYPE_CHECKING:
    from netdiag.tables import Tables

NEAR_NS = 10_000_000_000
"""A report about a stream comes no later than this after its last packet (practice: two RTCP intervals)."""


def _at_addresses(tables: Tables, packet: pl.Series) -> pl.DataFrame:
    """For each packet row ``host`` (key of its source without port), ``call``, ``caller`` (sent it) and ``secure``."""
    rows = packet.to_numpy()
    source = rtp_lines.endpoint_keys(tables.packets, rows, False)
    none = pl.lit(None, pl.Int64)
    out = pl.DataFrame({"host": source >> np.uint64(16)})
    lines = rtp_lines.advertised(tables, "rtcp_port") if len(tables.media) else None
    if lines is None or not len(lines.key):
        return out.with_columns(call=none, caller=pl.lit(None, pl.Boolean), secure=pl.lit(False))
    when = tables.packets.ts[rows]
    to = lines.latest(rtp_lines.endpoint_keys(tables.packets, rows, True), when)
    from_ = lines.latest(source, when)
    found = np.where(to >= 0, to, from_)
    caller = np.where(to >= 0, ~lines.caller[to], lines.caller[from_])
    media = pl.Series(np.where(found >= 0, lines.media[found], -1)).replace(-1, None)
    known = pl.Series(found >= 0)
    secure = tables.media["protocol"].gather(media).map_elements(is_secure, pl.Boolean).fill_null(False)
    return out.with_columns(call=tables.media["call"].gather(media).cast(pl.Int64),
                            caller=pl.when(known).then(pl.Series(caller)), secure=secure)


def by_address(tables: Tables) -> pl.DataFrame:
    """Reports whose own address is bound: ``sender_ssrc``, ``about_ssrc``, ``ts_ns``, ``host``, ``call``, ``caller``.

    ``host`` is the key of the reporting host without its port, ``caller`` whether that is the caller's side.
    """
    reports = tables.rtcp_packets.reports.select("packet", "sender_ssrc", "about_ssrc", "ts_ns")
    if not len(reports) or not len(tables.media):
        return pl.DataFrame()
    return reports.hstack(_at_addresses(tables, reports["packet"])).drop_nulls("call")


def with_calls(tables: Tables, reports: pl.DataFrame) -> pl.DataFrame:
    """Adds ``call``, ``call_id``, ``bound_by`` and ``secure`` (its SDP asks for SRTP) to reports or blocks."""
    at = _at_addresses(tables, reports["packet"])
    reports = reports.with_columns(at["call"], at["secure"]).with_row_index("place")
    loose = reports.filter(pl.col("call").is_null())
    streams = tables.rtp.filter(pl.col("call").is_not_null()).select(
        "point", "ssrc", "source", "destination", "first_ns", "last_ns", other="call")
    found = []
    if len(loose) and len(streams):
        for ssrc, host in (("sender_ssrc", "source"), ("about_ssrc", "destination")):
            named = streams.select("point", "first_ns", "last_ns", "other", named="ssrc", source=host).sort("first_ns")
            mine = loose.select("place", "point", "source", "ts_ns", named=ssrc).drop_nulls("named").sort("ts_ns")
            met = mine.join_asof(
                named, left_on="ts_ns", right_on="first_ns", by=["point", "named", "source"], check_sortedness=False)
            found.append(met.filter(pl.col("ts_ns") <= pl.col("last_ns") + NEAR_NS).select("place", "other"))
        first = pl.concat(found).unique("place", keep="first", maintain_order=True)
        reports = reports.join(first, on="place", how="left", maintain_order="left")
    else:
        reports = reports.with_columns(other=pl.lit(None, pl.UInt32))
    method = pl.when(pl.col("call").is_not_null()).then(pl.lit("sdp")).when(pl.col("other").is_not_null()).then(
        pl.lit("rtcp")).otherwise(pl.lit(""))
    reports = reports.with_columns(bound_by=method, call=pl.coalesce("call", "other").cast(pl.UInt32)).drop(
        "other", "place")
    return reports.with_columns(call_id=tables.calls["call_id"].gather(reports["call"]))
