"""The estimated speech quality of a stream is below what users accept, and one cause outweighs the others.

For each 10 s of a stream the E-model (ITU-T G.107) gives a rating R from delay, loss and codec: R = 93.2 less the
impairment by delay (Id), less that by codec and loss (Ie,eff). Loss is what the network lost and what came later than
a play-out buffer of 60 ms; its burst ratio counts. R below 70 is what G.109 calls "many users dissatisfied" (MOS below
3.6); a fifth of all stretches, or more, are told, with the largest term.

It is an estimate, never a measurement, and only comparable with others under the same assumptions. Delay is half of
the RTCP round trip where it is known, plus packet length, look-ahead of the codec and the buffer; where RTCP is not
there, 50 ms of network delay are assumed, and the finding says so. G.711 is taken with concealment (Bpl 25.1).

**What lifts the suspicion.** Delay measured by RTCP, or loss that the receiver's RTCP counts as well, or the receiver's
own VoIP metrics (RFC 3611 §4.7) with an R below the limit (probable). It is never more than that. Such metrics are told
for any codec, and where the packets that pass here are good as well: the quality is lost behind this point.

**What looks alike and is not it.** Wide-band codecs (G.722, Opus, AMR-WB): the narrow-band model does not know them
(G.107.1 does). Pauses of silence suppression and hold, which have nothing to rate. Loss that the capture made.
"""

from __future__ import annotations

from typing import Any

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
    not_applicable,
    number_of,
)
from netdiag.tables import Tables, rtp_crossing, rtp_gaps, rtp_loss, rtp_packets, rtp_quality, rtp_reports
from netdiag.tables.rtp_quality import CAUSES

PATTERN = Pattern(
    id="RTP-MOS-LOW",
    title="Estimated speech quality is low",
    severity=Severity.MEDIUM,
    cases=("choppy-audio",),
    needs=("rtp", "rtcp"),
    references=(Reference("ITU-T G.107"), Reference("ITU-T G.109"), Reference("ITU-T G.113 Appendix I"),
                Reference("ITU-T G.114"), Reference("RFC 3550 §6.4.1")),
    filter="rtp || rtcp",
    mitigation="Take the term that is named: less loss, less delay, a play-out buffer that fits, another codec.",
    fix="Repair the cause: see RTP-LOSS and RTP-JITTER, shorten the path of the media, avoid transcoding.",
    prevention="Collect RTCP XR (RFC 3611) or RTCP of every call and watch the rating by site.",
    next_capture="RTCP of both sides, and a second capture at the other end: delay and late packets are known then.",
    settings=(Setting("min_r", 70, "R", "ITU-T G.109: below it many users are dissatisfied"),
              Setting("min_share", 20, "% of the stretches", "practice"),
              Setting("buffer", 60, "ms", "practice: a fixed play-out buffer of usual size"),
              Setting("assumed_delay", 50, "ms", "practice: network delay one way where RTCP does not tell it")),
)

LOOKED_AT = 60_000
"""Packets of streams that are looked at, the worst first (practice: a tenth of a second)."""
LEAST = 5
"""Packets that the capture lost, not the network, before a stream is not rated (practice: as in CAP-LOSS)."""
WINDOW = 10.0
"""Length of a stretch in s (practice)."""
TERMS = {"delay": "delay", "loss": "loss on the way", "late": "packets too late for the buffer", "codec": "the codec"}


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Streams rated below ``min_r`` in ``min_share`` of their stretches."""
    if not tables.rtp.height:
        return not_applicable("no RTP stream in this capture")
    rated = rtp_quality.ratable(tables.rtp)
    metrics = {m["stream"]: m for m in rtp_reports.metrics(tables).iter_rows(named=True)}
    below = [stream for stream, m in metrics.items()
             if m["r_factor"] is not None and m["r_factor"] < settings["min_r"]]
    if not rated.height and not below:
        return clear(f"{number_of(tables.rtp.height, 'RTP streams')}: none has a narrow-band codec that the E-model "
                     "rates, and 50 packets")
    lines = _estimated(tables, rated, settings) if rated.height else rated
    told = tables.rtp.filter(pl.col("stream").is_in(below) & ~pl.col("stream").is_in(lines["stream"].implode()))
    if not lines.height and not told.height:
        return clear(f"{number_of(rated.height, 'RTP streams')} rated: none is below R {settings['min_r']:g} in "
                     f"{settings['min_share']:g} % of its stretches")
    ends = ["stream", "source", "destination"]
    group = groups(pl.concat([lines.select(ends), told.select(ends)]))
    counted = {s: (n, p) for s, n, p in rtp_reports.counted(tables).iter_rows()}
    occurrences = [_occurrence(tables, row, group[row["stream"]], counted.get(row["stream"]),
                               metrics.get(row["stream"]), settings) for row in lines.iter_rows(named=True)]
    occurrences += [_told(tables, row, group[row["stream"]], metrics[row["stream"]], settings)
                    for row in told.iter_rows(named=True)]
    judged = pl.concat([rated.select(ends), told.select(ends)]).unique("stream")
    return found(occurrences, population="streams", examined=examined(judged, set(group.values())))


def _estimated(tables: Tables, rated: pl.DataFrame, settings: dict[str, float]) -> pl.DataFrame:
    """Streams that the E-model rates below the limit, with what it says of them."""
    delays = rtp_quality.delays(tables, rated, settings["buffer"], settings["assumed_delay"])
    worst = rtp_quality.suspects(rated, delays, settings["min_r"], settings["min_share"] / 100, settings["buffer"])
    own = {d.stream.stream for d in rtp_gaps.disputed(tables, LEAST)} if worst.height else set()
    own |= set(rtp_crossing.passed_here(tables, worst, LEAST))
    tested = rtp_packets.affordable(worst.filter(~pl.col("stream").is_in(list(own))), LOOKED_AT)
    tested = tested.filter(~pl.col("stream").is_in(list(rtp_loss.unobserved(tables, tested))))
    ratings = rtp_quality.ratings(tables, tested, delays, WINDOW, settings["buffer"])
    low = pl.col("r") < settings["min_r"]
    told = ratings.group_by("stream", maintain_order=True).agg(
        stretches=pl.len(), low=low.sum(), worst=pl.col("mos").min(), mean=pl.col("mos").mean(),
        r=pl.col("r").min(), **{f"by_{name}": pl.col(f"by_{name}").filter(low).mean() for name in CAUSES},
        latest=pl.col("latest").sort_by("r").first())
    told = told.filter((pl.col("low") > 0) & (pl.col("low") * 100 >= settings["min_share"] * pl.col("stretches")))
    return tested.join(told, on="stream", how="inner", maintain_order="left").join(
        delays, on="stream", how="left", maintain_order="left")


def _told(tables: Tables, row: dict[str, object], group: tuple[str, ...], metric: dict[str, Any],
          settings: dict[str, float]) -> Occurrence:
    """What the receiver alone can tell: it is worse off than the packets that pass here."""
    words = rtp_reports.in_words(metric)
    return Occurrence(
        subject=subject(row), group=group,
        summary=f"{row['destination']} rates the audio from {row['source']} ({row['codec']}) low itself: {words}.",
        confidence=Confidence.PROBABLE,
        reasons=(f"the receiver's own VoIP metrics (RFC 3611 §4.7) say: {words}; the limit is R {settings['min_r']:g}",
                 "the packets that pass here give no such rating: what costs quality lies behind this point"),
        evidence=tables.evidence([int(str(row["first_packet"])), int(str(row["last_packet"])), metric["packet"]], {
            "rtp.r": metric["r_factor"], "rtp.ssrc": f"0x{row['ssrc']:08x}"}),
        scope={"source.ip": str(row["source"]), "destination.ip": str(row["destination"]), "rtp.codec": str(
            row["codec"])},
        flows=(int(str(row["flow"])),), keys=keys(row), start_ns=int(str(row["first_ns"])),
        end_ns=int(str(row["last_ns"])), title="The receiver itself rates the speech quality low",
        alternatives=(Alternative("the receiver rates another leg", "a B2BUA may pass metrics on",
                                  "they come from where the stream goes to, and name its SSRC"),))


def _occurrence(tables: Tables, row: dict[str, object], group: tuple[str, ...], counted: tuple[int, int] | None,
                metric: dict[str, Any] | None, settings: dict[str, float]) -> Occurrence:
    terms = {name: float(str(row[f"by_{name}"])) for name in CAUSES}
    cause = max(CAUSES, key=lambda name: terms[name])
    lost, measured = int(str(row["lost"])), row["round_trip_ms"] is not None
    budget = ", ".join(f"{TERMS[name]} {terms[name]:.1f}" for name in CAUSES)
    reasons = [f"stretches of 10 s below R {settings['min_r']:g}: {row['low']} of {row['stretches']}; taken off R: "
               f"{budget}"]
    confidence, cited = Confidence.SUSPECTED, [row["first_packet"], row["last_packet"]]
    limits = [f"an estimate with a play-out buffer of {settings['buffer']:g} ms"]
    if measured:
        reasons.append(f"RTCP tells a round trip of {float(str(row['round_trip_ms'])):.0f} ms{row['part']}")
        cited += [row["report"], row["sender_report"]]
    else:
        limits.append(f"no RTCP round trip: {settings['assumed_delay']:g} ms of network delay assumed")
    agrees = counted is not None and lost > 0 and counted[0] * 2 >= lost
    if counted and agrees:
        reasons.append(f"the receiver's RTCP counts {counted[0]} lost packets")
        cited.append(counted[1])
    if cause == "late":
        cited.append(row["latest"])
    if (cause == "delay" and measured) or (cause == "loss" and agrees):
        confidence = Confidence.PROBABLE
    if metric:
        reasons.append(f"the receiver's own VoIP metrics (RFC 3611 §4.7) say: {rtp_reports.in_words(metric)}")
        cited.append(metric["packet"])
        if metric["r_factor"] is not None and metric["r_factor"] < settings["min_r"]:
            confidence, agrees = Confidence.PROBABLE, True
    worst, mean = (f"{float(str(row[name])):.1f}" for name in ("worst", "mean"))
    mos = worst if worst == mean else f"{worst} at worst, {mean} on average"
    return Occurrence(
        subject=subject(row), group=group,
        summary=f"Audio from {row['source']} to {row['destination']} ({row['codec']}) has an estimated MOS of {mos}, "
                f"most of all by {TERMS[cause]}.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence([int(str(p)) for p in cited], {
            "rtp.mos": round(float(str(row["worst"])), 2), "rtp.r": round(float(str(row["r"])), 1),
            "rtp.delay_ms": round(float(str(row["delay_ms"]))), "rtp.cause": cause,
            "rtp.ssrc": f"0x{row['ssrc']:08x}"}),
        scope={"source.ip": str(row["source"]), "destination.ip": str(row["destination"]), "rtp.codec": str(
            row["codec"]), "rtp.cause": cause},
        flows=(int(str(row["flow"])),), keys=keys(row),
        absence=cause == "loss" and not agrees, limitations=tuple(limits),
        start_ns=int(str(row["first_ns"])), end_ns=int(str(row["last_ns"])),
        title=f"Estimated speech quality is low: {TERMS[cause]}",
        alternatives=(Alternative("the receiver copes better than the model", "adaptive buffers and good concealment "
                                  "hide some of it", f"{TERMS[cause]} alone takes {terms[cause]:.0f} off R"),))
