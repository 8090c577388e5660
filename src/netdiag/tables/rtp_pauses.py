"""Long runs of missing RTP packets that streams share: a pause of all of them, or of both directions of a flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import rtp_packets
from netdiag.tables.packets import FORWARD
from netdiag.tables.rtp_loss import ENOUGH, LONG_RUN

if TYPE_CHECKING:
    from netdiag.tables import Tables

LOOKED_AT = 4_000_000
"""Packets of streams that are looked at (practice: a second)."""
BATCH = 500_000
"""Packets that are looked at together (practice: 20 MB)."""
SEVERAL = 3
"""So many streams at least are "all" of them: the two directions of one call are no more than that call (practice)."""
NEARLY = 0.9
"""Share of the streams under way that are "all" of them: some begin or end in the pause (practice)."""

MILLISECOND = 1_000_000

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pause:
    """Runs of three or more missing packets of one stream that fall together with those of others."""

    kind: Literal["all", "both"]
    """"all": nearly all streams under way at this point pause then; "both": the other direction of the flow does."""
    moments: int
    missing: int
    """Packets in these runs, half of all that the stream lacks at least."""
    longest_ms: float
    streams: int
    """How many pause in the longest of them."""
    others: int
    """How many go on in it."""


def shared(tables: Tables, lossy: pl.DataFrame) -> dict[int, Pause]:
    """Stream to its pause, for those of ``lossy`` (rows of ``Tables.rtp``, worst first) whose loss is mostly one."""
    long = lossy.filter(pl.col("max_gap") >= LONG_RUN)
    read = rtp_packets.affordable(long, LOOKED_AT)
    unread = long.tail(long.height - read.height)
    out: dict[int, Pause] = {}
    for (point,), mine in read.group_by("point", maintain_order=True):
        at_point = pl.col("point") == point
        under_way = tables.rtp.filter(at_point & (pl.col("expected") >= ENOUGH)).join(unread, on="stream", how="anti")
        out |= _shared(tables, mine, under_way)
    return out


def _runs(tables: Tables, streams: pl.DataFrame) -> tuple[I64, I64, I64, I64]:
    """Index of the stream, begin, end (ns) and size of each long run; a batch of streams is in memory at a time."""
    batch = (streams["packets"].cast(pl.Int64).cum_sum() // BATCH).to_numpy()
    out: list[tuple[I64, I64, I64, I64]] = []
    for first in np.flatnonzero(np.diff(batch, prepend=-1)).tolist():
        s = rtp_packets.read(tables, streams[first:int(np.searchsorted(batch, batch[first], "right"))])
        e = rtp_packets.extend(s)
        behind, size = e.behind[e.size >= LONG_RUN], e.size[e.size >= LONG_RUN]
        out.append((first + s.owner[behind], s.ts_ns[np.maximum(behind - 1, 0)], s.ts_ns[behind], size))
    owner, begin, end, missing = (np.concatenate(parts) for parts in zip(*out, strict=True))
    return owner, begin, end, missing


def _shared(tables: Tables, streams: pl.DataFrame, under_way: pl.DataFrame) -> dict[int, Pause]:
    owner, begin, end, size = _runs(tables, streams)
    middle = begin + (end - begin) // 2
    way = streams["flow"].to_numpy().astype(np.int64) * 2 + (
        tables.packets.flags[streams["first_packet"].to_numpy()] & FORWARD > 0)
    together = _covering(begin, end, middle)
    active = _covering(under_way["first_ns"].to_numpy(), under_way["last_ns"].to_numpy(), middle)
    everyone = (active >= SEVERAL) & (together >= NEARLY * active)
    both = ~everyone & (_covering(begin, end, middle, way[owner], way[owner] ^ 1) > 0)
    out: dict[int, Pause] = {}
    lines = streams.select("stream", "lost").rows()
    kinds: list[tuple[Literal["all", "both"], Bools]] = [("all", everyone), ("both", both)]
    for kind, chosen in kinds:
        picked = np.flatnonzero(chosen)
        picked = picked[np.argsort(owner[picked], kind="stable")]
        for at in np.split(picked, np.flatnonzero(np.diff(owner[picked])) + 1):
            if not len(at):
                continue
            (stream, lost), missing = lines[owner[at[0]]], int(size[at].sum())
            if stream not in out and missing * 2 >= lost:
                longest = at[int(np.argmax(end[at] - begin[at]))]
                out[stream] = Pause(kind, len(at), missing, float(end[longest] - begin[longest]) / 1e6,
                                    int(together[longest]), int(active[longest] - together[longest]))
    return out


def _covering(begin: I64, end: I64, moment: I64, key: npt.NDArray[Any] | None = None,
              wanted: npt.NDArray[Any] | None = None) -> I64:
    """How many of the spans cover each moment; with ``key``, of those whose key is the one ``wanted`` there."""
    base = np.concatenate((begin, moment)).min(initial=np.iinfo(np.int64).max)
    # Keys take the upper bits and milliseconds the lower 40: a count in one sorted array for all of them.
    lift, ask = (np.int64(0), np.int64(0)) if key is None or wanted is None else (key << 40, wanted << 40)
    opened = np.sort(lift + (begin - base) // MILLISECOND)
    closed = np.sort(lift + (end - base) // MILLISECOND)
    at = ask + (moment - base) // MILLISECOND
    count: I64 = np.searchsorted(opened, at, "right") - np.searchsorted(closed, at, "left")
    return count
