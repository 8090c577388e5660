"""Clocks disagree: two capture points are apart or drift, or the clock of one capture was set while it ran.

Times inside one file are safe to compare; times of two files only as far as their clocks agree. Packets that both
points have tell how far: a packet arrives later than it was sent, so those of one direction bound the offset from
above and those of the other from below; only the way there and back together is free of it (RFC 2681). A line through
the fastest packets gives the drift, and what both directions gain alike is the clock, not a queue. Inside one file,
time that goes back while sequence numbers go on (RFC 9293 §3.4, RFC 3550 §5.1) is a clock that was set back. The NTP
times in RTCP sender reports (RFC 3550 §6.4.1) show a capture clock that runs fast or slow when two unrelated senders
lose or gain alike. Findings that compare times of points, or dates of certificates with the time of the capture, are
capped.

**What lifts the suspicion.** At least 50 packets at both points that scatter by less than 1 ms (probable); directions
that are told apart by their hops and agree (confirmed). For a step back: flows of which the numbers go on across it.
Where the shortest way there and back comes out below nothing, offset and drift do not describe the clocks (suspected).

**What looks alike and is not it.** Packets out of order in the file (several interfaces or queues, files joined in
the wrong order): their sequence numbers go back with the time. Points that have few packets in common and whose clocks
look alike, or none: nothing is compared by time then. A jump ahead alone: silence. One sender of reports
whose clock is off, or that sends 0 for want of one. A queue that grows delays one direction only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import polars as pl

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
from netdiag.tables import Tables
from netdiag.tables.clock_pairs import ClockPair
from netdiag.tables.clocks import BackStep, SenderClock

PATTERN = Pattern(
    id="CAP-CLOCK",
    title="Capture clocks disagree",
    severity=Severity.INFO,
    cases=(),
    needs=("packets", "clocks", "quality", "rtcp"),
    references=(Reference("RFC 3550 §6.4.1"), Reference("RFC 2681 §2"), Reference("RFC 9293 §3.4"),
                Reference("RFC 5905"), Reference("editcap(1), reordercap(1)")),
    filter="frame.time_delta < 0 || rtcp.pt == 200 || tcp.flags.syn == 1 || sip.Method == \"INVITE\" "
           "|| dns.flags.response == 0",
    mitigation="Shift one file before comparing: `editcap -t SECONDS in.pcap out.pcap` (seconds may be negative). "
               "Times inside one file, round trips above all, need no correction.",
    fix="Keep all capturing machines on one NTP or PTP source, in UTC; do not set a clock while a capture runs.",
    prevention="Check `chronyc tracking` (or `timedatectl timesync-status`) on each machine before the capture, and "
               "note its offset with the file.",
    next_capture="Both points again after `chronyc makestep` and `chronyc tracking` on each machine, with traffic in "
                 "both directions through both, such as `ping -c 100 -i 0.2 HOST` and one TCP transfer.",
    settings=(Setting("matches", 50, "packets", "practice: packets seen at both points before a fit means anything"),
              Setting("offset_ms", 100, "ms", "practice: NTP over the Internet stays well below"),
              Setting("step_ms", 20, "ms", "practice: one packet of audio"),
              Setting("drift_ppm", 200, "ppm", "practice: two crystals of 100 ppm each"),
              Setting("residual_ms", 1, "ms", "practice: scatter around the fit that is still sure"),
              Setting("senders", 2, "sources", "practice: unrelated senders that disagree with the capture alike")),
    caps=("clock",),
)

HOUR_NS = 3_600_000_000_000
HOURS = 26
"""Time zones are 12 hours behind to 14 hours ahead of UTC (tz database)."""
NEAR_HOUR_NS = 60_000_000_000
"""Distance from whole hours that a clock without NTP may have besides (practice)."""
DETAILED = 20
"""Steps of a point whose frames are cited (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Pairs of points, steps back and senders; one group for each pair, and two for each point."""
    if not tables.quality.height:
        return not_applicable("no packet is in this capture")
    clocks = tables.clocks
    apart = [o for pair in clocks.pairs if pair.matched >= settings["matches"] for o in _pair(tables, pair, settings)]
    steps = [(step, _graded(step)) for step in clocks.back_steps]
    back = [_step(tables, step, grade, n < DETAILED) for n, (step, grade) in enumerate(steps) if grade is not None]
    occurrences = [*apart, *back, *_senders(tables, settings)]
    if occurrences:
        return found(occurrences, population="clocks")
    notes = []
    if disorder := sum(grade is None for _, grade in steps):
        notes.append(f"packets are out of order in the file (places: {disorder}); `reordercap IN OUT` sorts them")
    alone = _alone(tables, clocks.pairs, settings)
    if any(alone.values()):
        return inconclusive("; ".join([*alone, *notes]), PATTERN.next_capture)
    notes += alone
    notes += [_agreement(pair) for pair in clocks.pairs if pair.matched >= settings["matches"]]
    if not disorder:
        notes.append("time never goes back by more than 1 ms")
    if clocks.senders:
        notes.append(f"senders of RTCP reports ({len(clocks.senders)}) do not lose or gain alike against the capture")
    return clear("; ".join(notes))


def _alone(tables: Tables, pairs: tuple[ClockPair, ...], settings: dict[str, float]) -> dict[str, bool]:
    """What is known of the points whose clock could be compared with that of no other, and whether it looks wrong.

    Where points have no packet in common, nothing is told from comparing their times.
    """
    matches = settings["matches"]
    compared = {name for pair in pairs if pair.matched >= matches for name in (pair.a, pair.b)}
    out: dict[str, bool] = {}
    for name, first, last in tables.quality.select("point", "first_ns", "last_ns").iter_rows() \
            if len(tables.points) > 1 else ():
        best = max((pair for pair in pairs if name in (pair.a, pair.b)), key=lambda pair: pair.matched, default=None)
        if name in compared:
            continue
        if best is None or not best.matched:
            others = tables.quality.filter(pl.col("point") != name)
            apart = others.filter((pl.col("first_ns") <= last) & (pl.col("last_ns") >= first)).is_empty()
            out[f"no packet of {name} was recognised at another point"
                + (", and by its clock it was captured at another time" if apart else "")] = apart
        else:
            out[f"{number_of(best.matched, 'packets')} recognised at {best.a} and {best.b}, {matches:.0f} needed to "
                f"compare their clocks (by these {best.low_ns / 1e6:+.1f} to {best.high_ns / 1e6:+.1f} ms apart)"] = (
                    max(best.low_ns, -best.high_ns) > settings["offset_ms"] * 1e6)
    return out


def _agreement(pair: ClockPair) -> str:
    way = f", shortest way there and back {pair.way_ns / 1e6:.3f} ms" if pair.way_ns is not None else ""
    return (f"the clocks of {pair.a} and {pair.b} agree: {pair.low_ns / 1e6:+.3f} to {pair.high_ns / 1e6:+.3f} ms "
            f"apart by {pair.matched} packets seen at both, drift {pair.drift_ppm:.0f} ppm{way}")


def _pair(tables: Tables, pair: ClockPair, settings: dict[str, float]) -> Iterator[Occurrence]:
    gained = round(pair.drift_ppm * 1e-6 * pair.span_ns)
    far = max(pair.low_ns, -pair.high_ns, pair.low_ns + gained, -pair.high_ns - gained, 0)
    drifts, bad = abs(pair.drift_ppm) > settings["drift_ppm"], _invalid(pair, settings)
    stepped = abs(pair.step_ns) >= settings["step_ms"] * 1e6
    if not (bad or stepped or drifts or far > settings["offset_ms"] * 1e6):
        return
    offset, hours = pair.offset_ns / 1e9, round(pair.offset_ns / HOUR_NS)
    zone = 0 < abs(hours) <= HOURS and abs(pair.offset_ns - hours * HOUR_NS) <= NEAR_HOUR_NS
    reasons = [f"{pair.matched} packets seen at both points, {pair.residual_ns / 1e6:.3f} ms median distance from "
               "the fit"]
    confidence = Confidence.SUSPECTED
    if bad:
        reasons.append(f"the shortest way there and back comes out at {(pair.way_ns or 0) / 1e6:.3f} ms: offset and "
                       "drift do not describe these clocks")
    elif pair.way_ns is not None:
        confidence = Confidence.CONFIRMED
        reasons.append(f"both directions agree, with {pair.way_ns / 1e6:.3f} ms for the shortest way there and back")
    elif pair.residual_ns < settings["residual_ms"] * 1e6:
        confidence = Confidence.PROBABLE
    side = "ahead of" if offset > 0 else "behind"
    told = (f"The clock of {pair.b} is {_apart(pair, offset)} s {side} that of {pair.a}"
            + (f", which is {abs(hours)} h: a time zone or daylight-saving mistake" if zone else "")
            + (f", and gains {pair.drift_ppm:+.0f} ppm on it" if pair.drift_ppm else "")
            + (f"; it changed by {pair.step_ns / 1e9:+.3f} s at once during the capture" if pair.step_ns else "") + ".")
    if bad:
        told = f"No constant offset and drift describe how the clocks of {pair.a} and {pair.b} differ."
    file = next(Path(c.path).name for c in tables.captures if c.point == pair.b)
    shift = f"editcap -t {-hours * 3600 if zone else -offset:.6f} {file} aligned-{file}"
    facts: dict[str, str | int | float] = {"clock.offset": offset, "clock.drift_ppm": round(pair.drift_ppm, 1)}
    for n, point in enumerate((pair.a, pair.b)):
        yield Occurrence(
            subject=f"{pair.a} – {pair.b}", group=(pair.a, pair.b), summary=told, confidence=confidence,
            reasons=tuple(reasons), evidence=tables.evidence(pair.rows, facts) if n == 0 else (),
            scope={"capture.point": point, **facts}, start_ns=int(tables.packets.ts[pair.rows[0]]),
            end_ns=int(tables.packets.ts[pair.rows[1]]), title=_title(zone, stepped, drifts, bad),
            limitations=("Asymmetric delay between the points cannot be told from an offset: it lies between "
                         f"{pair.low_ns / 1e9:+.6f} and {pair.high_ns / 1e9:+.6f} s.",),
            next_capture=f"To go on with these files: `{shift}`. " + PATTERN.next_capture)


def _apart(pair: ClockPair, offset: float) -> str:
    """Seconds: where nothing tells the way between the points, from what to what, for the middle is no better."""
    low, high = sorted((abs(pair.low_ns) / 1e9, abs(pair.high_ns) / 1e9))
    if pair.way_ns is None and pair.low_ns * pair.high_ns > 0 and high - low >= 0.001:
        return f"{low:.3f} to {high:.3f}"
    return f"{abs(offset):.3f}"


def _invalid(pair: ClockPair, settings: dict[str, float]) -> bool:
    return pair.way_ns is not None and pair.way_ns < -settings["residual_ms"] * 1e6


def _title(zone: bool, stepped: bool, drifts: bool, bad: bool) -> str:
    if bad:
        return "Capture clocks cannot be aligned"
    if zone:
        return "Capture clocks are whole hours apart"
    if stepped:
        return "A capture clock was set during the capture"
    return "Capture clocks drift apart" if drifts else "Capture clocks are apart"


def _graded(step: BackStep) -> Confidence | None:
    """None: the packets are out of order, the clock is not."""
    if step.onward > step.against:
        return Confidence.CONFIRMED if step.onward > 1 else Confidence.PROBABLE
    return Confidence.SUSPECTED if step.resumed and not step.onward + step.against else None


def _step(tables: Tables, step: BackStep, confidence: Confidence, detailed: bool) -> Occurrence:
    capture, frame = tables.packets.locate([step.row])
    size = step.size_ns / 1e9
    across = (f"sequence numbers go on across it (directions of flows: {step.onward}, pairs of hosts: {step.hosts})"
              if step.onward else "nothing that is numbered crosses it")
    file = Path(tables.captures[int(capture[0])].path).name
    return Occurrence(
        subject=f"{file} frame {int(frame[0])}", group=(step.point, "set back"),
        summary=f"At {step.point} time goes back by {size:.3f} s at frame {int(frame[0])}, and {across}.",
        confidence=confidence, reasons=(f"frame {int(frame[0])} is {size:.3f} s earlier than the one before", across),
        evidence=tables.evidence([step.row - 1, step.row], {"clock.step": -size}) if detailed else (),
        scope={"capture.point": step.point}, start_ns=int(tables.packets.ts[step.row]),
        end_ns=int(tables.packets.ts[step.row - 1]), title="The capture clock was set back during the capture",
        alternatives=(Alternative("files were joined, or several interfaces written, out of order",
                                  "time goes back there too; `reordercap` puts such a file in order", across),))


def _senders(tables: Tables, settings: dict[str, float]) -> Iterator[Occurrence]:
    """Points where most senders, and at least two, lose or gain alike."""
    by_point: dict[str, dict[str, SenderClock]] = defaultdict(dict)
    for sender in tables.clocks.senders:
        best = by_point[sender.point].get(sender.source)
        if best is None or sender.error_ppm < best.error_ppm:
            by_point[sender.point][sender.source] = sender
    for point, sources in by_point.items():
        limit = settings["drift_ppm"]
        sure = [s for s in sources.values() if s.error_ppm < limit or abs(s.gain_ppm) - s.error_ppm > limit]
        for sign, verb in ((1, "slow"), (-1, "fast")):
            alike = [s for s in sure if sign * s.gain_ppm - s.error_ppm > limit]
            if len(alike) < settings["senders"] or len(alike) * 2 <= len(sure):
                continue
            gains = sorted(s.gain_ppm for s in alike)
            text = (f"{len(alike)} of {len(sure)} senders of RTCP reports gain {gains[0]:+.0f} to {gains[-1]:+.0f} "
                    "ppm on it")
            yield Occurrence(
                subject=f"clock of {point}", group=(point, "rate"),
                summary=f"The clock of the capture at {point} runs {verb}: {text}.",
                confidence=Confidence.PROBABLE if len(alike) > settings["senders"] else Confidence.SUSPECTED,
                reasons=(text, "their hosts are unrelated by address"),
                evidence=tables.evidence([row for s in alike for row in s.rows],
                                         {"clock.drift_ppm": round(-gains[len(gains) // 2], 1)}),
                scope={"capture.point": point}, title=f"The capture clock runs {verb}",
                start_ns=min(int(tables.packets.ts[s.rows[0]]) for s in alike),
                end_ns=max(int(tables.packets.ts[s.rows[1]]) for s in alike),
                alternatives=(Alternative("these senders share a wrong clock", "they differ from the capture alike",
                                          f"they are {len(alike)} hosts by address"),))
