"""Frames of tables with many rows, from their columns."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import outside
from netdiag.tables.packets import Packets
from netdiag.tables.schema import schema


class Columns:
    """The columns of table ``row``, each put where it stays as soon as it is there: in a file when it is long."""

    def __init__(self, row: type, packets: Packets) -> None:
        self._types, self._space = schema(row), packets.space
        self._done: dict[str, pl.Series] = {}

    def __setitem__(self, name: str, values: pl.Series | npt.NDArray[np.generic]) -> None:
        column = pl.Series(name, values).cast(self._types[name])
        self._done[name] = outside.laid(column.to_frame(), self._space).to_series()

    def __getitem__(self, name: str) -> pl.Series:
        return self._done[name]

    def frame(self) -> pl.DataFrame:
        """The table; KeyError when a column is missing."""
        return pl.DataFrame([self._done[name] for name in self._types])


def frame_of(row: type, columns: dict[str, list[Any]]) -> pl.DataFrame:
    """The frame of table ``row`` from one list of values for each of its columns.

    Polars builds a list column value by value, 25 µs each; here it is built from all the items at once.
    """
    out: dict[str, pl.Series] = {}
    for name, dtype in schema(row).items():
        cells = columns[name]
        if isinstance(dtype, pl.List) and cells:
            out[name] = _lists(name, cells, dtype)
        else:
            out[name] = pl.Series(name, cells, dtype=dtype)
    return pl.DataFrame(out)


def _lists(name: str, cells: list[Any], dtype: pl.List) -> pl.Series:
    size = np.array([len(cell) for cell in cells], np.int64)
    items = pl.Series(name, list(chain.from_iterable(cells)), dtype=dtype.inner)
    owner = pl.Series("i", np.repeat(np.arange(len(cells), dtype=np.int64), size))
    held = pl.DataFrame([owner, items]).group_by("i", maintain_order=True).agg(name)
    index = np.full(len(cells), len(held), np.int64)
    index[held["i"].to_numpy()] = np.arange(len(held))
    return pl.concat([held[name], pl.Series(name, [[]], dtype=dtype)])[index]
