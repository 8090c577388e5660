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
    """``line``, ``key`` (UInt64), ``start`` and ``end`` (ns, inclusive), ``call``, ``call_id``, ``side``, ``index``."""
    formats: pl.DataFrame
    """``line``, ``payload_type``, ``codec`` (encoding name), ``clock_rate``; one row for each rtpmap of each line."""


def advertised(tables: Tables) -> Advertised:
    """What the SDP of all calls advertises, with the time each line is valid.

    From EARLY_NS before the message to the end of the call; from the beginning where the call began before the
    capture, since its first SDP was not seen.
    """
    media = tables.media
    media = media.filter(pl.col("address").is_not_null(), pl.col("port") > 0).with_row_index("line")
    ends = tables.calls.select("call", "end_ns", "midstream").unique("call", keep="last")
    numbers = _address_numbers(tables.packets, media["address"].unique().to_list())
    points = {name: i << 49 for i, name in enumerate(tables.points)}
    lines = (
        media.join(ends, on="call", how="left")
        .join(pl.DataFrame({"address": list(numbers), "number": list(numbers.values())},
                           schema={"address": pl.String, "number": pl.UInt64}), on="address", how="inner")
        .filter(pl.col("point").is_in(list(points)))
        .with_columns(
            base=pl.col("number") + pl.col("point").replace_strict(points, default=0, return_dtype=pl.UInt64),
            start=pl.when(pl.col("midstream").fill_null(False)).then(-_NEVER).otherwise(pl.col("ts_ns") - EARLY_NS),
            end=pl.col("end_ns").fill_null(_NEVER),
        )
        .select("line", "start", "end", "call", "call_id", "side", "index", key=pl.col("base") + pl.col("port"))
        .sort("start", "line")
    )
    return Advertised(lines, _formats(media))


def _address_numbers(packets: Packets, texts: list[str | None]) -> dict[str, int]:
    """Address text of SDP to its bits in a key; names and addresses that no packet can carry are left out."""
    found: dict[str, int] = {}
    v6: dict[bytes, int] | None = None
    for text in texts:
        try:
            found[text or ""] = int.from_bytes(socket.inet_pton(socket.AF_INET, text or ""), "big") << 16
            continue
        except (OSError, ValueError):
            pass
        try:
            ip = ipaddress.IPv6Address((text or "").strip("[]"))
        except ValueError:
            continue
        if v6 is None:
            v6 = {address: i for i, address in enumerate(packets.v6)}
        if ip.packed in v6:
            found[text or ""] = 1 << 48 | v6[ip.packed] << 16
    return found


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


def _latest(ordered: pl.DataFrame, lines: pl.DataFrame, key: str) -> pl.DataFrame:
    joined = ordered.join_asof(lines, left_on="first_ns", right_on="start", by_left=key, by_right="key",
                               strategy="backward", check_sortedness=False)
    return joined.filter(pl.col("end") >= pl.col("first_ns")).select(_LINE)


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
    return (
        streams.select("line", "payload_type")
        .join(said.formats, on=["line", "payload_type"], how="left", maintain_order="left")
        .join(_STATIC, on="payload_type", how="left", maintain_order="left")
        .select(
            codec=pl.coalesce(pl.when(pl.col("codec") != "").then(pl.col("codec")), "static_codec", pl.lit("")),
            clock_rate=rate.fill_null(DEFAULT_CLOCK), clock_guessed=rate.is_null(),
        )
    )


def event_types(streams: pl.DataFrame, said: Advertised) -> npt.NDArray[np.uint8]:
    """Payload type of telephone-event in the bound SDP line of each stream, 255 where there is none (RFC 4733)."""
    events = said.formats.filter(pl.col("codec").str.to_lowercase() == "telephone-event").unique("line", keep="first")
    events = events.select("line", event="payload_type")
    found = streams.select("line").join(events, on="line", how="left", maintain_order="left")
    return found["event"].fill_null(255).to_numpy()
