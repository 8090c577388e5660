"""Payload types and clocks of streams against the SDP of their receivers (RFC 3264 §5.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from netdiag.decode import rtp as header
from netdiag.tables import rtp_packets

if TYPE_CHECKING:
    from netdiag.tables import Tables

NEVER = 2**62
CLOCKS = 200
"""Streams whose clock is looked at from packet to packet (practice)."""


def _lines(tables: Tables) -> pl.DataFrame:
    return tables.media.filter((pl.col("port") > 0) & pl.col("protocol").str.contains("RTP/", literal=True))


def _receiver() -> pl.Expr:
    return pl.when(pl.col("sender") == "caller").then(pl.lit("callee")).otherwise(pl.lit("caller"))


def outside(tables: Tables, bound: pl.DataFrame) -> pl.DataFrame:
    """Those of ``bound`` with a payload type that is not in every description of their receiver, which is known."""
    lines = _lines(tables)
    total = lines.group_by("call", "side").agg(total=pl.len())
    common = lines.select("call", "side", number="payload_types").explode("number").drop_nulls().group_by(
        "call", "side", "number").agg(count=pl.len()).join(total, on=["call", "side"]).filter(
        pl.col("count") >= pl.col("total"))
    used = bound.select("stream", "call", side=_receiver(), number="payload_types").explode("number")
    used = used.join(total, on=["call", "side"], how="semi")
    odd = used.with_columns(pl.col("number").cast(pl.UInt16)).join(
        common, on=["call", "side", "number"], how="anti")["stream"].unique()
    return bound.filter(pl.col("stream").is_in(odd.implode()))


def receiver(tables: Tables, row: dict[str, Any]) -> list[tuple[int, int, list[int], int]]:
    """What the receiver of stream ``row`` asks for over time: (from ns, to ns, payload types, packet), in order.

    Descriptions of the address and port that the stream goes to count, else all of that side. An offer counts from
    when it is sent, and replaces the one before only when it is answered.
    """
    side = "callee" if row["sender"] == "caller" else "caller"
    lines = _lines(tables).filter(pl.col("call") == row["call"]).sort("ts_ns", maintain_order=True)
    mine = lines.filter(pl.col("side") == side)
    here = mine.filter((pl.col("address") == row["destination"]) & (pl.col("port") == row["destination_port"]))
    chosen = here if here.height else mine
    answers = lines.filter((pl.col("side") != side) & (pl.col("role") == "answer"))["ts_ns"].to_list()
    # Lines of one message (BUNDLE) ask for all their types together.
    said: dict[int, tuple[int, str, list[int], int]] = {}
    for message, ts, role, types, packet in chosen.select(
            "message", "ts_ns", "role", "payload_types", "packet").iter_rows():
        said.setdefault(message, (ts, role, [], packet))[2].extend(types)
    out: list[tuple[int, int, list[int], int]] = []
    for ts, role, types, packet in said.values():
        accepted = role == "answer" or any(at >= ts for at in answers)
        if accepted:
            out = [(a, min(b, ts), kinds, p) for a, b, kinds, p in out]
        out.append((ts, NEVER, types, packet))
    return out


def ended(tables: Tables, row: dict[str, Any]) -> int:
    """When the call of stream ``row`` ended (ns): its descriptions say nothing of what comes later."""
    end: int | None = tables.calls.filter(pl.col("call") == row["call"])["end_ns"].max()  # type: ignore[assignment]
    return NEVER if end is None else end


def _own(tables: Tables, row: dict[str, Any]) -> pl.DataFrame:
    return _lines(tables).filter((pl.col("call") == row["call"]) & (pl.col("side") == row["sender"]))


def own_meaning(tables: Tables, row: dict[str, Any], number: int) -> str | None:
    """What the payload type means in the sender's own SDP; "" when it is not there, None without such SDP."""
    own = _own(tables, row)
    if not own.height:
        return None
    for types, codecs in own.select("payload_types", "codecs").iter_rows():
        for kind, codec in zip(types, codecs, strict=False):
            if kind == number:
                return codec or header.STATIC_TYPES.get(number, ("a static type", 0))[0]
    return ""


def event_types(tables: Tables, row: dict[str, Any], receiver_only: bool = False) -> list[int]:
    """Payload types that either side of the stream's call, or its receiver, uses for telephone-event (RFC 4733)."""
    lines = _lines(tables).filter(pl.col("call") == row["call"])
    if receiver_only:
        lines = lines.filter(pl.col("side") != row["sender"])
    return sorted({kind for types, codecs in lines.select("payload_types", "codecs").iter_rows()
                   for kind, codec in zip(types, codecs, strict=False)
                   if codec.lower().startswith("telephone-event")})


def as_events(tables: Tables, bound: pl.DataFrame) -> pl.DataFrame:
    """Those of ``bound`` with a payload type that means a codec to their sender and telephone-event to their receiver.

    ``number`` is that payload type; a stream may come several times. Both meanings are of the media line to whose port
    the stream goes: another line may use the number for something else.
    """
    several = bound.filter(pl.col("payload_types").list.max() >= 96)
    lines = _lines(tables).filter(pl.col("call").is_in(several["call"].unique().implode())
                                  & (pl.col("payload_types").list.len() == pl.col("codecs").list.len()))
    said = lines.select("call", "side", "index", "port", number="payload_types", codec="codecs").explode(
        "number", "codec").filter(pl.col("codec") != "")
    event = pl.col("codec").str.to_lowercase().str.starts_with("telephone-event")
    used = several.with_columns(side=_receiver(), number="payload_types").explode("number").with_columns(
        pl.col("number").cast(said.schema["number"]))
    events = said.filter(event).select("call", "side", "number", "index", destination_port="port").unique()
    used = used.join(events, on=["call", "side", "number", "destination_port"], maintain_order="left")
    used = used.with_columns(side=pl.col("sender"))
    return used.join(said.filter(~event), on=["call", "side", "number", "index"], how="semi").drop("side", "index")


def too_long(tables: Tables, packets: rtp_packets.U32) -> rtp_packets.Mask:
    """Which of these RTP packets, as far as they have no extension, are longer than one event can be.

    An event has four bytes (RFC 4733 §2.3). The tag of SRTP has ten (RFC 3711 §5.2), and a key index may follow it.
    """
    plain: rtp_packets.Mask = (tables.packets.head(packets, 1)[:, 0] & 0x3F) == 0
    long: rtp_packets.Mask = tables.packets.length[packets] > header.HEADER + 4 + 14
    return plain & long


def clocks(tables: Tables, streams: pl.DataFrame, ratios: tuple[float, ...], error: float) -> pl.DataFrame:
    """Those of ``streams`` whose time stamps run at one of ``ratios`` of the agreed rate; ``measured``, ``ratio``.

    Judged from the first and the last packet, then from the middle of all steps: both must agree.
    """
    p = tables.packets
    if not streams.height:
        return streams.with_columns(measured=pl.lit(0.0), ratio=pl.lit(0.0))
    first, last = (header.headers(p.head(streams[name].to_numpy(), header.HEADER)).timestamp
                   for name in ("first_packet", "last_packet"))
    seconds = (streams["last_ns"] - streams["first_ns"]).to_numpy() / 1e9
    measured = (last - first).astype(np.float64) / seconds
    ratio = measured / streams["clock_rate"].to_numpy()
    near = np.any([np.abs(ratio / r - 1) <= error for r in ratios], axis=0)
    odd = streams.with_columns(measured=pl.Series(measured), ratio=pl.Series(ratio)).filter(near)
    if not odd.height:
        return odd
    odd = odd.head(CLOCKS)
    keep = []
    s = rtp_packets.read(tables, odd)
    for i, row in enumerate(odd.iter_rows(named=True)):
        part = s.part(i)
        sequence, timestamp, ts = s.sequence[part], s.timestamp[part], s.ts_ns[part]
        on = sequence[1:] - sequence[:-1] == 1
        if not on.any():
            keep.append(False)
            continue
        step = np.median((timestamp[1:] - timestamp[:-1])[on].astype(np.float64))
        between = np.median(np.diff(ts)[on]) / 1e9
        keep.append(bool(abs(step / max(between, 1e-6) / row["measured"] - 1) <= 2 * error))
    return odd.filter(pl.Series(keep, dtype=pl.Boolean))
