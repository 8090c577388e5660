"""Text columns that lie in the captures themselves: Polars strings that point into the mapped files, without a copy.

The string views of Arrow are 16 bytes each: the length, then the text itself up to 12 bytes, or its first four bytes, a
buffer and an offset.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.capture.space import Space
from netdiag.tables import arrow

I64 = npt.NDArray[np.int64]

_INLINE = 12
_SHIFT = 30
"""Buffers begin every 2^30 bytes and are twice as long: an offset of 31 bits reaches any text from the nearest one."""
_PARTS = np.zeros((_INLINE + 1, _INLINE), np.uint8)
for _size in range(_INLINE + 1):
    _PARTS[_size, :_size] = 0xFF
_MASKS = _PARTS.view("<u4")


def column(space: Space, offset: I64, length: I64, replaced: Mapping[int, str | None] | None = None) -> pl.Series:
    """Texts ``space[offset:offset + length]``, which must be UTF-8; null where ``length`` is below 0.

    ``replaced`` has other texts for some rows.
    """
    extra = b""
    offset, length = offset.copy(), length.copy()
    end = len(space.array)
    if replaced:
        parts, at = [], end
        for row, text in replaced.items():
            raw = text.encode("utf-8", "replace") if text is not None else b""
            offset[row], length[row] = at, len(raw) if text is not None else -1
            parts.append(raw)
            at += len(raw)
        extra = b"".join(parts)
    n = len(offset)
    views = np.zeros((n, 4), np.int32)
    views[:, 0] = np.maximum(length, 0)
    inside = np.flatnonzero((length > 0) & (offset < end))
    where = inside if len(inside) < n else slice(None)
    if len(inside):
        views[where, 1:] = space.gather(offset[where], _INLINE).view("<i4")
    tail = np.frombuffer(extra + bytes(_INLINE), np.uint8)
    added = np.flatnonzero((length > 0) & (offset >= end))
    for row in added.tolist():
        begin = int(offset[row]) - end
        views[row, 1:] = tail[begin : begin + _INLINE].view("<i4") if begin % 4 == 0 else np.frombuffer(
            tail[begin : begin + _INLINE].tobytes(), "<i4")
    short = np.flatnonzero(length <= _INLINE)
    views[short, 1:] &= _MASKS[np.maximum(length[short], 0)].view(np.int32)
    long = np.flatnonzero(length > _INLINE)
    buffers: list[npt.NDArray[np.uint8]] = []
    if len(long):
        number = np.where(offset[long] < end, offset[long] >> _SHIFT, -1)
        used, index = np.unique(number, return_inverse=True)
        buffers = [space.array[int(k) << _SHIFT : (int(k) + 2 << _SHIFT) - 1] if k >= 0 else tail for k in used]
        base = np.where(used >= 0, used << _SHIFT, end)[index]
        views[long, 2], views[long, 3] = index, offset[long] - base
    null = length < 0
    nulls = int(null.sum())
    valid = np.packbits(~null, bitorder="little")
    sizes = np.array([len(b) for b in buffers], np.int64)
    places = [valid.ctypes.data if nulls else None, views.ctypes.data, *(b.ctypes.data for b in buffers),
              sizes.ctypes.data]
    return arrow.column_of(arrow.schema_of(b"vu"), arrow.array_of(n, nulls, 0, places, (),
                                                                  (views, valid, buffers, sizes)))
