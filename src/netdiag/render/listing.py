"""Lists: aligned columns for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netdiag.render.escape import cell, plain, valid
from netdiag.render.layout import table

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the terminal table."""

    title: str
    value: Callable[[Row], Any]
    """From a row to what is shown; None is shown as nothing."""
    right: bool = False
    """Numbers stand right, and are never cut."""
    firm: bool = False
    """Never cut: a time, an address, an id."""
    least: int = 0
    """Left out where fewer cells are to be had."""


@dataclass(frozen=True, slots=True)
class Listing:
    """``rows`` have all fields (JSON and CSV); ``columns`` pick from them for people. ``empty`` is said when none."""

    rows: Sequence[Row]
    columns: Sequence[Column]
    empty: str
    fields: Sequence[str] = ()
    """Names of the fields, for the CSV heading of a list without rows."""


def field(title: str, name: str, right: bool = False, firm: bool = False, least: int = 0) -> Column:
    """A column that shows one field as it is."""
    return Column(title, lambda row: row[name], right, firm, least)


def render(listing: Listing, form: str, width: int | None = None) -> str:
    """``form`` is "terminal" (cut to ``width`` where one is given), "json" (an array, one object a line) or "csv"."""
    if form == "json":
        return _json(listing)
    if form == "csv":
        return _csv(listing)
    if not listing.rows:
        return listing.empty + "\n"
    columns = [c for c in listing.columns if width is None or width >= c.least]
    body = [[_text(c.value(row)) for c in columns] for row in listing.rows]
    right = frozenset(i for i, c in enumerate(columns) if c.right)
    firm = right | {i for i, c in enumerate(columns) if c.firm}
    return "\n".join(table([c.title for c in columns], body, width, right, firm=firm)) + "\n"


def _json(listing: Listing) -> str:
    lines = ",\n".join(json.dumps({k: _plain(v) for k, v in row.items()}, allow_nan=False) for row in listing.rows)
    return f"[\n{lines}\n]\n" if lines else "[]\n"


def _plain(value: Any) -> Any:
    """What JSON can say: bytes as hex, NaN and infinity as null."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return valid(value)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _csv(listing: Listing) -> str:
    """RFC 4180 with line feeds; lists are joined with "; "."""
    names = list(listing.fields) or list(dict.fromkeys(name for row in listing.rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in listing.rows:
        writer.writerow([_cell(row.get(name)) for name in names])
    return out.getvalue()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return cell("; ".join(_joined(v) for v in value))
    return cell(_joined(value))


def _joined(value: Any) -> str:
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, int):
        return str(value)
    return plain(", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value))
