"""Running lab code in a child process, which needs no root: without it the child gets a user namespace."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from netdiag.lab import doctor, runner

InLab = Callable[..., str]


@pytest.fixture(scope="session")
def lab_host() -> None:
    """Skips where network namespaces cannot be made at all; a build, which must not skip, fails there."""
    needed = {"network namespaces", "ip", "ss", "ethtool", "veth pairs"}
    lacking = [check for check in doctor.checks() if check.name in needed and not check.ok]
    if lacking:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("; ".join(f"{check.name}: {check.detail}" for check in lacking))


@pytest.fixture
def in_lab(lab_host: None) -> InLab:
    """Run Python source where namespaces may be made; its standard output. The test fails when it does."""

    def run(source: str, *arguments: str) -> str:
        argv = runner.isolated([sys.executable, "-c", source, *arguments])
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=runner.child_environment())
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
