"""From findings to incidents: one mechanism, its impacts below it, other explanations beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from netdiag.model import Alternative, Confidence, Finding, Incident, Pattern, stable_id

RIVALS = 5
"""Other findings that an incident names as explanations (practice)."""


def rank(findings: Sequence[Finding]) -> list[Finding]:
    """Worst first: severity, then confidence, then how many are affected, then time."""
    return sorted(findings, key=lambda f: (-f.severity, -f.confidence, -f.affected_total, f.start_ns, f.pattern, f.id))


def incidents(findings: Sequence[Finding], patterns: Mapping[str, Pattern]) -> list[Incident]:
    """Joins findings where one pattern says that it explains the other and both touch the same call, flow or host.

    Gates are no incidents: they qualify the others.
    """
    faults = [f for f in findings if not patterns[f.pattern].gate]
    touching: dict[str, list[int]] = {}
    for i, finding in enumerate(faults):
        for key in finding.keys:
            touching.setdefault(key, []).append(i)
    streams = [_streams(f) for f in faults]
    explains: dict[str, list[Finding]] = {f.id: [] for f in faults}
    explained: set[str] = set()
    for number, cause in enumerate(faults):
        if not patterns[cause.pattern].explains:
            continue
        for other in _near(number, streams, touching, cause.keys):
            effect = faults[other]
            # What is wrong with single streams, or with a sender, explains nothing else of their calls.
            if effect.pattern in patterns[cause.pattern].explains and (not streams[number] or streams[other]):
                explains[cause.id].append(effect)
                explained.add(effect.id)
    _leave_to_the_proved(faults, explains)
    out = []
    for number, cause in enumerate(faults):
        if cause.id in explained:
            continue
        impacts = _reach(cause, explains)
        members = [cause, *impacts]
        own = {f.id for f in members}
        # Another account of the same calls or flows: neither of them sure, for what is confirmed stands for itself.
        shared = frozenset(key for key in cause.keys if not key.startswith(("host:", "sender:")))
        rivals = [f for f in (faults[other] for other in _near(number, streams, touching, shared))
                  if f.id not in own and f.id not in explained and f.pattern != cause.pattern
                  and max(f.confidence, cause.confidence) < Confidence.CONFIRMED]
        out.append(Incident(
            id=stable_id("incident", cause.id), title=_title(cause, impacts), severity=max(f.severity for f in members),
            confidence=cause.confidence, mechanism=cause.id, impacts=tuple(f.id for f in impacts),
            alternatives=(*cause.alternatives, *(_rival(f) for f in rank(rivals)[:RIVALS])),
            next_capture=cause.next_capture, start_ns=min(f.start_ns for f in members),
            end_ns=max(f.end_ns for f in members)))
    return sorted(out, key=lambda i: (-i.severity, -i.confidence, i.start_ns, i.id))


def _leave_to_the_proved(faults: Sequence[Finding], explains: dict[str, list[Finding]]) -> None:
    """What a confirmed cause explains is no impact of one that is only suspected."""
    proved = {e.id for f in faults if f.confidence is Confidence.CONFIRMED for e in _reach(f, explains)}
    for f in faults:
        if f.confidence is Confidence.SUSPECTED and f.id not in proved:
            explains[f.id] = [e for e in explains[f.id] if e.id not in proved]


def _near(number: int, streams: Sequence[frozenset[str]], touching: Mapping[str, list[int]],
          keys: frozenset[str]) -> list[int]:
    """Other findings with one of these keys, in order; of two about streams or senders, only about the same ones."""
    mine = streams[number]
    return [i for i in sorted({i for key in keys for i in touching[key]}) if i != number
            and not (mine and streams[i] and mine.isdisjoint(streams[i]))]


def _streams(finding: Finding) -> frozenset[str]:
    """The two directions of a call are two streams of two senders: what happens to one says nothing of the other."""
    return frozenset(key for key in finding.keys if key.startswith(("ssrc:", "sender:")))


def _reach(cause: Finding, explains: Mapping[str, list[Finding]]) -> list[Finding]:
    """All that follows from it, worst first; what another of them explains comes after those that stand alone."""
    seen: dict[str, Finding] = {}
    todo = list(explains[cause.id])
    while todo:
        effect = todo.pop()
        if effect.id != cause.id and effect.id not in seen:
            seen[effect.id] = effect
            todo += explains[effect.id]
    further = Counter(e.id for f in seen.values() for e in explains[f.id])
    return sorted(rank(list(seen.values())), key=lambda f: further[f.id])


def _title(cause: Finding, impacts: Sequence[Finding]) -> str:
    if not impacts:
        return cause.title
    return f"{cause.title} → {rank(impacts)[0].title}"


def _rival(finding: Finding) -> Alternative:
    return Alternative(
        title=f"{finding.title} ({finding.pattern})",
        speaks_for=finding.reasons[0] if finding.reasons else finding.summary,
        speaks_against=f"it is only {finding.confidence.label}")
