"""Runs one command and measures it: CPU, wall time, memory, and what it printed."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.02
"""How often memory is read; a shorter peak is missed."""
OUTPUT, ERRORS = "output.txt", "errors.txt"


@dataclass(frozen=True, slots=True)
class Run:
    """One command, measured."""

    cpu_s: float
    """User and system time with that of its children, as the kernel counts them at wait()."""
    wall_s: float
    resident_mb: float
    """Peak resident memory of the largest process, with mapped pages of the capture, which the kernel may drop."""
    own_mb: float
    """Peak of RssAnon, MB of 10⁶ bytes, over the process and its descendants. 0 where /proc is not there."""


class Failed(Exception):
    """The command ended with an exit status that does not mean success, or did not end in time."""


def measure(command: Sequence[str], allowed: Sequence[int], env: Mapping[str, str], directory: Path, limit_s: float,
            discard: bool = False) -> Run:
    """Runs a command in ``directory``, its output going to OUTPUT there, or to /dev/null. Failed when it did."""
    begin = time.perf_counter()
    with open(os.devnull if discard else directory / OUTPUT, "wb") as out, open(directory / ERRORS, "wb") as err:
        child = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=env, cwd=directory,
                                 start_new_session=True)
    watcher = _Watcher(child.pid, begin + limit_s)
    watcher.start()
    _, status, usage = os.wait4(child.pid, 0)  # the kernel's figures of this one child and of its children
    wall = time.perf_counter() - begin
    watcher.done.set()
    watcher.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    said = shlex.join([Path(command[0]).name, *command[1:]])
    if watcher.late:
        raise Failed(f"`{said}` took more than {limit_s:g} s")
    if child.returncode not in allowed:
        text = (directory / ERRORS).read_text(errors="replace").strip()[-2000:]
        raise Failed(f"`{said}` ended with {child.returncode}: {text}")
    return Run(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024 / 1e6, watcher.peak * 1024 / 1e6)


class _Watcher(threading.Thread):
    """Reads the memory of a process and its descendants, and ends them all when their time is over."""

    def __init__(self, pid: int, deadline: float) -> None:
        super().__init__()
        self.pid, self.deadline = pid, deadline
        self.done = threading.Event()
        self.peak = 0
        self.late = False

    def run(self) -> None:
        while not self.done.wait(POLL_S):
            self.peak = max(self.peak, sum(map(_anonymous, _family(self.pid))))
            if time.perf_counter() > self.deadline and not self.late:
                self.late = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    out = [pid]
    for member in out:
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                out += map(int, children.read_text().split())
            except OSError:
                continue
    return out


def _anonymous(pid: int) -> int:
    """RssAnon of one process, KiB; 0 when it has ended."""
    try:
        _, _, rest = Path(f"/proc/{pid}/status").read_text().partition("RssAnon:")
    except OSError:
        return 0
    return int(rest.split()[0]) if rest else 0


def median(runs: Sequence[Run], field: str) -> float:
    """Median of one figure."""
    return float(statistics.median(getattr(r, field) for r in runs))


def spread(runs: Sequence[Run], field: str) -> str:
    """Median and range of one figure in seconds, as text."""
    values = sorted(getattr(r, field) for r in runs)
    middle = statistics.median(values)
    if len(values) == 1:
        return f"{middle:.2f}"
    return f"{middle:.2f} ({values[0]:.2f}–{values[-1]:.2f})"
