"""Columns by the Arrow C data interface (arrow.apache.org, "The Arrow C data interface"), without a copy.

Polars takes columns so that lie elsewhere: in a capture (``text``), or in a file without a name (``outside``).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import polars as pl


class Schema(ctypes.Structure):
    _fields_ = (("format", ctypes.c_char_p), ("name", ctypes.c_char_p), ("metadata", ctypes.c_char_p),
                ("flags", ctypes.c_int64), ("n_children", ctypes.c_int64), ("children", ctypes.c_void_p),
                ("dictionary", ctypes.c_void_p), ("release", ctypes.c_void_p), ("private_data", ctypes.c_void_p))


class Array(ctypes.Structure):
    _fields_ = (("length", ctypes.c_int64), ("null_count", ctypes.c_int64), ("offset", ctypes.c_int64),
                ("n_buffers", ctypes.c_int64), ("n_children", ctypes.c_int64), ("buffers", ctypes.c_void_p),
                ("children", ctypes.c_void_p), ("dictionary", ctypes.c_void_p), ("release", ctypes.c_void_p),
                ("private_data", ctypes.c_void_p))


_NULLABLE = 2
_live: dict[int, object] = {}
"""What exported arrays point to, until Polars lets go of them."""


def _let_go_schema(schema: Any) -> None:
    schema.contents.release = None


def _let_go_array(array: Any) -> None:
    _live.pop(array.contents.private_data, None)
    array.contents.release = None


_release_schema = ctypes.CFUNCTYPE(None, ctypes.POINTER(Schema))(_let_go_schema)
_release_array = ctypes.CFUNCTYPE(None, ctypes.POINTER(Array))(_let_go_array)
_released = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_capsule: Callable[[int, bytes, None], object] = ctypes.pythonapi.PyCapsule_New
_capsule.restype = ctypes.py_object  # type: ignore[attr-defined]
_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]  # type: ignore[attr-defined]


def schema_of(form: bytes, children: Sequence[Schema] = ()) -> Schema:
    """Type of a column: its format string, and the types of the columns inside it."""
    inner = (ctypes.c_void_p * len(children))(*map(ctypes.addressof, children))
    out = Schema(form, b"", None, _NULLABLE, len(children), ctypes.addressof(inner) if children else None, None,
                 ctypes.cast(_release_schema, ctypes.c_void_p), None)
    out.kept = inner, children
    return out


def array_of(length: int, nulls: int, offset: int, buffers: Sequence[int | None], children: Sequence[Array],
             held: object) -> Array:
    """A column: where its buffers lie (in ``held``), how many values are passed over in them, and columns inside it."""
    inner = (ctypes.c_void_p * len(children))(*map(ctypes.addressof, children))
    pointers = (ctypes.c_void_p * len(buffers))(*buffers)
    out = Array(length, nulls, offset, len(buffers), len(children), ctypes.addressof(pointers),
                ctypes.addressof(inner) if children else None, None, ctypes.cast(_release_array, ctypes.c_void_p), None)
    out.kept = pointers, inner, children, held
    return out


class _Exported:
    """A column in the form that ``pl.Series`` asks for."""

    def __init__(self, schema: Schema, array: Array) -> None:
        self._parts = schema, array

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        schema, array = self._parts
        # Polars moves the struct away; its pointers stay where they are as long as they are kept
        array.private_data = array.buffers
        _live[array.buffers] = array.kept, schema.kept
        return (_capsule(ctypes.addressof(schema), b"arrow_schema", None),
                _capsule(ctypes.addressof(array), b"arrow_array", None))


def column_of(schema: Schema, array: Array) -> pl.Series:
    """The column; what it points to is kept as long as Polars needs it."""
    return pl.Series(_Exported(schema, array))


EXPORTS = hasattr(pl.Series, "_export_arrow_to_c")
"""Whether Polars says where a column lies. Its public way makes a copy of texts, and this one is not promised."""


@contextlib.contextmanager
def parts(column: pl.Series) -> Iterator[tuple[Schema, Array]]:
    """Where a column of one chunk lies, as long as the ``with`` lasts."""
    schema, array = Schema(), Array()
    column._export_arrow_to_c(ctypes.addressof(array), ctypes.addressof(schema))
    try:
        yield schema, array
    finally:
        for struct in (schema, array):
            _released(struct.release)(ctypes.addressof(struct))


def inside(schema: Schema, array: Array) -> list[tuple[Schema, Array]]:
    """The columns inside a column."""
    count = array.n_children
    if not count:
        return []
    schemas = (ctypes.c_void_p * count).from_address(schema.children)
    arrays = (ctypes.c_void_p * count).from_address(array.children)
    return [(Schema.from_address(s), Array.from_address(a)) for s, a in zip(schemas, arrays, strict=True)]
