"""The wheel alone, outside the checkout, explains a finding: cases, samples and recordings are inside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the unpacked wheel and nothing of the checkout."""
    base = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(base), str(ROOT)], check=True, capture_output=True)
    (wheel,) = base.glob("netdiag-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(base / "site"), str(wheel)], check=True,
                   capture_output=True)
    return base / "site"


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The interpreter's own site-packages give the dependencies; the checkout must not be found before the wheel.
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); from netdiag.cli import main; main()"
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=installed, env=env, capture_output=True,
                          text=True, timeout=60)


@pytest.mark.slow
def test_cases_and_explain(installed: Path) -> None:
    listed = run(installed, "cases", "list", "--format", "json")
    assert listed.returncode == 0, listed.stderr
    assert "one-way-audio-behind-nat" in listed.stdout
    explained = run(installed, "explain", "RTP-ONEWAY")
    assert explained.returncode == 0, explained.stderr
    shown = run(installed, "cases", "show", "one-way-audio-behind-nat")
    assert "Executive Summary" in shown.stdout


@pytest.mark.slow
def test_recorded_captures_are_inside(installed: Path) -> None:
    verified = run(installed, "lab", "run", "one-way-audio-behind-nat", "--recorded")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); import netdiag.cases as c; print(c.samples_dir())"
    where = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=installed)
    assert str(installed) in where.stdout
    assert list(Path(where.stdout.strip()).glob("fw/*.pcap"))
