"""From findings to incidents: one mechanism, its impacts below it, other explanations beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from netdiag.model import Alternative, Confidence, Finding, Incident, Pattern, stable_id


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
    explains: dict[str, list[Finding]] = {f.id: [] for f in faults}
    explained: set[str] = set()
    for cause in faults:
        if not patterns[cause.pattern].explains:
            continue
        for effect in _near(cause, faults, touching, cause.keys):
            if effect.pattern in patterns[cause.pattern].explains:
                explains[cause.id].append(effect)
                explained.add(effect.id)
    out = []
    for cause in faults:
        if cause.id in explained:
            continue
        impacts = _reach(cause, explains)
        members = [cause, *impacts]
        own = {f.id for f in members}
        # Another account of the same calls or flows: neither of them sure, for what is confirmed stands for itself.
        shared = frozenset(key for key in cause.keys if not key.startswith("host:"))
        rivals = [f for f in _near(cause, faults, touching, shared)
                  if f.id not in own and f.id not in explained
                  and max(f.confidence, cause.confidence) < Confidence.CONFIRMED]
        out.append(Incident(
            id=stable_id("incident", cause.id), title=_title(cause, impacts), severity=max(f.severity for f in members),
            confidence=cause.confidence, mechanism=cause.id, impacts=tuple(f.id for f in impacts),
            alternatives=(*cause.alternatives, *(_rival(f) for f in rivals)), next_capture=cause.next_capture,
            start_ns=min(f.start_ns for f in members), end_ns=max(f.end_ns for f in members)))
    return sorted(out, key=lambda i: (-i.severity, -i.confidence, i.start_ns, i.id))


def _near(cause: Finding, faults: Sequence[Finding], touching: Mapping[str, list[int]],
          keys: frozenset[str]) -> list[Finding]:
    """Other findings with one of these keys, in order; of two about single streams, only about the same ones."""
    mine = _streams(cause)
    rows = sorted({i for key in keys for i in touching[key]})
    return [faults[i] for i in rows if faults[i] is not cause
            and not (mine and (theirs := _streams(faults[i])) and mine.isdisjoint(theirs))]


def _streams(finding: Finding) -> frozenset[str]:
    """The two directions of a call are two streams: what happens to one says nothing of the other."""
    return frozenset(key for key in finding.keys if key.startswith("ssrc:"))


def _reach(cause: Finding, explains: Mapping[str, list[Finding]]) -> list[Finding]:
    seen: dict[str, Finding] = {}
    todo = list(explains[cause.id])
    while todo:
        effect = todo.pop()
        if effect.id != cause.id and effect.id not in seen:
            seen[effect.id] = effect
            todo += explains[effect.id]
    return rank(list(seen.values()))


def _title(cause: Finding, impacts: Sequence[Finding]) -> str:
    if not impacts:
        return cause.title
    return f"{cause.title} → {impacts[0].title}"


def _rival(finding: Finding) -> Alternative:
    return Alternative(
        title=f"{finding.title} ({finding.pattern})",
        speaks_for=finding.reasons[0] if finding.reasons else finding.summary,
        speaks_against=f"it is only {finding.confidence.label}")
