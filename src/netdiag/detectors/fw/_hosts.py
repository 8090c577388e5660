"""What else was heard of the host of a silent port: the facts behind FW-SYN-DROP."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import Tables
from netdiag.tables.packets import ICMP, ICMPV6, IPV6, TCP, UDP
from netdiag.tables.tcp import Connection

PROHIBITED4, PROHIBITED6 = (9, 10, 13), (1, 5, 6)
"""Codes of ICMP type 3 (RFC 1812 §5.2.7.1) and of ICMPv6 type 1 (RFC 4443 §3.1) that only a filter sends."""
ECHO_REPLIES = (0, 129)
"""ICMP (RFC 792) and ICMPv6 (RFC 4443 §4.2)."""
LOOK = 1000
"""Packets of a host that are looked through for one of another port (practice)."""


class Heard:
    """All packets of the hosts that some SYNs went to."""

    def __init__(self, tables: Tables, syns: npt.ArrayLike) -> None:
        self._points = tables.points
        self._packets = p = tables.packets
        wanted = np.asarray(syns, np.int64)
        kept = np.isin(p.src, p.dst[wanted]) & (p.proto != 0) & (p.flow < len(p.flow_start))
        rows = np.flatnonzero(kept)
        key = self._key(p.points(rows), p.flags[rows], p.src[rows])
        order = np.lexsort((p.ts[rows], key))
        self._rows, self._keys = rows[order], key[order]

    def ever(self, c: Connection) -> bool:
        """Did its server send anything at all, at any point?"""
        return any(len(self._of(c, number)) for number in range(len(self._points)))

    def meanwhile(self, c: Connection) -> str:
        """What its server sent while the SYNs were sent, or before and after them: "answers pings"; "" for nothing."""
        p = self._packets
        rows = self._of(c, self._points.index(c.point))
        begin, end = np.searchsorted(p.ts[rows], (c.first_ns, c.last_ns)).tolist()
        if begin == end:
            rows = rows[begin - 1 : begin + 1] if 0 < begin < len(rows) else rows[:0]
        else:
            rows = rows[begin : min(end, begin + LOOK)]
        if not len(rows):
            return ""
        other = rows[(p.proto[rows] != TCP) | (p.sport[rows] != c.server_port)]
        row = int(other[0] if len(other) else rows[0])
        proto, port = int(p.proto[row]), int(p.sport[row])
        if proto == TCP:
            return f"answers on port {port}" if len(other) else f"answers {p.destination(row)} on this port"
        if proto == UDP:
            return f"sends from UDP port {port}"
        pings = proto in (ICMP, ICMPV6) and int(p.head([row], 1)[0, 0]) in ECHO_REPLIES
        return "answers pings" if pings else f"sends packets of IP protocol {proto}"

    def _of(self, c: Connection, point: int) -> npt.NDArray[np.int64]:
        p = self._packets
        syn = np.array(c.syn_packets[:1])
        key = self._key(np.array([point], np.uint8), p.flags[syn], p.dst[syn])[0]
        return self._rows[np.searchsorted(self._keys, key, "left") : np.searchsorted(self._keys, key, "right")]

    @staticmethod
    def _key(point: npt.NDArray[np.uint8], flags: npt.NDArray[np.uint8],
             address: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
        six = ((flags & IPV6) != 0).astype(np.uint64)
        key: npt.NDArray[np.uint64] = point.astype(np.uint64) << np.uint64(33) | six << np.uint64(32) | address
        return key


def prohibitions(tables: Tables) -> dict[tuple[str, str, int], str]:
    """(point, server, port) of TCP to who refused SYNs to it by ICMP, and how: 'A with "..."'."""
    code = pl.col("code")
    filtered = pl.when(pl.col("version") == 4).then((pl.col("type") == 3) & code.is_in(PROHIBITED4)).otherwise(
        (pl.col("type") == 1) & code.is_in(PROHIBITED6))
    told = tables.icmp.filter(filtered & (pl.col("quoted_proto") == TCP))
    return {(point, server, port): f'{source} with "{name}"' for point, server, port, source, name in told.select(
        "point", "quoted_destination", "quoted_destination_port", "source", "name").iter_rows()}


def times_by(connections: pl.DataFrame, *key: str) -> dict[tuple[object, ...], npt.NDArray[np.int64]]:
    """When the connections of each key began, ascending, ns."""
    return {k: np.sort(frame["first_ns"].to_numpy()) for k, frame in connections.group_by(key)}
