"""Runs work in a child process, so that a capture cut off while it is mapped ends in a message.

Reading past the end of a mapped file that somebody truncated raises SIGBUS, which no Python
code can handle. The parent only waits, passes signals on, and says what happened.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

INCOMPLETE = 3
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PR_SET_PDEATHSIG = 1  # prctl(2)
_THREADS = ("POLARS_MAX_THREADS", "OPENBLAS_NUM_THREADS")
"""One thread each, unless the user says otherwise: the columns of a capture are too short for more to pay. Measured on
0.1 to 4 million packets: 4 to 11 % less CPU, and the same wall time or less."""
_POLARS_MEMORY = {"_RJEM_MALLOC_CONF": "narenas:1,dirty_decay_ms:100,muzzy_decay_ms:0"}
"""jemalloc(3), which Polars brings: one arena for one thread, and what was freed 100 ms ago goes back to the kernel.
Measured: 8 % less memory at the peak on 4 million mixed packets for the same CPU time; 3 % more CPU on SIP alone."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # mallopt(3)


def guarded(work: Callable[[], int]) -> int:
    """The exit status of ``work``, run in a child; 3 when a fault of memory access killed it, 128 + n for signal n."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    parent = os.getpid()
    try:
        child = os.fork()
    except OSError:  # no room for a second process: work without the guard
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        return work()
    if child == 0:
        _child(work, parent)
    interrupts = 0

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        with contextlib.suppress(ProcessLookupError):
            # Native code does not see the interrupt until it returns: the second one does not wait for that.
            os.kill(child, signal.SIGTERM if interrupts > 1 else number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if code >= 0 else _killed(-code, interrupts)


def _child(work: Callable[[], int], parent: int) -> None:
    code = INCOMPLETE
    try:
        _end_with(parent)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        # The tables hold many small objects and hardly a cycle: at the default of 700 the collector walks them over and
        # over, for some 5 % of the time (measured). Imports make 100 000, and a first walk over those, which finds
        # nothing, takes 25 ms: a small capture does without.
        gc.set_threshold(250_000, 50, 100)
        _keep_memory()
        for name, value in (dict.fromkeys(_THREADS, "1") | _POLARS_MEMORY).items():
            os.environ.setdefault(name, value)
        code = work()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else INCOMPLETE
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


def _keep_memory() -> None:
    """Let glibc reuse the memory of large columns instead of handing it back and asking anew.

    Measured on a million packets: some 4 % less CPU, and no more memory at the peak.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 28)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


_MUCH = 1 << 26
"""Bytes of freed memory that are worth handing back (measured: less costs more time in new pages)."""


class _Heap(ctypes.Structure):
    """struct mallinfo2 of glibc: ten sizes, of which the ninth is what is free."""

    _fields_ = (("sizes", ctypes.c_size_t * 10),)


def give_back() -> None:
    """Return freed memory when it is much: what built one table is in no piece that the next could use."""
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallinfo2.restype = _Heap
        if libc.mallinfo2().sizes[8] >= _MUCH:
            libc.malloc_trim(0)


def _end_with(parent: int) -> None:
    """Ask the kernel (Linux) to end this process when its parent is killed."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def _killed(number: int, interrupts: int) -> int:
    if interrupts:
        print("netdiag: interrupted", file=sys.stderr)
        return 130
    if number in (signal.SIGBUS, signal.SIGSEGV):
        print("netdiag: a capture was cut off or changed while it was being read; copy it to a file that nothing "
              f"writes to and run again ({signal.Signals(number).name})", file=sys.stderr)
        return INCOMPLETE
    if number == signal.SIGKILL:
        print("netdiag: killed, probably because memory ran out", file=sys.stderr)
    return 128 + number
