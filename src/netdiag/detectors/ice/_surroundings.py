"""What a capture shows around an ICE session: its call, its descriptions, who else is heard, other points."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import polars as pl

from netdiag.tables import Tables
from netdiag.tables.addresses import routable
from netdiag.tables.ice_sdp import IceDescription
from netdiag.tables.schema import rows

Span = tuple[int, int]


class Descriptions:
    """Session descriptions by the username fragment of the agent that they describe; read when first asked for."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    @cached_property
    def _by_ufrag(self) -> dict[str, list[IceDescription]]:
        out: dict[str, list[IceDescription]] = defaultdict(list)
        for d in rows(self._tables.ice_descriptions, IceDescription):
            out[d.ufrag].append(d)
        return out

    def of(self, ufrag: str) -> list[IceDescription]:
        return self._by_ufrag.get(ufrag, [])

    def call_ids(self, session: str) -> list[str]:
        """Call-IDs whose descriptions have one of the fragments of ``session``."""
        return sorted({d.call_id for ufrag in session.split(":", 1) for d in self.of(ufrag)})

    def keys(self, session: str) -> frozenset[str]:
        return frozenset(f"call:{c}" for c in self.call_ids(session))

    def kinds(self, ufrag: str) -> str:
        """Types of its candidates, for people: "host and srflx", "host, names of multicast DNS only"; "" unknown."""
        some = self.of(ufrag)
        types = sorted({t for d in some for t in d.types})
        names = [a for d in some for a in d.addresses]
        if not types:
            return ""
        hidden = bool(names) and all(a.endswith(".local") for a in names)
        return " and ".join(types) + (", all of them names of multicast DNS" if hidden else "")


def of_session(session: str) -> pl.Expr:
    """Checks of both agents of a session, in ``stun``."""
    names = session.split(":", 1)
    return pl.col("username").is_in([":".join(names), ":".join(reversed(names))])


class Relays:
    """Transport addresses for people: those that a TURN server relays say for whom, where the Allocate was captured."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    @cached_property
    def _clients(self) -> dict[tuple[str, int], str]:
        out: dict[tuple[str, int], str] = {}
        for relay, port, client in self._tables.allocations.select("relay", "relay_port", "client").drop_nulls(
                ).iter_rows():
            # Behind a NAT the client has one address at each capture point; its own one says who it is.
            if not routable(client) or (relay, port) not in out:
                out[relay, port] = client
        return out

    def named(self, address: str, port: int) -> str:
        """"198.51.100.30:49845 (relayed for 10.30.0.10)", or the address and port alone."""
        client = self._clients.get((address, port))
        return f"{address}:{port}" + (f" (relayed for {client})" if client else "")


    def hosts(self, address: str, port: int) -> tuple[str, ...]:
        """The address, and the client that it is relayed for."""
        client = self._clients.get((address, port))
        return (address, client) if client else (address,)


class Hearing:
    """Which hosts receive anything at a point, and when: flows in which somebody sends to them."""

    def __init__(self, tables: Tables) -> None:
        self._heard: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
        both = tables.flows.select("flow", "point", "a", "b", "packets_ab", "packets_ba", "first_ns", "last_ns")
        for flow, point, a, b, ab, ba, first, last in both.iter_rows():
            if ab:
                self._heard[point, b].append((flow, first, last))
            if ba:
                self._heard[point, a].append((flow, first, last))

    def others(self, point: str, hosts: Iterable[str], without: set[int], during: Span) -> str:
        """The first of ``hosts`` that receives packets of other flows than ``without`` in that time; "" none."""
        return next((host for host in hosts for flow, first, last in self._heard.get((point, host), ())
                     if first <= during[1] and last >= during[0] and flow not in without), "")


class Elsewhere(NamedTuple):
    """What another capture point shows of the same transactions."""

    point: str
    asked: int
    """How many of the requests it has."""
    answered: int
    """How many responses."""
    packets: tuple[int, ...]


class Crossing:
    """The same STUN transactions at several points: a NAT changes addresses and ports, and not the transaction id."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._several = len(tables.points) > 1

    def of(self, point: str, asked: pl.Expr, during: Span) -> list[Elsewhere]:
        """Other points that ran all the time and saw something else of both points' traffic: what they have of the
        requests of ``point`` that ``asked`` selects from ``stun``."""
        if not self._several:
            return []
        stun = self._tables.stun.filter(pl.col("sends") > 0)
        mine = stun.filter((pl.col("point") == point) & asked)["id"]
        common = self._common()
        out = []
        for other, first, last in self._tables.quality.select("point", "first_ns", "last_ns").iter_rows():
            if other == point or (point, other) not in common or first > during[0] or last < during[1]:
                continue
            there = stun.filter((pl.col("point") == other) & pl.col("id").is_in(mine.implode()))
            out.append(Elsewhere(other, there.height, len(there["response"].drop_nulls()), tuple(
                there["request_packets"].list.first().drop_nulls().head(4).to_list()
                + there["response_packets"].list.first().drop_nulls().head(2).to_list())))
        return out

    def _common(self) -> set[tuple[str, str]]:
        """Pairs of points at which the same calls or the same STUN transactions were seen."""
        out = set()
        for frame, name in ((self._tables.calls, "call_id"), (self._tables.stun, "id")):
            shared = frame.group_by(name).agg(pl.col("point").unique()).filter(pl.col("point").list.len() > 1)
            for points in shared["point"].unique().to_list():
                out |= {(a, b) for a in points for b in points if a != b}
        return out
