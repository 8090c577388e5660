"""RTP packets arrive so unevenly that a play-out buffer of usual size cannot smooth them.

A receiver plays packets a fixed time after they should have come; what comes later than that is as good as lost. A
stretch of five seconds is bad when the interarrival jitter (RFC 3550 §6.4.1) is above 30 ms on average, or when one
packet in a hundred, three at least, comes more than 60 ms behind the fastest of its talk spurt and later ones are in
time again. Packets in bunches with pauses between them come from a sender, or a radio link, that sends several at
once; smooth rises and falls come from a queue.

**What lifts the suspicion.** The receiver's RTCP reports a jitter of the same size (probable). A second capture point
where the same packets come evenly: the delay varies between the two (confirmed). That other streams are even at the
same point at the same time is said too: the time stamps of the capture are good. Where none of three others or more is
even, all are one finding: they share a queue, or the capturing host stamps packets late.

**What looks alike and is not it.** Begin of a talk spurt, whose time stamps some senders do not carry on (marker).
Media whose time stamps are not at the sampling clock: video frames of many packets, or another clock rate than the
one assumed (G.722 is 8000 Hz in RTP, RFC 3551 §4.5.2). Clock drift, a few ms in a stretch. Events (RFC 4733), which
all bear the time stamp of their begin. A new route: delay changes once and stays. Loss alone.
"""

from __future__ import annotations

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
from netdiag.tables import Tables, rtp_packets, rtp_reports, rtp_windows

PATTERN = Pattern(
    id="RTP-JITTER",
    title="RTP arrives too unevenly for a play-out buffer",
    severity=Severity.MEDIUM,
    cases=("choppy-audio",),
    needs=("rtp", "rtcp"),
    references=(Reference("RFC 3550 §6.4.1, A.8"), Reference("RFC 3611 §4.7"), Reference("ITU-T G.1020")),
    filter="rtp || rtcp",
    mitigation="Let the receiver use an adaptive play-out buffer, or a larger one, at the price of delay.",
    fix="Put voice into a priority queue on the link that fills, or keep the sender from being starved of CPU.",
    prevention="Watch the jitter that RTCP reports, by site; keep bulk transfers out of the queue that voice uses.",
    next_capture="Capture the same call next to the sender: does the stream leave it evenly?",
    explains=("RTP-MOS-LOW",),
    settings=(Setting("max_jitter", 30, "ms", "practice: half of a usual fixed buffer of 60 ms"),
              Setting("buffer", 60, "ms", "practice: fixed buffers hold 40 to 60 ms"),
              Setting("min_late", 1, "% of the packets", "practice: later than the buffer is lost for the listener"),
              Setting("window", 5, "s", "practice: shorter trouble passes unnoticed")),
)

GAIN = 16
"""One packet that is late by d lifts the jitter by d/16 (RFC 3550 §6.4.1)."""
LOOKED_AT = 100_000
"""Packets of streams that are looked at, those with the highest jitter first (practice: a fifth of a second)."""
TIMED = 25
"""Packets in a window before a share of them means anything (practice: 200 ms a packet)."""
LATE = 3
"""Late packets in a window, at least (practice: one or two are chance)."""
BUNCHED = 0.3
"""Packets that come right behind another one before the stream is called bunched (practice)."""
EVEN_MS = 10
"""Streams with less jitter show that the time stamps of the capture are good (practice)."""
SEVERAL = 3
"""So many other streams, none of them even, speak of what all of them share: one call has two (practice)."""
NEARLY = 0.9
"""Share of those that were looked at (practice: some begin or end in it)."""
TITLE = "RTP of all streams arrives unevenly: the capturing host, or what they share"
DO_NOW = "Compare with a capture of another host before you blame the network: does it show the same packets as uneven?"


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Streams with windows of high jitter, or of packets later than the play-out buffer."""
    streams = tables.rtp.filter(pl.col("packets") >= TIMED)
    if not streams.height:
        if not tables.rtp.height:
            return not_applicable("no RTP stream in this capture")
        return clear(f"{number_of(tables.rtp.height, 'RTP streams')}, none with {TIMED} packets or more")
    uneven = pl.col("jitter_max_ms") >= min(settings["max_jitter"], settings["buffer"] / GAIN)
    suspects = streams.filter(uneven).sort("jitter_max_ms", descending=True)
    tested = rtp_packets.affordable(suspects, LOOKED_AT)
    stretches = rtp_windows.windows(tables, tested, settings["window"], settings["buffer"])
    late = ((pl.col("late") * 100 >= settings["min_late"] * pl.col("timed")) & (pl.col("late") >= LATE)
            & (pl.col("returns") > 0))
    bad = stretches.filter(pl.col("steady") & (pl.col("timed") >= TIMED)
                           & ((pl.col("jitter_ms") > settings["max_jitter"]) | late))
    if not bad.height:
        rest = suspects.height - tested.height
        return clear(f"{number_of(streams.height, 'RTP streams')}: none has {settings['window']:g} s of high jitter"
                     + (f"; {rest} of the more even ones were not looked at packet by packet" if rest else ""))
    worst = bad.sort("late", "jitter_ms", descending=True).group_by("stream", maintain_order=True).agg(
        pl.col("begin_ns", "end_ns", "jitter_ms", "p95_ms", "p99_ms", "late", "timed", "bunched", "latest").first(),
        bad=pl.len(), from_ns=pl.col("begin_ns").min(), to_ns=pl.col("end_ns").max())
    troubled = tested.join(worst, on="stream", how="inner", maintain_order="left")
    seen = stretches.group_by("stream").agg(total=pl.len())
    troubled = troubled.join(seen, on="stream", how="left", maintain_order="left")
    reports = rtp_reports.about(tables)
    looked = streams.with_columns(troubled=pl.when(pl.col("stream").is_in(tested["stream"].implode())).then(
        pl.col("stream").is_in(troubled["stream"].implode())))
    around = {row["stream"]: _around(looked, row) for row in troubled.iter_rows(named=True)}
    alone = [stream for stream, (_, uneven) in around.items() if uneven < SEVERAL]
    group = groups(troubled.filter(pl.col("stream").is_in(alone)))
    occurrences = [_occurrence(tables, row, group.get(row["stream"], ("all at", str(row["point"]))),
                               around[row["stream"]], reports, settings) for row in troubled.iter_rows(named=True)]
    points = {o.group for o in occurrences if o.group[0] == "all at"}
    return found(occurrences, population="streams", examined=examined(streams, set(group.values())) | {
        name: streams.filter(pl.col("point") == name[1]).height for name in points})


def _around(streams: pl.DataFrame, row: dict[str, object]) -> tuple[int, int]:
    """Streams at its point that are even all through the worst stretch of a stream; and how many others run while it
    is uneven, where none of them is even and nearly all that were looked at are bad too, else 0.
    """
    mine = streams.filter((pl.col("point") == row["point"]) & (pl.col("stream") != row["stream"]))
    even = pl.col("jitter_max_ms") < EVEN_MS
    steady = mine.filter(even & (pl.col("first_ns") <= pl.lit(row["begin_ns"])) & (
        pl.col("last_ns") >= pl.lit(row["end_ns"]))).height
    near = mine.filter((pl.col("first_ns") <= pl.lit(row["to_ns"])) & (pl.col("last_ns") >= pl.lit(row["from_ns"])))
    alike = near.filter(pl.col("troubled")).height >= NEARLY * near["troubled"].count()
    return steady, near.height if alike and not near.select(even.any()).item() else 0


def _occurrence(tables: Tables, row: dict[str, object], group: tuple[str, ...], around: tuple[int, int],
                reports: pl.DataFrame, settings: dict[str, float]) -> Occurrence:
    jitter, begin, end = float(str(row["jitter_ms"])), int(str(row["begin_ns"])), int(str(row["end_ns"]))
    # The last stretch of a stream, or its only one, ends with it.
    seconds = min((end - begin) / 1e9, settings["window"])
    reasons = [f"bad stretches of up to {settings['window']:g} s: {row['bad']} of {row['total']}; in the worst the "
               f"jitter is {jitter:.0f} ms, the 95th and 99th percentile of the delay variation "
               f"{float(str(row['p95_ms'])):.0f} and {float(str(row['p99_ms'])):.0f} ms"]
    confidence, (steady, others), everyone = Confidence.SUSPECTED, around, group[0] == "all at"
    cited = [row["first_packet"], row["latest"], row["last_packet"]]
    told = reports.filter((pl.col("stream") == row["stream"]) & pl.col("jitter").is_not_null()).sort(
        "jitter", descending=True).head(1)
    for units, packet in told.select("jitter", "packet").iter_rows():
        reported = units * 1000 / int(str(row["clock_rate"]))
        if reported * 2 >= jitter:
            confidence = Confidence.PROBABLE
            reasons.append(f"the receiver's RTCP reports {reported:.0f} ms")
            cited.append(packet)
    other = tables.rtp.filter((pl.col("ssrc") == row["ssrc"]) & (pl.col("point") != row["point"])
                              & (pl.col("payload_type") == row["payload_type"])
                              # a relay's first packets, before it learns where to send, are another stream of that SSRC
                              & (pl.col("packets") * 2 >= int(str(row["packets"])))
                              & (pl.col("jitter_max_ms") * 2 < jitter)).head(1)
    told_there = other.select("point", "jitter_max_ms", "first_packet", "last_packet")
    for point, highest, first, last in told_there.iter_rows():
        evenly = f"at {point} the same packets come evenly (jitter {highest:.0f} ms at most)"
        if everyone and confidence is Confidence.SUSPECTED:
            reasons.append(f"{evenly}: the delay varies between the two, or the host that captured here was late")
        else:
            confidence = Confidence.CONFIRMED
            reasons.append(f"{evenly}: the delay varies between the two")
        cited += [first, last]
    if steady:
        are = "is" if steady == 1 else "are"
        reasons.append(f"{number_of(steady, 'other streams')} {are} even at the same point and time")
    elif everyone:
        reasons.append(f"none of the {others} other streams under way is even: what they share delays them, or the "
                       "capturing host stamps packets late")
    bunched = float(str(row["bunched"]))
    return Occurrence(
        subject=subject(row), group=group,
        summary=f"RTP from {row['source']} to {row['destination']} arrives unevenly: {row['late']} of {row['timed']} "
                f"packets in {seconds:.1f} s are more than {settings['buffer']:g} ms late, jitter "
                f"{jitter:.0f} ms" + (f"; {bunched:.0%} come in bunches." if bunched >= BUNCHED else "."),
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence([int(str(p)) for p in cited], {
            "rtp.jitter_ms": round(jitter, 1), "rtp.late": int(str(row["late"])), "rtp.ssrc": f"0x{row['ssrc']:08x}",
            "rtp.bunched": round(bunched, 2)}),
        scope={"source.ip": str(row["source"]), "destination.ip": str(row["destination"]), "rtp.codec": str(
            row["codec"])}, flows=(int(str(row["flow"])),), keys=keys(row),
        title=TITLE if everyone else "", mitigation=DO_NOW if everyone else "",
        start_ns=int(str(row["from_ns"])), end_ns=int(str(row["to_ns"])),
        alternatives=(
            Alternative("the sender sends in bunches", f"{bunched:.0%} of the packets come right behind another one",
                        "a queue on the way delivers bunches too"),
            Alternative("the capturing host stamped the packets late", f"none of {others} other streams is even"
                        if everyone else "a busy or virtual host does that",
                        "other streams are even at that time" if steady else "a queue that all of them share does the "
                        "same" if everyone else "")))
