"""Running variants: expectations against findings, recordings, and failures that name their reason."""

import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from netdiag import cases
from netdiag.cases import Case, load_case
from netdiag.errors import LabError
from netdiag.lab.runner import run_case, run_variant

InLab = Callable[..., str]

TOML = """
slug = "small"
title = "Small"
summary = "One ping."
patterns = ["FW-SYN-DROP"]
requires = [{requires}]
[points]
client = "here"
[variants.broken]
description = "fails"
expect = ["FW-SYN-DROP"]
[variants.fixed]
description = "works"
expect = []
"""

LAB = """
def run(lab, variant):
    a, b = lab.node("a"), lab.node("b")
    lab.link(a, "eth0", "10.0.0.1/24", b, "eth0", "10.0.0.2/24")
    lab.capture(a, "eth0", "{point}")
    a.run(["ping", "-c", "2" if variant == "broken" else "1", "-i", "0.01", "{address}"])
"""


def small_case(folder: Path, point: str = "client", address: str = "10.0.0.2", requires: str = "") -> Case:
    folder = folder / "small"
    folder.mkdir()
    (folder / "case.toml").write_text(TOML.format(requires=requires))
    (folder / "lab.py").write_text(LAB.format(point=point, address=address))
    return load_case(folder)


def pings(captures: Mapping[str, Path]) -> list[str]:
    """An analysis that reports a pattern when it sees two echo requests (ICMP type 8 after a 34-byte header)."""
    data, at, seen = captures["client"].read_bytes(), 24, 0
    while at < len(data):
        kept = int.from_bytes(data[at + 8 : at + 12], "little")
        seen += data[at + 16 + 12 : at + 16 + 14] == b"\x08\x00" and data[at + 16 + 34] == 8
        at += 16 + kept
    return ["FW-SYN-DROP"] if seen >= 2 else []


@pytest.mark.lab
def test_live_run_then_the_recording_gives_the_same_verdict(
    lab_host: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cases, "samples_dir", lambda: tmp_path / "samples")
    case = small_case(tmp_path)
    live = run_case(case, pings, keep=tmp_path / "kept", record=True)
    assert [(r.variant, r.found, r.ok, r.recorded) for r in live] == [
        ("broken", ("FW-SYN-DROP",), True, False),
        ("fixed", (), True, False),
    ]
    assert all(r.seconds > 0 for r in live)
    assert (tmp_path / "kept" / "broken" / "client.pcap").is_file()
    replayed = run_case(case, pings, recorded=True)
    assert [(r.variant, r.found, r.ok, r.recorded) for r in replayed] == [
        ("broken", ("FW-SYN-DROP",), True, True),
        ("fixed", (), True, True),
    ]
    wrong = run_case(case, lambda captures: ["TCP-LOSS"], variants=["broken"], recorded=True)[0]
    assert (wrong.missing, wrong.unexpected, wrong.ok) == (("FW-SYN-DROP",), ("TCP-LOSS",), False)


@pytest.mark.lab
def test_a_failing_program_is_named_with_its_output(lab_host: None, tmp_path: Path) -> None:
    case = small_case(tmp_path, address="10.9.9.9")
    with pytest.raises(LabError, match=r"(?s)small/broken: ip netns exec nd-\d+-a ping .*unreachable"):
        run_variant(case, "broken", tmp_path / "out")


@pytest.mark.lab
def test_a_point_that_was_not_recorded_is_an_error(lab_host: None, tmp_path: Path) -> None:
    case = small_case(tmp_path, point="elsewhere")
    with pytest.raises(LabError, match="did not record point 'client'"):
        run_variant(case, "fixed", tmp_path / "out")


def test_a_missing_program_is_named_before_anything_runs(tmp_path: Path) -> None:
    case = small_case(tmp_path, requires='"sh", "no-such-program"')
    with pytest.raises(LabError, match="small needs no-such-program: not found"):
        run_variant(case, "fixed", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_variant_and_missing_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "samples_dir", lambda: tmp_path / "samples")
    case = small_case(tmp_path)
    with pytest.raises(LabError, match="small has no variant 'x': broken, fixed"):
        run_case(case, pings, variants=["x"], recorded=True)
    with pytest.raises(LabError, match=r"no recording broken\.client\.pcap"):
        run_case(case, pings, recorded=True)


@pytest.mark.lab
def test_a_terminated_run_ends_its_variants_and_their_namespaces(in_lab: InLab, tmp_path: Path) -> None:
    case = small_case(tmp_path)
    case.lab_file.write_text(
        "import time\n"
        "def run(lab, variant):\n"
        "    namespace = lab.node('a').namespace\n"
        f"    open(r'{tmp_path}/' + variant, 'w').write(namespace)\n"
        "    time.sleep(30)\n"
    )
    source = """
import os, signal, sys, time
from pathlib import Path
from netdiag.cases import load_case
from netdiag.lab.runner import run_case

folder = Path(sys.argv[1])
child = os.fork()
if child == 0:
    run_case(load_case(folder / "small"), lambda captures: [])
marks = [folder / "broken", folder / "fixed"]
deadline = time.monotonic() + 20
while not all(mark.exists() and mark.read_text() for mark in marks):
    assert time.monotonic() < deadline
    time.sleep(0.02)
os.kill(child, signal.SIGTERM)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(status, [mark.read_text() for mark in marks if Path("/run/netns", mark.read_text()).exists()])
"""
    assert in_lab(source, str(tmp_path)).splitlines()[-1] == f"{128 + signal.SIGTERM} []"
