"""The report in its three forms: whole outputs, hostile text, and the schema."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import jsonschema
import pytest
from report_example import finding, report
from rich.cells import cell_len

from netdiag.model import Alternative, CaptureSummary, Evidence, Report, Severity, Status
from netdiag.render import digest, markdown, terminal
from netdiag.render import json as as_json

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
HOSTILE = "\x1b]0;owned\x07\u202e[red]`<b>|\n=1+1"


def hostile() -> Report:
    """Every field that can hold text from the wire or from a file name holds bad text."""
    bad = finding(
        title=HOSTILE, summary=HOSTILE, reasons=(HOSTILE,), limitations=(HOSTILE,), affected=(HOSTILE,),
        scope={"sip.call_id": HOSTILE, "x": float("nan")},
        evidence=(Evidence(HOSTILE, HOSTILE, (1,), HOSTILE, {"sip.call_id": HOSTILE}),),
    )
    capture = CaptureSummary(HOSTILE, HOSTILE, "pcap", "", 1, 1, 0, {HOSTILE: 1}, 1, 2, False, HOSTILE, (HOSTILE,),
                             (HOSTILE,))
    return report(findings=(bad,), incidents=(), captures=(capture,))


@pytest.mark.parametrize(("name", "text"), [
    ("report.80.txt", terminal.render(report(), 80)),
    ("report.100.verbose.txt", terminal.render(report(), 100, False, True)),
    ("report.md", markdown.render(report())), ("report.json", as_json.render(report())),
])
def test_whole_output(name: str, text: str) -> None:
    """To accept a change: write ``text`` to the file and read the difference."""
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, verbose: bool) -> None:
    lines = terminal.render(report(), width, verbose=verbose).splitlines()
    assert max(map(cell_len, lines)) <= width


def test_colour_changes_no_text() -> None:
    painted = terminal.render(report(), 80, colour=True)
    assert "\x1b[" in painted
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == terminal.render(report(), 80)


def test_hostile_text_is_visible_and_powerless_in_the_terminal() -> None:
    text = terminal.render(hostile(), 100)
    assert all(line.isprintable() for line in text.split("\n"))
    assert r"\x1b]0;owned\x07\u202e[red]" in text.replace("\n", "")


def test_hostile_text_is_powerless_in_markdown() -> None:
    text = markdown.render(hostile())
    assert all(line.isprintable() for line in text.split("\n"))
    outside = re.sub(r"(`+)[^`].*?\1", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    assert not re.search(r"(?<!\\)<b>", outside)


def test_hostile_text_is_intact_in_json() -> None:
    text = as_json.render(hostile())
    assert text.isascii()
    document = json.loads(text)
    assert document["findings"][0]["title"] == HOSTILE
    assert document["findings"][0]["scope"]["x"] is None


@pytest.mark.parametrize("made", [
    report(), hostile(), report(findings=(), incidents=(), captures=(), outcomes=(), anomalies=()),
])
def test_json_follows_the_schema(made: Report) -> None:
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(as_json.document(made))


def test_schema_and_document_have_the_same_fields() -> None:
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    document = as_json.document(report())
    assert set(schema["properties"]) == set(document)
    for name, key in (("finding", "findings"), ("capture", "captures"), ("incident", "incidents"),
                      ("outcome", "outcomes"), ("anomaly", "anomalies")):
        assert set(schema["$defs"][name]["properties"]) == set(document[key][0]), name


def test_an_impact_is_told_below_its_mechanism_and_not_again() -> None:
    text = terminal.render(report(), 100)
    assert text.count("SIP-INVITE-TIMEOUT") == 1
    assert text.index("so also") > text.index("1. CRITICAL")


def test_advice_for_a_pattern_is_given_once() -> None:
    many = tuple(finding(id=f"{i:012x}", summary=f"number {i}") for i in range(20))
    for text in (terminal.render(report(findings=many, incidents=()), 100),
                 markdown.render(report(findings=many, incidents=()))):
        assert text.count("Let the phones refresh every 30 s.") == 1
        assert text.count("number ") == 20


def test_a_filter_shared_by_points_is_shown_once() -> None:
    text = terminal.render(report(), 100)
    assert text.count('sip.Call-ID == "a84b4c76e66710@192.168.1.10"') == 1


def test_filters_that_differ_name_their_point() -> None:
    parts = tuple(Evidence(name, f"{name}.pcap", (n,), f"frame.number in {{{n}}}") for n, name in ((4, "a"), (7, "b")))
    made = report(findings=(finding(evidence=parts),), incidents=())
    text = terminal.render(made, 100)
    assert "filter     a: frame.number in {4}" in text
    assert "           b: frame.number in {7}" in text
    document = markdown.render(made)
    assert "Display filter (a):\n\n```\nframe.number in {4}" in document
    assert "Display filter (b):\n\n```\nframe.number in {7}" in document
    rotated = tuple(dataclasses.replace(e, point="capture") for e in parts)
    assert "filter     a.pcap: frame.number in {4}" in terminal.render(
        report(findings=(finding(evidence=rotated),), incidents=()), 100)


def test_many_reasons_for_skipping_are_folded_and_the_most_frequent_stay() -> None:
    skipped = {f"kind {i:02}": 1 for i in range(20)} | {"ARP": 70, "LLDP": 9}
    capture = dataclasses.replace(report().captures[0], frames=199, decoded=100, skipped=skipped)
    for text in (terminal.render(report(captures=(capture,)), 100), markdown.render(report(captures=(capture,)))):
        line = " ".join(text.split())
        assert "(ARP: 70, LLDP: 9, kind 00: 1, kind 01: 1, kind 02: 1 and 17 more kinds, 17 frames)" in line
        assert "kind 03" not in text


def test_the_foot_counts_gates_apart_like_the_headline() -> None:
    text = terminal.render(report(), 100)
    assert "\n3 findings: " in text
    assert "checked: 3 found, 1 limits the capture, 2 open, 2 clear, 1 not applicable, 1 failed" in text


def test_contents_say_that_they_are_sums_over_points() -> None:
    assert "1 TLS handshake (at 2 points)" in terminal.render(report(), 100)
    assert "(at " not in terminal.render(report(captures=report().captures[:1]), 100)


def test_findings_below_a_severity_are_hidden_but_counted_and_incidents_keep_their_impacts() -> None:
    low = finding(id="ffffffffffff", severity=Severity.LOW, keys=frozenset())
    full = report(findings=(*report().findings, low))
    shown, hidden = digest.above(full, Severity.CRITICAL)
    assert hidden == 1
    assert [f.pattern for f in shown.findings] == ["NAT-UDP-EXPIRED", "SIP-INVITE-TIMEOUT", "TLS-CERT-EXPIRED"]
    assert shown.outcomes == full.outcomes
    assert "1 finding of lower severity not shown" in terminal.render(shown, 100, hidden=hidden)


def test_nothing_found_says_so_and_a_damaged_capture_qualifies_it() -> None:
    text = terminal.render(report(findings=(), incidents=()), 100)
    assert "No fault found in what could be read" in text
    whole = tuple(c for c in report().captures if c.complete)
    calm = report(findings=(), incidents=(), captures=whole, outcomes=report().outcomes[:9])
    assert "\nNo fault found\n" in terminal.render(calm, 100)


def test_findings_that_are_only_hidden_are_not_called_none() -> None:
    full = report(captures=tuple(c for c in report().captures if c.complete))
    shown, hidden = dataclasses.replace(full, findings=(), incidents=()), 3
    for text in (terminal.render(shown, 100, True, hidden=hidden), markdown.render(shown, hidden=hidden)):
        assert "3 findings of lower severity not shown" in text
        assert "No fault found" not in text
        assert "\x1b[32m" not in text


def test_a_report_of_patterns_that_read_nothing_here_does_not_say_that_all_is_well() -> None:
    idle = tuple(dataclasses.replace(o, status=Status.NOT_APPLICABLE) for o in report().outcomes[:2])
    text = terminal.render(report(findings=(), incidents=(), outcomes=idle), 100)
    assert "Nothing was judged: what the chosen patterns read is not in the capture" in text


def test_what_failed_is_said_and_a_report_without_findings_does_not_look_as_if_all_were_well() -> None:
    failed = {"calls": {"486": 2, "503": 1}, "tls_handshakes": {"unknown_ca": 1}}
    for found in (report(failures=failed), report(findings=(), incidents=(), failures=failed)):
        for text in (terminal.render(found, 100), markdown.render(found)):
            assert "3 calls (486 ×2, 503) · 1 TLS handshake (unknown_ca)" in text.replace("\\_", "_").replace("\n", " ")
    calm = report(findings=(), incidents=(), captures=tuple(c for c in report().captures if c.complete),
                  outcomes=tuple(o for o in report().outcomes if o.status is not Status.ERROR))
    uneasy = dataclasses.replace(calm, failures=failed)
    assert "No fault found\n" in terminal.render(calm, 100)
    assert "\x1b[32mNo fault" in terminal.render(calm, 100, True)
    assert "No fault found that a pattern knows" in terminal.render(uneasy, 100)
    assert "\x1b[32mNo fault" not in terminal.render(uneasy, 100, True)
    assert "`netdiag calls`, `netdiag handshakes`." in " ".join(terminal.render(uneasy, 100).split())


def test_a_finding_that_stands_alone_has_its_other_explanations_in_markdown_too() -> None:
    lone = finding(keys=frozenset(), alternatives=(Alternative("it | was the cat", "fur", ""),))
    text = markdown.render(report(findings=(lone,), incidents=()))
    assert "**Or else**" in text
    assert "| it \\| was the cat | fur | – |" in text


def test_another_kind_of_the_same_pattern_has_its_own_thing_to_do_at_once() -> None:
    kinds = tuple(finding(id=f"{n}" * 12, keys=frozenset(), mitigation=text)
                  for n, text in ((1, "Turn this."), (2, "Turn that."), (3, "Turn this.")))
    text = terminal.render(report(findings=kinds, incidents=()), 100)
    assert [text.count(t) for t in ("Turn this.", "Turn that.", f"do now     as above for {kinds[0].pattern}")] == [
        1, 1, 1]
    assert text.count(f"fix        as above for {kinds[0].pattern}") == 1
    assert "What to do: Turn that. Else as above for" in markdown.render(report(findings=kinds, incidents=()))


def test_a_name_as_long_as_a_datagram_is_cut() -> None:
    long = report(findings=(finding(affected=("x" * 60_000,), affected_total=1),), incidents=())
    assert len(terminal.render(long, 80)) < 6000
    assert len(markdown.render(long)) < 6000


def test_accounting_adds_up() -> None:
    assert "inside.pcap: 120 frames = 118 decoded + 2 skipped (ARP: 2)" in terminal.render(report(), 100)


def test_two_files_of_one_name_are_told_apart() -> None:
    first, second = report().captures
    twins = (dataclasses.replace(first, path="a/x.pcap"), dataclasses.replace(second, path="b/x.pcap"))
    assert digest.names(report(captures=twins)) == {"a/x.pcap": "a/x.pcap", "b/x.pcap": "b/x.pcap"}
