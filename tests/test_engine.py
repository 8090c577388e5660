"""Rules that hold for every pattern: gates cap, repetition lifts once, errors are told, one cause is one finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from checkout import ROOT

from netdiag import diagnosis, engine, registry
from netdiag.errors import RegistryError
from netdiag.model import (
    Cap,
    Confidence,
    Detection,
    Evidence,
    Finding,
    Occurrence,
    Pattern,
    Reference,
    Severity,
    Status,
    clear,
    found,
)
from netdiag.tables import Tables
from netdiag.tables.reader import open_captures

SAMPLE = Path(__file__).parents[1] / "captures" / "samples" / "fw" / "syn_drop.hit.pcap"


def pattern(name: str, explains: tuple[str, ...] = (), caps: tuple[Cap, ...] = ()) -> Pattern:
    return Pattern(name, f"title of {name}", Severity.INFO if caps else Severity.HIGH, (), ("tcp",), (Reference("x"),),
                   "tcp", "now", "fix", "prevent", "next", explains=explains, caps=caps)


def occurrence(subject: str, group: str = "g", confidence: Confidence = Confidence.SUSPECTED, point: str = "a",
               frames: tuple[int, ...] = (1,), **more: object) -> Occurrence:
    base = Occurrence(subject, (group,), f"{subject} failed", confidence, ("seen",),
                      (Evidence(point, f"{point}.pcap", frames, "tcp"),), {}, keys=frozenset({f"call:{subject}"}))
    return replace(base, **more)  # type: ignore[arg-type]


Detect = Callable[[Tables, Mapping[str, float]], Detection]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[Pattern, Detect]], engine.Report]:
    """``run({pattern: detect})``: a report by these detectors alone."""
    tables = open_captures([str(SAMPLE)])

    def analyse(detectors: dict[Pattern, Detect]) -> engine.Report:
        known = {p.id: p for p in detectors}
        monkeypatch.setattr(registry, "patterns", lambda: known)
        monkeypatch.setattr(registry, "detector", lambda i: detectors[known[i]])
        return engine.analyze(tables)

    return analyse


def gives(*items: Occurrence, **more: object) -> Detect:
    return lambda tables, settings: found(list(items), **more)  # type: ignore[arg-type]


def test_a_detector_that_raises_is_an_error_and_the_others_go_on(run) -> None:  # type: ignore[no-untyped-def]
    def broken(tables: Tables, settings: Mapping[str, float]) -> Detection:
        raise KeyError("no such column")

    report = run({pattern("A-BAD"): broken, pattern("B-GOOD"): lambda t, s: clear("fine")})
    assert {o.pattern: o.status for o in report.outcomes} == {"A-BAD": Status.ERROR, "B-GOOD": Status.CLEAR}
    assert "KeyError" in report.outcomes[0].reason
    assert not report.complete


KINDS: tuple[Cap, ...] = ("absence", "size", "clock")
LIMITS = {"absence": Confidence.SUSPECTED, "size": Confidence.SUSPECTED, "clock": Confidence.PROBABLE}


def capped(run, gate: Occurrence, fault: Occurrence, caps: tuple[Cap, ...] = ("absence",),  # type: ignore[no-untyped-def]
           ) -> Finding:
    report = run({pattern("CAP-X", caps=caps): gives(gate), pattern("A-FAULT"): gives(fault)})
    finding: Finding
    (finding,) = [f for f in report.findings if f.pattern == "A-FAULT"]
    return finding


@pytest.mark.parametrize("caps", KINDS)
@pytest.mark.parametrize("rests", KINDS)
def test_a_gate_caps_what_rests_on_its_kind_alone(run, caps: Cap, rests: Cap) -> None:  # type: ignore[no-untyped-def]
    sure = occurrence("c", confidence=Confidence.CONFIRMED, flows=(3,), **{rests: True})  # type: ignore[arg-type]
    fault = capped(run, occurrence("tap", flows=(3,)), sure, (caps,))
    assert fault.confidence is (LIMITS[rests] if caps == rests else Confidence.CONFIRMED)
    assert len(fault.reasons) == (2 if caps == rests else 1)


def test_a_cap_says_why_and_by_which_gates(run) -> None:  # type: ignore[no-untyped-def]
    report = run({
        pattern("CAP-X", caps=("absence",)): gives(occurrence("tap", flows=(3,))),
        pattern("CAP-Y", caps=("size", "absence")): gives(occurrence("tap", flows=(3,))),
        pattern("CAP-Z", caps=("absence",)): gives(occurrence("tap", flows=(4,))),
        pattern("A-FAULT"): gives(occurrence("c", confidence=Confidence.PROBABLE, absence=True, flows=(3, 9)))})
    (fault,) = [f for f in report.findings if f.pattern == "A-FAULT"]
    assert fault.reasons[-1] == ("capped at suspected by CAP-X, CAP-Y: what is missing may only be missing in the "
                                 "capture")


@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_lifts_nothing_and_repeats_nothing(run, kind: Cap) -> None:  # type: ignore[no-untyped-def]
    fault = capped(run, occurrence("tap", flows=(3,)), occurrence("c", flows=(3,), **{kind: True}), KINDS)  # type: ignore[arg-type]
    assert fault.confidence is Confidence.SUSPECTED
    assert fault.reasons == ("seen",)


def test_a_gate_caps_its_own_flows_only(run) -> None:  # type: ignore[no-untyped-def]
    gate = occurrence("tap", flows=(4,), scope={"capture.point": "a"})
    elsewhere = occurrence("c", confidence=Confidence.PROBABLE, absence=True, flows=(3,))
    assert capped(run, gate, elsewhere).confidence is Confidence.PROBABLE


@pytest.mark.parametrize(("point", "expected"), [("a", Confidence.SUSPECTED), ("b", Confidence.PROBABLE)])
def test_a_gate_without_flows_caps_all_of_its_point(run, point: str,  # type: ignore[no-untyped-def]
                                                    expected: Confidence) -> None:
    fault = occurrence("c", confidence=Confidence.PROBABLE, absence=True, point="a", flows=(999_999,))
    assert capped(run, occurrence("tap", scope={"capture.point": point}), fault).confidence is expected


@pytest.mark.parametrize(("point", "expected"), [
    ("capture", Confidence.SUSPECTED), ("other", Confidence.PROBABLE)])
def test_a_flow_is_at_its_point_without_evidence_too(run, point: str,  # type: ignore[no-untyped-def]
                                                     expected: Confidence) -> None:
    fault = occurrence("c", confidence=Confidence.PROBABLE, absence=True, flows=(0,), evidence=())
    assert capped(run, occurrence("tap", scope={"capture.point": point}), fault).confidence is expected


def test_a_gate_without_flows_and_point_caps_nothing(run) -> None:  # type: ignore[no-untyped-def]
    fault = occurrence("c", confidence=Confidence.PROBABLE, absence=True, flows=(0,))
    assert capped(run, occurrence("tap"), fault).confidence is Confidence.PROBABLE


def test_gates_do_not_cap_each_other(run) -> None:  # type: ignore[no-untyped-def]
    report = run({pattern(name, caps=KINDS): gives(
        occurrence("tap", confidence=Confidence.CONFIRMED, flows=(3,), absence=True)) for name in ("CAP-X", "CAP-Y")})
    assert {f.confidence for f in report.findings} == {Confidence.CONFIRMED}


def test_a_pattern_cannot_cap_what_is_not_known() -> None:
    with pytest.raises(ValueError, match="there are absence, size, clock"):
        pattern("CAP-X", caps=("weather",))  # type: ignore[arg-type]


@pytest.mark.parametrize(("constants", "expected"), [
    ((350.0, 351.0, 349.0), Confidence.PROBABLE), ((350.0, 351.0), Confidence.SUSPECTED),
    ((350.0, 360.0, 340.0), Confidence.SUSPECTED), ((32.0, 32.9, 31.2), Confidence.PROBABLE)])
def test_three_equal_constants_lift_a_suspicion_once(run, constants: tuple[float, ...],  # type: ignore[no-untyped-def]
                                                     expected: Confidence) -> None:
    report = run({pattern("A-TIMER"): gives(*(occurrence(f"c{i}", constant=c) for i, c in enumerate(constants)))})
    assert report.findings[0].confidence is expected


def test_repetition_never_confirms(run) -> None:  # type: ignore[no-untyped-def]
    items = [occurrence(f"c{i}", confidence=Confidence.PROBABLE, constant=5.0) for i in range(5)]
    assert run({pattern("A-TIMER"): gives(*items)}).findings[0].confidence is Confidence.PROBABLE


def test_one_fault_at_two_points_is_one_finding_with_evidence_of_both(run) -> None:  # type: ignore[no-untyped-def]
    report = run({pattern("A-FAULT"): gives(
        occurrence("c1", point="in", frames=(4,)), occurrence("c2", point="in", frames=(9,)),
        occurrence("c1", point="out", frames=(2,), confidence=Confidence.CONFIRMED, summary="proved outside"),
        examined={("g",): 7})})
    (finding,) = report.findings
    assert (finding.affected_total, finding.examined_total) == (2, 7)
    assert finding.confidence is Confidence.CONFIRMED
    assert finding.summary == "proved outside"
    assert {e.point: e.frames for e in finding.evidence} == {"out": (2,), "in": (4, 9)}


def test_groups_are_findings_of_their_own_and_ids_are_stable(run) -> None:  # type: ignore[no-untyped-def]
    detectors = {pattern("A-FAULT"): gives(occurrence("c1", "server 1"), occurrence("c2", "server 2"))}
    first, second = run(detectors).findings, run(detectors).findings
    assert [f.id for f in first] == [f.id for f in second]
    assert len({f.id for f in first}) == 2


def test_an_occurrence_may_stand_for_more(run) -> None:  # type: ignore[no-untyped-def]
    report = run({pattern("A-FAULT"): gives(occurrence("c1"), occurrence("c2", more=40))})
    (finding,) = report.findings
    assert (finding.affected, finding.affected_total, finding.examined_total) == (("c1", "c2"), 42, 42)
    assert report.outcomes[0].reason == "42 met"


def test_a_gate_touches_all_the_flows_that_an_occurrence_stands_for(run) -> None:  # type: ignore[no-untyped-def]
    gate = pattern("CAP-GATE", caps=("absence",))
    fault = occurrence("c2", flows=(0,), absence=True, confidence=Confidence.CONFIRMED)
    report = run({gate: gives(occurrence("c1", more=1, flows=(1, 0))), pattern("Z-FAULT"): gives(fault)})
    assert {f.pattern: f.confidence for f in report.findings}["Z-FAULT"] is Confidence.SUSPECTED


def test_of_a_flood_of_findings_the_surest_are_told_and_the_rest_is_counted(
        run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(engine, "FINDINGS", 3)
    seen = [occurrence(f"c{i}", f"server {i}") for i in range(5)]
    seen += [occurrence("c5", "server 3"), occurrence("c6", "server 4", confidence=Confidence.CONFIRMED)]
    report = run({pattern("A-FAULT"): gives(*seen)})
    assert [set(f.affected) for f in report.findings] == [{"c4", "c6"}, {"c3", "c5"}, {"c0"}]
    (left,) = [a for a in report.anomalies if a.table == "A-FAULT"]
    assert (left.reason, left.count) == (
        "more than 3 findings: the surest are told, and of those that touch most", 2)


def test_unknown_patterns_and_settings_are_refused() -> None:
    tables = open_captures([str(SAMPLE)])
    with pytest.raises(RegistryError, match="did you mean RTP-ONEWAY"):
        engine.analyze(tables, select=["RTP-ONEWY"])
    with pytest.raises(RegistryError, match=r"there are FW-SYN-DROP\.min_syns"):
        engine.analyze(tables, settings={"FW-SYN-DROP.min_sins": 4})


def test_a_setting_changes_the_verdict() -> None:
    tables = open_captures([str(SAMPLE)])
    assert engine.analyze(tables, select=["FW-SYN-DROP"]).findings
    assert not engine.analyze(tables, select=["FW"], settings={"FW-SYN-DROP.min_syns": 7}).findings


def finding(name: str, *keys: str, confidence: Confidence = Confidence.CONFIRMED) -> Finding:
    return Finding(name, name, f"title of {name}", Severity.HIGH, confidence, ("why",), "what", {}, "", (), (), 1, 1,
                   "calls", (), "", "", "", "next", (), frozenset(keys), 0, 1)


def test_incidents_join_mechanism_and_impact_over_shared_keys_only() -> None:
    patterns = {p.id: p for p in (pattern("A-CAUSE", ("B-MIDDLE",)), pattern("B-MIDDLE", ("C-END",)), pattern("C-END"))}
    cause, middle, end = finding("A-CAUSE", "call:1"), finding("B-MIDDLE", "call:1", "aor:x"), finding("C-END", "aor:x")
    (incident,) = diagnosis.incidents([cause, middle, end], patterns)
    assert incident.mechanism == "A-CAUSE"
    assert set(incident.impacts) == {"B-MIDDLE", "C-END"}
    apart = diagnosis.incidents([cause, finding("B-MIDDLE", "call:2")], patterns)
    assert [i.impacts for i in apart] == [(), ()]


@pytest.mark.parametrize(("proved", "guess", "impacts"), [
    (Confidence.CONFIRMED, Confidence.SUSPECTED, [("C-END",), ()]),
    (Confidence.CONFIRMED, Confidence.PROBABLE, [("C-END",), ("C-END",)]),
    (Confidence.PROBABLE, Confidence.SUSPECTED, [("C-END",), ("C-END",)])])
def test_what_is_proved_to_follow_from_one_cause_is_no_impact_of_a_guess(
        proved: Confidence, guess: Confidence, impacts: list[tuple[str, ...]]) -> None:
    patterns = {p.id: p for p in (pattern("A-CAUSE", ("C-END",)), pattern("B-GUESS", ("C-END",)), pattern("C-END"))}
    found = diagnosis.incidents([finding("A-CAUSE", "call:1", confidence=proved), finding("C-END", "call:1"),
                                 finding("B-GUESS", "call:1", confidence=guess)], patterns)
    assert [i.impacts for i in sorted(found, key=lambda i: i.mechanism)] == impacts


@pytest.mark.parametrize(("stream", "joined"), [("ssrc:1", True), ("ssrc:2", False), ("aor:x", False)])
def test_what_happens_to_one_stream_of_a_call_does_not_explain_the_other(stream: str, joined: bool) -> None:
    patterns = {p.id: p for p in (pattern("A-CAUSE", ("B-END",)), pattern("B-END"))}
    found = diagnosis.incidents([finding("A-CAUSE", "call:1", "ssrc:1"), finding("B-END", "call:1", stream)], patterns)
    assert (len(found) == 1) is joined


@pytest.mark.parametrize(("keys", "confidence", "own", "shown"), [
    ("call:1", Confidence.SUSPECTED, Confidence.PROBABLE, True),
    ("call:1", Confidence.CONFIRMED, Confidence.PROBABLE, False),
    ("call:1", Confidence.SUSPECTED, Confidence.CONFIRMED, False),
    ("host:h", Confidence.SUSPECTED, Confidence.PROBABLE, False),
    ("call:1 ssrc:1", Confidence.SUSPECTED, Confidence.PROBABLE, True),
    ("call:1 ssrc:2", Confidence.SUSPECTED, Confidence.PROBABLE, False)])
def test_a_rival_and_what_it_rivals_are_unsure_and_about_the_same_call(
        keys: str, confidence: Confidence, own: Confidence, shown: bool) -> None:
    patterns = {p.id: p for p in (pattern("A-CAUSE"), pattern("Z-OTHER"))}
    other = finding("Z-OTHER", *keys.split(), confidence=confidence)
    cause = finding("A-CAUSE", "call:1", "host:h", "ssrc:1", confidence=own)
    rivals = diagnosis.incidents([cause, other], patterns)
    (mine,) = [i for i in rivals if i.mechanism == "A-CAUSE"]
    assert bool(mine.alternatives) is shown


def test_a_pattern_is_no_rival_of_itself_and_few_rivals_are_named() -> None:
    patterns = {p.id: p for p in (pattern("A-CAUSE"), *(pattern(f"Z-OTHER{i}") for i in range(9)))}
    unsure = Confidence.SUSPECTED
    own = [replace(finding("A-CAUSE", "call:1", confidence=unsure), id=f"own {i}") for i in range(3)]
    others = [finding(f"Z-OTHER{i}", "call:1", confidence=unsure) for i in range(9)]
    mine = [i for i in diagnosis.incidents([*own, *others], patterns) if i.mechanism.startswith("own")]
    assert [len(i.alternatives) for i in mine] == [diagnosis.RIVALS] * 3
    assert not any("A-CAUSE" in a.title for i in mine for a in i.alternatives)


def test_a_table_that_cannot_be_built_is_an_error_of_each_pattern_that_reads_it(
        monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Tables) -> None:
        raise ValueError("no table")

    monkeypatch.setattr(Tables, "sip", property(broken))
    tables = open_captures([str(ROOT / "captures" / "samples" / "sip" / "options_flap.hit.pcap")])
    outcomes = {o.pattern: o.status for o in engine.analyze(tables, select=["SIP"]).outcomes}
    assert set(outcomes.values()) == {Status.ERROR}
