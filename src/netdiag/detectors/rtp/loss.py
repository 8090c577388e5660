"""RTP packets are lost on the way: 1 % or more, or in bursts that concealment cannot bridge.

Every RTP packet has a number one higher than the one before (RFC 3550 §5.1). Numbers that never come, neither late nor
twice, are lost packets. A stream is told when it lacks 1 % over its life or over 10 s, five packets at least, or when
runs of three or more missing packets come more than once a minute. The shape helps to find the place: single losses
at random speak of a full queue or a radio link, long runs of a link that fails or a route that changes, equal shares
on every stream of a class of a policer. Bursts are those of RFC 3611 §4.7.2 (Gmin 16), the burst ratio that of G.107.

Runs of three or more that nearly all streams of the point share, or both directions of a call, are told as that: a
pause of everything is a gap of the capture or a stop of the network, and no fault of one call.

**What lifts the suspicion.** The receiver's RTCP counts at least half of what is missing here, or a second capture
point has the very packets that are missing here, and nothing tells which of the two comes first (probable). A second
point nearer to the sender has them, by TTL or by the addresses of a relay: they were lost between the two (confirmed;
where all streams lack them at once, only if RTCP says so too).

**What looks alike and is not it.** The capture lost them: the receiver counts fewer than are missing, or a point
further on the way has them, so that they passed here (CAP-LOSS). Where both happen, only what is left is told.
Five seconds or more in which this point captured nothing at all: it stood still. Silence suppression, whose
timestamps jump while the numbers go on. A restart of the numbers after hold or transfer. Packets out of order or
twice. Redundant audio (RFC 2198) that lacks no two packets in a row: the next packet repeats what was lost. Forward
error correction and retransmission streams themselves.
"""

from __future__ import annotations

import polars as pl

from netdiag.detectors.rtp import _passed, _pauses
from netdiag.detectors.rtp._share import keys, subject
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
from netdiag.tables import Tables, rtp_crossing, rtp_loss, rtp_packets, rtp_pauses, rtp_reports
from netdiag.tables.rtp_crossing import Crossing
from netdiag.tables.rtp_pauses import Pause

PATTERN = Pattern(
    id="RTP-LOSS",
    title="RTP packets are lost",
    severity=Severity.MEDIUM,
    cases=("choppy-audio",),
    needs=("rtp", "rtcp", "crosspoint"),
    references=(Reference("RFC 3550 §6.4.1, A.1, A.3"), Reference("RFC 3611 §4.7.2"), Reference("RFC 2198"),
                Reference("ITU-T G.113 Appendix I")),
    filter="rtp || rtcp",
    mitigation="Give voice the expedited class on the congested link, or limit the calls that use it.",
    fix="Find the hop with a second capture and repair it: queue, policer, duplex, radio, or capacity.",
    prevention="Collect RTCP or RTCP XR of every call and alert on loss above 1 %.",
    next_capture="Capture the same call at a second place nearer to the sender: does the stream lack packets there?",
    explains=("RTP-MOS-LOW",),
    settings=(Setting("min_share", 1, "%", "practice: G.711 with concealment is audibly worse from 1 to 3 % on"),
              Setting("min_lost", 5, "packets", "practice: 1 % of 10 s of 20 ms packets"),
              Setting("max_bursts", 1, "runs of 3 packets a minute", "practice: longer than concealment bridges"),
              Setting("high_share", 5, "%", "practice: from there on the severity is high")),
)

NOT_MEDIA = ("rtx", "ulpfec", "flexfec", "parityfec", "telephone-event")
"""Streams of repair packets (RFC 4588, RFC 5109, RFC 8627), and of events, which are repeated (RFC 4733)."""
LOOKED_AT = 150_000
"""Packets of streams that lack less than the share in all, whose windows are looked at (practice: 50 ms)."""
NEXT = "The same calls at a second place, as pcapng with drop counters: are the packets missing there too?"
DETAILED = 50
"""Streams whose shape and frames are told (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Streams that lose more than the thresholds, by what the stream table says, then by windows of 10 s."""
    judged = tables.rtp.filter(~pl.col("codec").str.to_lowercase().is_in(NOT_MEDIA)
                               & (pl.col("expected") >= rtp_loss.ENOUGH))
    if not judged.height:
        if not tables.rtp.height:
            return not_applicable("no RTP stream in this capture")
        return clear(f"{number_of(tables.rtp.height, 'RTP streams')}, none of media with 50 packets or more")
    least = settings["min_lost"]
    lossy = judged.filter((pl.col("lost") >= least) & ~(
        (pl.col("codec").str.to_lowercase() == "red") & (pl.col("max_gap") < 2)))
    # Not lost by the network: what the receiver has, and what fell into a pause of the whole capture.
    crossing = rtp_crossing.compare(tables, lossy)
    passed = _passed.left(tables, lossy, crossing, settings)
    own = {stream for stream, rest in passed.items() if not rest}
    lossy = lossy.with_columns(lost=pl.col("stream").replace_strict(
        passed, default=pl.col("lost"), return_dtype=pl.Int64)).filter(pl.col("lost") > 0)
    dark = rtp_loss.unobserved(tables, rtp_packets.affordable(lossy.sort("max_gap", descending=True), LOOKED_AT))
    lossy = lossy.with_columns(lost=pl.col("lost") - pl.col("stream").replace_strict(
        dark, default=0, return_dtype=pl.Int64)).filter(pl.col("lost") >= least)
    lossy = lossy.with_columns(share=pl.col("lost") / pl.col("expected"))
    over = pl.col("share") * 100 >= settings["min_share"]
    whole = lossy.filter(over).sort("share", descending=True)
    rest = lossy.filter(~over).sort("max_gap", "share", descending=True)
    # The shape of those that the capture lost in part says nothing of the network.
    rest = rest.filter(~pl.col("stream").is_in(list(passed)))
    tested = rtp_packets.affordable(rest, LOOKED_AT)
    lossy = pl.concat([whole, _in_windows(tables, tested, settings)])
    if not lossy.height:
        aside = f", {len(own)} lack packets that passed here (CAP-LOSS)" if own else ""
        return clear(f"{number_of(judged.height, 'RTP streams')} of 50 packets or more: none loses more than the "
                     f"thresholds{aside}")
    left = rest.height - tested.height
    pauses = rtp_pauses.shared(tables, lossy)
    group = _pauses.groups(lossy, pauses)
    return found(_occurrences(tables, lossy, settings, left, group, pauses, crossing, set(passed)),
                 population="streams", examined=_pauses.examined(judged, set(group.values())))


def _in_windows(tables: Tables, streams: pl.DataFrame, settings: dict[str, float]) -> pl.DataFrame:
    """Those that lose enough in one window of 10 s, or have too many long runs."""
    shape = rtp_loss.shapes(tables, streams)
    both = streams.join(shape.select("stream", "worst_10s", "worst_10s_lost", "long_runs"), on="stream")
    window = (pl.col("worst_10s") * 100 >= settings["min_share"]) & (pl.col("worst_10s_lost") >= settings["min_lost"])
    minutes = (pl.col("last_ns") - pl.col("first_ns")) / 60e9
    often = (pl.col("long_runs") >= 2) & (pl.col("long_runs") > settings["max_bursts"] * minutes)
    return both.filter(window | often).select(streams.columns)


def _occurrences(tables: Tables, lossy: pl.DataFrame, settings: dict[str, float], left: int,
                 group: dict[int, tuple[str, ...]], pauses: dict[int, Pause],
                 crossing: dict[int, Crossing], passed: set[int]) -> list[Occurrence]:
    counted = {s: (n, p) for s, n, p in rtp_reports.counted(tables).iter_rows()} if tables.rtcp.height else {}
    shapes = {row["stream"]: row for row in rtp_loss.shapes(tables, lossy.head(DETAILED)).iter_rows(named=True)}
    note = f"{left} more streams lack less than 1 % in all; their single stretches were not looked at"
    return [_occurrence(tables, row, group[row["stream"]], shapes.get(row["stream"]), counted.get(row["stream"]),
                        crossing.get(row["stream"]), pauses.get(row["stream"]), settings, note if left else "",
                        row["stream"] in passed)
            for row in lossy.iter_rows(named=True)]


def _occurrence(tables: Tables, row: dict[str, object], group: tuple[str, ...], shape: dict[str, object] | None,
                counted: tuple[int, int] | None, cross: Crossing | None, pause: Pause | None,
                settings: dict[str, float], note: str, mixed: bool) -> Occurrence:
    lost, share = int(str(row["lost"])), float(str(row["share"])) * 100
    confidence, reasons, cited = Confidence.SUSPECTED, [f"{lost} of {row['expected']} sequence numbers never came"], []
    if mixed:
        reasons.append("more are missing here, which passed: see CAP-LOSS")
        cited = [row["first_packet"], row["last_packet"]]
    elif shape:
        reasons.append(f"{number_of(int(str(shape['runs'])), 'runs')} of missing numbers, the longest of "
                       f"{shape['longest']}; burst ratio {shape['burst_ratio']:.1f}; worst 10 s: "
                       f"{float(str(shape['worst_10s'])) * 100:.1f} %")
        cited = [row["first_packet"], shape["worst_packet"], row["last_packet"]]
    seconds = (int(str(row["last_ns"])) - int(str(row["first_ns"]))) / 1e9
    proof = False
    if counted and counted[0] * 2 >= lost:
        confidence, proof = Confidence.PROBABLE, True
        reasons.append(f"the receiver's RTCP counts {counted[0]} lost packets")
        cited.append(counted[1])
    has = _passed.elsewhere(cross, max(settings["min_lost"], lost / 2))
    if cross and has:
        what = f"{has.point} has {has.count} of the packets that {row['point']} lacks"
        shared = pause is not None and pause.kind == "all" and not proof
        if shared or has is cross.untold or tables.interface_drops.get(str(row["point"])):
            reasons.append(f"{what}: lost between the two, or by the capture at {row['point']}")
            confidence = confidence if shared else Confidence.PROBABLE
        else:
            confidence, proof = Confidence.CONFIRMED, True
            reasons.append(f"{what}: they are lost between the two")
        cited += has.packets
    untold = cross is not None and has is not None and has is cross.untold
    words = _pauses.words(pause, lost, proof) if pause else None
    if words:
        reasons.append(words.reason)
    facts: dict[str, str | int | float] = {"rtp.lost": lost, "rtp.expected": int(str(row["expected"])),
                                           "rtp.ssrc": f"0x{row['ssrc']:08x}"}
    if shape and not mixed:
        facts |= {"rtp.gilbert_p": round(float(str(shape["p"])), 4), "rtp.gilbert_q": round(float(str(shape["q"])), 4),
                  "rtp.bursts": int(str(shape["bursts"])), "rtp.burst_density": round(float(str(
                      shape["burst_density"])), 4), "rtp.gap_density": round(float(str(shape["gap_density"])), 4)}
    if row["dscp"] is not None:
        facts["network.dscp"] = int(str(row["dscp"]))
    return Occurrence(
        subject=subject(row), group=group,
        summary=f"{share:.1f} % of the packets from {row['source']} to {row['destination']} ({lost} in "
                f"{seconds:.0f} s) are missing at {row['point']}" + (f", {words.summary}." if words else "."),
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence([int(str(p)) for p in cited], facts) if shape else (),
        scope={"source.ip": str(row["source"]), "destination.ip": str(row["destination"]), "rtp.codec": str(
            row["codec"])}, flows=(int(str(row["flow"])),), keys=keys(row),
        absence=not proof, start_ns=int(str(row["first_ns"])), end_ns=int(str(row["last_ns"])),
        severity=Severity.HIGH if share >= settings["high_share"] else None, limitations=(note,) if note else (),
        title=words.title if words else "", mitigation=words.do_now if words else "",
        next_capture=NEXT if pause and not proof else "",
        alternatives=(Alternative(
            "the capture lost them, not the network",
            words.speaks_for if words else "nothing tells which point comes first" if untold and not proof else
            "one point cannot tell the two apart",
            "the receiver or another point says the same" if proof else words.speaks_against if words else
            "no receiver and no point further on says that it has them"),))
