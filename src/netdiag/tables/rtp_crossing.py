"""The same RTP stream at two capture points: which of its packets one has and the other lacks, and who sees it first.

Joined by SSRC and sequence number, which NAT does not change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import rtp_packets

if TYPE_CHECKING:
    from netdiag.tables import Tables

PAIRS = 2000
"""Streams compared packet by packet (practice: 0.1 s)."""

BUDGET = 2_000_000
"""Packets of their flows that are read for it in all (practice: half a second)."""
WRAP = 1 << 16
"""Longer streams use sequence numbers twice and are not compared (RFC 3550 §5.1)."""


U32 = npt.NDArray[np.uint32]


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
    further_on: bool | None
    """The other point is further on the way: what it has passed the point that lacks it. None: nothing tells which."""


def compare(tables: Tables, lacking: pl.DataFrame, cited: int = 3) -> dict[int, Crossing]:
    """For each of ``lacking`` (rows of ``Tables.rtp``): what the point with the most of its packets has beyond them."""
    if len(tables.points) < 2:
        return {}
    others = tables.rtp.select("ssrc", "point", "payload_type", other="stream", have="packets")
    both = lacking.head(PAIRS).join(others, on="ssrc", how="inner", suffix="_other").filter(
        (pl.col("point") != pl.col("point_other")) & (pl.col("payload_type") == pl.col("payload_type_other"))
        & (pl.col("have") > pl.col("packets")) & (pl.col("have") < WRAP))
    both = both.sort("have", descending=True).unique("stream", keep="first", maintain_order=True)
    cost = tables.packets.flow_size[tables.rtp["flow"].to_numpy()].astype(np.int64)
    paid = np.cumsum(cost[both["stream"].to_numpy()] + cost[both["other"].to_numpy()])
    both = both.head(max(1, int(np.searchsorted(paid, BUDGET, "right"))))
    if not both.height:
        return {}
    known = tables.rtp[pl.concat([both["stream"], both["other"]]).unique().sort()]
    s = rtp_packets.read(tables, known)
    index = dict(zip(known["stream"].to_list(), range(known.height), strict=True))
    out: dict[int, Crossing] = {}
    for stream, other, point in both.select("stream", "other", "point_other").iter_rows():
        mine, theirs = s.part(index[stream]), s.part(index[other])
        # Restarts and wraps apart: only what lies between numbers of both is compared, in order of the other point.
        common = np.isin(s.sequence[theirs], s.sequence[mine])
        at = np.flatnonzero(common)
        if not len(at):
            continue
        gone = np.flatnonzero(~common[at[0] : at[-1]]) + at[0]
        out[stream] = Crossing(stream, other, point, len(gone), len(at),
                               tuple(s.packet[theirs][gone[:cited]].tolist()),
                               _further_on(tables, stream, other, s.packet[mine], s.packet[theirs]))
    return out


def _further_on(tables: Tables, stream: int, other: int, mine: U32, theirs: U32) -> bool | None:
    """Whether ``other`` was captured further on the way than ``stream``; with the packets of both.

    A relay sends from the address that it receives at. Otherwise each router takes one off the TTL (RFC 1812 §5.3.1,
    RFC 8200 §3), as long as one end stays the same: a relay begins with a TTL of its own.
    """
    (source, destination), (other_source, other_destination) = (
        (tables.rtp["source"][row], tables.rtp["destination"][row]) for row in (stream, other))
    if source != other_source and destination != other_destination:
        return True if other_source == destination else False if other_destination == source else None
    here, there = (float(np.median(tables.packets.ttl[packets])) for packets in (mine, theirs))
    return None if here == there else there < here


def passed_here(tables: Tables, lacking: pl.DataFrame, least: float) -> list[Crossing]:
    """Those of ``lacking`` that lack ``least`` packets or more which a point further on has: they passed here."""
    streams = lacking.filter(pl.col("lost") >= least).sort("lost", descending=True)
    return [c for c in compare(tables, streams).values() if c.further_on and c.missing >= least]
