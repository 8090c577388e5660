"""Turns the dataclass of a fact table into a Polars schema, and rows of a frame into objects.

A fact table is a frozen dataclass whose fields are documented; the same class is the
schema of the frame, so that what is documented is what is there.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Hashable, Iterator
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin

import polars as pl

T = TypeVar("T")

_PLAIN: dict[object, pl.DataType] = {
    int: pl.Int64(), float: pl.Float64(), str: pl.String(), bool: pl.Boolean(), bytes: pl.Binary(),
}


def _dtype(hint: object) -> pl.DataType:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [a for a in get_args(hint) if a is not type(None)]
        return _dtype(inner[0])
    if origin is typing.Annotated:
        return typing.cast(pl.DataType, get_args(hint)[1])
    if origin in (tuple, list):
        return pl.List(_dtype(get_args(hint)[0]))
    return _PLAIN[hint]


@cache
def _schema(row: Hashable) -> dict[str, pl.DataType]:
    kind = typing.cast(type, row)
    fields = dataclasses.fields(kind)
    # One evaluation for all annotations: get_type_hints compiles each of some 400 by itself.
    hints = eval("(" + ", ".join(str(f.type) for f in fields) + ",)", vars(sys.modules[kind.__module__]))
    return {f.name: _dtype(hint) for f, hint in zip(fields, hints, strict=True)}


def schema(row: type) -> dict[str, pl.DataType]:
    """Column name to Polars type, from the annotations of dataclass ``row``."""
    return _schema(row)


def empty(row: type) -> pl.DataFrame:
    """A frame of that table without rows."""
    return pl.DataFrame(schema=schema(row))


def frame(row: type[T], rows: list[T]) -> pl.DataFrame:
    """A frame of that table from objects; for tables with few rows."""
    names = list(schema(row))
    return pl.DataFrame({n: [getattr(r, n) for r in rows] for n in names}, schema=schema(row))


def rows(data: pl.DataFrame, row: type[T]) -> Iterator[T]:
    """Rows of ``data`` as objects of ``row``; lists arrive as tuples. For the few rows that survive a filter."""
    names, types = list(schema(row)), data.schema
    lists = [i for i, n in enumerate(names) if isinstance(types[n], pl.List)]
    for values in data.select(names).iter_rows():
        if lists:
            v: list[Any] = list(values)
            for i in lists:
                v[i] = tuple(v[i]) if v[i] is not None else ()
            yield row(*v)
        else:
            yield row(*values)


U8 = typing.Annotated[int, pl.UInt8()]
U16 = typing.Annotated[int, pl.UInt16()]
U32 = typing.Annotated[int, pl.UInt32()]
"""Also the type of packet rows: an index into ``Packets``, not a frame number (``Packets.locate`` gives those)."""
