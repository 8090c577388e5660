"""The same SIP message at several capture points, whatever a NAT does to addresses between them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from netdiag.tables import Tables

IDENTITY = ["method", "status", "call_id", "cseq", "cseq_method", "branch"]
"""What a NAT leaves alone, and an element that forwards a message changes (the branch, RFC 3261 §16.6)."""


class SipTwins:
    """Asks the other capture points about SIP messages, given as rows of ``Tables.sip``."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def of(self, messages: Sequence[int]) -> pl.DataFrame:
        """Rows of ``Tables.sip`` at other points that are the same messages; in order, empty with one point."""
        sip = self._tables.sip
        mine = sip[list(messages)]
        if len(self._tables.points) < 2 or not len(mine):
            return sip.clear()
        return sip.filter(pl.col("call_id").is_in(mine["call_id"].unique().implode())).join(
            mine.select(*IDENTITY, here="point").unique(), on=IDENTITY, nulls_equal=True, maintain_order="left",
        ).filter(pl.col("point") != pl.col("here")).drop("here")

    def missing_at(self, messages: Sequence[int]) -> str:
        """A point that would have shown all these messages (of one point), and shows none; "" without.

        It would when it captured at that time, and other messages between the same two addresses are at both points. A
        point that shows the messages under another branch has them one hop earlier or later, and proves nothing.
        """
        if len(self._tables.points) < 2 or not messages:
            return ""
        twins = set(self.of(messages)["point"].to_list())
        mine = self._tables.sip[list(messages)]
        ways = set(mine.select("point", "source", "destination").iter_rows())
        hops = [name for name in IDENTITY if name != "branch"]
        elsewhere = set(self._tables.sip.filter(pl.col("call_id").is_in(mine["call_id"].unique().implode())).join(
            mine.select(hops).unique(), on=hops, nulls_equal=True, how="semi")["point"].to_list())
        for other in self._tables.points:
            if other in twins | elsewhere or any((*way, other) not in self._ways for way in ways):
                continue
            low, high = self._spans[other]
            offset = self._offsets[mine["point"][0], other]
            if (mine["ts_ns"] + offset).is_between(low, high).all():
                return other
        return ""

    @cached_property
    def _pairs(self) -> pl.DataFrame:
        sip = self._tables.sip.select("point", "source", "destination", "ts_ns", *IDENTITY).filter(
            pl.col("call_id").is_not_null()).unique(["point", *IDENTITY], keep="first", maintain_order=True)
        both = sip.join(sip.select("point", "ts_ns", *IDENTITY), on=IDENTITY, nulls_equal=True, suffix="_other")
        return both.filter(pl.col("point") != pl.col("point_other"))

    @cached_property
    def _ways(self) -> set[tuple[str, ...]]:
        return set(self._pairs.select("point", "source", "destination", "point_other").unique().iter_rows())

    @cached_property
    def _offsets(self) -> dict[tuple[str, str], int]:
        """What to add to times of the first point to compare them with the second (median over common messages)."""
        rows = self._pairs.group_by("point", "point_other").agg((pl.col("ts_ns_other") - pl.col("ts_ns")).median())
        return {(a, b): int(offset) for a, b, offset in rows.iter_rows()}

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        quality = self._tables.quality.select("point", "first_ns", "last_ns")
        return {point: (first, last) for point, first, last in quality.iter_rows()}
