"""TCP connections that were fine, rested, and were dead when they spoke again: the facts behind NAT-TCP-IDLE-DROP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import Tables
from netdiag.tables.packets import ACK, I64, RST
from netdiag.tables.speakers import foreign
from netdiag.tables.tcp import Connection
from netdiag.tables.tcp_segments import KEEP_ALIVE, ZERO_WINDOW, connection_segments, segments

MIN_RTO_NS = 150_000_000
"""Copies closer than this are duplicates of the capture: Linux waits 200 ms (TCP_RTO_MIN), RFC 6298 §2 asks for 1 s."""
BACKOFF = 1.5
"""RFC 6298 §5.5 doubles the wait with each resending; a tail loss probe (RFC 8985 §7) may come before it."""

Bools = npt.NDArray[np.bool_]


class Death(NamedTuple):
    """The end of one connection after a rest."""

    connection: Connection
    by_client: bool
    """The client spoke first after the rest."""
    idle_s: float
    rest: tuple[int, int]
    """Packet rows of the last sign of life and of what came after it."""
    sends: tuple[int, ...]
    """Packet rows of the data that was never acknowledged (or that drew the reset)."""
    reset: int | None
    """Packet row of the reset."""
    start_ns: int
    """First packet after the rest."""
    end_ns: int


def silence(tables: Tables, c: Connection, by_client: bool, min_sends: float) -> Death | None:
    """The data that one side sent ``min_sends`` times or more with growing waits, and the rest before it.

    None where the other side was heard afterwards, or had closed its window.
    """
    s = connection_segments(tables, c.connection)
    mine = s.client == by_client
    told = s.ack[~mine & ((s.flags & ACK) != 0)]
    carries = mine & (s.length > 0)
    if not carries.any():
        return None
    wanted = max(int(told.max(initial=0)), int(s.seq[carries].min()))
    sends = np.flatnonzero(carries & (s.seq <= wanted) & (wanted < s.seq + s.length))
    if not len(sends) or not sends[0] or not mine[sends[0] :].all():
        return None
    first = int(sends[0])
    ts = tables.packets.ts[s.row]
    kept = [first]
    for i in sends[1:].tolist():
        if ts[i] - ts[kept[-1]] >= MIN_RTO_NS:
            kept.append(i)
    wait = np.diff(ts[kept])
    if len(kept) < min_sends or wait[-1] < BACKOFF * wait[0]:
        return None
    # Keep-alives that nobody answered are no sign of life: at the first of them the connection was dead already.
    life = np.flatnonzero(~(mine & ((s.classes & KEEP_ALIVE) != 0))[:first])
    heard = np.flatnonzero(~mine[:first])
    if not len(life) or not len(heard) or s.classes[heard[-1]] & ZERO_WINDOW:
        return None
    before = int(life[-1])
    woke = before + 1
    return Death(c, by_client, (int(ts[woke]) - int(ts[before])) / 1e9, (int(s.row[before]), int(s.row[woke])),
                 tuple(s.row[kept].tolist()), None, int(ts[woke]), int(ts[kept[-1]]))


def foreign_reset(tables: Tables, c: Connection, min_idle_s: float) -> Death | None:
    """A rest of at least ``min_idle_s``, and then a reset in the peer's name, from elsewhere, as the only answer."""
    p = tables.packets
    s = connection_segments(tables, c.connection)
    resets = np.flatnonzero((s.flags & RST) != 0)
    if not len(resets):
        return None
    at = int(resets[0])
    ts = p.ts[s.row]
    rests = np.flatnonzero(np.diff(ts[: at + 1]) >= min_idle_s * 1e9) + 1
    if not len(rests):
        return None
    first = int(rests[-1])
    peer = s.client == s.client[at]
    genuine = set(p.ttl[s.row[:first][peer[:first]]].tolist())
    if first == at or peer[first:at].any() or not foreign(int(p.ttl[s.row[at]]), genuine):
        return None
    return Death(c, not bool(s.client[at]), (int(ts[first]) - int(ts[first - 1])) / 1e9,
                 (int(s.row[first - 1]), int(s.row[first])),
                 tuple(s.row[first:at].tolist()), int(s.row[at]), int(ts[first]), int(ts[at]))


class Neighbours:
    """All connections between two hosts at one point: whether that path was alive, and what rests it survived."""

    def __init__(self, tables: Tables, c: Connection, suspects: Mapping[int, float]) -> None:
        """``suspects``: connections that died after a rest themselves, and its seconds. They say nothing about the
        path, unless the rest was no longer than usual between these hosts."""
        s = segments(tables)
        here = tables.tcp.filter((pl.col("point") == c.point) & (pl.col("client") == c.client)
                                 & (pl.col("server") == c.server))
        same = here["connection"].to_numpy().astype(np.int64)
        start, size = s.start[same], s.size[same]
        entry = np.repeat(start - np.cumsum(size) + size, size) + np.arange(int(size.sum()))
        ts: I64 = tables.packets.ts[s.row[entry]]
        client = s.client[entry]
        number = np.repeat(np.arange(len(same)), size)
        genuine = (s.flags[entry] & RST) == 0
        self.survived_s = _survived(ts, client, number, genuine)
        """Longest rest, seconds, after which the other side of who spoke first was heard again."""
        self.usual_s = self.survived_s + max(1.0, 0.02 * self.survived_s)
        """No timer lies between two rests that hardly differ (practice: as the tolerance of ``SHORTEST_S`` and FIT)."""
        stranger = ~np.isin(same, [c for c, idle_s in suspects.items() if idle_s > self.usual_s])[number]
        self._began = here["first_ns"].to_numpy()
        self._last = np.zeros((2, len(same)), np.int64)
        for side in (0, 1):
            mine = genuine & (client == bool(side))
            np.maximum.at(self._last[side], number[mine], ts[mine])
        self._heard = [np.sort(ts[genuine & (client == bool(side))]) for side in (0, 1)]
        self._tried = [np.sort(ts[stranger & (client == bool(side))]) for side in (0, 1)]

    def heard(self, by_client: bool, after: int, until: int) -> bool:
        """Did that side send anything but resets in (after, until]?"""
        return _any(self._heard[by_client], after, until)

    def kept(self, before: int, after: int) -> bool:
        """Is there a connection that began before ``before``, and both sides of which were heard after ``after``?"""
        return bool(((self._began < before) & (self._last.min(axis=0) > after)).any())

    def tried(self, by_client: bool, after: int, until: int) -> bool:
        """Did that side send in (after, until] on connections that are no suspects?"""
        return _any(self._tried[by_client], after, until)


def _any(times: I64, after: int, until: int) -> bool:
    return bool(np.searchsorted(times, until, "right") > np.searchsorted(times, after, "right"))


def _survived(ts: I64, client: Bools, number: I64, genuine: Bools) -> float:
    """``number``: the connection of each entry, in blocks."""
    index = np.arange(len(ts))
    last = np.full((2, int(number.max()) + 1), -1)
    for side in (0, 1):
        hits = np.flatnonzero(genuine & (client == bool(side)))
        last[side, number[hits]] = hits
    answered = last[1 - client.astype(np.int64), number] > index
    gap = np.zeros(len(index), np.int64)
    gap[1:] = np.where(number[1:] == number[:-1], np.diff(ts), 0)
    return float(gap[answered].max(initial=0)) / 1e9
