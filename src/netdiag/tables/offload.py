"""Segments and packets that no link carries like that: the host that captured cuts or joins them in its card."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables.flows import address_texts
from netdiag.tables.packets import CUT, FRAGMENT, IPV6, REASSEMBLED, TCP, UDP
from netdiag.tables.tcp_segments import segments

if TYPE_CHECKING:
    from netdiag.tables import Tables

LOWEST_MSS = 536
"""Some senders ignore a lower offer: every host must take so much by default (RFC 9293 §3.7.1)."""
_NO_LIMIT = 1 << 30

I64 = npt.NDArray[np.int64]


def oversize(tables: Tables) -> pl.DataFrame:
    """TCP segments with more payload than their receiver's MSS option allows (RFC 9293 §3.7.1).

    One row for each sender: ``point``, ``host``, ``segments``, ``largest`` (payload bytes) with its ``limit`` and
    ``rows`` of some. Connections without both SYNs, or without the option, are not judged.
    """
    s = segments(tables)
    if not len(s.start):
        return _senders(tables, np.zeros(0, np.int64), np.zeros(0, np.int64))
    toward_client, toward_server = (
        tables.tcp[name].cast(pl.Int64).clip(LOWEST_MSS).fill_null(_NO_LIMIT).to_numpy()
        for name in ("mss_client", "mss_server"))
    suspect = np.flatnonzero(np.maximum.reduceat(s.length, s.start) > np.minimum(toward_client, toward_server))
    size = s.size[suspect]
    entry = np.repeat(s.start[suspect] - np.cumsum(size) + size, size) + np.arange(int(size.sum()))
    connection = s.connection[entry]
    limit = np.where(s.client[entry], toward_server[connection], toward_client[connection])
    over = s.length[entry] > limit
    rows = s.row[entry[over]].astype(np.int64)
    there = _believed(tables, rows)
    return _senders(tables, rows[there], limit[over][there])


def giants(tables: Tables, largest: float) -> pl.DataFrame:
    """TCP and UDP packets with more than ``largest`` bytes of payload, as ``oversize``.

    Not those of a TCP connection whose MSS option allows them, and none between addresses of one host.
    """
    p = tables.packets
    rows = np.flatnonzero(p.wire > largest)
    rows = rows[((p.flags[rows] & (FRAGMENT | REASSEMBLED)) == 0) & np.isin(p.proto[rows], (TCP, UDP))]
    rows = rows[_believed(tables, rows)]
    four = (p.flags[rows] & IPV6) == 0
    rows = rows[(p.src[rows] != p.dst[rows]) & ~(four & ((p.src[rows] >> 24) == 127))]
    if len(rows):
        judged = tables.tcp.filter(pl.col("mss_client").is_not_null() & pl.col("mss_server").is_not_null())
        rows = rows[~np.isin(p.flow[rows], judged["flow"].to_numpy())]
    return _senders(tables, rows, np.full(len(rows), int(largest), np.int64))


def _believed(tables: Tables, rows: I64) -> npt.NDArray[np.bool_]:
    """Did the frame hold what its IP header says? A damaged header may name any length."""
    p = tables.packets
    out: npt.NDArray[np.bool_] = (p.length[rows] >= p.wire[rows]) | ((p.flags[rows] & CUT) != 0)
    return out


def _senders(tables: Tables, rows: I64, limit: I64) -> pl.DataFrame:
    p = tables.packets
    seen = pl.DataFrame({
        "point": pl.Series(tables.points, dtype=pl.String).gather(p.points(rows)),
        "host": address_texts(p, p.src[rows], p.flags[rows]),
        "size": p.wire[rows], "limit": limit, "row": rows.astype(np.uint32)})
    biggest = pl.col("size").arg_max()
    return seen.group_by("point", "host", maintain_order=True).agg(
        segments=pl.len(), largest=pl.col("size").max(), limit=pl.col("limit").get(biggest),
        rows=pl.col("row").head(3))
