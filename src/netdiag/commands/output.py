"""Where text goes: data to standard output or a file, prose and progress to standard error."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType

import click

PIPE_CLOSED = 141
"""128 + SIGPIPE: what a shell reports for a program whose reader went away."""
QUIET_S = 1.0
"""Work shorter than this shows no progress (practice)."""


def emit(text: str, output: str | None = None, inputs: Iterable[str] = ()) -> None:
    """Writes ``text`` to file ``output``, or to standard output. Usage error when ``output`` is one of ``inputs``."""
    if output is not None and output != "-":
        if any(_same(output, path) for path in inputs):
            raise click.UsageError(f"-o {output}: is one of the captures")
        try:
            with open(output, "w", encoding="utf-8", errors="backslashreplace") as out:
                out.write(text)
        except OSError as error:
            raise click.UsageError(f"-o {output}: {error.strerror or error}") from None
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(PIPE_CLOSED) from None


def _same(a: str, b: str) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def on_terminal(output: str | None = None) -> bool:
    """Is it a person who reads it?"""
    return output in (None, "-") and sys.stdout.isatty()


def colour(output: str | None = None) -> bool:
    """Only on a terminal that can, and not when the user said NO_COLOR (no-color.org)."""
    return on_terminal(output) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width(output: str | None = None) -> int:
    """Columns of the terminal; 100 where there is none and COLUMNS is not set."""
    return shutil.get_terminal_size((100, 24)).columns if on_terminal(output) or "COLUMNS" in os.environ else 100


class Progress:
    """One updating line on a terminal, one plain line a stage elsewhere; silent while work takes under a second."""

    def __init__(self) -> None:
        self._text = ""
        self._told = ""
        self._start = time.monotonic()
        self._tty = sys.stderr.isatty()
        self._shown = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        if self._shown:
            sys.stderr.write("\r" + " " * self._shown + "\r")
            sys.stderr.flush()

    def stage(self, text: str) -> None:
        """What is being done from now on; our own words or a path."""
        self._text = text

    def bytes_read(self, what: str, done: int, total: int) -> None:
        """The callback of ``open_captures``."""
        self._text = f"{what}: {100 * done // total} %" if self._tty and total else what

    def pattern(self, name: str, number: int, total: int) -> None:
        """The callback of ``engine.analyze``."""
        self._text = f"checking {number + 1} of {total}: {name}" if self._tty else "checking patterns"

    def _run(self) -> None:
        from netdiag.render.escape import plain
        wait = QUIET_S
        while not self._done.wait(wait):
            wait = 0.2 if self._tty else 1.0
            text = plain(self._text)
            if self._tty:
                line = f"{text} ({time.monotonic() - self._start:.0f} s)"[: shutil.get_terminal_size().columns - 1]
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write("\r" + line.ljust(self._shown))
                    sys.stderr.flush()
                self._shown = len(line)
            elif text != self._told:
                self._told = text
                with contextlib.suppress(OSError, ValueError):
                    print(f"netdiag: {text}", file=sys.stderr, flush=True)
