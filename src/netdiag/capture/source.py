"""From a path to a plain file: standard input and compressed captures become unlinked temporary files."""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import io
import lzma
import os
import stat
import sys
import tempfile
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from netdiag.errors import CaptureError

_CHUNK = 1 << 20
_STEP = 64
"""Bytes of a damaged gzip member unpacked at once, to lose none before the damage."""
_RESERVE = 1 << 28
"""Disk space left free when unpacking (practice)."""

GZIP, ZSTD, XZ, BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"


@dataclass(slots=True)
class Source:
    """A plain file ready to be mapped."""

    path: str
    """As the user named it; "-" is standard input."""
    fd: int
    size: int
    """Bytes of the plain capture."""
    stored: int
    """Bytes of the file as it lies on disk."""
    compression: str
    """"" or gzip, zstd, xz, bzip2."""
    damage: str = ""
    """Where unpacking broke off; what came before it is used."""
    inode: tuple[int, int] | None = None
    """Device and number of the file as stored; None for what is no file."""
    _hash: Any = field(default=None, repr=False)
    _unread: bool = field(default=False, repr=False)
    """The checksum still has to read the file."""
    _thread: threading.Thread | None = field(default=None, repr=False)

    def start_checksum(self, content: memoryview) -> None:
        """Reads the mapped file for its checksum, beside other work."""
        if self._unread:
            self._unread = False
            self._thread = threading.Thread(target=self._hash.update, args=(content,), daemon=True)
            self._thread.start()

    def sha256(self) -> str:
        """Of the bytes as stored (compressed, when the file is); "" when the source was opened without checksum."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return str(self._hash.hexdigest()) if self._hash is not None else ""


def open_source(path: str, checksum: bool = True) -> Source:
    """Opens ``path``. The checksum of a plain file is taken by ``start_checksum``, once it is mapped.

    CaptureError, with one clear line, when it is not a readable file with something in it.
    """
    if path == "-":
        if sys.stdin is None:
            raise CaptureError("standard input: is closed")
        stream: IO[bytes] = sys.stdin.buffer
        head = stream.read(6)
        if not head:
            raise CaptureError("standard input: empty; expected a capture, for example from tcpdump -w -")
        return _spool(path, _Joined(head, stream), head)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror or error}") from None
    try:
        info = os.fstat(fd)
        if stat.S_ISDIR(info.st_mode):
            raise CaptureError(f"{path}: is a directory, not a capture")
        if not stat.S_ISREG(info.st_mode):  # a pipe or a process substitution
            with os.fdopen(fd, "rb", closefd=False) as stream:
                head = stream.read(6)
                if not head:
                    raise CaptureError(f"{path}: empty")
                return _spooled(path, fd, _Joined(head, stream), head)
        if info.st_size == 0:
            raise CaptureError(f"{path}: the file is empty (0 bytes)")
        head = os.pread(fd, 6, 0)
        if _compression(head):
            with os.fdopen(fd, "rb", closefd=False) as stream:
                source = _spooled(path, fd, _Joined(b"", stream), head)
            source.inode = info.st_dev, info.st_ino
            return source
    except BaseException:
        os.close(fd)
        raise
    return Source(path, fd, info.st_size, info.st_size, "", inode=(info.st_dev, info.st_ino),
                  _hash=hashlib.sha256() if checksum else None, _unread=checksum)


def _spooled(path: str, fd: int, stream: _Joined, head: bytes) -> Source:
    """`_spool`, after which the file itself is closed: the temporary file takes its place."""
    source = _spool(path, stream, head)
    os.close(fd)
    return source


def _compression(head: bytes) -> str:
    for magic, name in ((GZIP, "gzip"), (ZSTD, "zstd"), (XZ, "xz"), (BZIP2, "bzip2")):
        if head.startswith(magic):
            return name
    return ""


class _Joined:
    """A stream with its first bytes put back, that hashes and counts what is read."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self.head, self.stream, self.count, self.digest = head, stream, 0, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        if self.head:
            data, self.head = self.head, b""
        else:
            data = self.stream.read(_CHUNK if size < 0 else size)
        self.count += len(data)
        self.digest.update(data)
        return data

    read1 = read


def _unpacked(kind: str, stream: _Joined) -> Iterator[bytes]:
    """Plain chunks of a compressed stream; ends in the library's own error when it is damaged."""
    if kind == "gzip":
        yield from _gunzip(stream)
        return
    plain = io.BufferedReader(_Raw(stream), _CHUNK)
    reader: Any
    if kind == "zstd":
        import zstandard
        reader = zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True)
    elif kind == "xz":
        reader = lzma.LZMAFile(plain)  # noqa: SIM115
    elif kind == "bzip2":
        reader = bz2.BZ2File(plain)
    else:
        reader = stream
    # read1 hands over what there is before it meets the end of a stream that was cut.
    while block := reader.read1(_CHUNK):
        yield block


def _gunzip(stream: _Joined) -> Iterator[bytes]:
    """All members of a gzip file; unlike the file classes it hands out what came before a cut."""
    codec: Any = zlib
    with contextlib.suppress(ImportError):
        from isal import isal_zlib as codec
    unit = codec.decompressobj(31)  # 16 + 15: gzip framing, largest window
    first = rest = stream.read(_CHUNK)
    given = 0
    while rest:
        try:
            block = unit.decompress(rest, _CHUNK)
        except Exception:
            yield from _before_error(first, given)
            raise
        yield block
        given += len(block)
        rest = unit.unconsumed_tail
        if unit.eof:
            rest = unit.unused_data or stream.read(_CHUNK)
            if not rest or not rest.startswith(GZIP[: len(rest)]):
                return  # the end, or padding behind the last member, as gzip(1) ignores it
            unit, first, given = codec.decompressobj(31), rest, 0
        if not rest:
            rest, first = stream.read(_CHUNK), b""  # of a long member not all input is at hand any more
    if not unit.eof:
        raise EOFError("it ends before its end mark")


def _before_error(data: bytes, given: int) -> Iterator[bytes]:
    """What ``data``, the start of a gzip member, holds before its damage, but for the ``given`` bytes handed out
    already: decompressors drop the last piece with the error, which is all there is of a small capture with a wrong
    checksum.
    """
    unit, size = zlib.decompressobj(31), 0
    with contextlib.suppress(zlib.error):
        for at in range(0, len(data), _STEP):
            saved = unit.copy()
            try:
                blocks: Iterable[bytes] = (unit.decompress(data[at : at + _STEP]),)
            except zlib.error:
                blocks = (saved.decompress(data[i : i + 1]) for i in range(at, at + _STEP))
            for block in blocks:
                yield block[max(0, given - size) :]
                size += len(block)
            if unit.eof:
                return


class _Raw(io.RawIOBase):
    """A ``_Joined`` stream as the raw file that decompressors expect."""

    def __init__(self, stream: _Joined) -> None:
        self.stream, self.rest = stream, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.rest or self.stream.read(_CHUNK)
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        self.rest = data[size:]
        return size


def _spool(path: str, stream: _Joined, head: bytes) -> Source:
    kind = _compression(head)
    with tempfile.TemporaryFile(prefix="netdiag-") as out:
        space = os.fstatvfs(out.fileno())
        limit = max(space.f_bavail * space.f_frsize - _RESERVE, _CHUNK)
        size, damage = 0, ""
        try:
            for block in _unpacked(kind, stream):
                if size + len(block) > limit:
                    damage = f"unpacking stopped after {size} bytes: no more room for temporary files"
                    break
                out.write(block)
                size += len(block)
        except Exception as error:  # every decompressor has error classes of its own
            damage = _describe(kind, size, error)
        out.flush()
        if size == 0:
            raise CaptureError(f"{path}: {damage or 'empty after unpacking ' + kind}")
        with contextlib.suppress(OSError):
            while not damage and stream.read(_CHUNK):  # trailing bytes still belong to the checksum
                pass
        return Source(path, os.dup(out.fileno()), size, stream.count, kind, damage, _hash=stream.digest)


def _describe(kind: str, size: int, error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{kind or 'input'} stream is cut or damaged after {size} unpacked bytes ({text})"
