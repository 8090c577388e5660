"""``--second-opinion``: what tshark says about the cited frames, and what is said when it cannot be asked."""

from __future__ import annotations

import builtins
import dataclasses
import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

import netdiag
from netdiag import cli, registry, second_opinion
from netdiag.model import Evidence, Report, SecondOpinion
from netdiag.render import json as as_json
from netdiag.render import markdown, terminal

CASE = ROOT / "captures" / "samples" / "cases" / "registration-outlives-nat-binding"
INSIDE, OUTSIDE = str(CASE / "broken.inside.pcap"), str(CASE / "broken.outside.pcap")

pytestmark = [pytest.mark.tshark, pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")]


@pytest.fixture(scope="module")
def report() -> Report:
    return netdiag.analyze(points={"inside": INSIDE, "outside": OUTSIDE})


@pytest.fixture
def use_filter(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives every pattern this display filter."""
    known = registry.patterns()

    def use(text: str) -> None:
        changed = {i: dataclasses.replace(p, filter=text) for i, p in known.items()}
        monkeypatch.setattr(registry, "patterns", lambda: changed)

    return use


def tshark(path: str, display_filter: str) -> set[int]:
    out = subprocess.run(["tshark", "-n", "-r", path, "-Y", display_filter, "-T", "fields", "-e", "frame.number"],
                         capture_output=True, text=True, check=True)
    return set(map(int, out.stdout.split()))


def cited(report: Report, path: str) -> set[int]:
    return {n for f in report.findings for e in f.evidence if e.path == path for n in e.frames}


def test_counts_are_those_of_tshark_itself(report: Report) -> None:
    version = subprocess.run(["tshark", "-v"], capture_output=True, text=True, check=True).stdout
    answered = second_opinion.ask(report)
    assert answered.notes == ()
    assert len({f.pattern for f in answered.findings}) >= 3
    filters = {i: p.filter for i, p in registry.patterns().items()}
    for f in answered.findings:
        o = f.second_opinion
        assert o is not None
        expected = sum(len(tshark(e.path, filters[f.pattern]) & set(e.frames)) for e in f.evidence)
        assert (o.tool, o.frames_shown) == ("tshark", expected), f.pattern
        assert o.frames_cited == sum(len(e.frames) for e in f.evidence)
        assert o.version in version.splitlines()[0]
        assert o.protocols[0] == "udp"
        assert "sip" in o.protocols
    assert [dataclasses.replace(f, second_opinion=None) for f in answered.findings] == list(report.findings)


def test_frames_that_the_filter_does_not_show(report: Report, use_filter: Callable[[str], None]) -> None:
    path = report.findings[0].evidence[0].path
    some = sorted(cited(report, path))
    half = some[len(some) // 2]
    use_filter(f"sip && frame.number < {half}")
    one = dataclasses.replace(report.findings[0], evidence=(Evidence("inside", path, tuple(some), ""),))
    answered, = second_opinion.ask(dataclasses.replace(report, findings=(one,))).findings
    expected = tshark(path, f"sip && frame.number < {half}") & set(some)
    assert answered.second_opinion is not None
    assert 0 < len(expected) < len(some)
    assert (answered.second_opinion.frames_shown, answered.second_opinion.frames_cited) == (len(expected), len(some))


def test_a_file_is_dissected_as_few_times_as_possible(report: Report, monkeypatch: pytest.MonkeyPatch,
                                                      use_filter: Callable[[str], None]) -> None:
    passes: list[str] = []
    real = second_opinion._File._pass
    monkeypatch.setattr(second_opinion._File, "_pass",
                        lambda self, text, last: passes.append(text) or real(self, text, last))
    use_filter("udp")
    f = report.findings[0]
    path = f.evidence[0].path
    several = tuple(dataclasses.replace(f, pattern=pattern, evidence=(Evidence("inside", path, frames, ""),))
                    for pattern, frames in (("SIP-INVITE-TIMEOUT", (1, 2)), ("RTP-ONEWAY", (3, 5)),
                                            ("NAT-UDP-EXPIRY", (5, 6))))
    answered = second_opinion.ask(dataclasses.replace(report, findings=several))
    expected = tshark(path, "udp")
    for made in answered.findings:
        assert made.second_opinion is not None
        assert made.second_opinion.frames_shown == len(expected & set(made.evidence[0].frames))
    missing = not {1, 2, 3, 5, 6} <= expected
    assert len(passes) == 2 + missing  # the first two share no frame; frame 5 is cited twice


@pytest.mark.parametrize("pattern_filter", ["no.such.field == 1", "((("])
def test_a_filter_that_tshark_refuses_is_no_answer(report: Report, use_filter: Callable[[str], None],
                                                   pattern_filter: str) -> None:
    use_filter(pattern_filter)
    answered = second_opinion.ask(report)
    assert all(f.second_opinion is None for f in answered.findings)
    assert len(answered.notes) == len({e.path for f in report.findings for e in f.evidence})
    assert all(n.startswith("second opinion not available on ") for n in answered.notes)


def elsewhere(report: Report, path: str) -> Report:
    """All evidence in ``path``."""
    findings = tuple(dataclasses.replace(f, evidence=(dataclasses.replace(f.evidence[0], path=path),))
                     for f in report.findings)
    return dataclasses.replace(report, findings=findings)


def test_files_that_tshark_cannot_read_as_far(report: Report, tmp_path: Path,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cut.pcap").write_bytes(Path(INSIDE).read_bytes()[:300])
    (tmp_path / "other.pcap").write_bytes(b"nonsense" * 99)
    for path in (str(tmp_path / "cut.pcap"), str(tmp_path / "other.pcap"), "-", os.devnull, str(tmp_path / "gone")):
        answered = second_opinion.ask(elsewhere(report, path))
        assert all(f.second_opinion is None for f in answered.findings), path
        note, = answered.notes
        assert note.startswith(f"second opinion not available on {path}: ")
    gc.collect()
    assert capfd.readouterr() == ("", "")  # asyncio and pyshark say nothing of their own


def test_a_tshark_that_takes_too_long_is_ended(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "tshark"
    program.write_text(f'#!/bin/sh\n[ "$1" = -v ] && exec {shutil.which("tshark")} -v\necho $$ >> {tmp_path}/pids\n'
                       "exec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    answered = second_opinion.ask(elsewhere(report, INSIDE), timeout_s=0.5)
    assert answered.notes == (f"second opinion not available on {INSIDE}: no answer in 0.5 s",)
    pids = (tmp_path / "pids").read_text().split()
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    gc.collect()
    assert capfd.readouterr().err == ""


def test_a_config_file_beside_the_capture_does_not_choose_the_program(report: Report, tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.ini").write_text("[dumpcap]\nx = 1\n")
    done = subprocess.run([sys.executable, "-m", "netdiag.cli", "analyze", "--second-opinion", "--format", "json",
                           "--point", f"inside={INSIDE}", "--point", f"outside={OUTSIDE}"], cwd=tmp_path,
                          capture_output=True, text=True, check=False, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "default"})
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert document["notes"] == []
    assert all(f["second_opinion"]["tool"] == "tshark" for f in document["findings"])
    assert [line for line in done.stderr.splitlines() if not line.startswith(
        ("netdiag: reading", "netdiag: checking", "netdiag: asking"))] == []


def no_pyshark(monkeypatch: pytest.MonkeyPatch) -> str:
    real = builtins.__import__

    def refuse(name: str, *more: Any) -> Any:
        if name.split(".")[0] == "pyshark":
            raise ModuleNotFoundError("No module named 'pyshark'")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    return "pyshark cannot be imported"


def no_tshark(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return "tshark is not installed"


@pytest.mark.parametrize("take_away", [no_pyshark, no_tshark])
def test_without_it_the_report_says_so_and_the_exit_status_stays(
        take_away: Callable[[pytest.MonkeyPatch], str], monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    said = take_away(monkeypatch)
    for form in ("json", "terminal", "markdown"):
        assert cli.run(["analyze", OUTSIDE, "--format", form, "--fail-on", "never"]) == 0
        usual = capsys.readouterr()
        assert cli.run(["analyze", OUTSIDE, "--format", form, "--fail-on", "never", "--second-opinion"]) == 0
        out = capsys.readouterr()
        line, = [line for line in out.err.splitlines() if "second opinion" in line]
        assert line.startswith(f"netdiag: second opinion not available: {said}")
        assert "second opinion not available" in out.out
        assert "second opinion not available" not in usual.out
        if form == "json":
            document = json.loads(out.out)
            assert document["notes"] == [line.removeprefix("netdiag: ")]
            assert {f["second_opinion"] for f in document["findings"]} == {None}


def test_it_is_shown_in_every_form(report: Report) -> None:
    opinion = SecondOpinion("tshark", "4.0.17", 6, 8, ("udp", "sip"))
    asked = dataclasses.replace(report, findings=tuple(
        dataclasses.replace(f, second_opinion=opinion) for f in report.findings))
    text = "tshark 4.0.17 shows 6 of 8 cited frames with the pattern's filter"
    shown = sum(not f.pattern.startswith("CAP-") for f in report.findings)
    for render in (terminal.render, markdown.render):
        assert " ".join(render(asked).replace("\\", "").split()).count(text) == shown
        assert "opinion" not in render(report)
    for made in as_json.document(asked)["findings"]:
        assert made["second_opinion"] == {"tool": "tshark", "version": "4.0.17", "frames_shown": 6, "frames_cited": 8,
                                          "protocols": ["udp", "sip"]}
    import jsonschema
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(json.loads(as_json.render(asked)))


def test_nobody_is_asked_without_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_opinion, "ask", lambda *a, **k: 1 // 0)
    assert cli.run(["analyze", INSIDE, "--fail-on", "never"]) == 0
