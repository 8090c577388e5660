"""Numbers groups of SIP messages and finds the first or last message of each, in columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
MIX = np.uint64(0x9E3779B97F4A7C15)
"""Spreads numbers over 64 bits (2^64 / golden ratio)."""


def group_codes(data: pl.DataFrame, columns: Sequence[str]) -> tuple[I64, int]:
    """Group number of each row, ascending with the first appearance, and the number of groups. Null equals null.

    By hashes, which are compared with what they stand for: that takes a fraction of the memory of a group-by.
    """
    found = _by_hash(data, columns) if data.height else None
    if found is not None:
        return found
    groups = (
        data.select(columns).with_row_index("row").group_by(columns, maintain_order=True).agg("row")["row"]
    )
    codes = np.empty(data.height, np.int64)
    if data.height:
        codes[groups.explode().to_numpy()] = np.repeat(
            np.arange(len(groups)), groups.list.len().to_numpy())
    return codes, len(groups)


def _by_hash(data: pl.DataFrame, columns: Sequence[str]) -> tuple[I64, int] | None:
    """What ``group_codes`` gives; None where different rows have one hash."""
    mixed = _hashes([data[name] for name in columns])
    order = np.argsort(mixed, kind="stable")
    mixed = mixed[order]
    new = np.append(True, mixed[1:] != mixed[:-1])
    lead = order[new]
    appeared = np.argsort(lead)
    number = np.empty(len(lead), np.int64)
    number[appeared] = np.arange(len(lead))
    codes = np.empty(len(order), np.int64)
    codes[order] = number[np.cumsum(new) - 1]
    del mixed, order, new
    first = pl.Series(lead[appeared][codes].astype(np.uint32))
    if all(data[name].eq_missing(data[name].gather(first)).all() for name in columns):
        return codes, len(lead)
    return None


def _hashes(columns: Sequence[pl.Series]) -> npt.NDArray[np.uint64]:
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed *= MIX
        mixed += column.hash().to_numpy()
    return mixed


def repeats(data: pl.DataFrame) -> Mask:
    """Rows that an earlier row equals. Null equals null.

    Hashes choose the rows that may: to compare all of them takes several times the memory of the columns.
    """
    mixed = _hashes(data.get_columns())
    ordered = np.sort(mixed)
    rows = np.flatnonzero(np.isin(mixed, ordered[1:][ordered[1:] == ordered[:-1]]))
    found = np.zeros(data.height, np.bool_)
    found[rows] = ~data[rows].select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    return found


def first_of(codes: I64, count: int, mask: Mask) -> I64:
    """Row of the first message of each group that is in ``mask``; -1 where there is none."""
    out = np.full(count, -1, np.int64)
    rows = np.flatnonzero(mask)[::-1]
    out[codes[rows]] = rows
    return out


def last_of(codes: I64, count: int, mask: Mask) -> I64:
    """Row of the last message of each group that is in ``mask``; -1 where there is none."""
    out = np.full(count, -1, np.int64)
    rows = np.flatnonzero(mask)
    out[codes[rows]] = rows
    return out


def taken(column: pl.Series, rows: I64) -> pl.Series:
    """Values of ``column`` at ``rows``, null where the row is -1."""
    index = pl.Series(rows)
    return column.gather(index.set(index < 0, None).cast(pl.UInt32))


def lists(codes: I64, count: int, values: pl.Series) -> pl.Series:
    """For each group the list of its values (``codes`` and ``values`` of equal length), in order; empty lists kept."""
    grouped = (
        pl.DataFrame({"code": codes, "value": values}).group_by("code", maintain_order=True).agg("value")
    )
    base = pl.DataFrame({"code": np.arange(count)})
    joined = base.join(grouped, on="code", how="left", maintain_order="left")
    return joined["value"].fill_null(pl.Series([[]], dtype=pl.List(values.dtype)))


def nested(rows: Sequence[tuple[Any, ...]], dtype: pl.DataType) -> pl.Series:
    """A list column from tuples that repeat a lot; many times faster than Polars' own way from Python objects."""
    number: dict[tuple[Any, ...], int] = {}
    codes = [number.setdefault(row, len(number)) for row in rows]
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    flat = pl.Series([value for row in number for value in row], dtype=inner)
    sizes = np.fromiter((len(row) for row in number), np.int64, len(number))
    distinct = lists(np.repeat(np.arange(len(number)), sizes), len(number), flat)
    return distinct.gather(pl.Series(codes, dtype=pl.UInt32))
