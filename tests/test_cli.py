"""The command line: exit statuses, streams, formats, and what happens when a capture goes away."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "render"))

from made_call import CALL_ID, PHONE, call, lost_syn, write  # noqa: E402
from report_example import report  # noqa: E402

from netdiag import cli  # noqa: E402
from netdiag.commands import options  # noqa: E402
from netdiag.model import Report, Severity  # noqa: E402


@pytest.fixture
def capture(tmp_path: Path) -> str:
    return write(tmp_path / "call.pcap", call())


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """``netdiag.engine.analyze`` replaced: returns ``box["report"]`` and notes what it was called with."""
    box: dict[str, Any] = {"report": report(captures=report().captures[:1], outcomes=report().outcomes[:9])}

    def analyze(tables: object, **given: object) -> Report:
        box["given"] = given
        answer = box["report"]
        assert isinstance(answer, Report)
        return answer

    from netdiag import engine
    monkeypatch.setattr(engine, "analyze", analyze)
    return box


def netdiag(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, "-m", "netdiag.cli", *arguments], capture_output=True, text=True,
                          env=environment | more.pop("env", {}), timeout=60, check=False, **more)


def complaints(stderr: str) -> list[str]:
    """What was said beside progress, which a loaded machine shows and a quick one does not."""
    return [line for line in stderr.splitlines() if not line.startswith(("netdiag: reading", "netdiag: listing"))]


@pytest.mark.parametrize(("fail_on", "code"), [("low", 1), ("critical", 1), ("never", 0)])
def test_findings_decide_the_exit_status(judged: dict[str, Any], capture: str, fail_on: str, code: int) -> None:
    assert cli.run(["analyze", capture, "--fail-on", fail_on]) == code


def test_incomplete_wins_over_findings(judged: dict[str, Any], capture: str) -> None:
    judged["report"] = report()
    assert cli.run(["analyze", capture]) == 3


def test_only_gates_is_nothing_found(judged: dict[str, Any], capture: str) -> None:
    gates = tuple(f for f in report().findings if f.pattern.startswith("CAP-"))
    assert gates
    judged["report"] = report(findings=gates, incidents=(), captures=report().captures[:1],
                              outcomes=report().outcomes[:9])
    assert cli.run(["analyze", capture, "--fail-on", "info"]) == 0


def test_hiding_a_finding_does_not_change_the_exit_status(judged: dict[str, Any], capture: str,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    high = tuple(f for f in report().findings if f.severity is Severity.HIGH)
    judged["report"] = report(findings=high, incidents=(), captures=report().captures[:1],
                              outcomes=report().outcomes[:9])
    assert cli.run(["analyze", capture, "--min-severity", "critical"]) == 1
    assert "2 findings of lower severity not shown" in capsys.readouterr().out


def test_choices_reach_the_engine(judged: dict[str, Any], capture: str) -> None:
    cli.run(["analyze", capture, "--select", "tls,RTP-LOSS", "--select", "SIP", "--ignore", "CAP",
             "--set", "rtp-loss.percent=2.5"])
    assert judged["given"]["select"] == ["tls", "RTP-LOSS", "SIP"]
    assert judged["given"]["ignore"] == ["CAP"]
    assert judged["given"]["settings"] == {"RTP-LOSS.percent": 2.5}


@pytest.mark.parametrize(("text", "ns"), [
    ("2026-11-22", 1795305600), ("2026-11-22T06:00:00Z", 1795327200), ("2026-11-22T06:00:00+02:00", 1795320000),
    ("1795305600", 1795305600),
])
def test_times(judged: dict[str, Any], capture: str, text: str, ns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from netdiag.tables import reader
    seen = []
    real = reader.open_captures
    monkeypatch.setattr(reader, "open_captures", lambda p, q, o, r: seen.append(o.at_ns) or real(p, q, o, r))
    cli.run(["analyze", capture, "--at-time", text])
    assert seen == [ns * 10**9]


@pytest.mark.parametrize("arguments", [
    ["analyze"], ["analyze", "nowhere.pcap"], ["analyze", "--point", "x", "y"], ["analyze", "-", "-"],
    ["analyze", "x", "--set", "RTP-LOSS=3"], ["analyze", "x", "--set", "RTP-LOSS.percent=much"],
    ["analyze", "x", "--at-time", "yesterday"], ["analyze", "x", "--at-time", "999999999999999999"],
    ["analyze", "x", "--format", "pdf"], ["explain", "NO-SUCH"], ["cases", "show", "no-such"], ["nonsense"],
    ["evidence", "x", "--case", "a", "--finding", "b"],
])
def test_usage_errors_are_one_clear_line_on_stderr(arguments: list[str], capsys: pytest.CaptureFixture[str],
                                                   tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert len([line for line in said.err.splitlines() if line.startswith(("Error:", "netdiag:"))]) == 1


def test_json_is_the_only_thing_on_stdout(judged: dict[str, Any], capture: str,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["analyze", capture, "--format", "json"])
    assert json.loads(capsys.readouterr().out)["schema_version"] == "1"


def test_output_goes_to_a_file_but_never_over_a_capture(judged: dict[str, Any], capture: str, tmp_path: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.md"
    before = Path(capture).read_bytes()
    assert cli.run(["analyze", capture, "--format", "markdown", "-o", str(out)]) == 1
    assert out.read_text(encoding="utf-8").startswith("# netdiag report")
    assert cli.run(["analyze", capture, "-o", capture]) == 2
    assert cli.run(["analyze", capture, "-o", str(tmp_path / "no" / "dir")]) == 2
    assert Path(capture).read_bytes() == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("place", [".", "none/report.txt"])
def test_where_nothing_can_be_written_is_said_before_anything_is_read(place: str, capture: str, tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "read", lambda *_, **__: pytest.fail("was read"))
    assert cli.run(["analyze", capture, "-o", str(tmp_path / place)]) == 2


def test_an_internal_error_is_one_line_and_incomplete(monkeypatch: pytest.MonkeyPatch, capture: str,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(options, "judge", lambda *a: 1 // 0)
    monkeypatch.delenv("NETDIAG_TRACEBACK", raising=False)
    assert cli.run(["analyze", capture]) == 3
    assert capsys.readouterr().err.startswith("netdiag: internal error, please report it: ZeroDivisionError")


@pytest.mark.parametrize("noun", ["calls", "registrations", "streams", "handshakes", "connections", "lookups",
                                  "checks"])
def test_listings_of_every_kind(noun: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "mixed.pcap", [*call(), *((t + 3, d) for t, d in lost_syn())])
    assert cli.run([noun, path, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert cli.run([noun, path, "--format", "csv"]) == 0
    table = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(table) == len(rows)
    assert cli.run([noun, path]) == 0
    text = capsys.readouterr().out.splitlines()
    assert len(text) == (len(rows) + 1 if rows else 1)
    counts = {"calls": 1, "registrations": 0, "streams": 2, "handshakes": 0, "connections": 2, "lookups": 0,
              "checks": 0}
    assert len(rows) == counts[noun]
    for row in rows:
        assert row["path"] == path
        assert not [k for k in row if k.endswith(("_packet", "_message"))]
        assert all(row[k] is None or row[k].endswith("Z") for k in (n[:-3] for n in row if n.endswith("_ns")))
    if table:
        assert list(table[0]) == list(rows[0])


def test_frames_in_a_listing_are_wiresharks(capture: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["calls", capture, "--format", "json"])
    row, = json.loads(capsys.readouterr().out)
    assert row["invite_frame"] == 1
    assert row["answer_frame"] == 4
    assert row["frames"] == [1, 2, 3, 4, 5, 108, 109]
    assert row["invite"] == "2026-09-21T14:13:20.000000000Z"


def test_ladder(capture: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ladder", capture, "--call-id", CALL_ID]) == 0
    assert "- INVITE x2 ---" in capsys.readouterr().out
    assert cli.run(["ladder", capture, "--call-id", CALL_ID, "--format", "markdown"]) == 0
    assert capsys.readouterr().out.startswith("```mermaid\nsequenceDiagram\n")
    assert cli.run(["ladder", capture, "--call-id", "other"]) == 2


def test_patterns_and_cases_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["patterns", "--format", "json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known
    assert all(p["id"] and p["title"] for p in known)
    assert cli.run(["explain", known[0]["id"]]) == 0
    assert capsys.readouterr().out.startswith(f"# {known[0]['id']}: ")
    assert cli.run(["cases", "--help"]) == 0


@pytest.mark.parametrize("command", [["--help"], ["patterns"], ["explain", "--help"], ["cases"], ["analyze", "--help"]])
def test_light_commands_load_nothing_heavy(command: list[str]) -> None:
    code = ("import sys; from netdiag import cli; cli.run(sys.argv[1:]); "
            "sys.exit(bool({'numpy', 'polars', 'scapy', 'cryptography'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, check=False, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert done.returncode == 0, done.stderr


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.cli.commands:
        assert cli.run([name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: netdiag {name}")


# --- as a process


def test_a_whole_run(capture: str) -> None:
    done = netdiag("calls", capture, "--format", "json")
    assert (done.returncode, complaints(done.stderr)) == (0, [])
    assert json.loads(done.stdout)[0]["caller"] == PHONE


def test_the_package_can_be_run_too() -> None:
    done = subprocess.run([sys.executable, "-m", "netdiag", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(",")[0]) == (0, "netdiag")


def test_standard_input(capture: str) -> None:
    with open(capture, "rb") as stream:
        done = netdiag("calls", "-", "--format", "json", stdin=stream)
    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["path"] == "-"


def test_a_cut_capture_is_read_as_far_as_it_goes(capture: str) -> None:
    whole = Path(capture).read_bytes()
    Path(capture).write_bytes(whole[:-10])
    done = netdiag("calls", capture, "--format", "json")
    assert done.returncode == 3
    assert len(json.loads(done.stdout)[0]["frames"]) == 6


def test_a_reader_that_goes_away_is_no_error(capture: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    running = subprocess.Popen([sys.executable, "-m", "netdiag.cli", "calls", capture], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=environment)
    assert running.stdout
    assert running.stderr
    running.stdout.close()
    assert running.wait(60) == 141
    assert complaints(running.stderr.read().decode()) == []
    running.stderr.close()


def test_a_file_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.pcap"
    os.rename(write(tmp_path / "x.pcap", call()), path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for form in ("json", "csv", "terminal"):
        done = subprocess.run([sys.executable, "-m", "netdiag.cli", "calls", path, "--format", form],
                              capture_output=True, env=environment, check=False, timeout=60)
        assert (done.returncode, complaints(done.stderr.decode())) == (0, []), form
        assert done.stdout.decode("utf-8")
        assert form == "terminal" or b"xff.pcap" in done.stdout


@pytest.mark.parametrize("seconds", [0.02, 60.0])
def test_progress_goes_to_stderr_and_only_when_work_takes_long(seconds: float, capsys: pytest.CaptureFixture[str],
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    from netdiag.commands import output
    monkeypatch.setattr(output, "QUIET_S", seconds)
    with output.Progress() as progress:
        progress.stage("reading \x1b.pcap")
        time.sleep(0.3)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == ("netdiag: reading \\x1b.pcap\n" if seconds < 1 else "")


def test_text_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    path = write(tmp_path / "ü.pcap", call())
    done = netdiag("calls", path, "--format", "csv", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.isascii()


def _guarded(work: str) -> subprocess.Popen[str]:
    code = f"import os, signal, sys, time\nfrom netdiag.commands.guard import guarded\n{work}\nsys.exit(guarded(work))"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONPATH": str(ROOT / "src")})


def test_a_capture_cut_off_while_it_is_mapped_ends_in_a_message(tmp_path: Path) -> None:
    """The real thing: pages of a mapping that no longer have a file behind them."""
    path = tmp_path / "shrinking"
    path.write_bytes(b"x" * 100_000)
    running = _guarded(f"""
import mmap
def work():
    with open({str(path)!r}, "r+b") as file:
        data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        os.truncate(file.fileno(), 10)
        return data[90_000]
""")
    out, err = running.communicate(timeout=60)
    assert running.returncode == 3
    assert out == ""
    assert err.startswith("netdiag: a capture was cut off or changed while it was being read")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_reach_the_work(number: signal.Signals, code: int) -> None:
    running = _guarded("""
def work():
    print("ready", os.getpid(), flush=True)
    time.sleep(60)
    return 0
""")
    assert running.stdout
    child = int(running.stdout.readline().split()[1])
    running.send_signal(number)
    running.communicate(timeout=60)
    assert running.returncode == code
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_an_interrupt_ends_the_wait_for_standard_input() -> None:
    running = subprocess.Popen([sys.executable, "-m", "netdiag.cli", "analyze", "-"], stdin=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert running.stderr
    assert running.stderr.readline() == "netdiag: reading -\n"  # it is past its imports, and waits
    running.send_signal(signal.SIGINT)
    try:
        assert running.wait(20) == 130
    finally:
        running.kill()
    assert running.stderr.read().strip() == "netdiag: interrupted"
    running.communicate()


def test_the_work_ends_with_its_guard() -> None:
    running = _guarded("""
def work():
    print("ready", os.getpid(), flush=True)
    time.sleep(60)
    return 0
""")
    assert running.stdout
    child = int(running.stdout.readline().split()[1])
    running.kill()
    running.wait(60)
    end = time.monotonic() + 30
    while time.monotonic() < end and Path(f"/proc/{child}").exists():
        status = Path(f"/proc/{child}/status").read_text()
        if "State:\tZ" in status:
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists()
    running.communicate()


def test_the_exit_status_of_the_work_is_that_of_the_program() -> None:
    running = _guarded("def work(): return 1")
    running.communicate(timeout=60)
    assert running.returncode == 1
