"""The far end reports packet loss that this capture does not show: the packets are lost behind this point.

Receivers report for each stream how many packets they miss in all, which one was the highest, and which share was
missing of late (RFC 3550 §6.4.1). Where the stream is whole here and those reports count more and more losses, the
loss is between this point and the reporter: RTCP makes a second point of view out of a capture at one place. A
receiver whose highest number stands still while the sender goes on, 200 packets and more, gets nothing any longer.

**What lifts the suspicion.** Two reports in a row that count more (probable; with fewer nothing is said). A second
capture point where the same packets are missing (confirmed). VoIP metrics of the reporter (RFC 3611 §4.7) are quoted:
they part what was lost on the way from what came too late for its play-out buffer.

**What looks alike and is not it.** Loss that this capture shows too (RTP-LOSS): only what the receiver misses beyond
that counts. A B2BUA that passes on a report about its other leg: the report comes from another host than the stream
goes to, names numbers that this stream never had, or the same reporter speaks of the same SSRC behind the B2BUA.
Counts that fall, by duplicates or by a fault of the reporter, or exceed what was sent. A single report, and encrypted
RTCP, which cannot be read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from netdiag.detectors.rtp._share import examined, groups, keys, subject
from netdiag.model import (
    Alternative,
    Confidence,
    Detection,
    Occurrence,
    Pattern,
    Reference,
    Setting,
    Severity,
    clear,
    found,
    inconclusive,
    not_applicable,
    number_of,
)
from netdiag.tables import Tables, rtp_crossing, rtp_packets, rtp_reports
from netdiag.tables.rtp_crossing import Held

PATTERN = Pattern(
    id="RTP-RTCP-REMOTE-LOSS",
    title="The far end loses packets that pass here",
    severity=Severity.MEDIUM,
    cases=("choppy-audio",),
    needs=("rtp", "rtcp"),
    references=(Reference("RFC 3550 §6.4.1, §6.4.4"), Reference("RFC 3611 §4.7")),
    filter="rtcp",
    mitigation="Tell whoever runs the network of the reporting host, with these counts: it is lost there.",
    fix="Repair the last hops to that host: radio link, duplex, queue, policer.",
    prevention="Collect the receiver reports of all calls: they tell the last mile that no sensor sees.",
    next_capture="Capture next to the reporting host: the packets that pass here are missing there.",
    explains=("RTP-MOS-LOW",),
    settings=(Setting("min_share", 3, "%", "practice: audible with concealment"),
              Setting("min_lost", 5, "packets", "practice: duplicates and late packets make counts differ by a few"),
              Setting("max_lag", 200, "packets", "practice: 4 s of 20 ms packets")),
)

SUSPECTS = 200
"""Streams that are compared packet by packet (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Streams whose receiver counts, between its first and last report, more losses than this point saw."""
    if not tables.rtp.height:
        return not_applicable("no RTP stream in this capture")
    reports = rtp_reports.about(tables)
    if not reports.height:
        odd = sum(count for (table, reason, _), (count, _) in tables.anomaly_log.counts.items()
                  if table == "rtcp" and "encrypted" in reason)
        if odd:
            return inconclusive(f"{odd} RTCP packets cannot be read (encrypted or damaged)",
                                "The same call with the keys of SRTCP, or a capture at the far end.")
        return clear("no receiver reports about the streams of this capture")
    sums = reports.group_by("stream", maintain_order=True).agg(
        count=pl.len(), growth=pl.col("cumulative_lost").last() - pl.col("cumulative_lost").first(),
        more=(pl.col("cumulative_lost").diff() > 0).sum(), fewer=(pl.col("cumulative_lost").diff() < 0).sum(),
        progress=(pl.col("highest_sequence").last().cast(pl.Int64) - pl.col("highest_sequence").first()),
        back=(pl.col("highest_sequence").cast(pl.Int64).diff() < 0).any(),
        low=pl.col("highest_sequence").first(), high=pl.col("highest_sequence").last(), begin=pl.col("ts_ns").first(),
        end=pl.col("ts_ns").last(), first_report=pl.col("packet").first(), last_report=pl.col("packet").last(),
        share=pl.col("fraction_lost").max(), reporter=pl.col("sender_ssrc").last())
    both = tables.rtp.join(sums.filter(pl.col("count") > 1), on="stream", how="inner", maintain_order="left")
    seen = pl.col("expected") * (pl.col("end").clip(None, pl.col("last_ns")) - pl.col("begin")) / (
        pl.col("last_ns") - pl.col("first_ns")).clip(1)
    least, share = settings["min_lost"], settings["min_share"] / 100
    losing = ((pl.col("growth") - pl.col("lost") >= least) & (pl.col("growth") >= share * pl.col("progress"))
              & (pl.col("growth") <= pl.col("progress")) & (pl.col("more") >= 2) & (pl.col("fewer") == 0))
    # Numbers that begin anew leave the highest one anywhere, and so does a receiver that does not count their wraps.
    behind = ((seen - pl.col("progress") - pl.col("lost") > settings["max_lag"]) & (pl.col("restarts") == 0)
              & ~pl.col("back"))
    suspects = both.with_columns(losing=losing, behind=behind).filter(pl.col("losing") | pl.col("behind"))
    suspects = suspects.join(_passed_on(both), on="stream", how="anti", maintain_order="left")
    told = _verified(tables, suspects.sort("growth", descending=True).head(SUSPECTS), settings["max_lag"])
    if not told.height:
        return clear(f"{number_of(both.height, 'RTP streams')} with two reports or more: no receiver misses what this "
                     "capture has")
    group = groups(told)
    metrics = {m["stream"]: m for m in rtp_reports.metrics(tables).iter_rows(named=True)}
    elsewhere = _elsewhere(tables, told)
    return found([_occurrence(tables, row, group[row["stream"]], metrics.get(row["stream"]), elsewhere)
                  for row in told.iter_rows(named=True)],
                 population="streams", examined=examined(both, set(group.values())))


def _passed_on(both: pl.DataFrame) -> pl.DataFrame:
    """Streams to a relay that passes on what the receiver behind it reports: the same reporter and SSRC there."""
    behind = both.select("ssrc", "reporter", destination="source").unique()
    return both.join(behind, on=["ssrc", "reporter", "destination"], how="semi").select("stream")


def _elsewhere(tables: Tables, told: pl.DataFrame) -> dict[tuple[int, str], tuple[str, Held, int]]:
    """For SSRC and point of ``told``: a point that lacks packets of the stream which are there, and its first one."""
    if len(tables.points) < 2:
        return {}
    lacking = tables.rtp.filter((pl.col("lost") > 0) & pl.col("ssrc").is_in(told["ssrc"].implode()))
    crossing = rtp_crossing.compare(tables, lacking)
    return {(ssrc, held.point): (point, held, packet)
            for stream, ssrc, point, packet in lacking.select("stream", "ssrc", "point", "first_packet").iter_rows()
            if stream in crossing for held in (crossing[stream].before, crossing[stream].untold) if held}


def _verified(tables: Tables, suspects: pl.DataFrame, lag: float) -> pl.DataFrame:
    """Those whose reports speak of this stream's own numbers; with ``sent``, packets between the two reports."""
    if not suspects.height:
        return suspects.with_columns(sent=pl.lit(0))
    s = rtp_packets.read(tables, suspects)
    behind = np.append(s.start[1:], len(s.packet))
    keep, sent = [], []
    for i, (low, high, begin, end) in enumerate(suspects.select("low", "high", "begin", "end").iter_rows()):
        part = slice(int(s.start[i]), int(behind[i]))
        own, ts = s.sequence[part], s.ts_ns[part]
        keep.append(bool(np.isin([low & 0xFFFF, high & 0xFFFF], own).any()))
        sent.append(int(((ts > begin) & (ts <= end)).sum()))
    out = suspects.with_columns(sent=pl.Series(sent), keep=pl.Series(keep))
    still = pl.col("behind") & (pl.col("sent").cast(pl.Int64) - pl.col("progress").cast(pl.Int64) > lag)
    return out.filter(pl.col("keep") & (pl.col("losing") | still)).with_columns(behind=still)


def _occurrence(tables: Tables, row: dict[str, object], group: tuple[str, ...],
                metric: dict[str, Any] | None,
                elsewhere: dict[tuple[int, str], tuple[str, Held, int]]) -> Occurrence:
    growth, progress, sent = (int(str(row[name])) for name in ("growth", "progress", "sent"))
    confidence, cited = Confidence.PROBABLE, [row["first_packet"], row["first_report"], row["last_report"]]
    seconds = (int(str(row["end"])) - int(str(row["begin"]))) / 1e9
    if row["losing"]:
        what = f"reports {growth} lost packets more in {seconds:.0f} s ({growth / max(progress, 1):.1%})"
        reasons = [f"{row['more']} reports of {row['count']} count more losses than the one before, {growth} in all",
                   f"{row['lost']} packets are missing here in the whole stream"]
    else:
        what = f"has received {progress} of the {sent} packets sent in {seconds:.0f} s"
        reasons = [f"{row['count']} reports: the highest number goes up by {progress}, {sent} packets pass here"]
    here = f"of which {row['lost']} are missing" if row["lost"] else "which is whole"
    if metric:
        reasons.append(f"its own VoIP metrics (RFC 3611 §4.7) say: {rtp_reports.in_words(metric)}")
        cited.append(metric["packet"])
    point, held, packet = elsewhere.get((int(str(row["ssrc"])), str(row["point"])), ("", None, 0))
    if held and held.count * 2 >= growth:
        confidence = Confidence.CONFIRMED
        reasons.append(f"at {point} {held.count} packets of it are missing that are here")
        cited.append(packet)
    return Occurrence(
        subject=subject(row), group=group,
        summary=f"{row['destination']} {what} of the stream from {row['source']}, {here} at {row['point']}.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence([int(str(p)) for p in cited], {
            "rtcp.lost": growth, "rtcp.fraction_lost": float(str(row["share"])), "rtp.lost": int(str(row["lost"])),
            "rtp.ssrc": f"0x{row['ssrc']:08x}"}),
        scope={"host.ip": str(row["destination"]), "source.ip": str(row["source"]), "rtp.codec": str(row["codec"])},
        flows=(int(str(row["flow"])),), keys=keys(row),
        start_ns=int(str(row["begin"])), end_ns=int(str(row["end"])),
        alternatives=(Alternative("the reporter counts wrongly", "some count late or repeated packets as lost",
                                  "its counts go up from report to report, and its numbers are those of this stream"),))
