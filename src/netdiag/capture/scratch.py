"""A file without a name, for what is too much for memory: it is gone when the process ends, however it ends."""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import IO

RESERVE = 1 << 28
"""Bytes of the disk that are left free (practice)."""
_DISK = "/var/tmp"
"""Lies on a disk (FHS 3.0 §5.15: it is kept over a restart), while /tmp is often memory."""


def opened() -> IO[bytes]:
    """A new one, where the user wants such files (TMPDIR), else on a disk; OSError where none can be made."""
    wanted = any(name in os.environ for name in ("TMPDIR", "TEMP", "TMP")) or not os.access(_DISK, os.W_OK)
    return tempfile.TemporaryFile(prefix="netdiag-", buffering=0, dir=None if wanted else _DISK)


def free(descriptor: int) -> int:
    """Bytes that may still be written to the disk of this file; a page at least, so that the disk itself says no."""
    space = os.fstatvfs(descriptor)
    return max(space.f_bavail * space.f_frsize - RESERVE, mmap.PAGESIZE)
