"""Every variant of every case gives exactly the findings that the case states: recorded, live, and without root."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from netdiag.cases import all_cases
from netdiag.commands.labs import found_in
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
@pytest.mark.parametrize("slug", CASES)
def test_live_lab_gives_exactly_the_expected_findings(slug: str, lab_host: None) -> None:
    case = all_cases()[slug]
    assert told(run_case(case, found_in(case))) == wanted(slug)


@pytest.mark.lab
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
    done = subprocess.run([*unprivileged, sys.executable, "-c", code, slug], capture_output=True, text=True,
                          timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {line.split()[0]: tuple(line.split()[1:]) for line in done.stdout.splitlines()}
    # Every variant runs in the test above; here it is about what a lab may do without root, and two of them show that.
    assert found == {name: patterns for name, patterns in wanted(slug).items() if name in ("broken", "fixed")}
