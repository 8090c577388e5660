"""The report as JSON, ``schema_version`` "1"; docs/report.schema.json says what is in it.

Text is as it was captured: the encoder writes everything that is not ASCII as ``\\uXXXX``.
Each time is given twice, as nanoseconds since the epoch and as ISO 8601, because many JSON
readers cut integers at 53 bits.
"""

from __future__ import annotations

import json
import math
from typing import Any

from netdiag.model import CaptureSummary, Evidence, Finding, Incident, Report, SecondOpinion
from netdiag.render.escape import valid
from netdiag.render.words import iso

SCHEMA_VERSION = "1"


def render(report: Report) -> str:
    """The document of `document`, indented, with a final newline."""
    return json.dumps(document(report), indent=2, allow_nan=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    """What the schema describes, as plain dicts and lists."""
    return {
        "schema_version": SCHEMA_VERSION,
        "version": report.version,
        "complete": report.complete,
        "at_ns": report.at_ns,
        "notes": [valid(n) for n in report.notes],
        "points": list(dict.fromkeys(c.point for c in report.captures)),
        "inventory": dict(report.inventory),
        "failures": {kind: dict(outcomes) for kind, outcomes in report.failures.items()},
        "captures": [_capture(c) for c in report.captures],
        "incidents": [_incident(i) for i in report.incidents],
        "findings": [_finding(f) for f in report.findings],
        "outcomes": [{"pattern": o.pattern, "status": o.status.value, "reason": o.reason,
                      "next_capture": o.next_capture} for o in report.outcomes],
        "anomalies": [{"table": a.table, "reason": a.reason, "count": a.count, "point": a.point, "path": valid(a.path),
                       "first_frame": a.first_frame} for a in report.anomalies],
    }


def _capture(c: CaptureSummary) -> dict[str, Any]:
    return {
        "path": valid(c.path), "point": c.point, "format": c.format, "sha256": c.sha256, "size": c.size,
        "frames": c.frames, "decoded": c.decoded, "skipped": dict(c.skipped),
        **_times("first", c.first_ns), **_times("last", c.last_ns),
        "complete": c.complete, "damage": c.damage, "comments": list(c.comments), "notes": list(c.notes),
    }


def _incident(i: Incident) -> dict[str, Any]:
    return {
        "id": i.id, "title": i.title, "severity": i.severity.label, "confidence": i.confidence.label,
        "mechanism": i.mechanism, "impacts": list(i.impacts),
        "alternatives": [{"title": a.title, "for": a.speaks_for, "against": a.speaks_against} for a in i.alternatives],
        "next_capture": i.next_capture, **_times("start", i.start_ns), **_times("end", i.end_ns),
    }


def _finding(f: Finding) -> dict[str, Any]:
    return {
        "id": f.id, "pattern": f.pattern, "title": f.title, "severity": f.severity.label,
        "confidence": f.confidence.label, "reasons": list(f.reasons), "summary": f.summary,
        "scope": {k: _value(v) for k, v in f.scope.items()}, "case": f.case,
        "affected": list(f.affected), "affected_total": f.affected_total, "examined_total": f.examined_total,
        "population": f.population, **_times("start", f.start_ns), **_times("end", f.end_ns),
        "evidence": [_evidence(e) for e in f.evidence],
        "second_opinion": _opinion(f.second_opinion) if f.second_opinion else None,
        "limitations": list(f.limitations), "mitigation": f.mitigation, "fix": f.fix, "prevention": f.prevention,
        "next_capture": f.next_capture,
        "references": [{"title": r.title, "url": r.url} for r in f.references],
    }


def _evidence(e: Evidence) -> dict[str, Any]:
    return {"point": e.point, "path": valid(e.path), "frames": list(e.frames), "filter": e.filter,
            "facts": {k: _value(v) for k, v in e.facts.items()}}


def _opinion(o: SecondOpinion) -> dict[str, Any]:
    return {"tool": o.tool, "version": o.version, "frames_shown": o.frames_shown, "frames_cited": o.frames_cited,
            "protocols": list(o.protocols)}


def _times(name: str, ns: int) -> dict[str, Any]:
    return {f"{name}_ns": ns, name: iso(ns)}


def _value(value: str | int | float) -> str | int | float | None:
    """JSON has no NaN and no infinity: null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
