"""Who connected to what: connections by destination, and clients that sweep over the ports of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from netdiag.tables import Tables

SWEEP_PORTS = 20
"""Ports of one host that one client tries in vain; more is a sweep (practice: no application has that many)."""

WIDE_HOSTS = 20
"""Hosts whose one port fails a client; more is one fault on the way, or a sweep over addresses (practice)."""


def by_destination(connections: pl.DataFrame) -> dict[tuple[str, ...], int]:
    """(server, port) to the number of connections; one that was captured at two points is one."""
    ends = connections.select("client", "client_port", "server", "server_port").unique()
    return {(server, str(port)): count for server, port, count in
            ends.group_by("server", "server_port").len().iter_rows()}


def port_sweeps(tables: Tables) -> pl.DataFrame:
    """Client and server pairs of a sweep, columns ``point``, ``client``, ``server``: TCP connections to more than
    ``SWEEP_PORTS`` ports of that server at that point that never came about."""
    key = ["point", "client", "server"]
    ports = tables.tcp.filter(~pl.col("midstream") & ~pl.col("established")).group_by(key).agg(
        pl.col("server_port").n_unique().alias("ports"))
    return ports.filter(pl.col("ports") > SWEEP_PORTS).select(key)


def without_sweeps(tables: Tables, connections: pl.DataFrame) -> pl.DataFrame:
    """Rows of ``Tables.tcp`` that are no part of a sweep, in their order."""
    return connections.join(port_sweeps(tables), on=["point", "client", "server"], how="anti", maintain_order="left")


def wide(failed: pl.DataFrame, started: pl.DataFrame) -> dict[tuple[str, int], tuple[int, int]]:
    """(client, server port) to (hosts that failed it, its connections to the port), where that is one thing: more
    than ``WIDE_HOSTS`` failed, and none of the connections was established.

    Both frames have ``client``, ``server`` and ``server_port``, ``started`` has ``established``.
    """
    key = ["client", "server_port"]
    hosts = failed.group_by(key).agg(hosts=pl.col("server").n_unique()).filter(pl.col("hosts") > WIDE_HOSTS)
    tried = started.group_by(key).agg(tried=pl.len(), worked=pl.col("established").any())
    joined = hosts.join(tried, on=key, how="left").filter(~pl.col("worked").fill_null(False))
    return {(client, port): (count, max(count, tried)) for client, port, count, tried in joined.select(
        *key, "hosts", pl.col("tried").fill_null(0)).iter_rows()}
