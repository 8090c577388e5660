"""The benchmark runs on small captures, so that it does not rot, and its arithmetic is right."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
from checkout import ROOT

from netdiag.tables.reader import open_captures
from netdiag.tables.sip import SipMessage

BENCH = ROOT / "bench"
NAMES = {p.stem for p in BENCH.glob("*.py")}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module bench/page.py with its neighbours imported, which stand beside each other as scripts do."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = {name: sys.modules[name] for name in NAMES if name in sys.modules}
    import page
    yield page
    for name in NAMES:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def run(script: str, *arguments: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, str(BENCH / script), *arguments], env=env, capture_output=True, text=True,
                          timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_smoke(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    parts = [word for part in ("mixed", "calls", "growth", "profile") for word in ("--only", part)]
    text = run("run.py", *parts, "--scale", "0.0001", "--repeat", "1", "--no-peers",
               "--captures", str(tmp_path / "captures"), "--output", str(page))
    assert page.read_text() == text.removesuffix("\n")
    for heading in ("## Against other tools", "## Memory", "## Growth", "## Where the time goes", "## Commands"):
        assert heading in text
    assert "| 400 packets |" in text  # netdiag read all of the mixed capture
    assert "sip-doctor: not measured: left out" in text
    assert "table sip" in text
    assert str(tmp_path) not in text
    for picture in ("performance-time.svg", "performance-memory.svg"):
        assert picture in text
        assert len(ElementTree.parse(tmp_path / picture).findall("{*}circle")) == 3  # one a length
    kept = sorted(p.name.split("-")[0] for p in (tmp_path / "captures").iterdir())
    assert kept == ["mixed", "mixed", "sip", "tcp"]


@pytest.mark.parametrize("mix", ["mixed", "sip", "tcp", "dns", "flows"])
def test_captures_are_reproducible(mix: str, tmp_path: Path) -> None:
    digests = set()
    for name in ("a.pcap", "b.pcap"):
        run("generate.py", mix, "--packets", "3000", "-o", str(tmp_path / name))
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    tables = open_captures([str(tmp_path / "a.pcap")])
    assert tables.packets.n == 3000
    assert not tables.anomalies()


def test_flows_are_as_many_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "flows.pcap"
    run("generate.py", "flows", "--flows", "40", "--packets", "4000", "-o", str(path))
    tables = open_captures([str(path)])
    assert len(tables.packets.flow_start) == 40
    assert tables.rtp.height == 20
    assert tables.tcp.height == 20


def test_fields_are_those_of_the_sip_table(bench: ModuleType) -> None:
    columns = {field.name for field in fields(SipMessage)}
    assert set(bench.tools.SIP_FIELDS) | bench.tools.OWN_COLUMNS == columns
    assert not set(bench.tools.SIP_FIELDS) & bench.tools.OWN_COLUMNS


def test_deviation_from_the_line(bench: ModuleType) -> None:
    def curve(*seconds: float) -> object:
        runs = tuple((bench.Run(s, s, 1, 1),) for s in seconds)
        return bench.Curve(10, (1_000_000, 2_000_000, 4_000_000, 8_000_000), runs)
    assert max(map(abs, curve(1.5, 2.5, 4.5, 8.5).deviations)) < 1e-9
    slope, intercept = curve(1.5, 2.5, 4.5, 8.5).line
    assert slope == pytest.approx(1e-6)
    assert intercept == pytest.approx(0.5)
    assert max(map(abs, curve(1, 2, 6, 20).deviations)) > 0.15


def test_missed_and_met(bench: ModuleType) -> None:
    lines = sys.modules["lines"]
    subject = next(s for s in lines.SUBJECTS if s.key == "tcp")
    own, other = bench.Run(1, 1, 300, 250), bench.Run(20, 0.5, 100, 90)
    found = lines.Measured(subject, 1_000_000, 1, [], {"netdiag": [own], subject.targets[0].tool.name: [other]})
    assert found.ratio(subject.targets[0]) == 20
    results = bench.Results("x", 0.0, [found])
    text = bench.render(results, {})
    assert "**20.0×** | 20× | met | 1.00 / 0.50, worse |" in text
    assert "| 250 | 264 | met |" in text
    found.runs["netdiag"] = [bench.Run(1.1, 1, 300, 265)]
    text = bench.render(results, {})
    assert "**18.2×** | 20× | missed |" in text
    assert "| 265 | 264 | missed |" in text


def test_a_command_that_takes_too_long_is_ended(bench: ModuleType, tmp_path: Path) -> None:
    measure = sys.modules["measure"]
    with pytest.raises(measure.Failed, match=r"`sleep 30` took more than 0\.1 s"):
        measure.measure(["sleep", "30"], (0,), dict(os.environ), tmp_path, 0.1)
    with pytest.raises(measure.Failed, match="ended with 3: no"):
        measure.measure(["sh", "-c", "echo no >&2; exit 3"], (0,), dict(os.environ), tmp_path, 10)


def test_memory_of_children_counts(bench: ModuleType, tmp_path: Path) -> None:
    """Worker processes must not hide memory: 50 MB in a child."""
    measure = sys.modules["measure"]
    hold = "import time; x = bytearray(50_000_000); time.sleep(0.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    found = measure.measure([sys.executable, "-c", parent], (0,), dict(os.environ), tmp_path, 10)
    assert 50 < found.own_mb < 100
