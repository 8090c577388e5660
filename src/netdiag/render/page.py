"""Pages and lists about what netdiag knows: patterns, cases, labs. Our own text, Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netdiag.errors import NetdiagError
from netdiag.model import Pattern, Setting
from netdiag.render.listing import Column, Listing, field

if TYPE_CHECKING:
    from netdiag.cases import Case
    from netdiag.lab.doctor import Check
    from netdiag.lab.runner import VariantResult


def of_pattern(pattern: Pattern, text: str) -> str:
    """The page of a pattern: its docstring between title and the facts of its metadata."""
    severity = "qualifies other findings" if pattern.gate else pattern.severity.label
    out = [f"# {pattern.id}: {pattern.title}", "", f"Severity: **{severity}**", "", text.strip(), ""]
    out += ["## What to do", "", f"- **Do now:** {pattern.mitigation}", f"- **Fix:** {pattern.fix}",
            f"- **Prevent:** {pattern.prevention}"]
    out += [f"- **Capture next:** {pattern.next_capture}"] if pattern.next_capture else []
    out += ["", "## Display filter", "", "```", pattern.filter, "```", ""]
    if pattern.settings:
        out += ["## Settings", "", "| `--set` | default | unit | source |", "| --- | --- | --- | --- |"]
        out += [f"| `{pattern.id}.{s.name}` | {s.default:g} | {s.unit} | {s.source} |" for s in pattern.settings]
        out.append("")
    if pattern.explains:
        out += [f"Explains: {', '.join(f'`{i}`' for i in pattern.explains)}.", ""]
    if pattern.cases:
        out += ["## Case study", ""]
        out += [f"- `netdiag cases show {slug}`, `netdiag lab run {slug}`" for slug in pattern.cases] + [""]
    if pattern.references:
        out += ["## Sources", ""]
        out += [f"- {r.title}{f' <{r.url}>' if r.url else ''}" for r in pattern.references] + [""]
    return "\n".join(out)


def as_json(pattern: Pattern, text: str) -> str:
    return json.dumps(_record(pattern) | {"page": text}, indent=2) + "\n"


def _record(p: Pattern) -> dict[str, Any]:
    return {
        "id": p.id, "title": p.title, "severity": p.severity.label, "gate": p.gate, "cases": list(p.cases),
        "needs": list(p.needs), "explains": list(p.explains), "filter": p.filter, "mitigation": p.mitigation,
        "fix": p.fix, "prevention": p.prevention, "next_capture": p.next_capture,
        "settings": [_setting(s) for s in p.settings],
        "references": [{"title": r.title, "url": r.url} for r in p.references],
    }


def _setting(s: Setting) -> dict[str, Any]:
    return {"name": s.name, "default": s.default, "unit": s.unit, "source": s.source}


def patterns(known: Mapping[str, Pattern]) -> Listing:
    return Listing([_record(p) for p in known.values()],
                   [field("ID", "id", firm=True), field("SEVERITY", "severity", firm=True), field("TITLE", "title")],
                   "no patterns")


def cases(known: Iterable[Case]) -> Listing:
    return _cases([(case, "") for case in known], "no case studies")


def _cases(found: Sequence[tuple[Case, str]], empty: str) -> Listing:
    rows = [{"slug": c.slug, "title": c.title, "summary": c.summary, "patterns": list(c.patterns),
             "tags": list(c.tags), "points": dict(c.points), "variants": list(c.variants),
             "requires": list(c.requires)} | ({"match": line} if line else {}) for c, line in found]
    last = field("MATCH", "match") if any(line for _, line in found) else field("PATTERNS", "patterns")
    return Listing(rows, [field("CASE", "slug", firm=True), field("TITLE", "title"), last], empty)


def case(slug: str) -> Case:
    """The case of that name; NetdiagError with near names when there is none."""
    from netdiag.cases import all_cases
    known = all_cases()
    if slug not in known:
        import difflib
        near = difflib.get_close_matches(slug, known, 3, 0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "netdiag cases lists them"
        raise NetdiagError(f"no case {slug!r}; {hint}")
    return known[slug]


def search(known: Iterable[Case], terms: Sequence[str]) -> Listing:
    """Cases that contain every word, with the first line of the study (or the title) that has one of them."""
    low = [t.lower() for t in terms]
    found = []
    for c in known:
        study = c.readme.read_text(encoding="utf-8") if c.readme.is_file() else ""
        lines = [c.title, c.summary, " ".join(c.tags), " ".join(c.patterns), *study.splitlines()]
        if all(any(t in line.lower() for line in lines) for t in low):
            found.append((c, next(line.strip() for line in lines if any(t in line.lower() for t in low))))
    return _cases(found, f"no case contains {' and '.join(terms)}")


def labs(known: Iterable[Case]) -> Listing:
    rows = [{"slug": c.slug, "title": c.title, "variants": list(c.variants), "points": list(c.points),
             "requires": list(c.requires), "patterns": list(c.patterns)} for c in known]
    return Listing(rows, [field("LAB", "slug", firm=True), field("VARIANTS", "variants"), field("POINTS", "points"),
                          field("NEEDS", "requires"), field("SHOWS", "patterns")], "no labs")


def checks(found: Iterable[Check]) -> Listing:
    rows = [{"name": c.name, "ok": c.ok, "detail": c.detail, "hint": c.hint} for c in found]
    return Listing(rows, [Column("", lambda r: "ok" if r["ok"] else "MISSING"), field("WHAT", "name"),
                          field("SEEN", "detail"), field("TO DO", "hint")], "nothing checked")


def results(found: Iterable[VariantResult]) -> Listing:
    """What each variant of a lab showed, beside what its case expects."""
    rows = [{"variant": r.variant, "ok": r.ok, "recorded": r.recorded, "seconds": round(r.seconds, 1),
             "expected": list(r.expected), "found": list(r.found), "missing": list(r.missing),
             "unexpected": list(r.unexpected), "captures": {k: str(v) for k, v in r.captures.items()}} for r in found]
    return Listing(rows, [
        Column("", lambda r: "ok" if r["ok"] else "WRONG"), field("VARIANT", "variant"),
        Column("CAPTURES", lambda r: "recorded" if r["recorded"] else f"live, {r['seconds']:.0f} s"),
        Column("EXPECTED", lambda r: ", ".join(r["expected"]) or "nothing"),
        Column("FOUND", lambda r: ", ".join(r["found"]) or "nothing"),
        field("MISSING", "missing"), field("UNEXPECTED", "unexpected"),
    ], "no variants")
