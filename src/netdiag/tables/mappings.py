"""Clients registered over UDP, as their registrar sees them: requests to their address and port, and how long they
had been silent before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables.packets import FORWARD

if TYPE_CHECKING:
    from netdiag.tables import Tables

DEFAULT_EXPIRES = 3600
"""Seconds a registration holds where nobody names a time: the registrar's choice (RFC 3261 §10.2.1.1), often 1 h."""
I64 = npt.NDArray[np.int64]


def clients(tables: Tables) -> pl.DataFrame:
    """UDP registrations with ``identity`` (AoR and instance, RFC 5626 §4.1; without one the Call-ID), in order."""
    return tables.registrations.filter(pl.col("transport") == "udp").with_columns(
        identity=pl.concat_str("aor", pl.lit(" "), pl.coalesce("instance", "call_id"))).sort("ts_ns")


def inbound(tables: Tables) -> pl.DataFrame:
    """Requests to where a client's valid registration came from; columns of ``Transaction`` they need, and:

    ``identity``, ``aor``, ``source``, ``source_port``, ``flow``, ``request_packet`` of that registration,
    ``registered_ns``, and of the client's next REGISTER ``next_ns``, ``next_source``, ``next_port``, ``next_packet``
    (null without).
    """
    every = clients(tables)
    bound = every.filter(pl.col("status").is_between(200, 299) & ~pl.col("removes"))
    asked = tables.transactions.filter(
        (pl.col("transport") == "udp") & ~pl.col("midstream") & ~pl.col("method").is_in(["REGISTER", "CANCEL", "ACK"])
    ).select("transaction", "point", "call_id", "method", "client", "server", "server_port", "first_ns",
             "sends", "request_messages", "cancelled",
             answered=pl.col("response_messages").list.len() > 0).sort("first_ns")
    place = ["point", "client", "server", "server_port"]
    at = bound.select("point", "identity", "aor", "expires_granted", "flow", "request_packet", "source", "source_port",
                      "ts_ns", client="registrar", server="source", server_port="source_port",
                      registered_ns="ts_ns")
    found = asked.join_asof(at, left_on="first_ns", right_on="ts_ns", by=place, check_sortedness=False)
    lifetime = pl.col("expires_granted").fill_null(DEFAULT_EXPIRES).cast(pl.Int64) * 10**9
    found = found.drop("ts_ns", strict=False).filter(
        pl.col("registered_ns").is_not_null() & (pl.col("first_ns") < pl.col("registered_ns") + lifetime))
    key = ["point", "identity"]
    latest = every.select(*key, "ts_ns", now_port="source_port")
    following = every.select(*key, "ts_ns", next_ns="ts_ns", next_source="source", next_port="source_port",
                             next_packet="request_packet", next_transaction="transaction")
    found = found.join_asof(latest, left_on="first_ns", right_on="ts_ns", by=key, check_sortedness=False)
    found = found.drop("ts_ns", strict=False).filter(pl.col("now_port") == pl.col("source_port"))
    return found.join_asof(following, left_on="first_ns", right_on="ts_ns", by=key, strategy="forward",
                           check_sortedness=False)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets of one flow, by direction."""

    out_ns: I64
    """Times of the client's packets, ascending."""
    out: npt.NDArray[np.uint32]
    in_ns: I64
    into: npt.NDArray[np.uint32]

    def silence(self, at_ns: int) -> tuple[float, int] | None:
        """Seconds since the client's last packet before ``at_ns``, and that packet; None without one."""
        i = int(np.searchsorted(self.out_ns, at_ns)) - 1
        return None if i < 0 else ((at_ns - int(self.out_ns[i])) / 1e9, int(self.out[i]))

    def came_after(self, seconds: float) -> bool:
        """Did a packet come in when the client had been silent that long? Then the mapping had held."""
        last = np.searchsorted(self.out_ns, self.in_ns) - 1
        known = last >= 0
        return bool((self.in_ns[known] - self.out_ns[last[known]] >= seconds * 1e9).any())


class Flows:
    """Traffic of the flows of registered clients, each read once."""

    def __init__(self, tables: Tables) -> None:
        self._packets = tables.packets
        self._known: dict[int, Traffic] = {}

    def of(self, flow: int, request_packet: int) -> Traffic:
        """Both directions of a flow; ``request_packet`` is one of the client's packets."""
        if flow not in self._known:
            p = self._packets
            rows = p.flow_rows(flow)
            out = (p.flags[rows] & FORWARD) == (int(p.flags[request_packet]) & FORWARD)
            self._known[flow] = Traffic(p.ts[rows[out]], rows[out], p.ts[rows[~out]], rows[~out])
        return self._known[flow]
