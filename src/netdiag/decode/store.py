"""Columns that grow without being copied: address space for many rows, of which the kernel gives pages when used.

The rows of a large capture lie in a file without a name: where memory is short the kernel can write them out, as it can
drop pages of the capture itself.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiag.capture import scratch
from netdiag.errors import CaptureError

Columns = dict[str, npt.NDArray[Any]]

MOST_ROWS = 1 << 31
"""Rows that are reserved for input of unknown length; row numbers have 32 bits."""
IN_MEMORY = 1 << 17
"""Rows that need no file (practice: the columns of so many packets take 7 MB)."""
_PART = 1 << 20
"""Rows that the file grows by: whole pages of any column."""
_NORESERVE = 0x4000
"""MAP_NORESERVE of Linux; the mmap module has no name for it, nor for MAP_FIXED."""
_FIXED = 0x10
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def column(kind: str, rows: int) -> npt.NDArray[Any]:
    """One column of zeros, kept as those of a ``Store``."""
    return Store({"": kind}, rows).take(rows)[""]


class Store:
    """Columns of ``kinds`` (name to NumPy type), all zero at first."""

    def __init__(self, kinds: dict[str, str], rows: int) -> None:
        """``rows``: most rows that there can be; less is reserved where address space is limited."""
        self.used = 0
        self._outside = IN_MEMORY
        self._file = -1
        self._room = max(min(rows, MOST_ROWS), 1)
        while True:
            try:
                rows = IN_MEMORY + max(-(-(self._room - IN_MEMORY) // _PART), 0) * _PART
                self._columns = {name: _reserved(kind, rows) for name, kind in kinds.items()}
                return
            except (OSError, MemoryError, ValueError):  # ulimit -v, or no overcommitment
                if self._room <= _PART:
                    raise CaptureError("cannot reserve memory for the packet table") from None
                self._room >>= 1

    def take(self, n: int) -> Columns:
        """The next ``n`` rows, to be filled; CaptureError when there is no more room."""
        if self.used + n > self._room:
            raise CaptureError(f"more than {self._room} frames: there is no more address space for the packet table")
        begin, self.used = self.used, self.used + n
        try:
            while self.used > self._outside:
                self._outside += self._put_out()
        except OSError:  # no room on the disk, or no place for files: the rows stay in memory
            self._outside = MOST_ROWS
        return self.rows(begin, self.used)

    def rows(self, begin: int, end: int) -> Columns:
        """Rows that are filled already."""
        return {name: column[begin:end] for name, column in self._columns.items()}

    def _put_out(self) -> int:
        """Lays the next rows into the file, and returns how many."""
        if self._file < 0:
            with scratch.opened() as file:
                self._file = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._file)  # what is mapped stays mapped
        at = os.fstat(self._file).st_size
        # All room at once: a disk that is full shows here, and not as SIGBUS.
        needed = _PART * sum(c.itemsize for c in self._columns.values())
        if needed > scratch.free(self._file):
            raise OSError("the disk is full")
        os.posix_fallocate(self._file, at, needed)
        for column in self._columns.values():
            size = _PART * column.itemsize
            if _libc.mmap(column.ctypes.data + self._outside * column.itemsize, size, mmap.PROT_READ | mmap.PROT_WRITE,
                          mmap.MAP_SHARED | _FIXED, self._file, at) == ctypes.c_void_p(-1).value:
                raise CaptureError(f"cannot map the packet table (errno {ctypes.get_errno()})")
            at += size
        return _PART


def _reserved(kind: str, rows: int) -> npt.NDArray[Any]:
    dtype = np.dtype(kind)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    memory = mmap.mmap(-1, rows * dtype.itemsize, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return np.frombuffer(memory, dtype)
