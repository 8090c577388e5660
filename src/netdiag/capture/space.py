"""One contiguous address space over all capture files, so that an offset is all a payload needs.

The files are mapped one behind the other into one reservation, each followed by zero pages:
a gather that reads past the end of a file reads zeros, never another file and never a hole.
Behind them lies room for bytes that no file holds in one piece (reassembled datagrams), and, where
there are streams, a window that one after the other is read through and room for what is kept of them.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from netdiag.errors import CaptureError

GUARD = 1 << 17
"""Zero bytes behind each file: no single gather is wider."""
APPEND_ROOM = 1 << 34
"""Address space for reassembled bytes; the kernel commits a page when it is first written."""

_TAIL = 1 << 19
"""Bytes of a window that are left for the next one: twice the longest record that a common writer makes."""

PAGE = mmap.PAGESIZE
# Linux values of <sys/mman.h>; the mmap module has no MAP_FIXED.
_PROT_READ, _PROT_WRITE = 1, 2
_MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x02, 0x10, 0x20, 0x4000
_DONTNEED = 4  # of madvise(2)
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _round(size: int) -> int:
    return -(-size // PAGE) * PAGE


@dataclass(slots=True)
class Extent:
    """Where one file lies in the space.

    Of a stream only a window lies there; ``start`` is where its first byte would be, which may be before the space.
    """

    start: int
    size: int
    """Bytes, of a stream those read so far."""
    ended: bool = True
    """Nothing follows ``end``."""

    @property
    def end(self) -> int:
        return self.start + self.size

    def refill(self, begin: int) -> int:
        """Where the byte at ``begin`` lies now that a stream was read on; what was before it is gone."""
        return begin

    def stop(self, begin: int, most: int) -> int:
        """Where to stop looking for records that start at ``begin`` or behind, so that the last of them is whole."""
        end = min(self.end, begin + most)
        return end if self.ended else min(end, self.end - min(_TAIL, (self.end - begin) // 2))


class Space:
    """Bytes of all files at fixed offsets; ``array`` is a uint8 view over everything."""

    def __init__(self, files: list[tuple[int, int]], window: int = 0, kept: int = 0) -> None:
        """``files``: (file descriptor, size in bytes) of each; the descriptors may be closed afterwards.

        ``window`` and ``kept``: bytes to reserve for reading streams, and for what is kept of them.
        """
        self.extents: list[Extent] = []
        self.decrypted = False
        """Cleartext of an encrypted connection was appended: what is made of it must not reach a disk."""
        at = 0
        for _, size in files:
            self.extents.append(Extent(at, size))
            at += _round(size) + GUARD
        self.window = Extent(at, _round(window))
        at = self.window.end + (GUARD if window else 0)
        room, kept = APPEND_ROOM, _round(kept)
        while True:
            total = at + kept + GUARD + room + GUARD
            address = _libc.mmap(None, total, _PROT_READ | _PROT_WRITE,
                                 _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE, -1, 0)
            if address not in (None, _FAILED):
                break
            room, kept = room >> 1, _round(kept >> 1)  # a limit on address space (ulimit -v) leaves less room
            if room < 1 << 20:
                raise CaptureError(f"cannot reserve {at} bytes of address space for the captures")
        self.kept = Extent(at, kept)
        self._append_at = self.kept.end + GUARD
        self._append_end = self._append_at + room
        self._address: int = address
        memory = (ctypes.c_uint8 * total).from_address(address)
        weakref.finalize(memory, _libc.munmap, address, total)  # after the last array that looks into it
        self.array: npt.NDArray[np.uint8] = np.frombuffer(memoryview(memory).cast("B"), np.uint8)
        self._view = memoryview(memory).cast("B")
        for (fd, size), extent in zip(files, self.extents, strict=True):
            self.map(fd, 0, extent.start, size)

    def map(self, fd: int, offset: int, start: int, size: int) -> None:
        """Puts ``size`` bytes of a file from ``offset`` on at ``start``, which must both lie on a page."""
        if size and _libc.mmap(self._address + start, size, _PROT_READ,
                               _MAP_PRIVATE | _MAP_FIXED, fd, offset) == _FAILED:
            raise CaptureError(f"cannot map the capture into memory (errno {ctypes.get_errno()})")

    def release_window(self) -> None:
        """Gives the memory of the window back."""
        _libc.madvise(self._address + self.window.start, self.window.size, _DONTNEED)

    def read(self, offset: int, size: int) -> bytes:
        """A copy of ``size`` bytes at ``offset``."""
        return bytes(self._view[offset : offset + size])

    def view(self, offset: int, size: int) -> memoryview:
        """The bytes themselves, without a copy."""
        return self._view[offset : offset + size]

    def gather(self, offsets: npt.NDArray[np.int64], width: int) -> npt.NDArray[np.uint8]:
        """``width`` bytes at each offset, shape (len(offsets), width); at most GUARD wide."""
        if width > GUARD:
            raise ValueError(f"gather of {width} bytes is wider than the guard of {GUARD}")
        if not len(offsets):
            return np.empty((0, width), np.uint8)
        windows = np.ndarray((len(self.array) - width + 1,), f"V{width}", self.array, 0, (1,))
        return windows[offsets].view(np.uint8).reshape(-1, width)

    def numbers(self, dtype: str) -> npt.NDArray[np.uint32]:
        """A view that reads a number of ``dtype`` at any byte offset: ``numbers(">u2")[offset]``."""
        kind = np.dtype(dtype)
        return np.ndarray((len(self.array) - kind.itemsize + 1,), kind, self.array, 0, (1,))

    def append(self, data: bytes) -> int:
        """Puts ``data`` behind the files and returns its offset; CaptureError when the room is used up."""
        start = self._append_at
        if start + len(data) > self._append_end:
            raise CaptureError("the room for reassembled bytes is used up")
        self.array[start : start + len(data)] = np.frombuffer(data, np.uint8)
        self._append_at += len(data)
        return start
