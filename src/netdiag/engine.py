"""Runs the detectors over the tables and turns what they met into findings.

A detector that raises becomes an ERROR outcome with its reason, and the others go on. The confidence
rules that hold for all patterns are applied here, once: capture-quality gates cap findings that
rest on what they call into question, repetition lifts a suspicion once.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from netdiag import __version__, diagnosis, inventory, registry
from netdiag.errors import RegistryError
from netdiag.model import (
    Cap,
    Confidence,
    Detection,
    Evidence,
    Finding,
    Occurrence,
    Outcome,
    Pattern,
    Report,
    Status,
    seconds,
    stable_id,
)
from netdiag.tables import EVIDENCE_FRAMES, Tables

REPEATS = 3
"""Independent occurrences with one constant that lift a suspicion (practice)."""
LISTED = 20
"""Subjects named in a finding; the rest is counted (practice)."""
FINDINGS = 1000
"""Findings of one pattern that are told; more come from a scan or a flood, and nobody reads them (practice)."""
CAPS: dict[Cap, tuple[Confidence, str]] = {
    "absence": (Confidence.SUSPECTED, "what is missing may only be missing in the capture"),
    "size": (Confidence.SUSPECTED, "the sizes in the capture may not be those on the wire"),
    "clock": (Confidence.PROBABLE, "the times that are compared may come from clocks that disagree"),
}
"""The surest that a finding can be that rests on what a gate calls into question, and why."""


class _Gate(NamedTuple):
    """What one gate that fired touches."""

    pattern: Pattern
    flows: frozenset[int]
    points: frozenset[str]
    """Points of which everything is touched."""


def analyze(tables: Tables, select: Iterable[str] = (), ignore: Iterable[str] = (),
            settings: Mapping[str, float] | None = None,
            progress: Callable[[str, int, int], None] | None = None) -> Report:
    """Judges the captures behind ``tables`` with all patterns, or those of ``select`` less ``ignore``.

    ``select`` and ``ignore`` take ids or families ("TLS", "RTP-ONEWAY"). RegistryError for an unknown one.
    """
    given = dict(settings or {})
    registry.check_settings(given)
    wanted = _choose(select, ignore)
    outcomes: dict[str, Outcome] = {}
    found: dict[str, list[Finding]] = {}
    gates: list[_Gate] = []
    # Gates first: what they say caps the others. A gate that was not selected still caps, but is not reported.
    everything = registry.patterns()
    todo = [*(i for i, p in everything.items() if p.gate), *(i for i in wanted if not everything[i].gate)]
    _build(tables, {name for i in todo for name in everything[i].needs}, progress, len(todo))
    for number, pattern_id in enumerate(todo):
        if progress:
            progress(pattern_id, number, len(todo))
        pattern = everything[pattern_id]
        detection, outcome = _run(pattern, tables, given)
        if pattern.gate:
            gates.append(_gate(pattern, detection))
        if pattern_id in wanted:
            outcomes[pattern_id] = outcome
            found[pattern_id] = _findings(pattern, detection, gates, tables)
    findings = diagnosis.rank([f for group in found.values() for f in group])
    contents = inventory.inventory(tables)  # builds what no detector asked for, so that anomalies are complete
    return Report(
        version=__version__, captures=tables.captures, outcomes=tuple(outcomes[i] for i in sorted(outcomes)),
        findings=tuple(findings), incidents=tuple(diagnosis.incidents(findings, everything)),
        failures=inventory.failures(tables), anomalies=tables.anomalies(), inventory=contents,
        at_ns=tables.options.at_ns)


def _build(tables: Tables, names: set[str], progress: Callable[[str, int, int], None] | None, total: int) -> None:
    """Builds the tables that detectors will ask for, one after the other, so that the caller can clean up between.

    One that cannot be built is left: each detector that asks for it meets the error, and ends with it.
    """
    if len(tables.points) < 2:
        names = names - {"crosspoint"}  # nobody asks, and it numbers all flows
    for name in vars(Tables):
        if name in names:
            if progress:
                progress(name, 0, total)
            with contextlib.suppress(Exception):
                getattr(tables, name)


def _choose(select: Iterable[str], ignore: Iterable[str]) -> list[str]:
    known = registry.patterns()

    def match(names: Iterable[str]) -> set[str]:
        out: set[str] = set()
        for name in names:
            hits = {i for i in known if i == name.upper() or i.startswith(name.upper() + "-")}
            if not hits:
                registry.get(name)  # raises with the nearest ids
                raise RegistryError(f"no pattern {name!r}")
            out |= hits
        return out

    chosen = match(select) or set(known)
    return sorted(chosen - match(ignore))


_CONTEXT = {"quality", "crosspoint", "flows"}
"""Tables of ``Pattern.needs`` with what is around: what is in them is no traffic of a pattern's kind."""
_UNBOUND = {"packets", "streams"}
"""A pattern that needs one of these looks for its traffic itself; gates look at any."""


def _absent(pattern: Pattern, tables: Tables) -> str:
    """Why the pattern cannot apply: every table of facts that it reads is empty. "" otherwise.

    The detector is not even imported then: a capture pays for the patterns of its own traffic.
    """
    read = [name for name in pattern.needs if name not in _CONTEXT]
    looks = pattern.gate or not read or not _UNBOUND.isdisjoint(read)
    if looks or any(getattr(tables, name).height for name in read):
        return ""
    return f"nothing of what it reads is in the capture: {', '.join(read)}"


def _run(pattern: Pattern, tables: Tables, given: Mapping[str, float]) -> tuple[Detection, Outcome]:
    try:
        absent = _absent(pattern, tables)
        if absent:
            return Detection(Status.NOT_APPLICABLE, absent), Outcome(pattern.id, Status.NOT_APPLICABLE, absent, "")
        detection = registry.detector(pattern.id)(tables, registry.settings(pattern, given))
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"
        detection = Detection(Status.ERROR, reason)
    wanted = detection.next_capture
    if detection.status is Status.INCONCLUSIVE:
        wanted = wanted or pattern.next_capture
    return detection, Outcome(pattern.id, detection.status, detection.reason, wanted)


def _gate(pattern: Pattern, detection: Detection) -> _Gate:
    whole = {str(o.scope["capture.point"]) for o in detection.occurrences if not o.flows and "capture.point" in o.scope}
    return _Gate(pattern, frozenset(flow for o in detection.occurrences for flow in o.flows), frozenset(whole))


def _findings(pattern: Pattern, detection: Detection, gates: list[_Gate], tables: Tables) -> list[Finding]:
    groups: dict[tuple[str, ...], list[Occurrence]] = defaultdict(list)
    for occurrence in detection.occurrences:
        groups[occurrence.group].append(occurrence)
    if len(groups) > FINDINGS:
        surest = sorted(groups, key=lambda g: (-max(o.confidence for o in groups[g]), -len(groups[g])))
        left = next((o.flows[0] for g in surest[FINDINGS:] for o in groups[g] if o.flows), 0)
        tables.anomaly_log.add(
            pattern.id, f"more than {FINDINGS} findings: the surest are told, and of those that touch most",
            int(tables.packets.order[tables.packets.flow_start[left]]), len(groups) - FINDINGS)
        groups = {group: groups[group] for group in surest[:FINDINGS]}
    out = []
    for group, items in groups.items():
        lifted = _lifted(items)  # first: what a gate caps stays capped, however often it is seen
        out.append(_finding(pattern, group, lifted if pattern.gate else [_capped(o, gates, tables) for o in lifted],
                            detection))
    return out


def _capped(occurrence: Occurrence, gates: list[_Gate], tables: Tables) -> Occurrence:
    """Its confidence, no higher than the gates allow that touch its flows, or all of a point where it was seen."""
    rests = {"absence": occurrence.absence, "size": occurrence.size, "clock": occurrence.clock}
    for kind, (limit, why) in CAPS.items():
        if not rests[kind] or occurrence.confidence <= limit:
            continue
        caps = [g.pattern.id for g in gates if kind in g.pattern.caps and (
            not g.flows.isdisjoint(occurrence.flows)
            or (g.points and not g.points.isdisjoint(_points(occurrence, tables))))]
        if caps:
            reason = f"capped at {limit.label} by {', '.join(caps)}: {why}"
            occurrence = dataclasses.replace(
                occurrence, confidence=limit, reasons=(*occurrence.reasons, reason))
    return occurrence


def _points(occurrence: Occurrence, tables: Tables) -> set[str]:
    """Where it was seen: the points of its evidence, and of its flows, which the later ones of a flood have alone."""
    p = tables.packets
    flows = [flow for flow in occurrence.flows if flow < len(p.flow_start)]
    numbers = p.points(p.order[p.flow_start[flows]]).tolist() if flows else []
    return {e.point for e in occurrence.evidence} | {tables.points[n] for n in numbers}


def same_constant(a: float, b: float) -> bool:
    """Equal within 1 s below 60 s, within 2 % above (practice)."""
    return abs(a - b) <= (1.0 if max(a, b) < 60 else 0.02 * max(a, b))


def _lifted(items: list[Occurrence]) -> list[Occurrence]:
    """Three or more independent occurrences with the same constant: suspected becomes probable, once."""
    constants = {o.subject: o.constant for o in items if o.constant is not None}
    ordered = sorted(constants.values())
    for value in constants.values():
        begin, end = _alike(ordered, value)
        if end - begin >= REPEATS:
            alike = {s for s, other in constants.items() if same_constant(value, other)}
            reason = f"the same {seconds(value)} in {len(alike)} independent cases"
            return [dataclasses.replace(o, confidence=Confidence.PROBABLE, reasons=(*o.reasons, reason))
                    if o.confidence is Confidence.SUSPECTED and o.subject in alike else o for o in items]
    return items


def _alike(ordered: list[float], value: float) -> tuple[int, int]:
    """Where the values begin and end that are ``same_constant`` with ``value``: they stand side by side."""
    begin = bisect.bisect_left(ordered, True, key=lambda other: other >= value or same_constant(value, other))
    end = bisect.bisect_left(ordered, True, key=lambda other: other > value and not same_constant(value, other))
    return begin, end


def _finding(pattern: Pattern, group: tuple[str, ...], items: list[Occurrence], detection: Detection) -> Finding:
    subjects = list(dict.fromkeys(o.subject for o in items))
    # One fault seen at two points is told once: the surest account leads, the other points add their frames.
    lead = max(items, key=lambda o: (o.confidence, -o.start_ns))
    ordered = [lead, *(o for o in items if o is not lead)]
    limitations = tuple(dict.fromkeys(text for o in ordered for text in o.limitations))
    affected = len(subjects) + sum(o.more for o in items)
    total = max(detection.examined.get(group, 0), affected)
    return Finding(
        id=stable_id(pattern.id, *group), pattern=pattern.id, title=lead.title or pattern.title,
        severity=lead.severity if lead.severity is not None else pattern.severity, confidence=lead.confidence,
        reasons=lead.reasons, summary=lead.summary, scope=lead.scope, case=pattern.cases[0] if pattern.cases else "",
        evidence=_merged(ordered), affected=tuple(subjects[:LISTED]), affected_total=affected,
        examined_total=total, population=detection.population, limitations=limitations,
        mitigation=lead.mitigation or pattern.mitigation, fix=pattern.fix, prevention=pattern.prevention,
        next_capture=lead.next_capture or pattern.next_capture, references=pattern.references,
        keys=frozenset().union(*(o.keys for o in items)), start_ns=min(o.start_ns for o in items),
        end_ns=max(o.end_ns for o in items), alternatives=lead.alternatives, occurrences=tuple(ordered))


def _merged(items: list[Occurrence]) -> tuple[Evidence, ...]:
    """One entry a file, frames of the leading occurrences first."""
    by_file: dict[tuple[str, str], list[Evidence]] = defaultdict(list)
    for occurrence in items:
        for evidence in occurrence.evidence:
            by_file[evidence.point, evidence.path].append(evidence)
    out = []
    for (point, path), parts in by_file.items():
        frames: list[int] = []
        for part in parts:
            frames += [f for f in part.frames if f not in frames][: EVIDENCE_FRAMES - len(frames)]
        frames.sort()
        filters = {p.filter for p in parts}
        shown = filters.pop() if len(filters) == 1 else "frame.number in {" + ", ".join(map(str, frames)) + "}"
        out.append(Evidence(point, path, tuple(frames), shown, parts[0].facts))
    return tuple(out)
