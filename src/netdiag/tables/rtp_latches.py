"""Where audio comes from at a media port, and where that port sends its own: the two should be one place.

Symmetric RTP (RFC 4961) and latching (RFC 7362): pairs of streams of a call that meet at one address and port, one
that arrives there and one that leaves for another place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from netdiag.tables import rtp_packets

if TYPE_CHECKING:
    from netdiag.tables import Tables

CROWD = 16
"""Streams of one call that are looked at for one media port and direction, those with the most packets (practice)."""
COUNTED = 200
"""Pairs whose packets are counted one by one (practice); of the others the mean rate is taken."""
_ENDS = ["source", "source_port", "destination", "destination_port"]
_PORT = ["point", "call", "port", "port_number"]
_PLACE = ["from", "from_number"]


def elsewhere(tables: Tables, settle_ns: int, least: float) -> pl.DataFrame:
    """Pairs in which the port sends ``least`` packets elsewhere later than ``settle_ns`` after audio came.

    ``heard`` and ``sent`` (streams), ``call``, ``kind`` ("obeys": to an address in SDP of the side that is heard, which
    sends from another; "stays": to where the same stream came from before; "stranger": to where another stream came
    from), ``begin`` and ``end`` (ns) of the time that both run, ``packets`` sent in it, ``said`` (packet of the SDP
    that names the destination, else of the first of that side), ``site`` (where its signalling comes from), ``moved``
    (last packet of the same stream from the destination), ``other_ssrc`` (of a stream from there), ``teacher`` (first
    packet from the destination). Calls with ICE are left out; so are ports that ever send to where they hear from
    afterwards, and for "obeys" and "stays" those that still hear from where they send to.
    """
    ice = tables.media.filter("ice")["call"].unique()
    streams = tables.rtp.filter(pl.col("call").is_not_null(), ~pl.col("call").is_in(ice.implode())).select(
        "stream", "point", "call", "sender", "ssrc", "packets", "first_ns", "last_ns", "first_packet", *_ENDS)
    heard = streams.rename({"destination": "port", "destination_port": "port_number", "source": "from",
                            "source_port": "from_number", "stream": "heard"})
    sent = streams.rename({"source": "port", "source_port": "port_number", "destination": "to",
                           "destination_port": "to_number", "stream": "sent"}).drop("first_packet")
    many = pl.col("packets") >= least
    # Most pairs are one flow; what goes to where the audio comes from has learned anyway.
    pairs = _largest(heard.filter(many)).join(_largest(sent.filter(many)), on=_PORT, suffix="_sent").filter(
        (pl.col("from") != pl.col("to")) | (pl.col("from_number") != pl.col("to_number")))
    pairs = pairs.with_columns(begin=pl.max_horizontal("first_ns", "first_ns_sent") + settle_ns,
                               end=pl.min_horizontal("last_ns", "last_ns_sent"))
    span = (pl.col("last_ns_sent") - pl.col("first_ns_sent")).clip(1)
    share = (pl.col("end") - pl.col("begin")) / span
    pairs = pairs.with_columns(packets=(pl.col("packets_sent") * share).cast(pl.Int64))
    pairs = pairs.filter(pl.col("packets") * 2 >= least)  # an estimate, exact below
    if not len(pairs):
        return _shaped(pairs)
    # Somewhere in that time the port does send to where it hears from: it has learned.
    learned = sent.select(*_PORT, "to", "to_number", back="last_ns")
    pairs = pairs.join(learned.rename({"to": "from", "to_number": "from_number"}), on=[*_PORT, *_PLACE], how="left")
    pairs = pairs.filter((pl.col("back") < pl.col("begin")).fill_null(True)).drop("back").unique(["heard", "sent"])
    pairs = _kinds(tables, pairs, heard)
    return _shaped(_counted(tables, pairs.sort("begin", "sent", "heard"), least))


def _largest(streams: pl.DataFrame) -> pl.DataFrame:
    ranked = streams.sort("packets", "first_ns", descending=[True, False])
    return ranked.filter(pl.int_range(pl.len()).over(_PORT) < CROWD)


def _kinds(tables: Tables, pairs: pl.DataFrame, heard: pl.DataFrame) -> pl.DataFrame:
    """Adds ``kind`` and what shows it; without those that are none."""
    said = tables.media.filter(pl.col("port") > 0, pl.col("call").is_in(pairs["call"].unique().implode())).select(
        "call", "packet", "signalling_source", "address", sender="side", number="port")
    first = said.unique(["call", "sender", "address", "number"], keep="first", maintain_order=True)
    to = first.rename({"address": "to", "number": "to_number", "packet": "said", "signalling_source": "site"})
    pairs = pairs.join(to, on=["call", "sender", "to", "to_number"], how="left")
    own = first.select("call", "sender", own="packet", **{"from": "address", "from_number": "number"})
    pairs = pairs.join(own, on=["call", "sender", *_PLACE], how="left")
    of_side = said.unique(["call", "sender"], keep="first", maintain_order=True).select("call", "sender", any="packet")
    pairs = pairs.join(of_side, on=["call", "sender"], how="left")
    there = heard.select(*_PORT, to="from", to_number="from_number", there="first_ns", gone="last_ns", by="ssrc",
                         teacher="first_packet").sort("there")
    same = there.with_columns(ssrc="by").group_by(*_PORT, "to", "to_number", "ssrc").agg(
        moved=pl.col("gone").max(), moved_first=pl.col("teacher").first())
    other = there.group_by(*_PORT, "to", "to_number", maintain_order=True).agg(
        pl.col("there", "by", "teacher").first(), gone=pl.col("gone").max())
    where = [*_PORT, "to", "to_number"]
    pairs = pairs.join(other, on=where, how="left").join(same, on=[*where, "ssrc"], how="left")
    named, silent = pl.col("said").is_not_null(), (pl.col("gone") < pl.col("begin")).fill_null(True)
    kind = (pl.when(pl.col("moved").is_not_null() & silent).then(pl.lit("stays"))
            .when(named & pl.col("own").is_null() & silent).then(pl.lit("obeys"))
            .when(~named & pl.col("moved").is_null() & pl.col("there").is_not_null()).then(pl.lit("stranger")))
    return pairs.with_columns(kind=kind, said=pl.coalesce("said", "any"), other_ssrc="by").filter(
        pl.col("kind").is_not_null())


def _counted(tables: Tables, pairs: pl.DataFrame, least: float) -> pl.DataFrame:
    """With the exact number of packets in the time that both streams run."""
    few = pairs.head(COUNTED)
    if not len(few):
        return few
    streams = few["sent"].unique(maintain_order=True)
    s = rtp_packets.read(tables, tables.rtp[streams])
    times = {stream: s.ts_ns[s.part(i)] for i, stream in enumerate(streams.to_list())}
    exact = [int(((times[stream] >= begin) & (times[stream] <= end)).sum())
             for stream, begin, end in few.select("sent", "begin", "end").iter_rows()]
    return pl.concat([few.with_columns(packets=pl.Series(exact, dtype=pl.Int64)), pairs[len(few):]]).filter(
        pl.col("packets") >= least)


def _shaped(pairs: pl.DataFrame) -> pl.DataFrame:
    names = {"heard": pl.UInt32, "sent": pl.UInt32, "call": pl.UInt32, "kind": pl.String, "begin": pl.Int64,
             "end": pl.Int64, "packets": pl.Int64, "said": pl.UInt32, "site": pl.String, "moved": pl.Int64,
             "other_ssrc": pl.UInt32, "teacher": pl.UInt32}
    return pairs.select(pl.col(n).cast(t) if n in pairs.columns else pl.lit(None, t).alias(n) for n, t in names.items())
