"""Ctrl-C while a live capture is read: the stream ends there, and what was read is analysed.

A terminal sends the signal to tcpdump as well, which then writes what it still holds and closes the pipe: so reading
goes on for a moment.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from types import FrameType, TracebackType

GRACE_S = 1.0
"""How long the writer of an interrupted stream may take to end it (practice; tcpdump needs milliseconds)."""
SAME_S = 0.5
"""Interrupts so close together are one: a guarded child gets it from the terminal and from its parent (practice)."""


class Interrupts:
    """Catches SIGINT inside its ``with``; works in the main thread, and only where nobody else wants the signal."""

    def __init__(self) -> None:
        self.at: float | None = None
        """When the first one came (`time.monotonic`)."""
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Interrupts:
        if (threading.current_thread() is threading.main_thread()
                and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
            self._pipe = os.pipe()
            signal.signal(signal.SIGINT, self._catch)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._pipe is None:
            return
        if self.at is None:  # else the same interrupt may still come a second time: `_catch` knows it
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for fd in self._pipe:
            os.close(fd)
        self._pipe = None

    def _catch(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.at is None:
            self.at = now
            if self._pipe is not None:
                os.write(self._pipe[1], b"\0")
        elif now - self.at > SAME_S:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt

    def wait(self, fd: int) -> bool:
        """Waits until ``fd`` can be read; False when the stream shall end instead."""
        if self._pipe is None:
            return self.at is None
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if self.at is None:
            poll.register(self._pipe[0], select.POLLIN)
            if any(ready == fd for ready, _ in poll.poll()):
                return True
            poll.unregister(self._pipe[0])
        left = (self.at or 0.0) + GRACE_S - time.monotonic()
        return left > 0 and bool(poll.poll(1000 * left))
