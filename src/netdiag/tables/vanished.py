"""Packets that enter what lies between two capture points and do not leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from netdiag.tables import Tables

MAX_LOSS = 0.001
"""Share of other packets that may be missing at the other point: more is a lossy path or capture (practice)."""


class Vanished:
    """Asks the other points about packets; where nothing translates addresses between them.

    ``suspects`` are all the packet rows that will be asked about: they do not count as the loss of the path.
    """

    def __init__(self, tables: Tables, suspects: npt.ArrayLike) -> None:
        self._tables = tables
        self._suspects = np.asarray(suspects, np.int64)
        self._sound: dict[tuple[str, str], bool] = {}

    def at(self, rows: npt.ArrayLike) -> str:
        """Name of a point that would have shown all of these rows (of one point), and shows none; "" without."""
        wanted = np.asarray(rows, np.int64)
        tables = self._tables
        if len(tables.points) < 2 or not len(wanted):
            return ""
        here = tables.points[int(tables.packets.points(wanted[:1])[0])]
        for other in tables.points:
            if other != here and tables.crosspoint.missing_at(wanted, other).all() \
                    and tables.crosspoint.covers(other, wanted).all() and self._is_sound(here, other):
                return other
        return ""

    def _is_sound(self, here: str, other: str) -> bool:
        """Clocks aligned by common packets, and nearly everything else of ``here`` is there too."""
        if (here, other) not in self._sound:
            crosspoint = self._tables.crosspoint
            ratio = None
            if crosspoint.offset_ns(here, other) is not None:
                ratio = crosspoint.loss_ratio(here, other, self._suspects)
            self._sound[here, other] = ratio is not None and ratio < MAX_LOSS
        return self._sound[here, other]
