"""Where the time of ``netdiag analyze`` goes: reading, each fact table, each detector.

    python bench/stages.py CAPTURE

Runs the command in this process with a clock around the stages. A stage's own time is without that of the stages it
calls for: a table is charged for itself, not to the detector that asked for it first. Prints one JSON object.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tools
from measure import Failed

PARTS = (
    ("netdiag.tables.reader", "open_captures", "read"),
    ("netdiag.decode.frames", "Decoded.add", "read: decode frames"),
    ("netdiag.tables.grouping", "flows", "read: group into flows"),
    ("netdiag.engine", "inventory", "report: count"),
    ("netdiag.render.terminal", "render", "report: write"),
)
"""Module, name and stage; one that is not there is left out."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Own time of one stage."""

    name: str
    wall_s: float
    cpu_s: float
    """Of all threads and ended children meanwhile."""


class Clock:
    """Own time of nested stages; calls from other threads are part of the stage that started them."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}
        self._open: list[list[float]] = []
        self._thread = threading.get_ident()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with the clock around it."""
        @functools.wraps(function)
        def wrapper(*args: Any, **options: Any) -> Any:
            if threading.get_ident() != self._thread:
                return function(*args, **options)
            inner = [0.0, 0.0]
            self._open.append(inner)
            wall, cpu = now()
            try:
                return function(*args, **options)
            finally:
                self._open.pop()
                taken = [b - a for a, b in zip((wall, cpu), now(), strict=True)]
                own = self.spent.setdefault(name, [0.0, 0.0])
                for i in (0, 1):
                    own[i] += taken[i] - inner[i]
                    if self._open:
                        self._open[-1][i] += taken[i]
        return wrapper


def now() -> tuple[float, float]:
    """Wall and CPU seconds."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime


def watch(clock: Clock) -> None:
    """Puts the clock around every stage of netdiag."""
    for module, name, stage in PARTS:
        owner: Any = importlib.import_module(module)
        *classes, last = name.split(".")
        for part in classes:
            owner = getattr(owner, part, None)
        if hasattr(owner, last):
            setattr(owner, last, clock.timed(stage, getattr(owner, last)))
    tables = importlib.import_module("netdiag.tables").Tables
    for name, member in vars(tables).items():
        if isinstance(member, functools.cached_property):
            member.func = clock.timed(f"table {name.strip('_')}", member.func)
    registry: Any = importlib.import_module("netdiag.registry")
    detector = registry.detector
    registry.detector = lambda pattern: clock.timed(f"detector {pattern}", detector(pattern))


def run(capture: str) -> dict[str, list[float]]:
    """Stage to own wall and CPU seconds of one analysis, and "start": interpreter and imports."""
    cli = importlib.import_module("netdiag.cli")
    clock = Clock()
    watch(clock)
    started = now()[1]  # the process's CPU time so far
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        status = clock.timed("all else", cli.run)(["analyze", capture])
    if status not in tools.NETDIAG.allowed:
        sys.exit(status)
    return {"start and imports": [started, started], **clock.spent}


@dataclass(frozen=True, slots=True)
class Profile:
    """The stages of one analysis, most CPU time first."""

    title: str
    stages: list[Stage]


def profile(title: str, capture: Path) -> Profile:
    """Measures the stages in a process of their own. Failed when it does."""
    done = subprocess.run([sys.executable, __file__, str(capture)], env=tools.environment(), capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise Failed(f"profile of {title}: {done.stderr.strip()[-2000:]}")
    stages = [Stage(name, wall, cpu) for name, (wall, cpu) in json.loads(done.stdout).items()]
    return Profile(title, sorted(stages, key=lambda s: -s.cpu_s))


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1])))
