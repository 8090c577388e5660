"""What makes the trouble of several streams one finding: the host that most of them share."""

from __future__ import annotations

from collections import Counter

import polars as pl

from netdiag.tables import Tables
from netdiag.tables.addresses import routable

FEW = 5
"""So many troubled streams without a common host are still told one by one (practice)."""


def groups(troubled: pl.DataFrame) -> dict[int, tuple[str, ...]]:
    """Stream number to ``("from", host)``, ``("to", host)``, ``("between", host, host)`` or ``("all",)``.

    ``troubled`` has ``stream``, ``source`` and ``destination``.
    """
    lines = list(troubled.select("stream", "source", "destination").iter_rows())
    tally: Counter[tuple[str, ...]] = Counter()
    for _, source, destination in lines:
        tally.update([("from", source), ("to", destination)])
    out: dict[int, tuple[str, ...]] = {}
    for stream, source, destination in lines:
        best = max(("from", source), ("to", destination), key=lambda name: (tally[name], name))
        if tally[best] > 1:
            out[stream] = best
        else:
            out[stream] = ("between", *sorted((source, destination))) if len(lines) <= FEW else ("all",)
    return out


def examined(streams: pl.DataFrame, names: set[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    """How many of ``streams`` each of these groups could have had."""
    if len(names) > 1 or ("all",) not in names:
        froms = dict(streams.group_by("source").len().iter_rows())
        tos = dict(streams.group_by("destination").len().iter_rows())
    out: dict[tuple[str, ...], int] = {}
    for name in names:
        if name[0] == "all":
            out[name] = streams.height
        elif name[0] == "between":
            ends = list(name[1:])
            out[name] = streams.filter(pl.col("source").is_in(ends) & pl.col("destination").is_in(ends)).height
        else:
            out[name] = (froms if name[0] == "from" else tos)[name[1]]
    return out


def subject(row: dict[str, object]) -> str:
    """The same text at every capture point that NAT does not lie between."""
    return (f"{row['source']}:{row['source_port']} → {row['destination']}:{row['destination_port']} "
            f"SSRC 0x{row['ssrc']:08x}")


def keys(row: dict[str, object]) -> frozenset[str]:
    """Of a stream and its call."""
    return frozenset({f"ssrc:{row['ssrc']:08x}", *([f"call:{row['call_id']}"] if row["call_id"] else ())})


def numbering(row: dict[str, object]) -> frozenset[str]:
    """Of a sender that ignores the payload types of its receivers: in one call the audio's, in another the events'."""
    return frozenset({f"call:{row['call_id']}", f"sender:{row['source']}"})


def senders(tables: Tables) -> pl.DataFrame:
    """``stream`` and its ``host``: who sends it.

    Behind a NAT a host has one address at each capture point; its own one, which is not routable, or else the one at
    the first point, says who it is.
    """
    named = tables.rtp.select("stream", "call_id", "ssrc", "sender", host="source")
    if len(tables.points) > 1:
        outside = {host: routable(host) for host in named["host"].unique().to_list()}
        best = pl.col("host").sort_by(pl.col("host").replace_strict(outside, return_dtype=pl.Boolean)).first()
        named = named.with_columns(host=pl.when(pl.col("call_id").is_null()).then("host").otherwise(
            best.over("call_id", "ssrc", "sender")))
    return named.select("stream", "host")
