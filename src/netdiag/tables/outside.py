"""Finished tables with many rows, laid into a file without a name: the kernel can write them out where memory is short.

What ``decode.store`` does for the packet table. Texts that lie in a capture stay there.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import dataclass

import numpy as np
import polars as pl

from netdiag.capture import scratch
from netdiag.capture.space import Space
from netdiag.tables import arrow

MANY = 1 << 16
"""Rows of a table that go into a file (practice: so many SIP messages take 12 MB)."""
_ALIGNED = 64
"""Bytes, as the Arrow columnar format recommends."""
_TEXT_ELSEWHERE = 32
"""Bytes of text a row that are copied with a column: where there are more, they are those of other columns too."""
_WIDTH = {b"c": 1, b"C": 1, b"s": 2, b"S": 2, b"i": 4, b"I": 4, b"l": 8, b"L": 8, b"f": 4, b"g": 8}
_KINDS = (pl.String, pl.Boolean, pl.Int8, pl.UInt8, pl.Int16, pl.UInt16, pl.Int32, pl.UInt32, pl.Int64, pl.UInt64,
          pl.Float32, pl.Float64)


def laid(data: pl.DataFrame, space: Space) -> pl.DataFrame:
    """``data``, or the same from a file where it is large and there is room. Texts in ``space`` stay there.

    Nothing that was decrypted is written: then all stays in memory.
    """
    if len(data) < MANY or space.decrypted or not arrow.EXPORTS:
        return data
    try:
        return pl.DataFrame(_laid(data.get_columns(), space))
    except OSError:  # no room on the disk, or no place for files: the table stays in memory
        return data


def _laid(columns: list[pl.Series], space: Space) -> list[pl.Series]:
    with scratch.opened() as opened:
        file = _File(opened.fileno(), space)
        written = [_written(column, file) for column in columns]
        memory = mmap.mmap(opened.fileno(), max(file.size, 1), mmap.MAP_SHARED, mmap.PROT_READ)
    base = np.frombuffer(memory, np.uint8).ctypes.data
    held = memory, space
    return [arrow.column_of(*_made(part, base, held)).alias(column.name) if part else column
            for column, part in zip(columns, written, strict=True)]


@dataclass(frozen=True, slots=True)
class _Part:
    """A column as it lies in the file."""

    form: bytes
    length: int
    nulls: int
    offset: int
    buffers: list[tuple[bool, int | None]]
    """Is it in the file; offset there, else address."""
    children: list[_Part]


class _File:
    """The file while it is written."""

    def __init__(self, descriptor: int, space: Space) -> None:
        self._descriptor = descriptor
        self._start = space.array.ctypes.data
        self._end = self._start + len(space.array)
        self.size = 0
        os.posix_fallocate(descriptor, 0, 1)

    def in_space(self, address: int | None) -> bool:
        return address is not None and self._start <= address < self._end

    def put(self, address: int | None, length: int) -> tuple[bool, int | None]:
        if not address or not length:
            return False, address
        begin = at = self.size
        if length > scratch.free(self._descriptor):
            raise OSError("the disk is full")
        # All room at once: a disk that is full shows here, and not as SIGBUS.
        room = -(-length // _ALIGNED) * _ALIGNED
        os.posix_fallocate(self._descriptor, at, room)
        data = memoryview((ctypes.c_uint8 * length).from_address(address)).cast("B")
        while data:
            done = os.pwrite(self._descriptor, data, at)
            data, at = data[done:], at + done
        self.size += room
        return True, begin


def _written(column: pl.Series, file: _File) -> _Part | None:
    """None for a column that stays where it is: of a type that no large table has, or with much text elsewhere."""
    kind = column.dtype.inner if isinstance(column.dtype, pl.List) else column.dtype
    if kind not in _KINDS:
        return None
    with arrow.parts(column.rechunk()) as (schema, array):
        return _copied(schema, array, file)


def _copied(schema: arrow.Schema, array: arrow.Array, file: _File) -> _Part | None:
    form = schema.format
    if form not in (b"vu", b"b", b"+L") and form not in _WIDTH:
        return None
    values = array.offset + array.length
    valid, data, *texts = (ctypes.c_void_p * array.n_buffers).from_address(array.buffers)
    children: list[_Part] = []
    for inner in arrow.inside(schema, array):
        child = _copied(*inner, file)
        if child is None:
            return None
        children.append(child)
    bits = -(-values // 8)
    size = {b"vu": 16 * values, b"b": bits, b"+L": 8 * (values + 1)}.get(form) or _WIDTH.get(form, 0) * values
    buffers = []
    if form == b"vu":
        *texts, lengths = texts
        sizes = list((ctypes.c_int64 * len(texts)).from_address(lengths)) if texts else []
        mine = sum(n for at, n in zip(texts, sizes, strict=True) if not file.in_space(at))
        if mine > max(_TEXT_ELSEWHERE * values, mmap.PAGESIZE):
            return None
        buffers = [(False, at) if file.in_space(at) else file.put(at, n) for at, n in zip(texts, sizes, strict=True)]
        buffers.append(file.put(lengths, 8 * len(texts)))
    return _Part(form, array.length, array.null_count, array.offset,
                 [file.put(valid, bits), file.put(data, size), *buffers], children)


def _made(part: _Part, base: int, held: object) -> tuple[arrow.Schema, arrow.Array]:
    inner = [_made(child, base, held) for child in part.children]
    buffers = [base + (at or 0) if in_file else at for in_file, at in part.buffers]
    return (arrow.schema_of(part.form, [s for s, _ in inner]),
            arrow.array_of(part.length, part.nulls, part.offset, buffers, [a for _, a in inner], held))
