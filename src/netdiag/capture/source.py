"""From a path to bytes: a plain file ready to be mapped, or a stream that is read once from its start."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from netdiag.capture.interrupt import Interrupts
from netdiag.capture.unpack import CHUNK, HEAD, compression, unpacked
from netdiag.errors import CaptureError

_PIPE = 1 << 20
"""Bytes asked for a pipe to hold (pipe(7): what an unprivileged process may have): fewer changes of process."""
_BEHIND = 1 << 26
"""Bytes behind a compressed stream in a pipe that still belong to the checksum (practice): a pipe need not end."""
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of fcntl(2), Linux


@dataclass(slots=True)
class Source:
    """An open capture."""

    path: str
    """As the user named it; "-" is standard input."""
    fd: int
    size: int
    """Bytes of a plain file; 0 for a stream, until it is read."""
    stored: int
    """Bytes of the file as it lies on disk; of a pipe, those read."""
    compression: str = ""
    """"" or gzip, zstd, xz, bzip2, lz4."""
    damage: str = ""
    """Where unpacking broke off; what came before it is used."""
    inode: tuple[int, int] | None = None
    """Device and number of the file as stored; None for what is no file."""
    stream: Stream | None = None
    """Set for what cannot be mapped as it is: pipes and compressed files."""
    _hash: Any = field(default=None, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)

    def start_checksum(self, content: memoryview) -> None:
        """Reads the mapped file for its checksum, beside other work."""
        if self._hash is not None:
            self._thread = threading.Thread(target=self._hash.update, args=(content,), daemon=True)
            self._thread.start()

    def sha256(self) -> str:
        """Of the bytes as stored (compressed, when the file is); "" when the source was opened without checksum, or is
        a pipe that was not read to its end.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return str(self._hash.hexdigest()) if self._hash is not None else ""

    def finish(self) -> None:
        """The stream was read as far as it will be: takes over what its summary needs, and closes it."""
        if self.stream is not None:
            self._hash = self.stream.checksum()
            self.damage, self.stored = self.stream.damage, self.stream.input.stored
        self.close()

    def close(self) -> None:
        """Closes the file; twice does no harm."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.stream = -1, None


class Input:
    """The stored bytes of a stream, hashed and counted as they are read."""

    def __init__(self, fd: int, info: os.stat_result, checksum: bool) -> None:
        self.fd, self.count = fd, 0
        self.pipe = not stat.S_ISREG(info.st_mode)
        self.ended = False
        """The end of the stored bytes was met."""
        self.interrupts: Interrupts | None = None
        self._size = info.st_size
        self._digest = hashlib.sha256() if checksum else None
        self._back = b""
        self.behind = 0
        """Bytes of a pipe that are still read for the checksum alone."""
        if self.pipe:
            import fcntl
            with contextlib.suppress(OSError):  # sockets, terminals, and where the user's limit is reached
                fcntl.fcntl(fd, _SET_PIPE_SIZE, _PIPE)

    @property
    def stored(self) -> int:
        return self.count if self.pipe else self._size

    def peek(self, size: int) -> bytes:
        """The first bytes, which are read again later."""
        while len(self._back) < size and (data := os.read(self.fd, size - len(self._back))):
            self._back += data
        return self._back

    def read(self, size: int = CHUNK) -> bytes:
        buffer = bytearray(size)
        got = self.readinto(memoryview(buffer))
        return bytes(memoryview(buffer)[:got])

    def readinto(self, buffer: memoryview) -> int:
        """Some bytes; 0 at the end. OSError when the device fails."""
        if self._back:
            got = min(len(self._back), len(buffer))
            buffer[:got] = self._back[:got]
            self._back = self._back[got:]
        elif self.ended or (self.interrupts is not None and not self.interrupts.wait(self.fd)):
            return 0
        else:
            got = os.readv(self.fd, [buffer])
            self.ended = got == 0
        self.count += got
        if self._digest is not None:
            self._digest.update(buffer[:got])
        return got

    def checksum(self) -> Any:
        """The hash object over all stored bytes; None where a pipe still holds some that nobody wants."""
        if self._digest is None:
            return None
        with contextlib.suppress(OSError):
            while (not self.pipe or self.behind > 0) and (data := self.read()):
                self.behind -= len(data)
        return self._digest if self.ended or not self.pipe else None


class Stream:
    """The plain bytes of a pipe or of a compressed file."""

    def __init__(self, source: Input, kind: str) -> None:
        self.input, self.kind = source, kind
        self.size = 0
        """Plain bytes read so far."""
        self.damage = ""
        """Why it ended, unless it was at its end."""
        self._chunks: Iterator[bytes] | None = unpacked(kind, source) if kind else None
        self._rest = memoryview(b"")
        self._ended = False

    @property
    def interrupted(self) -> bool:
        """The user ended the stream."""
        return self.input.interrupts is not None and self.input.interrupts.at is not None

    def fill(self, buffer: memoryview) -> int:
        """Fills ``buffer``; fewer bytes are there only at the end."""
        at = 0
        read: Callable[[memoryview], int] = self._unpack if self._chunks is not None else self.input.readinto
        while at < len(buffer) and not self._ended:
            try:
                got = read(buffer[at:])
            except Exception as error:  # every decompressor has error classes of its own
                self.damage, got = self._describe(error), 0
            self._ended = got == 0
            at += got
            self.size += got
        if at < len(buffer) and self.interrupted and self.kind:
            self.damage = ""  # its end mark cannot be there
        return at

    def _unpack(self, buffer: memoryview) -> int:
        while not self._rest and self._chunks is not None:
            block = next(self._chunks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        got = min(len(buffer), len(self._rest))
        buffer[:got] = self._rest[:got]
        self._rest = self._rest[got:]
        return got

    def _describe(self, error: Exception) -> str:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"{self.kind or 'input'} stream is cut or damaged after {self.size} unpacked bytes ({text})"

    def checksum(self) -> Any:
        """The hash object over the stored bytes, or None, after the last ``fill``."""
        if self._ended and not self.damage and not self.interrupted:
            self.input.behind = _BEHIND
        return self.input.checksum()


def open_source(path: str, checksum: bool = True) -> Source:
    """Opens ``path``. The checksum of a plain file is taken by ``start_checksum``, once it is mapped.

    CaptureError, with one clear line, when it is not readable or there is nothing in it.
    """
    try:
        if path == "-":
            if sys.stdin is None:
                raise CaptureError("standard input: is closed")
            fd = os.dup(sys.stdin.fileno())
        else:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a closed or replaced sys.stdin
        raise CaptureError(f"{_name(path)}: {getattr(error, 'strerror', None) or error}") from None
    try:
        return _open(path, fd, checksum)
    except OSError as error:
        os.close(fd)
        raise CaptureError(f"{_name(path)}: {error.strerror or error}") from None
    except BaseException:
        os.close(fd)
        raise


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def _open(path: str, fd: int, checksum: bool) -> Source:
    info = os.fstat(fd)
    if stat.S_ISDIR(info.st_mode):
        raise CaptureError(f"{_name(path)}: is a directory, not a capture")
    if not stat.S_ISREG(info.st_mode) or os.lseek(fd, 0, os.SEEK_CUR):  # a file that the shell has read a part of
        stored = Input(fd, info, checksum)
        stored.pipe = True
        head = stored.peek(HEAD)
        if not head:
            raise CaptureError("standard input: empty; expected a capture, for example from tcpdump -w -"
                               if path == "-" else f"{path}: empty")
        kind = compression(head)
        return Source(path, fd, 0, 0, kind, stream=Stream(stored, kind))
    inode = info.st_dev, info.st_ino
    if info.st_size == 0:
        raise CaptureError(f"{_name(path)}: the file is empty (0 bytes)")
    if kind := compression(os.pread(fd, HEAD, 0)):
        return Source(path, fd, 0, info.st_size, kind, inode=inode, stream=Stream(Input(fd, info, checksum), kind))
    return Source(path, fd, info.st_size, info.st_size, inode=inode, _hash=hashlib.sha256() if checksum else None)
