"""Sender and receiver reports of RTCP (RFC 3550 §6.4) with the calls that they belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from netdiag.tables import rtcp_calls
from netdiag.tables.packets import CUT
from netdiag.tables.rtp import RtcpReport, note
from netdiag.tables.schema import empty, schema

if TYPE_CHECKING:
    from netdiag.tables import Tables


def build(tables: Tables) -> pl.DataFrame:
    """One row for each report block, and one for each report without blocks, in order of packets."""
    reports = tables.rtcp_packets.reports
    if not len(reports):
        return empty(RtcpReport)
    reports = rtcp_calls.with_calls(tables, reports)
    packets = tables.packets
    # What was cut could not be checked to its end: in a call with SRTP it is taken for encrypted.
    secret = reports["secure"] & pl.Series(packets.flags[reports["packet"].to_numpy()] & CUT > 0)
    if secret.any():
        note(tables, "rtcp", "RTCP of a call with SRTP, cut by the snap length: not read",
             reports.filter(secret)["packet"].unique().to_numpy())
        reports = reports.filter(~secret)
    return reports.select(list(schema(RtcpReport)))
