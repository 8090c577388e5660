"""Programs a lab starts: how they are launched, watched and ended.

Every process is ended through the handle that started it (its own session, by
process-group id), never by name, so a lab cannot touch anybody else's programs.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from netdiag.errors import LabError

TAIL_LINES = 15
"""Lines of a log that an error message quotes (practice)."""

POLL_S = 0.02
"""Pause between two looks at something that is not ready yet (practice)."""

STOP_S = 3.0
"""How long a process may take to obey a signal before SIGKILL (practice)."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for lab programs: ours, C locale, and sbin on PATH (``ip`` and ``nft`` live there)."""
    env = dict(os.environ)
    env["PATH"] = env.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"
    env["LC_ALL"] = "C"
    env.update(extra or {})
    return env


def which(program: str) -> str | None:
    """Where ``program`` is, looking in sbin too; None when the host lacks it."""
    return shutil.which(program, path=environment()["PATH"])


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last ``lines`` lines of a log, each indented, for an error message."""
    return "\n".join("  " + line for line in text.rstrip().splitlines()[-lines:])


def _shown(argv: Sequence[str]) -> str:
    """A command for an error message: one line, an embedded program cut short."""
    return " ".join(word if len(word) <= 60 else word[:60].replace("\n", " ") + "…" for word in argv)


def run(
    argv: Sequence[str],
    *,
    check: bool = True,
    timeout: float = 30.0,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` to its end and return what it printed.

    Raises LabError when it is missing, takes longer than ``timeout`` seconds, or
    (with ``check``) exits with anything but 0; the message ends with its output.
    """
    try:
        done = subprocess.run(
            list(argv),
            capture_output=True,
            timeout=timeout,
            env=environment(env),
            cwd=cwd,
            encoding="utf-8",
            errors="replace",
            **({"stdin": subprocess.DEVNULL} if input is None else {"input": input}),
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]}: not found on this host (see `netdiag lab doctor`)") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{_shown(argv)}: still running after {timeout:g} s") from error
    if check and done.returncode != 0:
        raise LabError(f"{_shown(argv)}: exit status {done.returncode}\n{tail(done.stdout + done.stderr)}")
    return done


def wait_until(ready: Callable[[], bool], what: str, timeout: float = 10.0) -> None:
    """Poll ``ready`` until it is true; LabError naming ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not ready():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not ready after {timeout:g} s")
        time.sleep(POLL_S)


class Process:
    """A started program: its own session, output in ``log``."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._stopped = False
        self._waited = False
        with log.open("wb") as output:
            try:
                self._popen = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environment(env),
                    cwd=cwd,
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise LabError(f"{name}: {argv[0]} not found on this host (see `netdiag lab doctor`)") from error

    @property
    def pid(self) -> int:
        """Process id, which is its process-group id as well."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit status (negative: the signal that ended it), None while it runs."""
        if self._popen.returncode is not None:
            return self._popen.returncode
        # Left unreaped until `stop`: as long as it is, its process-group id cannot become somebody else's.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def output(self) -> str:
        """What it has printed so far, both streams."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self, ready: Callable[[], bool] | str, timeout: float = 10.0) -> None:
        """Wait until ``ready()`` is true, or the text ``ready`` is in the log; LabError if it died first."""

        def look() -> bool:
            if self.returncode is not None:
                raise LabError(f"{self.name}: ended with status {self.returncode} before it was ready\n{self._tail()}")
            return ready in self.output() if isinstance(ready, str) else ready()

        try:
            wait_until(look, self.name, timeout)
        except LabError as error:
            if self.returncode is not None:
                raise
            raise LabError(f"{error}\n{self._tail()}") from None

    def wait(self, timeout: float = 30.0, check: bool = True) -> int:
        """Wait for its own end and return the exit status; LabError on time-out or, with ``check``, if it is not 0."""
        if not self._ends_within(timeout):
            raise LabError(f"{self.name}: still running after {timeout:g} s\n{self._tail()}")
        self._waited = True
        status = self.returncode or 0
        if check and status != 0:
            raise LabError(f"{self.name}: exit status {status}\n{self._tail()}")
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal to its process group; nothing happens when that is gone."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def stop(self, first: signal.Signals = signal.SIGTERM) -> None:
        """End it and everything in its process group: ``first``, then SIGKILL after 3 s. Safe to call twice."""
        if self.returncode is None:
            self._stopped = True
            self.send(first)
            self._ends_within(STOP_S)
        self.send(signal.SIGKILL)  # the group may outlive its leader (a daemon's workers)
        self._popen.wait()

    def crash(self) -> str | None:
        """Why its end was not planned: it ended by itself with a status nobody asked for; None otherwise."""
        if self.returncode in (None, 0) or self._stopped or self._waited:
            return None
        return f"{self.name}: ended with status {self.returncode}\n{self._tail()}"

    def _ends_within(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while self.returncode is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _tail(self) -> str:
        return tail(self.output())
