"""The report as a Markdown document: the same content as in the terminal, for a ticket or a wiki."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netdiag.model import Alternative, Finding, Report
from netdiag.render import digest as d
from netdiag.render import words
from netdiag.render.escape import advice, block, code, markdown, plain


def render(report: Report, verbose: bool = False, hidden: int = 0) -> str:
    """The whole report; tables are GitHub-flavoured. Parameters as in ``terminal.render``."""
    shown = d.digest(report)
    out = ["# netdiag report", ""]
    out += captures(report)
    inventory = d.contents(report)
    out += [f"Contents: {markdown(inventory)}.", ""] if inventory else []
    out += [f"Failed: {markdown(failed)}.", ""] if (failed := d.failures(report)) else []
    if report.at_ns is not None:
        out += [f"Certificates are judged at {words.utc(report.at_ns, 0)} UTC.", ""]
    out += [f"**{markdown(d.headline(report, shown, hidden))}.**", ""]
    out += [advice(text), ""] if not shown.blocks and not hidden and (text := d.unjudged(report)) else []
    out += [line for note in report.notes for line in (f"Note: {markdown(note)}.", "")]
    if hidden and shown.blocks:
        out += [f"{words.count(hidden, 'finding')} of lower severity not shown.", ""]
    told: set[str] = set()
    blocks, left = d.numbered(shown.blocks, verbose)
    for number, item in blocks:
        out += _block(number, item, told)
    out += [text for line in left for text in (f"**{markdown(line)}**", "")]
    out += _rest(report, shown, verbose)
    out += [f"Written by netdiag {markdown(report.version)}."]
    return "\n".join(out).rstrip() + "\n"


def rows(headers: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    """A table; the cells are Markdown already (``escape.markdown`` or ``escape.code(cell=True)``)."""
    lines = ["| " + " | ".join(headers) + " |", "|" + " --- |" * len(headers)]
    return [*lines, *("| " + " | ".join(r) + " |" for r in body), ""]


def bullets(title: str, texts: Iterable[str]) -> list[str]:
    """A bold title and a list; nothing when the list is empty. ``texts`` are plain text."""
    listed = d.once(texts)
    return [f"**{title}**", "", *(f"- {markdown(t)}" for t in listed), ""] if listed else []


def captures(report: Report) -> list[str]:
    """The table of capture files with digest and frame accounting."""
    body = []
    for c in report.captures:
        skipped = d.skipped(c)
        frames = f"{c.frames:,} = {c.decoded:,} decoded + {sum(c.skipped.values()):,} skipped"
        body.append((
            markdown(c.point), code(c.path, cell=True), words.span(c.first_ns, c.last_ns) if c.frames else "–",
            frames + (f" ({markdown(skipped)})" if skipped else ""),
            "yes" if c.complete else f"**no**: {markdown(c.damage or 'damaged')}", f"`{c.sha256}`" if c.sha256 else "–",
        ))
    out = rows(("point", "file", "span", "frames", "complete", "SHA-256"), body)
    notes = [f"{c.path}: {note}" for c in report.captures for note in d.once([*c.notes, *c.comments])]
    return out + bullets("Notes of the files", notes)


def evidence(finding: Finding) -> list[str]:
    """Frames by file, then the display filters."""
    places = d.places(finding.evidence)
    out = rows(("point", "file", "frames"),
               ((markdown(p.point), code(p.path, cell=True), words.frames(p.frames)) for p in places))
    for where, text in d.filters(places, {})[: d.FILTERS_SHOWN]:
        out += [f"Display filter{f' ({markdown(where)})' if where else ''}:", "", block(plain(text)), ""]
    opinion = d.opinion(finding)
    out += [f"Second opinion: {markdown(opinion)}.", ""] if opinion else []
    return out


def _block(number: int, item: d.Block, told: set[str]) -> list[str]:
    finding, incident = item.finding, item.incident
    severity = max([finding.severity, *([incident.severity] if incident else [])])
    title = incident.title if incident and item.impacts else finding.title
    out = [f"## {number}. {markdown(title)}", "",
           f"**{severity.label}**, {finding.confidence.label}, `{finding.pattern}`", ""]
    if finding.title not in title:
        out += [f"Mechanism: {markdown(finding.title)}.", ""]
    out += [markdown(finding.summary), ""]
    for name, text in (("Affected", d.extent(finding)), ("When", d.when(finding))):
        out += [f"{name}: {markdown(text)}.", ""] if text else []
    out += evidence(finding)
    out += bullets("Why this confidence", finding.reasons)
    out += bullets("Limits", finding.limitations)
    if item.impacts:
        out += ["**What follows from it**", ""]
        out += [f"- {markdown(f.title)} (`{f.pattern}`, {f.severity.label}, {f.confidence.label}): "
                + " ".join(markdown(text) for text in (f.summary, d.extent(f), d.opinion(f)) if text)
                for f in item.impacts]
        out.append("")
    out += explanations(incident.alternatives if incident else finding.alternatives)
    return out + what_to_do(finding, incident.next_capture if incident else "", told)


def explanations(others: Iterable[Alternative]) -> list[str]:
    """What else it may be, and what speaks for and against it."""
    body = [(markdown(a.title), markdown(a.speaks_for) or "–", markdown(a.speaks_against) or "–") for a in others]
    return ["**Or else**", "", *rows(("explanation", "for", "against"), body)] if body else []


def what_to_do(finding: Finding, next_capture: str, told: set[str], heading: str = "") -> list[str]:
    """`remedy`, once for each pattern; another kind of the same fault has something else to do at once."""
    known, said = finding.pattern in told, finding.mitigation in told
    told.update((finding.pattern, finding.mitigation))
    if not known:
        return [*([heading, ""] if heading else []), *remedy(finding, next_capture)]
    now = "" if said else f"{advice(finding.mitigation)} Else "
    return [f"What to do: {now}as above for `{finding.pattern}`.", ""]


def remedy(finding: Finding, next_capture: str = "") -> list[str]:
    """What to do, what to capture, where to read more."""
    out: list[str] = []
    for name, text in (("Do now", finding.mitigation), ("Fix", finding.fix), ("Prevent", finding.prevention),
                       ("Capture next", next_capture or finding.next_capture)):
        out += [f"- **{name}:** {advice(text)}"] if text else []
    if finding.case:
        out.append(f"- **Case study:** `{finding.case}`; `netdiag cases show {finding.case}`, "
                   f"`netdiag lab run {finding.case}`")
    sources = [f"[{markdown(r.title)}]({r.url})" if r.url else markdown(r.title) for r in finding.references]
    if sources:
        out.append(f"- **Sources:** {', '.join(sources)}")
    return [*out, ""]


def _rest(report: Report, shown: d.Digest, verbose: bool) -> list[str]:
    out: list[str] = []
    if shown.gates:
        out += ["## Limits of the capture", ""]
        out += [f"- `{f.pattern}`: {markdown(f.title)}. {markdown(f.summary)}" for f in shown.gates] + [""]
    if shown.errors:
        out += ["## Failed", "", *(f"- `{o.pattern}`: {markdown(o.reason)}" for o in shown.errors), ""]
    if shown.questions:
        out += ["## Open: this capture could not have shown", ""]
        out += rows(("patterns", "why", "what to capture"),
                    ((", ".join(f"`{p}`" for p in q.patterns), markdown(q.reason), markdown(q.next_capture) or "–")
                     for q in shown.questions))
    if shown.oddities:
        out += ["## Odd input", ""]
        out += rows(("table", "what", "times", "first"),
                    ((o.table, markdown(o.reason), f"{o.count:,}", f"{code(o.path, cell=True)} frame {o.first_frame}")
                     for o in shown.oddities))
    out += [f"{d.judged(shown, report)}.", ""]
    if verbose:
        out += rows(("patterns", "status", "reason"),
                    ((", ".join(f"`{p}`" for p in names), status, markdown(reason))
                     for status, outcomes in (("clear", shown.clear), ("not applicable", shown.not_applicable))
                     for reason, names in d.by_reason(outcomes)))
    return out
