"""Who really sent a packet: how many hops away its sender is, as the TTL tells it.

Every router takes one off the TTL (RFC 1812 §5.3.1), and hosts start from few values: a packet that claims to come from
a host, but from another distance, was sent by something on the way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables.packets import IPV6, RST, TCP, UDP

if TYPE_CHECKING:
    from netdiag.tables import Tables

INITIAL = (64, 128, 255)
"""Where TTLs start: Linux, BSD and macOS 64 (RFC 1700 "IP default TTL"), Windows 128, network gear and Solaris 255."""
FAR = 2
"""Hops of difference that no route change of one hop explains (practice)."""


def hops(ttl: int) -> int:
    """Routers that the packet has passed, from the nearest initial TTL that is not below ``ttl``."""
    return next(start for start in INITIAL if start >= ttl) - ttl


def foreign(ttl: int, genuine: Iterable[int]) -> bool:
    """Was it sent from at least ``FAR`` hops nearer or farther than every one of the ``genuine`` packets?

    False without genuine packets. Different initial TTLs at the same distance are no difference.
    """
    known = {hops(g) for g in genuine}
    return bool(known) and min(abs(hops(ttl) - k) for k in known) >= FAR


def genuine_ttls(tables: Tables, rows: npt.ArrayLike) -> list[tuple[int, ...]]:
    """For each packet row, the TTLs of other packets with its source at its point: TCP without resets, and UDP.

    Ascending; empty where that address sent nothing else. One pass over the packets for all rows together.
    """
    p = tables.packets
    wanted = np.asarray(rows, np.int64)
    if not len(wanted):
        return []
    kept = ((p.proto == UDP) | (p.proto == TCP)) & np.isin(p.src, p.src[wanted])
    kept &= p.flow < len(p.flow_start)  # no copies from behind a router
    resets = p.tcp.row[(p.tcp.flags & RST) != 0]
    kept[resets] = False
    others = np.flatnonzero(kept)
    key = ["point", "six", "src"]

    def columns(of: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.generic]]:
        return {"point": p.points(of), "six": (p.flags[of] & IPV6) != 0, "src": p.src[of]}

    known = pl.DataFrame({**columns(others), "ttl": p.ttl[others]}).group_by(key).agg(pl.col("ttl").unique().sort())
    joined = pl.DataFrame(columns(wanted)).join(known, on=key, how="left", maintain_order="left")
    return [tuple(ttls or ()) for ttls in joined["ttl"].to_list()]
