"""Which flows of a capture point are told of; the others, which may be hundreds of thousands, are counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

DETAILED = 30
"""Flows of one point that are told of, each with its frames (practice)."""


def accounts(flows: pl.DataFrame) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each flow to tell of, and for its Occurrence: ``flows``, ``more``, ``start_ns`` and ``end_ns``.

    ``flows`` has ``point``, ``flow``, ``first_ns``, ``last_ns``. The last account of a point stands for the rest too.
    """
    for here in flows.partition_by("point", maintain_order=True):
        for number, row in enumerate(here.head(DETAILED).iter_rows(named=True)):
            meant = here[number:] if number == DETAILED - 1 else here[number : number + 1]
            yield row, {"flows": tuple(meant["flow"]), "more": meant.height - 1,
                        "start_ns": meant["first_ns"].min(), "end_ns": meant["last_ns"].max()}
