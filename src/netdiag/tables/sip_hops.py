"""SIP messages with the hop they travel and the dialog they belong to, worked out once for all that ask."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import polars as pl

from netdiag.capture.space import Space
from netdiag.tables.outside import laid
from netdiag.tables.sip_groups import group_codes

if TYPE_CHECKING:
    from netdiag.tables import Tables

COOKIE = "z9hG4bK"
"""Branch values that are unique begin with it (RFC 3261 §8.1.1.7)."""
_PAIRS = {"client": ("source", "destination"), "server": ("destination", "source"),
          "client_port": ("source_port", "destination_port"), "server_port": ("destination_port", "source_port")}

_cache: WeakKeyDictionary[Tables, pl.DataFrame] = WeakKeyDictionary()


def hop_messages(tables: Tables) -> pl.DataFrame:
    """Rows of ``Tables.sip`` that can be matched (they have Call-ID and CSeq), with more columns.

    ``client`` and ``server`` are the ends of the hop, with their ports; ``key`` is the branch, or what replaces it
    where that is not unique; ``dialog`` numbers the Call-IDs at each point, in order of appearance.
    """
    found = _cache.get(tables)
    if found is None:
        found = _cache[tables] = _build(tables.sip, tables.packets.space)
    return found


def _build(sip: pl.DataFrame, space: Space) -> pl.DataFrame:
    whole = sip["call_id"].is_not_null() & sip["cseq"].is_not_null() & sip["cseq_method"].is_not_null()
    data = sip if whole.all() else sip.filter(whole)
    request = pl.col("method").is_not_null()
    codes, _ = group_codes(data, ["point", "call_id"])
    unique = pl.col("branch").str.starts_with(COOKIE)
    if data.select(unique.all() & unique.is_not_null().all()).item():
        key = pl.col("branch")
    else:
        key = pl.when(unique).then(pl.col("branch")).otherwise(
            pl.concat_str(pl.lit("from "), pl.col("from_tag").fill_null("")))
    added = data.select(
        *(pl.when(request).then(pl.col(a)).otherwise(pl.col(b)).alias(name) for name, (a, b) in _PAIRS.items()),
        key=key, dialog=pl.Series(codes, dtype=pl.UInt32))
    return data.hstack(laid(added, space))
