"""When SYNs to one destination fail: the facts behind NAT-PORT-EXHAUST."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from netdiag.tables import Tables
from netdiag.tables.packets import I64
from netdiag.tables.schema import rows
from netdiag.tables.tcp import Connection

LINGERS_S = (0, 10, 30, 60, 120, 240)
"""How long a port stays taken after the end: 10 s conntrack after a reset, 30 s Google Cloud NAT since 2026, 60 s Linux
hosts, 120 s conntrack TIME-WAIT and older Google Cloud NAT, 240 s twice the MSL (RFC 9293 §3.4.2) and Azure."""
STRAY = 0.05
"""Share of the lost SYNs that may be on the wrong side of the limit, and so many answered ones: the translator sees the
end of a connection some milliseconds before or after the capture point (practice)."""
ELSEWHERE = 0.2
"""Share of failures at other destinations above which it is not about this one (practice)."""
_NEVER = np.iinfo(np.int64).max


class Fate(NamedTuple):
    """What became of the SYNs to one destination."""

    limit: int
    below: int
    """SYNs lost below the limit."""
    above: int
    """SYNs answered at the limit."""
    linger_s: int
    lost: I64
    """Packet rows of the SYNs without answer."""
    passed: I64
    """Packet rows of the SYNs with one."""
    first_ns: int
    last_ns: int
    clients: tuple[str, ...]


def measure(tables: Tables, here: pl.DataFrame, failed: frozenset[int], min_open: float) -> Fate | None:
    """The number of open connections that parts lost SYNs from answered ones, where there is one, and success again
    after failures, while what was open went on."""
    ts = tables.packets.ts
    lost: list[int] = []
    passed: list[int] = []
    began: list[int] = []
    ended: list[int] = []
    for c in rows(here, Connection):
        if c.midstream:
            began.append(0)
        elif c.syn_ack_packet is not None:
            before = [s for s in c.syn_packets if s < c.syn_ack_packet]
            if not before:
                continue
            passed.append(before[-1])
            began.append(int(ts[before[-1]]))
            if c.connection in failed:
                lost += before[:-1]
        else:
            if c.connection in failed:
                lost += c.syn_packets
            continue
        ended.append(c.last_ns if c.state in ("closed", "reset") else _NEVER)
    if not lost or not passed:
        return None
    clients = tuple(here.filter(pl.col("connection").is_in(failed))["client"].unique().sort())
    lost_ns, passed_ns = ts[lost], ts[passed]
    start, end = np.sort(np.array(began, np.int64)), np.sort(np.array(ended, np.int64))
    first, last = int(lost_ns.min()), int(lost_ns.max())
    if not (passed_ns > first).any() or not _went_on(tables, here, first, last):
        return None
    for linger in LINGERS_S:
        free = np.where(end == _NEVER, _NEVER, np.minimum(end, _NEVER - linger * 10**9) + linger * 10**9)
        at_lost, at_passed = (np.searchsorted(start, at, "left") - np.searchsorted(free, at, "right")
                              for at in (lost_ns, passed_ns))
        stray = int(STRAY * len(lost))
        limit = int(np.sort(at_lost)[stray])
        above = int((at_passed >= limit).sum())
        if above <= stray and limit >= min_open:
            return Fate(limit, int((at_lost < limit).sum()), above, linger, np.array(lost), np.array(passed), first,
                        last, clients)
    return None


def _went_on(tables: Tables, here: pl.DataFrame, first: int, last: int) -> bool:
    """Did the server send between the first and the last failure, on a connection that was open before?"""
    p = tables.packets
    old = here.filter((pl.col("first_ns") < first) & (pl.col("last_ns") > first) & pl.col("established"))
    for flow, server in old.select("flow", "server").iter_rows():
        r = p.flow_rows(flow)
        during = r[(p.ts[r] > first) & (p.ts[r] < last)]
        if any(p.source(int(row)) == server for row in during[:64].tolist()):
            return True
    return False


def others_work(tables: Tables, fate: Fate, point: str, server: str, port: int) -> bool:
    """New connections of the same clients to other destinations: answered, while those here fail."""
    during = tables.tcp.filter(
        (pl.col("point") == point) & pl.col("client").is_in(fate.clients) & ~pl.col("midstream")
        & ((pl.col("server") != server) | (pl.col("server_port") != port))
        & pl.col("first_ns").is_between(fate.first_ns, fate.last_ns))
    answered = during.filter(pl.col("syn_ack_packet").is_not_null()).height
    silent = during.filter((pl.col("packets_server") == 0) & (pl.col("syn_packets").list.len() >= 2)).height
    return answered > 0 and silent <= ELSEWHERE * (silent + answered)
