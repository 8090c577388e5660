"""Text columns that lie in the captures themselves: Polars strings that point into the mapped files, without a copy.

Polars takes columns by the Arrow C data interface (arrow.apache.org, "The Arrow C data interface"). Its string views
are 16 bytes each: the length, then the text itself up to 12 bytes, or its first four bytes, a buffer and an offset.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.capture.space import Space

I64 = npt.NDArray[np.int64]

_INLINE = 12
_SHIFT = 30
"""Buffers begin every 2^30 bytes and are twice as long: an offset of 31 bits reaches any text from the nearest one."""
_PARTS = np.zeros((_INLINE + 1, _INLINE), np.uint8)
for _size in range(_INLINE + 1):
    _PARTS[_size, :_size] = 0xFF
_MASKS = _PARTS.view("<u4")


class _Schema(ctypes.Structure):
    _fields_ = (("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_char_p),
                ("flags", ctypes.c_int64), ("n_children", ctypes.c_int64), ("children", ctypes.c_void_p),
                ("dictionary", ctypes.c_void_p), ("release", ctypes.c_void_p), ("private_data", ctypes.c_void_p))


class _Array(ctypes.Structure):
    _fields_ = (("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64),
                ("n_buffers", ctypes.c_int64), ("n_children", ctypes.c_int64), ("buffers", ctypes.c_void_p),
                ("children", ctypes.c_void_p), ("dictionary", ctypes.c_void_p), ("release", ctypes.c_void_p),
                ("private_data", ctypes.c_void_p))


_live: dict[int, tuple[Any, ...]] = {}
"""What exported arrays point to, until Polars lets go of them."""


def _let_go_schema(schema: Any) -> None:
    schema.contents.release = None


def _let_go_array(array: Any) -> None:
    _live.pop(array.contents.private_data, None)
    array.contents.release = None


_release_schema = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Schema))(_let_go_schema)
_release_array = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Array))(_let_go_array)
_capsule: Callable[[int, bytes, None], object] = ctypes.pythonapi.PyCapsule_New
_capsule.restype = ctypes.py_object  # type: ignore[attr-defined]
_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]  # type: ignore[attr-defined]


class _Views:
    """An array of string views in the form that ``pl.Series`` asks for."""

    def __init__(self, views: npt.NDArray[np.int32], valid: npt.NDArray[np.uint8], nulls: int,
                 buffers: list[npt.NDArray[np.uint8]]) -> None:
        self._parts = views, valid, nulls, buffers

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        views, valid, nulls, buffers = self._parts
        schema = _Schema(b"vu", b"", None, 2, 0, None, None, ctypes.cast(_release_schema, ctypes.c_void_p), None)
        sizes = np.array([len(b) for b in buffers], np.int64)
        pointers = (ctypes.c_void_p * (3 + len(buffers)))(
            valid.ctypes.data if nulls else None, views.ctypes.data, *(b.ctypes.data for b in buffers),
            sizes.ctypes.data)
        key = ctypes.addressof(pointers)
        array = _Array(len(views), nulls, 0, 3 + len(buffers), 0, key, None, None,
                       ctypes.cast(_release_array, ctypes.c_void_p), key)
        _live[key] = (views, valid, buffers, sizes, pointers)
        self._kept = schema, array
        return (_capsule(ctypes.addressof(schema), b"arrow_schema", None),
                _capsule(ctypes.addressof(array), b"arrow_array", None))


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
    return pl.Series(_Views(views, valid, nulls, buffers))
