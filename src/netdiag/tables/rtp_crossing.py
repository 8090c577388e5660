"""The same RTP stream at two capture points: which of its packets one has and the other lacks.

Joined by SSRC and sequence number, which NAT does not change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from netdiag.tables import rtp_packets

if TYPE_CHECKING:
    from netdiag.tables import Tables

PAIRS = 200
"""Streams compared packet by packet (practice)."""

BUDGET = 2_000_000
"""Packets of their flows that are read for it in all (practice: half a second)."""
WRAP = 1 << 16
"""Longer streams use sequence numbers twice and are not compared (RFC 3550 §5.1)."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A stream that another point has more of."""

    stream: int
    """The stream that lacks packets."""
    other: int
    """The same at the other point."""
    point: str
    """Where the other one was seen."""
    missing: int
    """Sequence numbers that only the other point has, between the first and the last that both have."""
    shared: int
    """Sequence numbers that both have."""
    packets: tuple[int, ...]
    """Rows of the missing ones at the other point, the first ones."""


def compare(tables: Tables, lacking: pl.DataFrame, cited: int = 3) -> dict[int, Crossing]:
    """For each of ``lacking`` (rows of ``Tables.rtp``): what the point with the most of its packets has beyond them."""
    if len(tables.points) < 2:
        return {}
    others = tables.rtp.select("ssrc", "point", "payload_type", other="stream", have="packets")
    both = lacking.head(PAIRS).join(others, on="ssrc", how="inner", suffix="_other").filter(
        (pl.col("point") != pl.col("point_other")) & (pl.col("payload_type") == pl.col("payload_type_other"))
        & (pl.col("have") > pl.col("packets")) & (pl.col("have") < WRAP))
    both = both.sort("have", descending=True).unique("stream", keep="first", maintain_order=True)
    out: dict[int, Crossing] = {}
    left = BUDGET
    for stream, other, point in both.select("stream", "other", "point_other").iter_rows():
        pair = tables.rtp[[stream, other]]
        left -= int(tables.packets.flow_size[pair["flow"].to_numpy()].sum())
        if left < 0 and out:
            break
        s = rtp_packets.read(tables, pair)
        mine, theirs = s.sequence[: s.start[1]], s.sequence[s.start[1]:]
        # Restarts and wraps apart: only what lies between numbers of both is compared, in order of the other point.
        common = np.isin(theirs, mine)
        at = np.flatnonzero(common)
        if not len(at):
            continue
        gone = np.flatnonzero(~common[at[0] : at[-1]]) + at[0]
        rows = s.packet[s.start[1] + gone]
        out[stream] = Crossing(stream, other, point, len(gone), len(at), tuple(rows[:cited].tolist()))
    return out
