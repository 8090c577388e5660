"""Packets that a capture lacks and that passed it: the network did not lose them."""

from __future__ import annotations

import polars as pl

from netdiag.tables import Tables, rtp_gaps
from netdiag.tables.rtp_crossing import Crossing, Held


def left(tables: Tables, lossy: pl.DataFrame, crossing: dict[int, Crossing],
         settings: dict[str, float]) -> dict[int, int]:
    """Streams with packets that are missing and passed here, and how many are left that the network lost.

    A capture that loses packets where another point watches loses as many where it does not. Where most of them passed,
    the network is charged with no more than what the receiver itself counts, if that is enough to be told.
    """
    least = settings["min_lost"]
    out: dict[int, int] = {}
    lines = {stream: (lost, expected) for stream, lost, expected in
             lossy.select("stream", "lost", "expected").iter_rows()}
    told = [(d.stream.stream, d.missing - d.reported, d.of, d.reported) for d in rtp_gaps.disputed(tables, least)
            ] if lossy.height else []
    told += [(c.stream, c.passed.count, c.passed.of, 0) for c in crossing.values()
             if c.passed and c.passed.count >= least]
    for stream, seen, of, counted in told:
        if stream in lines:
            lost, expected = lines[stream]
            count = round(seen * max(1, expected / of))
            rest = lost - count if count * 2 < lost else counted
            enough = rest >= least and rest * 100 >= settings["min_share"] * expected
            out[stream] = min(out.get(stream, lost), rest if enough else 0)
    return out


def elsewhere(cross: Crossing | None, least: float) -> Held | None:
    """The point that has ``least`` of the missing packets: better one that comes before than one of unknown place."""
    held = (cross.before, cross.untold) if cross else ()
    return next((h for h in held if h and h.count >= least), None)
