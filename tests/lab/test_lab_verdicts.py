"""Every variant of every case gives exactly the findings that the case states: recorded, live, and without root.

Real phones and proxies keep real time, and a machine that stands still for seconds upsets them: a variant that comes
out wrong live is run once more. How it came out first stands among the warnings of the run; wrong twice is a failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Sequence

import pytest

from netdiag.cases import all_cases
from netdiag.commands.labs import found_in
from netdiag.errors import LabError
from netdiag.lab.runner import VariantResult, run_case

CASES = sorted(all_cases())


def told(results: list[VariantResult]) -> dict[str, tuple[str, ...]]:
    return {r.variant: r.found for r in results}


def wanted(slug: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(sorted(v.expect)) for name, v in all_cases()[slug].variants.items()}


@pytest.mark.parametrize("slug", CASES)
def test_recorded_captures_give_exactly_the_expected_findings(slug: str) -> None:
    case = all_cases()[slug]
    assert told(run_case(case, found_in(case), recorded=True)) == wanted(slug)


@pytest.mark.lab
@pytest.mark.filterwarnings("default:.*run once more")
@pytest.mark.parametrize("slug", CASES)
def test_live_lab_gives_exactly_the_expected_findings(slug: str, lab_host: None) -> None:
    assert live(slug) == wanted(slug)


def live(slug: str) -> dict[str, tuple[str, ...]]:
    """What is found in every variant; in those that came out wrong, or did not run, what is found the second time."""
    case = all_cases()[slug]
    found: dict[str, tuple[str, ...]] = {}
    try:
        found = told(run_case(case, found_in(case)))
        again = [name for name, patterns in wanted(slug).items() if found[name] != patterns]
        if again:
            repeated(slug, ", ".join(f"{name} showed {found[name]}" for name in again))
    except LabError as error:
        again = list(case.variants)
        repeated(slug, str(error))
    return found | (told(run_case(case, found_in(case), again)) if again else {})


def repeated(slug: str, why: str) -> None:
    warnings.warn(f"{slug}: run once more: {why}", stacklevel=3)


@pytest.mark.lab
@pytest.mark.filterwarnings("default:.*run once more")
@pytest.mark.parametrize("slug", CASES)
def test_live_lab_without_root_gives_the_same(slug: str, lab_host: None) -> None:
    if os.geteuid() != 0:
        pytest.skip("this run is without root already: the test above is this one")
    code = ("import os, sys; assert os.geteuid() != 0; from netdiag.cases import all_cases; "
            "from netdiag.commands.labs import found_in; from netdiag.lab.runner import run_case; "
            "case = all_cases()[sys.argv[1]]; "
            "[print(r.variant, *r.found) for r in run_case(case, found_in(case), ('broken', 'fixed'))]")
    # A user namespace that does not map root: no capability outside it, while the files stay readable.
    unprivileged = ["unshare", "--user", "--map-user=1000", "--map-group=1000"]
    # Every variant runs in the test above; here it is about what a lab may do without root, and two of them show that.
    expected = {name: patterns for name, patterns in wanted(slug).items() if name in ("broken", "fixed")}
    command = [*unprivileged, sys.executable, "-c", code, slug]
    found, said = as_nobody(command)
    if found != expected:
        repeated(slug, said)
        found, said = as_nobody(command)
    assert found == expected, said


def as_nobody(command: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], str]:
    """What the command found by variant, nothing if it failed, and all that it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return {line.split()[0]: tuple(line.split()[1:]) for line in lines}, done.stdout + done.stderr
