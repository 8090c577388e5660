"""Addresses of ICE as places that packets go to: the candidates of SDP, and what connectivity checks have found.

A check proves where its agent is: its USERNAME carries the ufrags of two descriptions (RFC 8445 §7.2.2), and what no
description names is a peer-reflexive candidate (RFC 8445 §7.3.1.3). Only checks with a successful answer count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from netdiag.tables import Tables

_COLUMNS = ("media", "call", "point", "ts_ns", "side", "address", "port")


def lines(tables: Tables) -> pl.DataFrame:
    """Like lines of ``Tables.media``: ``media`` (its row), ``call``, ``point``, ``ts_ns``, ``side``, ``address``,
    ``port`` and ``ice`` (True).
    """
    said = tables.ice_descriptions
    # The n-th section of a type in a body is its n-th media line of that type.
    rows = tables.media.select("packet", "type", "ice").with_row_index("media").filter("ice").select(
        "media", "packet", "type", place=pl.int_range(pl.len()).over("packet", "type"))
    said = said.with_columns(place=pl.int_range(pl.len()).over("packet", "type")).join(
        rows, on=["packet", "type", "place"], maintain_order="left")
    named = said.select(*_COLUMNS[:5], address="addresses", port="ports").explode("address", "port").drop_nulls()
    found = [named.select(_COLUMNS), *_checked(tables, said)]
    return pl.concat(found).unique(maintain_order=True).with_columns(ice=pl.lit(True))


def _checked(tables: Tables, said: pl.DataFrame) -> list[pl.DataFrame]:
    """Both ends of pairs whose checks were answered, where their ufrags belong to one side of one call."""
    owner = said.group_by("point", "ufrag", maintain_order=True).agg(
        pl.col("media", "call", "side").first(), one=pl.struct("call", "side").n_unique() == 1)
    owner = owner.filter("one").drop("one")
    pairs = tables.checks.filter((pl.col("successes") > 0) & ~pl.col("relayed")).select(
        "point", "local_ufrag", "local", "local_port", "remote_ufrag", "remote", "remote_port", ts_ns="first_ns")
    out = pairs
    for end in ("local", "remote"):
        out = out.join(owner.rename({name: f"{end}_{name}" for name in ("ufrag", "media", "call", "side")}),
                       on=["point", f"{end}_ufrag"], how="left", maintain_order="left")
    out = out.filter((pl.col("local_call") == pl.col("remote_call")) | pl.col("local_call").is_null()
                     | pl.col("remote_call").is_null())
    return [out.filter(pl.col(f"{end}_call").is_not_null()).select(
        media=f"{end}_media", call=f"{end}_call", point="point", ts_ns="ts_ns", side=f"{end}_side", address=end,
        port=f"{end}_port") for end in ("local", "remote")]
