"""Builds the media table: what each side of a call offers and answers (RFC 3264)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from netdiag.decode import sdp as decode
from netdiag.tables.calls import Media, call_messages
from netdiag.tables.schema import empty, schema
from netdiag.tables.sip_groups import nested

if TYPE_CHECKING:
    from netdiag.tables import Tables

BODY_LIMIT = 65535
"""Bytes of a body that are read: what UDP could carry (RFC 768)."""
_EXCHANGE = ["call", "cseq", "cseq_method", "from_tag"]
_WITH_SDP = ("INVITE", "ACK", "UPDATE", "PRACK")
"""Methods whose transactions carry offers and answers (RFC 6337 §2.2)."""


def build(tables: Tables) -> pl.DataFrame:
    """Media lines in the order of their messages; schema of ``Media``.

    Retransmissions give no rows, nor does the same description that comes again in one exchange (a 200
    that repeats the 183's, the next hop of a proxy that changed nothing).
    """
    data, _, count = call_messages(tables)
    if not count:
        return empty(Media)
    callers = tables.calls.select("call", caller_tag="from_tag")
    offered = (
        data.filter(pl.col("method").is_not_null() & pl.col("sdp_offset").is_not_null())
        .select(_EXCHANGE).unique().with_columns(asked_with_sdp=pl.lit(True))
    )
    asked = data.filter(pl.col("method").is_not_null()).select(_EXCHANGE).unique().with_columns(asked=pl.lit(True))
    bodies = (
        data.filter(
            pl.col("sdp_offset").is_not_null() & ~pl.col("retransmission") & pl.col("cseq_method").is_in(_WITH_SDP))
        .join(callers, on="call", how="left", maintain_order="left")
        .join(offered, on=_EXCHANGE, how="left", maintain_order="left", nulls_equal=True)
        .join(asked, on=_EXCHANGE, how="left", maintain_order="left", nulls_equal=True)
    )
    invites_without = (
        data.filter((pl.col("method") == "INVITE") & pl.col("sdp_offset").is_null()).select("call", "from_tag").unique()
        .with_columns(cseq_method=pl.lit("PRACK"), late_offer=pl.lit(True))
    )
    bodies = bodies.join(invites_without, on=["call", "from_tag", "cseq_method"], how="left", maintain_order="left",
                         nulls_equal=True)
    request = pl.col("method").is_not_null()
    by_caller = request == pl.col("from_tag").eq_missing(pl.col("caller_tag"))
    # a response answers the offer of its request; where that had none (or was not captured) see RFC 3261 §13.2.1
    answer = pl.when(request).then(
        (pl.col("method") == "ACK") | pl.col("late_offer").fill_null(False)
    ).otherwise(pl.col("asked_with_sdp").fill_null(False) | pl.col("asked").is_null())
    bodies = bodies.with_columns(
        side=pl.when(by_caller).then(pl.lit("caller")).otherwise(pl.lit("callee")),
        role=pl.when(answer).then(pl.lit("answer")).otherwise(pl.lit("offer")),
    )
    return _rows(tables, bodies)


def _rows(tables: Tables, bodies: pl.DataFrame) -> pl.DataFrame:
    """One row for each media line of each new body."""
    space = tables.packets.space
    keys = bodies.select("call", "cseq", "cseq_method", "side", "role", "raw_offset", "raw_length", "sdp_offset",
                         "packet")
    seen: set[tuple[int, int, str, str, str, bytes]] = set()
    body_row: list[int] = []
    positions: list[int] = []
    origins: list[str | None] = []
    media: list[decode.MediaLine] = []
    call_now = -1
    order = np.argsort(keys["call"].to_numpy(), kind="stable")
    for i, (call, cseq, method, side, role, offset, length, sdp, packet) in zip(
            order.tolist(), keys[order].iter_rows(), strict=True):
        body = space.read(offset + sdp, min(length - sdp, BODY_LIMIT))
        if call != call_now:
            seen.clear()
            call_now = call
        identity = (call, cseq, "INVITE" if method == "ACK" else method, side, role, body)
        if identity in seen:
            continue
        seen.add(identity)
        session = decode.parse(body)
        if session.odd:
            tables.anomaly_log.add("media", session.odd, packet)
        for position, line in enumerate(session.media):
            body_row.append(i)
            positions.append(position)
            origins.append(session.origin_address)
            media.append(line)
    if not media:
        return empty(Media)
    columns: dict[str, Any] = dict(zip(decode.MediaLine._fields, zip(*media, strict=True), strict=True))
    columns["ptime_ms"] = columns.pop("ptime")
    types = schema(Media)
    parsed = pl.DataFrame({
        name: nested(values, types[name]) if types[name].is_nested() else pl.Series(values, dtype=types[name])
        for name, values in {**columns, "index": positions, "origin_address": origins}.items()
    })
    lead = bodies.select("call", "call_id", "point", "message", "packet", "ts_ns", "side", "role",
                         signalling_source="source")[body_row]
    out = lead.hstack(parsed).sort("message", "index", maintain_order=True)
    return out.select(pl.col(name).cast(dtype) for name, dtype in types.items())
