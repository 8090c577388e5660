"""What a case needs is what the doctor looks for, programs with their Debian package."""

import re

from checkout import ROOT

from netdiag.cases import all_cases
from netdiag.lab.doctor import MODULES, PACKAGES


def test_the_doctor_knows_what_the_cases_need() -> None:
    needed = {program for case in all_cases().values() for program in case.requires}
    assert needed <= {*PACKAGES, *MODULES}


def test_the_makefile_installs_what_the_doctor_names() -> None:
    listed = re.search(r"SYSTEM_PACKAGES := ((?:.*\\\n)*.*)\n", (ROOT / "Makefile").read_text())
    assert listed
    assert set(PACKAGES.values()) <= set(listed.group(1).replace("\\", " ").split())
