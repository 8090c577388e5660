"""Which call an RTP stream belongs to: joins streams to the addresses and ports that SDP advertised.

Addresses are compared as numbers: one 64-bit key holds capture point, IP version, address and port.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode.rtp import STATIC_TYPES
from netdiag.tables.packets import IPV6

if TYPE_CHECKING:
    from netdiag.tables import Tables
    from netdiag.tables.packets import Packets

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

EARLY_NS = 1_000_000_000
"""Media may arrive this long before the SDP that names its port (practice: early media that overtakes the answer)."""
DEFAULT_CLOCK = 8000
"""Hz, where neither SDP nor RFC 3551 says: the clock of most telephony codecs (RFC 3551 table 4)."""
_NEVER = 2**63 - 1


def endpoint_keys(packets: Packets, rows: npt.NDArray[np.generic], destination: bool) -> U64:
    """Key of the source or destination of each packet row."""
    address = (packets.dst if destination else packets.src)[rows].astype(np.uint64)
    port = (packets.dport if destination else packets.sport)[rows].astype(np.uint64)
    v6 = (packets.flags[rows] & IPV6 > 0).astype(np.uint64)
    point = packets.points(rows).astype(np.uint64)
    key: U64 = point << np.uint64(49) | v6 << np.uint64(48) | address << np.uint64(16) | port
    return key


@dataclass(slots=True)
class Advertised:
    """Media lines of SDP that name an address and a port."""

    lines: pl.DataFrame
    """``line``, ``key`` (UInt64), ``start`` and ``end`` (ns, inclusive), ``call``, ``call_id``, ``side``, ``index``;
    sorted by key and start."""
    formats: pl.DataFrame
    """``line``, ``payload_type``, ``codec`` (encoding name), ``clock_rate``; one row for each rtpmap of each line,
    sorted by both."""
    places: I64
    """Line times 256 plus payload type, of each row of ``formats``."""
    events: tuple[I64, npt.NDArray[np.uint8]]
    """Lines with telephone-event, ascending, and its first payload type there."""


def advertised(tables: Tables) -> Advertised:
    """What the SDP of all calls advertises, with the time each line is valid.

    From EARLY_NS before the message to the end of the call; from the beginning where the call began before the
    capture, since its first SDP was not seen.
    """
    media = tables.media
    media = media.filter(pl.col("address").is_not_null(), pl.col("port") > 0).with_row_index("line")
    ends = tables.calls.select("call", "end_ns", "midstream").unique("call", keep="last")
    numbers = _address_numbers(tables.packets, media["address"].unique())
    points = {name: i << 49 for i, name in enumerate(tables.points)}
    lines = (
        media.join(ends, on="call", how="left")
        .join(numbers, on="address", how="inner")
        .filter(pl.col("point").is_in(list(points)))
        .with_columns(
            base=pl.col("number") + pl.col("point").replace_strict(points, default=0, return_dtype=pl.UInt64),
            start=pl.when(pl.col("midstream").fill_null(False)).then(-_NEVER).otherwise(pl.col("ts_ns") - EARLY_NS),
            end=pl.col("end_ns").fill_null(_NEVER),
        )
        .select("line", "start", "end", "call", "call_id", "side", "index", key=pl.col("base") + pl.col("port"))
        .sort("key", "start", "line")
    )
    formats = _formats(media).sort("line", "payload_type")
    places = (formats["line"].cast(pl.Int64) * 256 + formats["payload_type"]).to_numpy()
    events = formats.filter(pl.col("codec").str.to_lowercase() == "telephone-event").unique(
        "line", keep="first", maintain_order=True)
    return Advertised(lines, formats, places,
                      (events["line"].cast(pl.Int64).to_numpy(), events["payload_type"].to_numpy()))


def _packed(text: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def _address_numbers(packets: Packets, texts: pl.Series) -> pl.DataFrame:
    """``address``: text of SDP; ``number``: its bits in a key. Without names and addresses that no packet can carry."""
    texts = texts.drop_nulls()
    packed = pl.Series([_packed(text) for text in texts.to_list()], dtype=pl.Binary)
    number = packed.bin.reinterpret(dtype=pl.UInt32, endianness="big").cast(pl.UInt64) * (1 << 16)
    known = pl.DataFrame({"address": texts, "number": number})
    v6: dict[bytes, int] = {}
    found: dict[str, int] = {}
    for text in known.filter(pl.col("number").is_null())["address"]:
        try:
            ip = ipaddress.IPv6Address(text.strip("[]"))
        except ValueError:
            continue
        if not v6:
            v6 = {address: i for i, address in enumerate(packets.v6)}
        if ip.packed in v6:
            found[text] = 1 << 48 | v6[ip.packed] << 16
    six = pl.DataFrame({"address": list(found), "number": list(found.values())}, schema=known.schema)
    return pl.concat([known.drop_nulls(), six])


def _formats(media: pl.DataFrame) -> pl.DataFrame:
    listed = (
        media.filter(pl.col("payload_types").list.len() == pl.col("codecs").list.len())
        .select("line", payload_type="payload_types", codec="codecs")
        .explode("payload_type", "codec").drop_nulls("payload_type")
        .filter(pl.col("payload_type") < 128)
    )
    return listed.select(
        "line", pl.col("payload_type").cast(pl.UInt8),
        codec=pl.col("codec").str.split("/").list.get(0, null_on_oob=True).fill_null(""),
        clock_rate=pl.col("codec").str.split("/").list.get(1, null_on_oob=True).cast(pl.UInt32, strict=False),
    ).unique(["line", "payload_type"], keep="first", maintain_order=True)


def bind(streams: pl.DataFrame, said: Advertised) -> pl.DataFrame:
    """Adds ``line``, ``call``, ``call_id``, ``index``, ``binding`` and ``sender``; null and "" where not bound.

    ``streams``: ``stream`` (row number), ``flow``, ``forward``, ``first_ns``, ``last_ns``, ``to`` and ``from`` (keys).
    Of several lines with the same endpoint the latest that began before the first packet is taken, and none when its
    call had ended by then. The order of rows is kept.
    """
    ordered = streams.sort("first_ns")
    to = _latest(ordered, said.lines, "to").with_columns(
        binding=pl.lit("sdp"), sender=_other(pl.col("side")))
    rest = ordered.join(to, on="stream", how="anti", maintain_order="left")
    source = _latest(rest, said.lines, "from").with_columns(binding=pl.lit("sdp-port-source"), sender=pl.col("side"))
    bound = pl.concat([to, source])
    rest = rest.join(source, on="stream", how="anti", maintain_order="left")
    bound = pl.concat([bound, _reverse(rest, ordered, bound)]).drop("side", "end")
    joined = streams.join(bound, on="stream", how="left", maintain_order="left")
    return joined.with_columns(pl.col("binding").fill_null(""))


_LINE = ["stream", "line", "call", "call_id", "side", "index", "end"]


def _latest(streams: pl.DataFrame, lines: pl.DataFrame, key: str) -> pl.DataFrame:
    """For each stream the line of its key that began last before it, if its call had not ended by then.

    A search in sorted columns: a join would look at all lines anew for each block of streams.
    """
    keys, starts = lines["key"].to_numpy(), lines["start"].to_numpy()
    wanted, when = streams[key].to_numpy(), streams["first_ns"].to_numpy()
    first, behind = np.searchsorted(keys, wanted), np.searchsorted(keys, wanted, side="right")
    low, high = first.copy(), behind
    while (low < high).any():
        middle = (low + high) // 2
        begun = (low < high) & (starts[np.minimum(middle, len(starts) - 1)] <= when)
        low, high = np.where(begun, middle + 1, low), np.where(begun, high, np.minimum(middle, high))
    found = np.flatnonzero(low > first)
    line = lines.drop("key", "start")[low[found] - 1]
    chosen = streams.select("stream", "first_ns")[found].hstack(line)
    return chosen.filter(pl.col("end") >= pl.col("first_ns")).select(_LINE)


def _reverse(rest: pl.DataFrame, ordered: pl.DataFrame, bound: pl.DataFrame) -> pl.DataFrame:
    """Streams of the opposite direction of a bound stream's flow, bound like the one nearest in time that they meet."""
    partners = (
        ordered.join(bound, on="stream", how="inner", maintain_order="left").with_columns(forward=~pl.col("forward"))
        .select("flow", "forward", "first_ns", "binding", "sender", *_LINE[1:], met="first_ns", left="last_ns")
    )
    joined = rest.join_asof(partners, on="first_ns", by=["flow", "forward"], strategy="nearest", check_sortedness=False)
    together = (pl.col("first_ns") <= pl.col("left") + EARLY_NS) & (pl.col("last_ns") >= pl.col("met") - EARLY_NS)
    return joined.filter(together, pl.col("end") >= pl.col("first_ns")).select(
        *_LINE, binding=pl.lit("symmetric"),
        sender=_other(pl.col("sender")),
    )


def _other(side: pl.Expr) -> pl.Expr:
    return pl.when(side == "caller").then(pl.lit("callee")).otherwise(pl.lit("caller"))


_STATIC = pl.DataFrame(
    {"payload_type": list(STATIC_TYPES), "static_codec": [c for c, _ in STATIC_TYPES.values()],
     "static_rate": [r for _, r in STATIC_TYPES.values()]},
    schema={"payload_type": pl.UInt8, "static_codec": pl.String, "static_rate": pl.UInt32},
)


def codecs(streams: pl.DataFrame, said: Advertised) -> pl.DataFrame:
    """``codec``, ``clock_rate`` and ``clock_guessed`` of streams with ``line`` and ``payload_type``, in their order.

    From the bound SDP line, else the static assignment, else DEFAULT_CLOCK as a guess.
    """
    rate = pl.coalesce(pl.when(pl.col("clock_rate") > 0).then(pl.col("clock_rate")), "static_rate")
    line = streams["line"].cast(pl.Int64).fill_null(-1).to_numpy()
    wanted = line * 256 + streams["payload_type"].cast(pl.Int64).to_numpy()
    at = np.minimum(np.searchsorted(said.places, wanted), max(len(said.places) - 1, 0))
    named = (line >= 0) & (said.places[at] == wanted) if len(said.places) else np.zeros(len(line), np.bool_)
    chosen = said.formats.select("codec", "clock_rate")[at] if len(said.places) else pl.DataFrame(
        {"codec": [None] * len(line), "clock_rate": [None] * len(line)},
        schema={"codec": pl.String, "clock_rate": pl.UInt32})
    known = pl.Series(named)
    return (
        streams.select("payload_type").with_columns(
            codec=pl.when(known).then(chosen["codec"]), clock_rate=pl.when(known).then(chosen["clock_rate"]))
        .join(_STATIC, on="payload_type", how="left", maintain_order="left")
        .select(
            codec=pl.coalesce(pl.when(pl.col("codec") != "").then(pl.col("codec")), "static_codec", pl.lit("")),
            clock_rate=rate.fill_null(DEFAULT_CLOCK), clock_guessed=rate.is_null(),
        )
    )


def event_types(streams: pl.DataFrame, said: Advertised) -> npt.NDArray[np.uint8]:
    """Payload type of telephone-event in the bound SDP line of each stream, 255 where there is none (RFC 4733)."""
    lines, types = said.events
    line = streams["line"].cast(pl.Int64).fill_null(-1).to_numpy()
    out = np.full(len(line), 255, np.uint8)
    if len(lines):
        at = np.minimum(np.searchsorted(lines, line), len(lines) - 1)
        out = np.where(lines[at] == line, types[at], out)
    return out
