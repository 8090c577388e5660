"""Compressed captures as plain chunks: gzip, zstd, xz, bzip2 and lz4, with everything that lies before a cut."""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
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


class Reader(Protocol):
    """What compressed bytes are read from."""

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end."""


def compression(head: bytes) -> str:
    """The name of the format that starts with ``head``, or ""."""
    return next((name for magic, name in _KINDS if head.startswith(magic)), "")


def unpacked(kind: str, stream: Reader) -> Iterator[bytes]:
    """Plain chunks of a stream of this ``kind``; ends in the library's own error when it is damaged.

    What follows the last member or frame and is none itself is ignored, as the command-line tools do.
    """
    if kind == "gzip":
        return _gunzip(stream)
    if kind == "zstd":
        return _zstd(stream)
    if kind == "xz":
        return _members(lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), XZ, stream)
    if kind == "bzip2":
        return _members(bz2.BZ2Decompressor, BZIP2, stream)
    from lz4.frame import LZ4FrameDecompressor
    return _members(LZ4FrameDecompressor, LZ4, stream)


def _members(new: Callable[[], Any], magic: bytes, stream: Reader) -> Iterator[bytes]:
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
        rest = unit.unused_data or stream.read(CHUNK)
        if not rest or not rest.startswith(magic[: len(rest)]):
            return


def _zstd(stream: Reader) -> Iterator[bytes]:
    import zstandard
    plain = io.BufferedReader(_Raw(stream), CHUNK)
    reader: Any = zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True)
    # read1 hands over what there is before it meets the end of a stream that was cut.
    while block := reader.read1(CHUNK):
        yield block


class _Raw(io.RawIOBase):
    """A ``Reader`` as the raw file that a decompressor expects."""

    def __init__(self, stream: Reader) -> None:
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(min(CHUNK, len(buffer)))
        buffer[: len(data)] = data
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
            rest = unit.unused_data or stream.read(CHUNK)
            if not rest or not rest.startswith(GZIP[: len(rest)]):
                return  # the end, or padding behind the last member, as gzip(1) ignores it
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
