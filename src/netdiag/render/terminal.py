"""The report in a terminal: what a tired engineer reads at three in the morning."""

from __future__ import annotations

from netdiag.model import CaptureSummary, Finding, Report, Severity, Status
from netdiag.render import digest as d
from netdiag.render import words
from netdiag.render.escape import plain
from netdiag.render.layout import INDENT, Palette, labelled, paragraph, wrap

NARROWEST, WIDEST = 60, 100
GATES_IN_HEAD = 6
ODDITIES_SHOWN = 10


def render(report: Report, width: int = WIDEST, colour: bool = False, verbose: bool = False, hidden: int = 0) -> str:
    """The whole report as text, lines of at most ``width`` cells (display filters are only broken at spaces).

    ``verbose`` lists every pattern that was clear or not applicable; ``hidden`` findings were left out by severity.
    """
    view = _View(report, max(NARROWEST, min(width, WIDEST)), Palette(colour), verbose, hidden)
    return "\n".join(view.lines()) + "\n"


class _View:
    def __init__(self, report: Report, width: int, palette: Palette, verbose: bool, hidden: int) -> None:
        self.report, self.width, self.palette, self.verbose, self.hidden = report, width, palette, verbose, hidden
        self.digest = d.digest(report)
        self.names = d.names(report)
        self.out: list[str] = []

    def lines(self) -> list[str]:
        self.head()
        told: set[str] = set()
        shown, left = d.numbered(self.digest.blocks, self.verbose)
        for number, item in shown:
            self.block(number, item, told)
        for line in left:
            self.out += ["", self.palette.strong(line)]
        self.gates()
        self.questions()
        self.rest()
        self.oddities()
        self.accounting()
        return [line.rstrip() for line in self.out]

    def label(self, name: str, text: str, whole_words: bool = False) -> None:
        if text:
            self.out += labelled(name, plain(text), self.width, self.palette, whole_words)

    def section(self, title: str) -> None:
        self.out += ["", self.palette.strong(title)]

    # --- head

    def head(self) -> None:
        for c in self.report.captures:
            self.capture(c)
        self.label("contents", d.contents(self.report))
        self.label("failed", d.failures(self.report))
        if self.report.at_ns is not None:
            self.label("judged at", f"{words.utc(self.report.at_ns, 0)} UTC (certificates)")
        gates = d.once(f.pattern for f in self.digest.gates)
        if gates:
            self.label("quality", words.join(gates, GATES_IN_HEAD) + (
                " (see below: it limits what can be said)" if len(gates) == 1 else
                " (see below: they limit what can be said)"))
        for note in self.report.notes:
            self.label("note", note)
        headline = d.headline(self.report, self.digest, self.hidden)
        calm = not self.digest.blocks and not self.hidden
        text = d.unjudged(self.report) if calm else ""
        self.out += ["", (self.palette.good if calm and not text else self.palette.strong)(headline)]
        if text:
            self.out += paragraph(text, self.width)
        if self.hidden and self.digest.blocks:
            self.out += paragraph(f"{words.count(self.hidden, 'finding')} of lower severity not shown", self.width, 0)

    def capture(self, c: CaptureSummary) -> None:
        span = words.span(c.first_ns, c.last_ns) if c.frames else "empty"
        named = len({c.point for c in self.report.captures}) > 1 or c.point != "capture"
        self.label("capture", f"{c.path}  (point {c.point})" if named else c.path)
        self.label("", f"{words.count(c.frames, 'frame')} · {span}")
        if not c.complete:
            lines = labelled("", plain(f"INCOMPLETE: {c.damage or 'damaged'}"), self.width, self.palette)
            self.out += [self.palette.alarm(line) for line in lines]
        for note in d.once([*c.notes, *c.comments]):
            self.label("", f"note: {note}")

    # --- findings

    def block(self, number: int, item: d.Block, told: set[str]) -> None:
        finding, incident = item.finding, item.incident
        severity = max([finding.severity, *([incident.severity] if incident else [])])
        title = incident.title if incident and item.impacts else finding.title
        self.out.append("")
        below = f"{finding.pattern} · {finding.confidence.label} · {finding.id}"
        self.title(f"{number}.", severity, title, below, finding)
        if finding.title not in title:
            self.label("mechanism", finding.title)
        self.out += paragraph(plain(finding.summary), self.width)
        self.label("affected", d.extent(finding))
        self.label("when", d.when(finding))
        self.out.append("")
        self.evidence(finding)
        for i, reason in enumerate(d.once(finding.reasons)):
            self.label("because" if i == 0 else "", reason)
        for i, limit in enumerate(d.once(finding.limitations)):
            self.label("but" if i == 0 else "", limit)
        for impact in item.impacts:
            self.impact(impact)
        others = [t for t in d.alternatives(item) if t not in told]
        for i, text in enumerate(others):
            self.label("or else" if i == 0 else "", text)
        told.update(others)
        self.out.append("")
        self.advice(number, finding, incident.next_capture if incident else "", told)

    def title(self, number: str, severity: Severity, title: str, below: str, finding: Finding) -> None:
        word = severity.label.upper()
        start = max(len(number) + 1, INDENT)
        lines = wrap(plain(title), self.width - start - len(word) - 2)
        indent = " " * (start + len(word) + 2)
        self.out.append(f"{number:<{start}}{self.palette.severity(severity, word)}  {self.palette.strong(lines[0])}")
        self.out += [indent + self.palette.strong(line) for line in lines[1:]]
        self.out.append(indent + self.palette.confidence(finding.confidence, plain(below)))

    def evidence(self, finding: Finding) -> None:
        """Frames by file, then each filter once: the same filter often serves several points, else it is named."""
        places = d.places(finding.evidence)
        for i, place in enumerate(places):
            name = self.names.get(place.path, place.path)
            self.label("evidence" if i == 0 else "", f"{place.point}: {words.framed(place.frames)} of {name}")
        filters = d.filters(places, self.names)
        for i, (where, text) in enumerate(filters[: d.FILTERS_SHOWN]):
            self.label("filter" if i == 0 else "", f"{where}: {text}" if where else text, whole_words=True)
        if len(filters) > d.FILTERS_SHOWN:
            self.label("", f"and {words.count(len(filters) - d.FILTERS_SHOWN, 'more filter')} (--format json)")
        self.label("opinion", d.opinion(finding))

    def impact(self, finding: Finding) -> None:
        self.label("so also", f"{finding.title} ({finding.pattern}, {finding.severity.label}, "
                              f"{finding.confidence.label})")
        self.label("", finding.summary)
        self.label("", d.extent(finding))
        self.label("", d.opinion(finding))
        for place in d.places(finding.evidence):
            self.label("", f"{place.point}: {words.framed(place.frames)} of {self.names.get(place.path, place.path)}")

    def advice(self, number: int, finding: Finding, next_capture: str, told: set[str]) -> None:
        """What to do; said once for each pattern, and referred to when it comes again.

        What to do now depends on the kind of the fault: another kind of the same pattern has its own.
        """
        known = finding.pattern in told
        if known and finding.mitigation in told:
            self.label("do now", f"as above for {finding.pattern}")
        else:
            self.label("do now", finding.mitigation)
            self.label("fix", f"as above for {finding.pattern}" if known else finding.fix)
            self.label("prevent", "" if known else finding.prevention)
        capture = next_capture or finding.next_capture
        if capture not in told:
            self.label("next", capture)
            told.add(capture)
        if finding.pattern not in told:
            self.label("read more", f"netdiag explain {finding.pattern}")
        if finding.case and finding.pattern not in told:
            self.label("", f"netdiag cases show {finding.case}", whole_words=True)
            self.label("", f"netdiag lab run {finding.case}", whole_words=True)
        told.update((finding.pattern, finding.mitigation))

    # --- what else

    def gates(self) -> None:
        if not self.digest.gates:
            return
        self.section("Limits of the capture")
        seen: set[str] = set()
        for f in self.digest.gates:
            self.label(f.pattern[len(d.GATE):].lower(), f.summary if f.pattern in seen else f"{f.title}. {f.summary}")
            for limit in d.once(f.limitations):
                self.label("", limit)
            if f.pattern not in seen:
                self.label("", f.mitigation)
            seen.add(f.pattern)

    def questions(self) -> None:
        if self.digest.errors:
            self.section("Failed: the verdict of these patterns is missing")
            for o in self.digest.errors:
                self.out += paragraph(plain(f"{o.pattern}: {o.reason}"), self.width)
        if not self.digest.questions:
            return
        self.section("Open: this capture could not have shown")
        for q in self.digest.questions:
            self.out += paragraph(", ".join(q.patterns), self.width)
            for text in d.once((q.reason, q.next_capture and f"next: {q.next_capture}")):
                self.out += paragraph(plain(text), self.width, INDENT + 2)

    def rest(self) -> None:
        self.out += ["", *wrap(d.judged(self.digest, self.report), self.width)]
        if self.verbose:
            for title, outcomes in (("Clear", self.digest.clear), ("Not applicable", self.digest.not_applicable)):
                if outcomes:
                    self.section(title)
                for reason, names in d.by_reason(outcomes):
                    self.out += paragraph(plain(f"{', '.join(names)}: {reason}"), self.width)
        elif any(o.status in (Status.CLEAR, Status.NOT_APPLICABLE) for o in self.report.outcomes):
            self.out[-1] += "  (-v lists them)" if len(self.out[-1]) + 17 <= self.width else ""

    def oddities(self) -> None:
        if not self.digest.oddities:
            return
        self.section("Odd input")
        shown = self.digest.oddities[: None if self.verbose else ODDITIES_SHOWN]
        for o in shown:
            of = f" of {self.names.get(o.path, o.path)}" if len(self.report.captures) > 1 else ""
            times = f"{words.count(o.count, 'time')}, first in" if o.count > 1 else "in"
            self.out += paragraph(plain(f"{o.table}: {o.reason} ({times} frame {o.first_frame}{of})"), self.width)
        rest = len(self.digest.oddities) - len(shown)
        if rest > 0:
            self.out += paragraph(f"and {rest} more kinds (-v lists them)", self.width)

    def accounting(self) -> None:
        self.out.append("")
        for c in self.report.captures:
            reasons = d.skipped(c)
            text = (f"{self.names[c.path]}: {words.count(c.frames, 'frame')} = {c.decoded:,} decoded + "
                    f"{sum(c.skipped.values()):,} skipped" + (f" ({reasons})" if reasons else ""))
            self.out += [self.palette.dim(line) for line in wrap(plain(text), self.width)]
