"""The same RTP stream at two capture points: which of its packets one has and the other lacks, and who sees it first.

Joined by SSRC, sequence number and time stamp, which NAT does not change. An SSRC alone is no proof: phones and load
generators use the same one in many calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import rtp_packets
from netdiag.tables.packets import FORWARD
from netdiag.tables.rtp_packets import StreamPackets

if TYPE_CHECKING:
    from netdiag.tables import Tables

PAIRS = 2000
"""Streams compared packet by packet (practice: half a second)."""

BUDGET = 2_000_000
"""Packets of their flows that are read for it in all (practice: half a second)."""

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
SOURCE, DESTINATION = ["source", "source_port"], ["destination", "destination_port"]
SAME, NAT, RELAY, SSRC_ALONE = range(4)
"""How the addresses of a stream at two points fit."""


_Found = tuple[str, U64, U32, int]
"""Point, keys and rows of what only that point has, and how many it has."""


@dataclass(frozen=True, slots=True)
class Held:
    """Packets that a stream lacks and another point has."""

    point: str
    count: int
    packets: tuple[int, ...]
    """Their rows there, the first ones."""
    of: int
    """How many it has between the first and the last that both have."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """What other points have of a stream, between the first and the last packet that both have.

    No packet counts twice: what a point further on has is not lost, whoever had it before.
    """

    stream: int
    """The stream that lacks packets."""
    passed: Held | None
    """What a point further on has: it passed the point that lacks it. Of several points the one with the most."""
    before: Held | None
    """What a point before it has, and none further on."""
    untold: Held | None
    """The same of points of which nothing tells whether they come before or after."""


def compare(tables: Tables, lacking: pl.DataFrame, cited: int = 3) -> dict[int, Crossing]:
    """For each of ``lacking`` (rows of ``Tables.rtp``) of which another point has more packets."""
    if len(tables.points) < 2 or not lacking.height:
        return {}
    both = _candidates(tables.rtp, lacking.head(PAIRS))
    cost = tables.packets.flow_size[tables.rtp["flow"].to_numpy()].astype(np.int64)
    if not both.height:
        return {}
    # With all other points or not at all: half of them would tell another story.
    paid = pl.Series("paid", np.cumsum(cost[both["stream"].to_numpy()] + cost[both["other"].to_numpy()]))
    both = both.with_columns(paid).filter((pl.col("paid").max().over("stream") <= BUDGET)
                                          | (pl.col("stream") == pl.col("stream").first()))
    known = tables.rtp[pl.concat([both["stream"], both["other"]]).unique().sort()]
    s = rtp_packets.read(tables, known)
    index = dict(zip(known["stream"].to_list(), range(known.height), strict=True))
    out: dict[int, Crossing] = {}
    lines = both.select("stream", "other", "point_other", "way", "kind").iter_rows()
    for stream, rows in groupby(lines, lambda line: int(line[0])):
        sides: dict[bool | None, list[_Found]] = {True: [], False: [], None: []}
        for _, other, point, way, kind in rows:
            mine, theirs = s.part(index[stream]), s.part(index[other])
            gone = _gone(s, mine, theirs)
            if gone is not None:
                side = _by_ttl(tables, s, mine, theirs) if kind <= NAT else way
                sides[side].append((point, *gone))
        passed = np.unique(np.concatenate([np.zeros(0, np.uint64), *(keys for _, keys, *_ in sides[True])]))
        held = {side: _most(found, passed if side is not True else passed[:0], cited) for side, found in sides.items()}
        if any(held.values()):
            out[stream] = Crossing(stream, held[True], held[False], held[None])
    return out


def _candidates(streams: pl.DataFrame, lacking: pl.DataFrame) -> pl.DataFrame:
    """``stream``, ``other``, ``point_other``, ``way``: the same stream elsewhere; ``way`` is True where addresses of a
    relay tell that the other is further on, False where it comes before, and None where they do not tell.

    One end that stays the same, port included, is the other side of a NAT; a relay sends from the address at which it
    receives. Where several streams of a point fit alike none counts: they are those of many calls with one SSRC.
    """
    columns = ["stream", "point", "ssrc", *SOURCE, *DESTINATION]
    mine = lacking.select(columns)
    theirs = streams.select(*columns).join(mine.select("ssrc").unique(), on="ssrc", how="semi").rename(
        {"stream": "other", "point": "point_other"})
    other_ends = ["source", "destination", "source_port", "destination_port"]
    ends = theirs.with_columns(pl.col(name).alias(f"{name}_other") for name in other_ends)
    kinds: list[pl.DataFrame] = []
    reverse = (pl.col("source") == pl.col("destination_other")) & (pl.col("destination") == pl.col("source_other"))
    same = pl.all_horizontal(pl.col(name) == pl.col(f"{name}_other") for name in other_ends)
    ways: tuple[tuple[int, list[str], list[str], bool | None], ...] = (
        (SAME, SOURCE + DESTINATION, SOURCE + DESTINATION, None), (NAT, DESTINATION, DESTINATION, None),
        (NAT, SOURCE, SOURCE, None), (RELAY, ["destination"], ["source"], True),
        (RELAY, ["source"], ["destination"], False), (SSRC_ALONE, [], [], None))
    for kind, left, right, way in ways:
        # Two at a point: the stream itself, and what became of it.
        few = ends.filter(pl.len().over("ssrc", "point_other", *right) <= 2)
        both = mine.join(few.drop(*(name for name in other_ends if name not in right)),
                         left_on=["ssrc", *left], right_on=["ssrc", *right], how="inner")
        both = both.filter((pl.col("point") != pl.col("point_other")) & (~reverse if left else True) & (
            ~same if kind in (NAT, RELAY) else True))
        kinds.append(both.filter(pl.len().over("stream", "point_other") == 1).select(
            "stream", "other", "point_other", way=pl.lit(way, pl.Boolean), kind=pl.lit(kind)))
    found = pl.concat(kinds).sort("kind", maintain_order=True).unique(["stream", "other"], keep="first",
                                                                      maintain_order=True)
    # What only shares the SSRC counts where nothing at that point fits better.
    best = pl.col("kind").min().over("stream", "point_other")
    found = found.filter((pl.col("kind") < SSRC_ALONE) | (best == SSRC_ALONE))
    order = mine.select("stream").with_row_index("rank")
    return found.join(order, on="stream").sort("rank", "kind", maintain_order=True)


def _key(s: StreamPackets, part: slice) -> U64:
    """Number and time stamp: unique also where numbers are used twice."""
    out: U64 = s.timestamp[part].astype(np.uint64) << np.uint64(16) | s.sequence[part]
    return out


def _gone(s: StreamPackets, mine: slice, theirs: slice) -> tuple[U64, U32, int] | None:
    """Keys and rows of what only the other has, in its order, of how many; None without any."""
    key = _key(s, theirs)
    common = np.isin(key, _key(s, mine))
    at = np.flatnonzero(common)
    if not len(at):
        return None
    gone = np.flatnonzero(~common[at[0] : at[-1]]) + at[0]
    if not len(gone):
        return None
    value, first = np.unique(key[gone], return_index=True)
    by_row = np.argsort(first)
    return value[by_row], s.packet[theirs][gone[first[by_row]]], len(np.unique(key[at[0] : at[-1] + 1]))


def _most(found: list[_Found], passed: U64, cited: int) -> Held | None:
    """What the point has that has the most, without what ``passed``."""
    best: Held | None = None
    for point, keys, rows, of in found:
        rest = rows[~np.isin(keys, passed)]
        if len(rest) > (best.count if best else 0):
            best = Held(point, len(rest), tuple(rest[:cited].tolist()), of)
    return best


def _by_ttl(tables: Tables, s: StreamPackets, mine: slice, theirs: slice) -> bool | None:
    """Whether the other was captured further on: each router takes one off the TTL (RFC 1812 §5.3.1, RFC 8200 §3).

    Of packets that both have, since a route may change under way. If the packets of the other direction have
    fewer hops behind them at the same point, its copies were routed there (TEE, nft "dup to"), and nothing is told.
    """
    p = tables.packets
    here, there = _ttl(p.ttl, s, mine), _ttl(p.ttl, s, theirs)
    _, i, j = np.intersect1d(here[0], there[0], True, True)
    step = float(np.median(there[1][j] - here[1][i]))
    back = []
    for part in (mine, theirs):
        row = s.packet[part.start]
        rows = p.flow_rows(p.flow[row])
        back.append(p.ttl[rows[(p.flags[rows] & FORWARD) != (p.flags[row] & FORWARD)]])
    if len(back[0]) and len(back[1]) and step * (float(np.median(back[1])) - float(np.median(back[0]))) > 0:
        return None
    return None if not step else step < 0


def _ttl(ttl: npt.NDArray[np.uint8], s: StreamPackets, part: slice) -> tuple[U64, npt.NDArray[np.float64]]:
    """Keys, and the mean TTL of each: a capture of all interfaces of a router has each packet twice."""
    keys, at = np.unique(_key(s, part), return_inverse=True)
    return keys, np.bincount(at, ttl[s.packet[part]]) / np.bincount(at)


def passed_here(tables: Tables, lacking: pl.DataFrame, least: float) -> dict[int, Held]:
    """Those of ``lacking`` that lack ``least`` packets or more which a point further on has: they passed here."""
    streams = lacking.filter(pl.col("lost") >= least).sort("lost", descending=True)
    return {c.stream: c.passed for c in compare(tables, streams).values() if c.passed and c.passed.count >= least}
