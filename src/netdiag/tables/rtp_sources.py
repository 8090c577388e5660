"""How several SSRCs share a port: in turns or one behind the other, announced in SDP or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from netdiag.tables import rtp_packets

if TYPE_CHECKING:
    from netdiag.tables import Tables

BODY_LIMIT = 1 << 16
"""Bytes of a body that are searched: what UDP could carry (RFC 768)."""


def turns(tables: Tables, pair: pl.DataFrame, within_ns: int) -> int:
    """How often packets of one stream of ``pair`` follow those of the other, no later than ``within_ns``."""
    s = rtp_packets.read(tables, pair)
    order = np.argsort(s.packet, kind="stable")  # rows of a point are in order of time
    owner, ts = s.owner[order], s.ts_ns[order]
    return int(((owner[1:] != owner[:-1]) & (np.diff(ts) <= within_ns)).sum())


def echoed(tables: Tables, pair: pl.DataFrame) -> bool:
    """Does the second stream of ``pair`` repeat sequence numbers and time stamps of the first?"""
    s = rtp_packets.read(tables, pair)
    line = s.sequence.astype(np.int64) << 32 | s.timestamp
    return bool(np.isin(line[s.start[1]:], line[: s.start[1]]).any())


def announced(tables: Tables, streams: Iterable[Mapping[str, object]]) -> bool:
    """Does SDP of their calls name several sources (RFC 5576), or several media at their port (RFC 9143)?"""
    calls = {stream["call"] for stream in streams if stream["call"] is not None}
    lines = tables.media.filter(pl.col("call").is_in(list(calls)))
    ports = [stream["destination_port"] for stream in streams]
    here = lines.filter(pl.col("port").is_in(ports))
    if here.group_by("message", "port").len()["len"].max() not in (None, 1):
        return True
    messages = tables.sip[lines["message"].unique()].select("raw_offset", "raw_length", "sdp_offset")
    for offset, length, sdp in messages.iter_rows():
        body = tables.packets.space.read(offset + sdp, min(length - sdp, BODY_LIMIT))
        named = {part.split(b" ", 1)[0] for part in body.split(b"a=ssrc:")[1:]}
        if any(str(stream["ssrc"]).encode() in named for stream in streams):
            return True
    return False
