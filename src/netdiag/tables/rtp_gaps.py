"""Gaps in RTP streams that speak of the capture: the receiver does not count them, or both directions share them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import rtp_loss
from netdiag.tables.rtp import RtpSeries, RtpStream, series
from netdiag.tables.schema import rows

if TYPE_CHECKING:
    from netdiag.tables import Tables

STREAMS = 2000
"""Streams that are looked at packet by packet (practice)."""
CHANCE = 10
"""So many times more shared gaps than chance gives (practice)."""
PAIRS = 20
"""Pairs of opposite streams looked at first: where they share nothing, the others are not looked at (practice)."""

HALF = 1 << 15
"""Half of the sequence numbers: so far two numbers can be put in order (RFC 3550 §5.1)."""

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Disputed:
    """A stream of which the capture lacks more than its receiver says that it lacks."""

    stream: RtpStream
    missing: int
    """Sequence numbers between two reports that the capture lacks."""
    reported: int
    """How much the receiver's count of lost packets grew meanwhile."""
    of: int
    """Sequence numbers between the two reports, as far as this capture goes."""
    reports: tuple[int, int]
    """Packet rows of the two reports."""
    gap: int
    """Packet row behind the longest run of missing numbers."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Two opposite streams of one flow that miss packets at the same moments."""

    streams: tuple[RtpStream, RtpStream]
    moments: int
    """Gaps of the first stream during which the second has one too."""
    gaps: tuple[int, int]
    by_chance: float
    """How many moments would be shared if the two streams had nothing to do with each other."""
    packets: tuple[int, ...]
    """Packet rows behind shared gaps, of both streams."""


def _reports(tables: Tables) -> pl.DataFrame:
    """One row for each stream and each reporter at its destination: lists of ``report``, ``highest``, ``counted``, and
    ``at``, the point of each report.

    What a receiver says holds wherever it is seen: reports of all points count, in order of the numbers they speak of.
    Reporters are told apart by their own SSRC, since calls may share the one that they report on.
    """
    about = tables.rtcp.filter(pl.col("about_ssrc").is_not_null() & pl.col("cumulative_lost").is_not_null())
    return about.sort("highest_sequence", maintain_order=True).group_by(
        "sender_ssrc", ssrc="about_ssrc", destination="source", maintain_order=True).agg(
        report="packet", highest="highest_sequence", counted="cumulative_lost", at="point")


def disputed(tables: Tables, least: float) -> Iterator[Disputed]:
    """Streams that lack ``least`` packets more than the reports of their destination count (RFC 3550 §6.4.1).

    Only what lies between the first and the last report counts: a receiver may have begun late.
    """
    streams = tables.rtp.filter((pl.col("lost") >= least) & (pl.col("restarts") == 0))
    if not streams.height:
        return
    both = streams.join(_reports(tables), on=["ssrc", "destination"], maintain_order="left").with_columns(
        growth=pl.col("counted").list.last() - pl.col("counted").list.first())
    both = both.filter((pl.col("report").list.len() >= 2) & (pl.col("growth") >= 0)
                       & (pl.col("lost") - pl.col("growth") >= least)).head(STREAMS)
    told = both.select("report", "highest", "growth", "at").iter_rows()
    unsent = rtp_loss.renumbered(tables, both.select(streams.columns).unique("stream", maintain_order=True))
    seen = set()
    for stream, (report, highest, growth, at) in zip(rows(both.select(streams.columns), RtpStream), told, strict=True):
        near = at.index(stream.point) if stream.point in at else None
        if stream.stream in seen or (near is None and stream.expected >= HALF):
            continue
        s = series(tables, stream)
        # The report names a packet that came shortly before it. Clocks of other points say nothing here.
        row = len(s.ts_ns) // 2 if near is None else max(
            int(np.searchsorted(s.ts_ns, tables.packets.ts[report[near]])) - 1, 0)
        found = _between(s, row, highest[near or 0], highest[0], highest[-1])
        missing = found.missing - unsent.get(stream.stream, 0) if found else 0
        if found and missing - growth >= least:
            seen.add(stream.stream)
            yield Disputed(stream, missing, growth, found.of, (report[0], report[-1]), found.packet)


def _extended(sequence: npt.NDArray[np.uint16]) -> I64:
    """Sequence numbers in order of arrival, counted on over the wrap."""
    return np.cumsum(np.concatenate((sequence[:1].astype(np.int64), np.diff(sequence).view(np.int16).astype(np.int64))))


@dataclass(frozen=True, slots=True)
class _Between:
    missing: int
    of: int
    packet: int
    """The one behind the longest run of missing numbers."""


def _between(s: RtpSeries, near: int, named: int, low: int, high: int) -> _Between | None:
    """How many of the numbers behind ``low`` up to ``high`` are missing.

    ``named`` is the number of a report around packet ``near``. Only what lies between captured packets counts: the
    reports of another point may go on where this capture has not begun, or is over.
    """
    number = _extended(s.sequence)
    begin = int(number[near]) + ((named - int(number[near]) + HALF) & 0xFFFF) - HALF - (named - low)
    end = min(begin + high - low, int(number.max()))
    begin = max(begin, int(number.min()) - 1)
    inside = np.unique(number[(number > begin) & (number <= end)])
    if not len(inside):
        return None
    longest = int(inside[int(np.diff(inside, prepend=begin).argmax())])
    return _Between(end - begin - len(inside), end - begin, int(s.packet[np.flatnonzero(number == longest)[0]]))


def shared(tables: Tables, least: float) -> Iterator[Shared]:
    """Pairs of opposite streams of one flow, with ``least`` shared gaps and far more of them than chance gives.

    Streams whose destination counts them as lost (half of it, or more) are left out: there the network lost them.
    Those with the longest gaps on both sides come first, since what a capture loses it loses of all flows at once.
    """
    streams = tables.rtp.filter((pl.col("gaps") >= least) & (pl.col("restarts") == 0))
    if streams.height < 2:
        return
    streams = streams.filter(pl.len().over("flow") == 2)
    counted = _reports(tables).select("ssrc", "destination", counted=pl.col("counted").list.max())
    real = streams.join(counted, on=["ssrc", "destination"]).filter(pl.col("counted") * 2 >= pl.col("lost"))
    streams = streams.join(real, on="flow", how="anti", maintain_order="left").sort(
        pl.col("max_gap").min().over("flow"), "flow", descending=[True, False], maintain_order=True)
    objects = rows(streams.head(STREAMS), RtpStream)
    met = 0
    for number, (one, two) in enumerate(zip(objects, objects, strict=False)):
        if number == PAIRS and not met:
            return
        found = _share(tables, one, two)
        if found and found.moments >= max(least, CHANCE * found.by_chance):
            met += 1
            yield found


def _share(tables: Tables, one: RtpStream, two: RtpStream) -> Shared | None:
    begin, end = max(one.first_ns, two.first_ns), min(one.last_ns, two.last_ns)
    if one.source == two.source or end <= begin:
        return None
    (low, high, packet), (other_low, other_high, other_packet) = (
        _gaps(series(tables, s), begin, end) for s in (one, two))
    if not len(low) or not len(other_low):
        return None
    # The first gap of the other stream that ends after this one begins: do the two overlap?
    at = np.minimum(np.searchsorted(other_high, low, "right"), len(other_low) - 1)
    met = (other_low[at] < high) & (other_high[at] > low)
    width = float((high - low).mean() + (other_high - other_low).mean())
    return Shared((one, two), int(met.sum()), (len(low), len(other_low)),
                  len(low) * len(other_low) * width / (end - begin),
                  (*packet[met].tolist(), *np.unique(other_packet[at[met]]).tolist()))


def _gaps(s: RtpSeries, begin: int, end: int) -> tuple[I64, I64, npt.NDArray[np.uint32]]:
    """For each run of missing numbers: time of the packet before it and behind it, and the latter's row."""
    number = _extended(s.sequence)
    order = np.argsort(number, kind="stable")
    behind = np.flatnonzero(np.diff(number[order]) > 1) + 1
    low, high, packet = s.ts_ns[order[behind - 1]], s.ts_ns[order[behind]], s.packet[order[behind]]
    keep = (low >= begin) & (high <= end) & (low < high)
    by_time = np.argsort(high[keep], kind="stable")
    return low[keep][by_time], high[keep][by_time], packet[keep][by_time]
