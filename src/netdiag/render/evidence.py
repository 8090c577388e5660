"""The evidence section of a postmortem, Markdown: facts from the captures, and the questions they cannot answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from netdiag.errors import NetdiagError
from netdiag.model import Finding, Report
from netdiag.render import digest as d
from netdiag.render import ladder as drawing
from netdiag.render import words
from netdiag.render.escape import advice, block, code, markdown
from netdiag.render.markdown import bullets, captures, evidence, explanations, rows, what_to_do
from netdiag.render.timeline import Entry, endpoint, fold, packet_rows, timeline

if TYPE_CHECKING:
    from netdiag.tables import Tables

LADDERS = 2
"""Pictures a finding: one call at two points (practice)."""
STEPS = 60
"""Arrows in a picture; more cannot be read (practice)."""
SUBJECTS = 20
TEXT = 300
"""Characters of one field or line from the wire."""

# What a capture cannot show, by family: who has to be asked for it.
_ASK = {
    "SIP": ("the logs of {server} for these Call-IDs", "software and version of {client} and {server}"),
    "RTP": ("whether each party heard the other, from the users", "SIP ALG and UDP time-outs of the devices between "
            "{client} and {server}"),
    "QUALITY": ("whether each party heard the other, and how, from the users", "drops, errors and queues of the "
                "interfaces between {client} and {server} at that time"),
    "ICE": ("the browser's or client's ICE log (candidate pairs)", "the configuration of the TURN server"),
    "TLS": ("the trust store and the clock of {client}", "when the certificate or TLS settings of {server} last "
            "changed"),
    "QUIC": ("the firewall's policy for UDP port 443 between {client} and {server}",),
    "NAT": ("UDP and TCP idle time-outs of the NAT between {client} and {server}", "its table size, and its use at "
            "that time"),
    "FW": ("rules and idle time-outs of the firewalls between {client} and {server}", "their logs at that time"),
    "LB": ("health checks, idle time-out and pool members of the load balancer", "its logs at that time"),
    "TCP": ("load, queue and socket counters of {server} at that time",),
    "IP": ("the MTU of each link and tunnel between {client} and {server}",),
    "DNS": ("logs of the resolver and of the authoritative server for the names", "what changed in the zone"),
}
_QUALITY = ("RTP-LOSS", "RTP-JITTER", "RTP-MOS-LOW", "RTP-RTCP-REMOTE-LOSS")
_ASK_ALWAYS = ("when users first noticed, and how many", "what was changed in the day before")


def choose(report: Report, case: str | None = None, finding: str | None = None) -> list[Finding]:
    """The findings to write about, in the report's order, CAP-* only when named.

    ``finding`` is an id, the start of one, or a pattern; ``case`` a slug. NetdiagError when that chooses nothing.
    """
    shown = d.digest(report)
    ordered = [f for b in shown.blocks for f in (b.finding, *b.impacts)]
    if finding is not None:
        named = [f for f in (*ordered, *shown.gates)
                 if f.id.startswith(finding.lower()) or f.pattern == finding.upper()]
        return _some(named, f"no finding {finding!r}", report)
    if case is not None:
        return _some([f for f in ordered if f.case == case], f"no finding of case {case!r}", report)
    return ordered


def _some(findings: list[Finding], problem: str, report: Report) -> list[Finding]:
    if findings:
        return findings
    there = [f"{f.pattern} ({f.id}{', case ' + f.case if f.case else ''})" for f in report.findings]
    raise NetdiagError(f"{problem} in these captures; found: {words.join(there, 6) if there else 'nothing'}")


def render(tables: Tables, report: Report, findings: Sequence[Finding]) -> str:
    """The section: once the captures, then each finding with its timeline, frames, ladder, limits and remedy."""
    out = ["## Evidence", ""]
    if not findings:
        shown = d.digest(report)
        out += [f"{markdown(d.headline(report, shown))}. {d.judged(shown, report)}.", ""]
        out += [advice(text), ""] if not shown.blocks and (text := d.unjudged(report)) else []
    out += ["### Captures", "", *captures(report)]
    if report.at_ns is not None:
        out += [f"Certificates are judged at {words.utc(report.at_ns, 0)} UTC.", ""]
    told: set[str] = set()
    for f in findings:
        out += _finding(tables, f, told)
    gates = [f for f in report.findings if d.is_gate(f) and f not in findings]
    out += bullets("Limits of the captures", (f"{f.pattern}: {f.title}. {f.summary}" for f in gates))
    if not report.complete:
        out += bullets("Not read", (f"{c.path}: {c.damage or 'damaged'}" for c in report.captures if not c.complete))
    out += [f"Times are UTC. Frame numbers are Wireshark's. Written by netdiag {markdown(report.version)}."]
    return "\n".join(out).rstrip() + "\n"


def _finding(tables: Tables, f: Finding, told: set[str]) -> list[str]:
    entries = timeline(tables, packet_rows(tables, f.evidence))
    out = [f"### {markdown(f.title)}", "",
           f"`{f.pattern}` (finding `{f.id}`), severity {f.severity.label}, confidence **{f.confidence.label}**", "",
           markdown(f.summary), ""]
    points = d.once(e.point for e in f.evidence)
    if points:
        out += [f"Seen at: {markdown(', '.join(points))}.", ""]
    if f.affected_total:
        counted = words.of(f.affected_total, f.examined_total, f.population)
        out += [f"Affected: {markdown(counted)}.", ""]
        out += [f"- {code(words.short(s, d.SUBJECT))}" for s in f.affected[:SUBJECTS]]
        rest = f.affected_total - len(f.affected[:SUBJECTS])
        out += [f"- and {rest:,} more"] if rest > 0 else []
        out.append("")
    when = d.when(f)
    out += [f"When: {when}.", ""] if when else []
    out += _timeline(entries)
    out += ["#### Frames", "", *evidence(f), *_facts(f)]
    out += _ladders(tables, f, entries)
    out += bullets("Why this confidence", f.reasons)
    out += explanations(f.alternatives)
    out += bullets("What this does not show", f.limitations)
    out += ["**To be asked**", "", *(f"- Ask: {markdown(q)}" for q in questions(f, entries)), ""]
    return [*out, *what_to_do(f, "", told, "#### What to do")]


def _timeline(entries: Sequence[Entry]) -> list[str]:
    if not entries:
        return []
    start = entries[0].ts_ns
    body = []
    for e in fold(entries):
        what = markdown(words.short(f"{e.text}; {e.note}" if e.note else e.text, TEXT))
        if e.count > 1:
            what += f" (×{e.count}, until {words.clock(e.last_ns)})"
        body.append((words.utc(e.ts_ns, 6), f"{(e.ts_ns - start) / 1e9:+.3f} s", markdown(e.point), str(e.frame),
                     code(f"{endpoint(e.source, e.source_port)} → {endpoint(e.destination, e.destination_port)}",
                          cell=True) if e.source else "–", what))
    return ["#### Timeline", "", *rows(("time (UTC)", "after", "point", "frame", "from → to", "what"), body)]


def _facts(f: Finding) -> list[str]:
    """Scope and the fields that matter, each name once for each value."""
    body = dict.fromkeys((name, str(value)) for facts in (f.scope, *(e.facts for e in f.evidence))
                         for name, value in facts.items())
    if not body:
        return []
    return rows(("field", "value"), ((code(n, cell=True), code(words.short(v, TEXT), cell=True)) for n, v in body))


def _ladders(tables: Tables, f: Finding, entries: Sequence[Entry]) -> list[str]:
    """The first call of the finding at each point, or handshake of a TLS finding, or else its frames themselves."""
    drawn: list[drawing.Ladder] = []
    call = next((k.removeprefix("call:") for k in sorted(f.keys) if k.startswith("call:")), None)
    call = next((s for s in f.affected if f"call:{s}" in f.keys), call)
    if call is not None:
        drawn = drawing.of_call(tables, call)[:LADDERS]
    elif f.pattern.startswith("TLS-"):
        drawn = [one for h in _handshakes(tables, f) if (one := drawing.of_handshake(tables, h))]
    if not drawn:
        for point in d.once(e.point for e in entries)[:LADDERS]:
            one = drawing.of_entries(f.title, [e for e in entries if e.point == point])
            drawn += [one] if one else []
    out: list[str] = []
    for one in drawn:
        out += [f"#### Ladder at {markdown(one.point)}", "", block(drawing.mermaid(one, STEPS), "mermaid"), ""]
    return out


def _handshakes(tables: Tables, f: Finding) -> list[int]:
    """The first handshake at each point that the evidence touches."""
    import polars as pl
    flows = tables.packets.flow[packet_rows(tables, f.evidence)].tolist()
    touched = tables.handshakes.filter(pl.col("flow").is_in(flows)).unique("point", keep="first", maintain_order=True)
    return touched["handshake"].to_list()[:LADDERS]


def questions(f: Finding, entries: Sequence[Entry]) -> list[str]:
    """What the captures cannot say, with the names of those it concerns and the time."""
    hosts = d.once(h for e in entries for h in (e.source, e.destination))
    server = str(f.scope.get("server.ip") or f.scope.get("destination.ip") or (hosts[1] if len(hosts) > 1 else ""))
    client = str(f.scope.get("client.ip") or f.scope.get("source.ip") or next((h for h in hosts if h != server), ""))
    server, client = server or "the server", client or "the client"
    time = f" (around {words.utc(f.start_ns, 0)} UTC)" if f.start_ns else ""
    asked = [q.format(client=client, server=server) for q in _ASK.get(
        "QUALITY" if f.pattern in _QUALITY else f.pattern.split("-")[0], ())]
    return [*(q.replace("at that time", f"at that time{time}") for q in asked), *_ASK_ALWAYS]
