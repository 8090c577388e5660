"""Every variant of every case gives exactly the findings that the case states: recorded, live, and without root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from netdiag.cases import all_cases
from netdiag.commands.labs import found_in
from netdiag.lab.runner import VariantResult, run_case

CASES = sorted(all_cases())
NOBODY = 65534


def told(results: list[VariantResult]) -> dict[str, tuple[str, ...]]:
    return {r.variant: r.found for r in results}


def wanted(slug: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(sorted(v.expect)) for name, v in all_cases()[slug].variants.items()}


@pytest.mark.parametrize("slug", CASES)
def test_recorded_captures_give_exactly_the_expected_findings(slug: str) -> None:
    case = all_cases()[slug]
    assert told(run_case(case, found_in(case), recorded=True)) == wanted(slug)


@pytest.mark.lab
@pytest.mark.parametrize("slug", CASES)
def test_live_lab_gives_exactly_the_expected_findings(slug: str, lab_host: None) -> None:
    case = all_cases()[slug]
    assert told(run_case(case, found_in(case))) == wanted(slug)


@pytest.mark.lab
@pytest.mark.parametrize("slug", CASES)
def test_live_lab_without_root_gives_the_same(slug: str, lab_host: None, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("this run is without root already: the test above is this one")
    home = Path("/tmp") / f"netdiag-nobody-{os.getpid()}-{slug}"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    try:
        code = ("import sys; from netdiag.cases import all_cases; from netdiag.commands.labs import found_in; "
                "from netdiag.lab.runner import run_case; case = all_cases()[sys.argv[1]]; "
                "[print(r.variant, *r.found) for r in run_case(case, found_in(case))]")
        done = subprocess.run(
            [sys.executable, "-c", code, slug], capture_output=True, text=True, timeout=240, user=NOBODY, group=NOBODY,
            extra_groups=[], cwd=home, env={**os.environ, "HOME": str(home), "TMPDIR": str(home)})
        assert done.returncode == 0, done.stdout + done.stderr
        found = {line.split()[0]: tuple(line.split()[1:]) for line in done.stdout.splitlines()}
        assert found == wanted(slug)
    finally:
        shutil.rmtree(home, ignore_errors=True)
