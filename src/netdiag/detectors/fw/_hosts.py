"""What else was heard of the host of a silent port: the facts behind FW-SYN-DROP."""

from __future__ import annotations

from typing import NamedTuple

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
RETRY_NS = 1_000_000_000
"""Time for an answer: the first retransmission timer (RFC 6298 §2.1)."""
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


class Beyond(NamedTuple):
    """Where else the SYNs of a connection were seen that its own point shows no answer to."""

    answered: str
    """A point that shows them answered; "" without."""
    farther: str
    """A point that they reached after this one, by their TTL, and that shows no answer either; "" without."""


def beyond(tables: Tables, silent: pl.DataFrame) -> dict[int, Beyond]:
    """For connections of ``silent`` (rows of ``Tables.tcp``), by number; only those that another point shows too.

    The same ends and the same sequence number: no connection that used the ports before.
    """
    if len(tables.points) < 2:
        return {}
    ends = ["client", "client_port", "server", "server_port"]
    p, columns = tables.packets, ["point", *ends, "syn_packets", "packets_server", "syn_ttl", "connection"]

    def numbered(c: pl.DataFrame) -> pl.DataFrame:
        first = c["syn_packets"].list.first().to_numpy()
        return c.with_columns(isn=pl.Series(p.tcp.seq[np.searchsorted(p.tcp.row, first)], dtype=pl.UInt32))

    mine = numbered(silent.select(columns))
    others = numbered(tables.tcp.select(columns).filter(pl.col("syn_packets").list.len() > 0).join(
        mine.select(ends).unique(), on=ends, how="semi", maintain_order="left"))
    pairs = mine.join(others, on=[*ends, "isn"], suffix="_there", maintain_order="left").filter(
        pl.col("point") != pl.col("point_there"))
    out: dict[int, Beyond] = {}
    for connection, point, answers, here, there in pairs.select(
            "connection", "point_there", "packets_server_there", "syn_ttl", "syn_ttl_there").iter_rows():
        answered, farther = out.get(connection, Beyond("", ""))
        if answers:
            answered = answered or point
        elif there < here:
            farther = farther or point
        out[connection] = Beyond(answered, farther)
    return out


def given_up(tables: Tables, started: pl.DataFrame, min_syns: float) -> pl.DataFrame:
    """Connections with fewer SYNs than ``min_syns`` that a client gave up before the next one, to a port that it tried
    ``min_syns`` times or more in all and that never said a word to it.

    Those begun in the last second are left out: their answer may come after the capture.
    """
    key = ["point", "client", "server", "server_port"]
    end = dict(tables.quality.select("point", "last_ns").iter_rows())
    syns = pl.col("syn_packets").list.len()
    few = started.filter((syns < min_syns) & only_syns())
    if not few.height:
        return few
    before = pl.col("point").replace_strict(end, return_dtype=pl.Int64) - RETRY_NS
    few = few.join(started.filter(pl.col("packets_server") > 0), on=key, how="anti", maintain_order="left")
    few = few.filter(pl.col("last_ns") < before)
    often = few.group_by(key).agg(tries=syns.sum(), connections=pl.len()).filter(
        (pl.col("tries") >= min_syns) & (pl.col("connections") > 1))
    return few.join(often, on=key, how="semi", maintain_order="left")


def only_syns() -> pl.Expr:
    """Rows of ``Tables.tcp`` that hold SYNs of the client and nothing else."""
    return (pl.col("packets_server") == 0) & (pl.col("packets_client") == pl.col("syn_packets").list.len())


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
