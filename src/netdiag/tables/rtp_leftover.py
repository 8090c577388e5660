"""Streams whose addresses and ports no SDP names: bound to a call by RTCP, or because only one call can be theirs.

RTCP of a call (its address is in SDP too) names SSRCs: those of streams from and to the reporting host are the
call's. Without RTCP a stream is bound only when its two hosts are those of exactly one call at that time whose
receiving side lists its payload type and waits for packets that go nowhere else. All else stays unbound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import rtcp_calls, rtp_lines
from netdiag.tables.rtp_binding import HEURISTIC, METHODS, RTCP, Bound, Seen
from netdiag.tables.rtp_lines import EARLY_NS, NEVER

if TYPE_CHECKING:
    from netdiag.tables import Tables

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

NEAR_NS = 10_000_000_000
"""Reports about a stream come no later than this after its last packet (practice: two RTCP intervals)."""
PLACES = 8
"""Addresses of one side of a call (practice: media and signalling on a few hops)."""
CLAIMS = 64
"""Calls whose reports name one SSRC of one host; more tell nothing (practice)."""
INTERVALS = 1 << 20
"""Pairs of hosts and payload types of calls that are compared (practice: 50 000 calls)."""


def bind(tables: Tables, s: Seen, bound: Bound, loose: I64, payload_type: U8) -> bool:
    """Binds those of the ``loose`` streams for which it is certain enough; says whether there was one."""
    _by_reports(tables, s, bound, loose)
    rest = loose[bound.call[loose] < 0]
    if len(rest):
        _by_hosts(tables, s, bound, rest, payload_type)
    return bool((bound.call[loose] >= 0).any())


def _by_reports(tables: Tables, s: Seen, bound: Bound, loose: I64) -> None:
    """Reports that are bound by their own address, and the streams that they are from or about."""
    said = rtcp_calls.by_address(tables)
    if not len(said):
        return
    streams = pl.DataFrame({"stream": loose, "ssrc": s.ssrc[loose], "first": s.first_ns[loose],
                            "last": s.last_ns[loose], "source": s.source[loose] >> np.uint64(16),
                            "destination": s.to[loose] >> np.uint64(16)})
    own = said.select(ssrc="sender_ssrc", source="host", call="call", ts="ts_ns", caller="caller")
    other = said.filter(pl.col("about_ssrc").is_not_null()).select(
        ssrc="about_ssrc", destination="host", call="call", ts="ts_ns", caller=~pl.col("caller"))
    found = []
    for reports, host in ((own, "source"), (other, "destination")):
        reports = reports.group_by("ssrc", host, "call", "caller").agg(begin=pl.col("ts").min(), end=pl.col("ts").max())
        reports = reports.filter(pl.len().over("ssrc", host) <= CLAIMS)
        found.append(streams.join(reports, on=["ssrc", host]).filter(
            pl.col("begin") <= pl.col("last") + NEAR_NS, pl.col("end") >= pl.col("first")).select(
            "stream", "call", "caller"))
    sure = pl.concat(found).unique().filter(pl.len().over("stream") == 1)
    stream = sure["stream"].to_numpy()
    bound.call[stream], bound.caller[stream] = sure["call"].to_numpy(), sure["caller"].to_numpy()
    bound.method[stream] = RTCP
    _described(tables, s, bound, stream)


def _described(tables: Tables, s: Seen, bound: Bound, streams: I64) -> None:
    """Finds the line of the receiving side that was valid when each stream began, where that side has only one."""
    if not len(streams):
        return
    lines = tables.media.select("call", "side", "message", "ts_ns", "port").with_row_index("media").filter(
        pl.col("port") > 0, pl.col("call").is_in(pl.Series(bound.call[streams], dtype=pl.UInt32).implode()))
    lines = lines.filter(pl.len().over("call", "side", "message") == 1).select(
        pl.col("call").cast(pl.Int64), "media", "ts_ns", caller=pl.col("side") == "callee").sort("ts_ns", "media")
    mine = pl.DataFrame({"stream": streams, "call": bound.call[streams], "caller": bound.caller[streams],
                         "begin": s.first_ns[streams] + EARLY_NS}).sort("begin")
    known = mine.join_asof(lines, left_on="begin", right_on="ts_ns", by=["call", "caller"],
                           check_sortedness=False).drop_nulls("media")
    bound.media[known["stream"].to_numpy()] = known["media"].cast(pl.Int64).to_numpy()


def _by_hosts(tables: Tables, s: Seen, bound: Bound, rest: I64, payload_type: U8) -> None:
    """Streams between hosts of one call only, at that time and with that payload type."""
    spans = _spans(tables)
    if not len(spans):
        return
    wanted = pl.DataFrame({
        "stream": rest, "to": s.to[rest] >> np.uint64(16), "source": s.source[rest] >> np.uint64(16),
        "type": payload_type[rest].astype(np.int64), "first": s.first_ns[rest], "last": s.last_ns[rest]})
    place = ["to", "source", "type"]
    spans = spans.join(wanted.select(place).unique(), on=place, how="semi").sort(*place, "start")
    # How many calls run when a stream begins, and the sum of their numbers: with one, the sum is its number.
    turns = pl.concat([
        spans.select(*place, at="start", one=pl.lit(1), row=pl.col("row").cast(pl.Int64)),
        spans.select(*place, at=pl.col("end").clip(None, NEVER - 1) + 1, one=pl.lit(-1), row=-pl.col("row").cast(
            pl.Int64))]).sort(*place, "at").with_columns(
        running=pl.col("one").cum_sum().over(place), number=pl.col("row").cum_sum().over(place))
    mine = wanted.sort("first").join_asof(
        turns.sort("at").unique([*place, "at"], keep="last", maintain_order=True).select(
            *place, "at", "running", "number"), left_on="first", right_on="at", by=place, check_sortedness=False)
    sure = mine.filter(pl.col("running") == 1).join(
        spans.select("call", "media", "caller", "end", number=pl.col("row").cast(pl.Int64)), on="number")
    sure = sure.filter(pl.col("last") <= pl.col("end").clip(None, NEVER - EARLY_NS) + EARLY_NS)
    # Two streams that would take the same place are one too many, unless one begins when the other is over.
    sure = sure.sort("first").with_columns(before=pl.col("last").cum_max().shift().over("call", "caller")).with_columns(
        crowded=(pl.col("before") >= pl.col("first")).fill_null(False).any().over("call", "caller"))
    sure = sure.filter(~pl.col("crowded"))
    stream = sure["stream"].to_numpy()
    bound.call[stream], bound.media[stream] = sure["call"].to_numpy(), sure["media"].cast(pl.Int64).to_numpy()
    bound.caller[stream], bound.method[stream] = sure["caller"].to_numpy(), HEURISTIC


def uncrowded(streams: pl.DataFrame) -> pl.DataFrame:
    """Unbinds streams bound as the only ones beside which others, of another block, were bound in the same way."""
    if not (streams["bound_by"] == METHODS[HEURISTIC]).any():
        return streams
    mine = streams.with_row_index("at").filter(pl.col("bound_by").is_in([METHODS[HEURISTIC], METHODS[RTCP]])).sort(
        "first_ns", "at")
    side = ["call", "sender"]
    mine = mine.with_columns(before=pl.col("last_ns").cum_max().shift().over(side)).with_columns(
        crowded=(pl.col("before") >= pl.col("first_ns")).fill_null(False).any().over(side))
    gone = mine.filter(pl.col("crowded") & (pl.col("bound_by") == METHODS[HEURISTIC]))["at"]
    lost = pl.int_range(pl.len()).is_in(gone.cast(pl.Int64).implode())
    return streams.with_columns(
        *(pl.when(~lost).then(pl.col(name)).alias(name) for name in ("call", "call_id", "sender", "media_index")),
        bound_by=pl.when(lost).then(pl.lit("")).otherwise("bound_by"), heuristic=pl.col("heuristic") | lost)


def _spans(tables: Tables) -> pl.DataFrame:
    """When which hosts may send which payload types to each other: one row for each call, and pair of hosts.

    ``row``, ``call``, ``to`` and ``source`` (keys without ports), ``type``, ``start``, ``end``, ``media`` (line of the
    receiving side), ``caller`` (sends it). Only for lines that no flow touches.
    """
    media = tables.media.with_row_index("media").filter(pl.col("port") > 0, pl.col("address").is_not_null())
    empty = rtp_lines.touched(tables, media["port"].unique().to_numpy()) if len(media) else np.zeros(0, np.uint64)
    points = {name: i << 33 for i, name in enumerate(tables.points)}
    hosts = pl.concat([media["address"], media["signalling_source"]]).unique()
    numbers = rtp_lines.address_numbers(tables.packets, hosts).with_columns(pl.col("number") // (1 << 16))
    point = pl.col("point").replace_strict(points, default=0, return_dtype=pl.UInt64)
    media = media.filter(pl.col("point").is_in(list(points))).join(numbers, on="address").rename(
        {"number": "at"}).join(numbers.rename({"address": "signalling_source", "number": "from"}),
                               on="signalling_source", how="left").with_columns(
        pl.col("at") + point, pl.col("from") + point)
    key = (media["at"].to_numpy() << np.uint64(16)) + media["port"].to_numpy().astype(np.uint64)
    free = media.filter(~np.isin(key, empty)).join(rtp_lines.lifetimes(tables), on="call", how="left")
    sides = media.select("call", "side", source=pl.concat_list("at", pl.col("from").fill_null(pl.col("at")))).explode(
        "source").unique(maintain_order=True).filter(pl.int_range(pl.len()).over("call", "side") < PLACES)
    other = pl.when(pl.col("side") == "caller").then(pl.lit("callee")).otherwise(pl.lit("caller"))
    spans = free.select(
        "call", "media", "ts_ns", "end_ns", side=other, to=pl.concat_list("at", pl.col("from").fill_null(pl.col("at"))),
        type="payload_types").explode("to").unique().explode("type").drop_nulls("type")
    spans = spans.join(sides, on=["call", "side"]).head(INTERVALS)
    return spans.group_by("call", "side", "to", "source", "type").agg(
        start=pl.col("ts_ns").min() - EARLY_NS, end=pl.col("end_ns").fill_null(NEVER).max(),
        media=pl.col("media").min(),
    ).with_columns(pl.col("type", "call").cast(pl.Int64), caller=pl.col("side") == "caller").with_row_index("row")
