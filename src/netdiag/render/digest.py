"""What every renderer of a report needs to know first: order, grouping, and what is said only once."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from netdiag.model import CaptureSummary, Evidence, Finding, Incident, Outcome, Report, Severity, Status
from netdiag.render import words

GATE = "CAP-"
"""Prefix of the patterns about the capture itself: they qualify findings and are shown apart."""
FILTERS_SHOWN = 2
SUBJECTS_SHOWN = 3
REASONS_SHOWN = 5
BLOCKS_SHOWN = 20
"""Blocks of one pattern that people are shown without --verbose: more are one thing seen often (practice)."""
SUBJECT = 120
"""Characters of a Call-ID or another name from the wire (practice: two lines)."""
ACRONYMS = frozenset({"sip", "rtp", "rtcp", "tcp", "udp", "tls", "dns", "icmp", "stun", "quic", "dtls", "ip"})


LISTINGS = {"calls": "calls", "registrations": "registrations", "tls_handshakes": "handshakes",
            "tcp_connections": "connections", "dns_lookups": "lookups"}
"""What can fail, and the listing that tells how each ended."""
FAILURES = 3
"""Outcomes of one kind that are named (practice)."""


class Block(NamedTuple):
    """One thing that is wrong: an incident with its mechanism, or a finding that stands alone."""

    incident: Incident | None
    finding: Finding
    impacts: tuple[Finding, ...]


class Place(NamedTuple):
    """All evidence of a finding in one file."""

    point: str
    path: str
    frames: tuple[int, ...]
    filters: tuple[str, ...]


class Question(NamedTuple):
    """Patterns that stayed open for the same reason."""

    patterns: tuple[str, ...]
    reason: str
    next_capture: str


@dataclass(frozen=True, slots=True)
class Oddity:
    """Anomalies of one kind in all files."""

    table: str
    reason: str
    count: int
    path: str
    first_frame: int


class Digest(NamedTuple):
    blocks: tuple[Block, ...]
    gates: tuple[Finding, ...]
    questions: tuple[Question, ...]
    errors: tuple[Outcome, ...]
    clear: tuple[Outcome, ...]
    not_applicable: tuple[Outcome, ...]
    oddities: tuple[Oddity, ...]


def is_gate(finding: Finding) -> bool:
    return finding.pattern.startswith(GATE)


def rank(finding: Finding) -> tuple[int, int, int, str, str]:
    """Sort key: worst, surest and most widespread first; then by name, so that two runs agree."""
    return (-finding.severity, -finding.confidence, -finding.affected_total, finding.pattern, finding.id)


def digest(report: Report) -> Digest:
    by_status: dict[Status, list[Outcome]] = {status: [] for status in Status}
    for outcome in sorted(report.outcomes, key=lambda o: o.pattern):
        by_status[outcome.status].append(outcome)
    return Digest(
        blocks=tuple(_blocks(report)),
        gates=tuple(sorted((f for f in report.findings if is_gate(f)), key=rank)),
        questions=tuple(_questions(by_status[Status.INCONCLUSIVE])),
        errors=tuple(by_status[Status.ERROR]),
        clear=tuple(by_status[Status.CLEAR]),
        not_applicable=tuple(by_status[Status.NOT_APPLICABLE]),
        oddities=tuple(_oddities(report)),
    )


def _blocks(report: Report) -> Iterable[Block]:
    by_id = {f.id: f for f in report.findings}
    told: set[str] = set()
    for incident in report.incidents:
        mechanism = by_id.get(incident.mechanism)
        if mechanism is None or is_gate(mechanism) or mechanism.id in told:
            continue
        impacts = [by_id[i] for i in incident.impacts if i in by_id and i != mechanism.id and i not in told]
        told.update([mechanism.id, *(f.id for f in impacts)])
        yield Block(incident, mechanism, tuple(sorted(impacts, key=rank)))
    for finding in sorted(report.findings, key=rank):
        if finding.id not in told and not is_gate(finding):
            yield Block(None, finding, ())


def numbered(blocks: Iterable[Block], verbose: bool) -> tuple[list[tuple[int, Block]], list[str]]:
    """The blocks to show with their numbers, and a line for each pattern of which more were found than are shown."""
    shown, count, left = [], Counter[str](), Counter[str]()
    for number, item in enumerate(blocks, 1):
        count[item.finding.pattern] += 1
        if verbose or count[item.finding.pattern] <= BLOCKS_SHOWN:
            shown.append((number, item))
        else:
            left[item.finding.pattern] += 1
    return shown, [f"and {words.count(n, 'more finding')} of {pattern} (-v or --format json lists them)"
                   for pattern, n in left.items()]


def _questions(outcomes: list[Outcome]) -> list[Question]:
    grouped: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        grouped.setdefault((outcome.reason, outcome.next_capture), []).append(outcome.pattern)
    return [Question(tuple(ids), reason, capture) for (reason, capture), ids in grouped.items()]


def by_reason(outcomes: Iterable[Outcome]) -> list[tuple[str, list[str]]]:
    """Reasons with the patterns that share them."""
    grouped: dict[str, list[str]] = {}
    for outcome in outcomes:
        grouped.setdefault(outcome.reason, []).append(outcome.pattern)
    return list(grouped.items())


def _oddities(report: Report) -> list[Oddity]:
    grouped: dict[tuple[str, str], Oddity] = {}
    for a in report.anomalies:
        old = grouped.get((a.table, a.reason))
        grouped[a.table, a.reason] = (dataclasses.replace(old, count=old.count + a.count) if old
                                      else Oddity(a.table, a.reason, a.count, a.path, a.first_frame))
    return sorted(grouped.values(), key=lambda o: (-o.count, o.table, o.reason))


def above(report: Report, least: Severity) -> tuple[Report, int]:
    """The report without findings below ``least``, and how many those were.

    An impact stays with the incident it belongs to. Outcomes stay: nothing is turned into "clear" by looking away.
    """
    incidents = tuple(i for i in report.incidents if i.severity >= least)
    kept = {f for i in incidents for f in (i.mechanism, *i.impacts)}
    findings = tuple(f for f in report.findings if f.severity >= least or f.id in kept)
    hidden = sum(1 for f in report.findings if f.severity < least and f.id not in kept and not is_gate(f))
    return dataclasses.replace(report, incidents=incidents, findings=findings), hidden


def places(evidence: Iterable[Evidence]) -> list[Place]:
    """Evidence by file: the frames joined, each filter once, in order of appearance."""
    frames: dict[tuple[str, str], list[int]] = {}
    filters: dict[tuple[str, str], list[str]] = {}
    for e in evidence:
        key = (e.point, e.path)
        frames.setdefault(key, []).extend(e.frames)
        known = filters.setdefault(key, [])
        if e.filter and e.filter not in known:
            known.append(e.filter)
    return [Place(point, path, tuple(sorted(set(frames[point, path]))), tuple(filters[point, path]))
            for point, path in frames]


def filters(found: Iterable[Place], names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each display filter once, with the points it is for ("" where it serves them all); a file where points are
    the same.
    """
    listed = list(found)
    single = len({p.point for p in listed}) < 2
    by_filter: dict[str, list[str]] = {}
    for p in listed:
        for text in p.filters:
            by_filter.setdefault(text, []).append(names.get(p.path, p.path) if single else p.point)
    return [("" if len(where) == len(listed) else ", ".join(once(where)), text) for text, where in by_filter.items()]


def skipped(capture: CaptureSummary) -> str:
    """"ARP: 20, LLDP: 4 and 16 more kinds, 20 frames": the most frequent reasons first."""
    ordered = sorted(capture.skipped.items(), key=lambda item: (-item[1], item[0]))
    rest = ordered[REASONS_SHOWN:]
    text = ", ".join(f"{reason}: {n:,}" for reason, n in ordered[:REASONS_SHOWN])
    if rest:
        text += f" and {words.count(len(rest), 'more kind')}, {words.count(sum(n for _, n in rest), 'frame')}"
    return text


def once(texts: Iterable[str]) -> list[str]:
    """Each text once, empty ones dropped."""
    return list(dict.fromkeys(t for t in texts if t))


def names(report: Report) -> dict[str, str]:
    """Path to the shortest name that is not ambiguous: the file name, or the whole path where two are alike."""
    bases = [os.path.basename(c.path) for c in report.captures]
    return {c.path: b if b and bases.count(b) == 1 else c.path for c, b in zip(report.captures, bases, strict=True)}


def extent(finding: Finding) -> str:
    """"3 of 12 calls: a@x, b@x and 1 more"."""
    if finding.affected_total <= 0:
        return ""
    text = words.of(finding.affected_total, finding.examined_total, finding.population)
    shown = finding.affected[:SUBJECTS_SHOWN]
    rest = finding.affected_total - len(shown)
    if not shown:
        return text
    return f"{text}: {', '.join(words.short(s, SUBJECT) for s in shown)}" + (f" and {rest:,} more" if rest > 0 else "")


def opinion(finding: Finding) -> str:
    """"tshark 4.0.17 shows 6 of 8 cited frames with the pattern's filter (udp, sip)", or "" where nobody was asked."""
    o = finding.second_opinion
    if o is None:
        return ""
    protocols = f" (it sees {', '.join(o.protocols)})" if o.protocols else ""
    return (f"{o.tool} {o.version} shows {o.frames_shown:,} of {words.count(o.frames_cited, 'cited frame')} "
            f"with the pattern's filter{protocols}")


def when(finding: Finding) -> str:
    """The time the finding covers, or "" where it has none."""
    return words.span(finding.start_ns, finding.end_ns) if finding.start_ns and finding.end_ns else ""


def _counted(name: str, n: int) -> str:
    noun = " ".join(w.upper() if w.lower() in ACRONYMS else w for w in name.split("_"))
    return words.count(n, noun[:-1] if noun.endswith("s") and not noun.endswith("ss") else noun, noun)


def contents(report: Report) -> str:
    """"46 SIP messages · 12 calls (at 2 points)": what the inventory counted, zeros left out."""
    parts = [_counted(name, n) for name, n in report.inventory.items() if n]
    points = len({c.point for c in report.captures})
    return " · ".join(parts) + (f" (at {points} points)" if parts and points > 1 else "")


def failures(report: Report) -> str:
    """"2 calls (486, 503) · 14 TCP connections (refused ×12, no answer ×2)": what did not succeed, "" for nothing."""
    parts = []
    for name, outcomes in report.failures.items():
        named = [what if n == 1 else f"{what} ×{n:,}" for what, n in outcomes.items()]
        parts.append(f"{_counted(name, sum(outcomes.values()))} ({words.join(named, FAILURES)})")
    return " · ".join(parts)


def headline(report: Report, shown: Digest, hidden: int = 0) -> str:
    """"3 findings: 1 critical, 2 high", or that there is none, which is not said when some are only hidden."""
    findings = [b.finding for b in shown.blocks] + [f for b in shown.blocks for f in b.impacts]
    if not findings and not any(c.decoded for c in report.captures):
        return "Nothing was judged: no frame holds an IP packet" if any(c.frames for c in report.captures) else (
            "Nothing was judged: no frame " + ("was captured" if report.complete else "could be read"))
    if not findings and hidden:
        return f"No finding as severe as asked for; {words.count(hidden, 'finding')} of lower severity not shown"
    if not findings and report.outcomes and all(o.status is Status.NOT_APPLICABLE for o in report.outcomes):
        return "Nothing was judged: what the chosen patterns read is not in the capture"
    if not findings:
        return ("No fault found that a pattern knows" if report.failures else "No fault found") + (
            " in what could be read" if not report.complete else "")
    levels = [f"{n} {s.label}" for s in sorted(Severity, reverse=True)
              if (n := sum(1 for f in findings if f.severity is s))]
    return f"{words.count(len(findings), 'finding')}: {', '.join(levels)}"


def unjudged(report: Report) -> str:
    """For a report without findings: what failed all the same, and the listings that show it; "" where nothing did."""
    lists = [f"`netdiag {listing}`" for kind, listing in LISTINGS.items() if report.failures.get(kind)]
    return ("What failed may be as it should (a busy callee, a name that does not exist), or a fault that no pattern "
            f"knows: {', '.join(lists)}.") if lists else ""


def alternatives(item: Block) -> list[str]:
    """Other explanations, one line each."""
    out = []
    for other in item.incident.alternatives if item.incident else item.finding.alternatives:
        clauses = [f"{word}: {text}" for word, text in (("for", other.speaks_for), ("against", other.speaks_against))
                   if text]
        out.append(f"{other.title} ({'; '.join(clauses)})" if clauses else other.title)
    return out


def judged(shown: Digest, report: Report) -> str:
    """"110 patterns checked: 3 found, 1 limits the capture, 12 open, 40 clear, 54 not applicable"."""
    open_ = sum(len(q.patterns) for q in shown.questions)
    met = [o.pattern for o in report.outcomes if o.status is Status.FOUND]
    gates = sum(1 for p in met if p.startswith(GATE))
    parts = [f"{len(met) - gates} found", f"{open_} open", f"{len(shown.clear)} clear",
             f"{len(shown.not_applicable)} not applicable"]
    if gates:
        parts.insert(1, f"{gates} limit{'s' if gates == 1 else ''} the capture")
    if shown.errors:
        parts.append(f"{len(shown.errors)} failed")
    return f"{words.count(len(report.outcomes), 'pattern')} checked: {', '.join(parts)}"
