"""Packets that enter what lies between two capture points and do not leave it, translated on the way or not."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from netdiag.tables.packets import ACK, SYN

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


class Translated:
    """Asks the other points about SYNs where addresses and ports of clients are translated in between.

    Translators seldom touch sequence numbers: the same number to the same address and port is the same SYN.
    ``suspects`` are all the packet rows that will be asked about.
    """

    def __init__(self, tables: Tables, suspects: npt.ArrayLike) -> None:
        self._packets = p = tables.packets
        self._points = tables.points
        self._seen: list[Counter[tuple[int, int, int]]] = [Counter() for _ in tables.points]
        self._own: list[set[tuple[int, int, int, int, int]]] = [set() for _ in tables.points]
        if len(tables.points) < 2:
            return
        column = np.flatnonzero((p.tcp.flags & (SYN | ACK)) == SYN)
        column = column[np.isin(p.dst[p.tcp.row[column]], p.dst[np.asarray(suspects, np.int64)])]
        row = p.tcp.row[column]
        for point, number in zip(p.points(row).tolist(), self._numbers(row), strict=True):
            self._seen[point][number] += 1
        for point, own in zip(p.points(row).tolist(), self._with_source(row), strict=True):
            self._own[point].add(own)

    def at(self, lost: npt.ArrayLike, passed: npt.ArrayLike) -> str | None:
        """Name of a point that shows some of the SYNs ``passed``, before and after the first one lost, and none lost.

        All are packet rows of one point. None where a point shows lost ones too, translated: they left; "" where no
        point tells.
        """
        wanted, known = np.asarray(lost, np.int64), np.asarray(passed, np.int64)
        p = self._packets
        home = int(p.points(wanted[:1])[0])
        first = int(p.ts[wanted].min())
        # A SYN that passed after others of its connection were lost bears their number.
        numbers, allowed = self._numbers(wanted), Counter(self._numbers(known))
        for point, seen in enumerate(self._seen):
            if point == home or not seen:
                continue
            at = p.ts[known[[number in seen for number in self._numbers(known)]]]
            if (at < first).any() and (at > first).any():
                if not any(seen[number] > allowed[number] for number in numbers):
                    return self._points[point]
                # Under their own addresses they have met no translator yet.
                if self._own[point].isdisjoint(self._with_source(wanted)):
                    return None
        return ""

    def _numbers(self, rows: npt.NDArray[np.integer]) -> list[tuple[int, int, int]]:
        p = self._packets
        seq = p.tcp.seq[np.searchsorted(p.tcp.row, rows)]
        return list(zip(p.dst[rows].tolist(), p.dport[rows].tolist(), seq.tolist(), strict=True))

    def _with_source(self, rows: npt.NDArray[np.integer]) -> list[tuple[int, int, int, int, int]]:
        p = self._packets
        return [(src, sport, *number) for src, sport, number in zip(
            p.src[rows].tolist(), p.sport[rows].tolist(), self._numbers(rows), strict=True)]
