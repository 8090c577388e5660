"""Compressed captures as plain chunks: gzip, zstd, xz, bzip2 and lz4, with everything that lies before a cut."""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Protocol

CHUNK = 1 << 20
"""Plain bytes unpacked at once, at most: what a small input can make of itself in memory."""
_STEP = 64
"""Bytes of a damaged gzip member unpacked at once, to lose none before the damage."""
_XZ_MEMORY = 1 << 28
"""Bytes an xz stream may ask for: four times what `xz -9` needs (xz(1))."""

GZIP, ZSTD, XZ, BZIP2, LZ4 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh", b"\x04\x22\x4d\x18"
"""First bytes: RFC 1952 §2.3.1, RFC 8878 §3.1.1, the xz file format §2.1.1, bzip2(1), the LZ4 frame format."""
HEAD = 6
"""Bytes that tell them apart."""
_KINDS = ((GZIP, "gzip"), (ZSTD, "zstd"), (XZ, "xz"), (BZIP2, "bzip2"), (LZ4, "lz4"))
_SKIPPABLE = tuple(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))
"""Frames without content, of zstd (RFC 8878 §3.1.2; pzstd begins its files with one) and of LZ4."""
_PADDING = 16
"""Chunks of zeros behind a stream that are read as its padding (practice: tapes pad to a block); a pipe need not
end.
"""


class Reader(Protocol):
    """What compressed bytes are read from."""

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end."""


def compression(head: bytes) -> str:
    """The name of the format that starts with ``head``, or ""."""
    if head.startswith(_SKIPPABLE):
        return "zstd"
    return next((name for magic, name in _KINDS if head.startswith(magic)), "")


def unpacked(kind: str, stream: Reader) -> Iterator[bytes]:
    """Plain chunks of a stream of this ``kind``; ends in the library's own error when it is damaged.

    Zeros behind the last member or frame are padding. What else is there is an error: it may be a member that is
    damaged at its start.
    """
    if kind == "gzip":
        return _gunzip(stream)
    if kind == "zstd":
        return _zstd(stream)
    if kind == "xz":
        return _members(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), (XZ,), stream)
    if kind == "bzip2":
        return _members(bz2.BZ2Decompressor, (BZIP2,), stream)
    from lz4.frame import LZ4FrameDecompressor
    return _members(LZ4FrameDecompressor, (LZ4, *_SKIPPABLE), stream)


def _next(rest: bytes, magic: tuple[bytes, ...], stream: Reader) -> bytes:
    """What starts with the next member, behind padding; nothing at the end."""
    for _ in range(_PADDING):
        rest = (rest or stream.read(CHUNK)).lstrip(b"\0")
        if rest:
            break
    if rest and not any(rest.startswith(m[: len(rest)]) for m in magic):
        raise ValueError("what is behind its end is no padding and no other stream")
    return rest


def _members(new: Callable[[], Any], magic: tuple[bytes, ...], stream: Reader) -> Iterator[bytes]:
    """All streams of a file, by decompressors that share the interface of `bz2.BZ2Decompressor`."""
    rest = stream.read(CHUNK)
    while True:
        unit = new()
        while not unit.eof:
            if unit.needs_input and not rest:
                rest = stream.read(CHUNK)
                if not rest:
                    raise EOFError("it ends before its end mark")
            yield unit.decompress(rest, CHUNK)
            rest = b""
        rest = _next(unit.unused_data, magic, stream)
        if not rest:
            return


def _zstd(stream: Reader) -> Iterator[bytes]:
    import zstandard
    raw = _Raw(stream)
    plain = io.BufferedReader(raw, CHUNK)
    reader: Any = zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True)
    # read1 hands over what there is before it meets the end of a stream that was cut.
    while block := reader.read1(CHUNK):
        yield block
    if not raw.frames.whole:
        raise EOFError("it ends before its end mark")


class _ZstdFrames:
    """Follows the lengths of zstd frames (RFC 8878 §3.1): the library does not say that the last one was cut."""

    def __init__(self) -> None:
        self._steps = self._walk()
        self._wanted, self._skip = next(self._steps)
        self._have = b""
        self.whole = True
        """All frames so far are complete."""

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                step = min(self._wanted - len(self._have), len(data) - at)
                self._have += data[at : at + step]
            at += step
            if not self._skip and len(self._have) == self._wanted:
                have, self._have = self._have, b""
                self._wanted, self._skip = self._steps.send(have)
        self.whole = not self._skip and not self._have and self._between

    def _walk(self) -> Generator[tuple[int, int], bytes, None]:
        """Gives how many bytes it wants to see and how many to leave out before; is sent the former."""
        left = 0
        while True:
            self._between = True
            magic = yield 4, left
            self._between, left = False, 0
            if magic.startswith(_SKIPPABLE):
                left = int.from_bytes((yield 4, 0), "little")
                continue
            (flags,) = yield 1, 0
            single = flags >> 5 & 1
            left = (0 if single else 1) + (0, 1, 2, 4)[flags & 3] + ((single, 2, 4, 8)[flags >> 6])
            last = 0
            while not last:
                block = int.from_bytes((yield 3, left), "little")
                last, left = block & 1, 1 if block >> 1 & 3 == 1 else block >> 3  # type 1 repeats one byte
            left += 4 * (flags >> 2 & 1)  # checksum


class _Raw(io.RawIOBase):
    """A ``Reader`` as the raw file that a decompressor expects."""

    def __init__(self, stream: Reader) -> None:
        self.stream, self.frames = stream, _ZstdFrames()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(min(CHUNK, len(buffer)))
        buffer[: len(data)] = data
        self.frames.feed(data)
        return len(data)


def _gunzip(stream: Reader) -> Iterator[bytes]:
    """All members of a gzip file; unlike the file classes it hands out what came before a cut."""
    codec: Any = zlib
    with contextlib.suppress(ImportError):
        from isal import isal_zlib as codec
    unit = codec.decompressobj(31)  # 16 + 15: gzip framing, largest window
    first = rest = stream.read(CHUNK)
    given = 0
    while rest:
        try:
            block = unit.decompress(rest, CHUNK)
        except Exception:
            yield from _before_error(first, given)
            raise
        yield block
        given += len(block)
        rest = unit.unconsumed_tail
        if unit.eof:
            rest = _next(unit.unused_data, (GZIP,), stream)
            if not rest:
                return
            unit, first, given = codec.decompressobj(31), rest, 0
        if not rest:
            rest, first = stream.read(CHUNK), b""  # of a long member not all input is at hand any more
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
