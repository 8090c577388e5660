"""Columns that grow without being copied: address space for many rows, of which the kernel gives pages when used."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiag.errors import CaptureError

Columns = dict[str, npt.NDArray[Any]]

MOST_ROWS = 1 << 31
"""Rows that are reserved for input of unknown length; row numbers have 32 bits."""
_NORESERVE = 0x4000
"""MAP_NORESERVE of Linux; the mmap module has no name for it."""
_LEAST_ROWS = 1 << 20


class Store:
    """Columns of ``kinds`` (name to NumPy type), all zero at first."""

    def __init__(self, kinds: dict[str, str], rows: int) -> None:
        """``rows``: most rows that there can be; less is reserved where address space is limited."""
        self.used = 0
        self._room = max(min(rows, MOST_ROWS), 1)
        while True:
            try:
                self._columns = {name: _reserved(kind, self._room) for name, kind in kinds.items()}
                return
            except (OSError, MemoryError, ValueError):  # ulimit -v, or no overcommitment
                if self._room <= _LEAST_ROWS:
                    raise CaptureError("cannot reserve memory for the packet table") from None
                self._room >>= 1

    def take(self, n: int) -> Columns:
        """The next ``n`` rows, to be filled; CaptureError when there is no more room."""
        if self.used + n > self._room:
            raise CaptureError(f"more than {self._room} frames: there is no more address space for the packet table")
        begin, self.used = self.used, self.used + n
        return self.rows(begin, self.used)

    def rows(self, begin: int, end: int) -> Columns:
        """Rows that are filled already."""
        return {name: column[begin:end] for name, column in self._columns.items()}


def _reserved(kind: str, rows: int) -> npt.NDArray[Any]:
    dtype = np.dtype(kind)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    memory = mmap.mmap(-1, rows * dtype.itemsize, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return np.frombuffer(memory, dtype)
