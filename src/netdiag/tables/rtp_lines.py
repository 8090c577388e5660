"""Media lines of SDP as places that packets go to: endpoints as numbers, when they are valid, and their formats.

One 64-bit key holds capture point, IP version, address and port. Only lines that a UDP flow of the capture touches
are kept: most captures hold many more calls than media.
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
from netdiag.tables.packets import IPV6, UDP

if TYPE_CHECKING:
    from netdiag.tables import Tables
    from netdiag.tables.packets import Packets

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

EARLY_NS = 1_000_000_000
"""Media may arrive this long before the SDP that names its port (practice: early media that overtakes the answer)."""
DEFAULT_CLOCK = 8000
"""Hz, where neither SDP nor RFC 3551 says: the clock of most telephony codecs (RFC 3551 table 4)."""
NEVER = 2**63 - 1


def endpoint_keys(packets: Packets, rows: npt.NDArray[np.generic], destination: bool) -> U64:
    """Key of the source or destination of each packet row."""
    address = (packets.dst if destination else packets.src)[rows].astype(np.uint64)
    port = (packets.dport if destination else packets.sport)[rows].astype(np.uint64)
    v6 = (packets.flags[rows] & IPV6 > 0).astype(np.uint64)
    point = packets.points(rows).astype(np.uint64)
    key: U64 = point << np.uint64(49) | v6 << np.uint64(48) | address << np.uint64(16) | port
    return key


@dataclass(slots=True)
class Lines:
    """Columns of equal length, sorted by key and start."""

    key: U64
    start: I64
    """ns, inclusive, as is ``end``."""
    end: I64
    media: I64
    """Row of ``Tables.media``."""
    caller: Mask
    """Advertised by the caller."""
    ice: Mask
    """A candidate, not the connection address of the line."""

    def latest(self, keys: U64, when: I64) -> I64:
        """For each key the line that began last before that time, if its call had not ended by then; else -1."""
        first, behind = np.searchsorted(self.key, keys), np.searchsorted(self.key, keys, side="right")
        low, high = first.copy(), behind
        while (low < high).any():
            middle = (low + high) // 2
            begun = (low < high) & (self.start[np.minimum(middle, len(self.start) - 1)] <= when)
            low, high = np.where(begun, middle + 1, low), np.where(begun, high, np.minimum(middle, high))
        found = low > first
        found[found] = self.end[low[found] - 1] >= when[found]
        return np.where(found, low - 1, -1)

    def shared(self, message: npt.NDArray[np.generic]) -> Mask:
        """Rows of ``Tables.media`` whose endpoint another line of the same ``message`` (of each row) has."""
        out = np.zeros(len(message), np.bool_)
        same = (self.key[1:] == self.key[:-1]) & (message[self.media[1:]] == message[self.media[:-1]]) & (
            self.media[1:] != self.media[:-1])
        out[self.media[1:][same]] = True
        out[self.media[:-1][same]] = True
        return out


@dataclass(slots=True)
class Formats:
    """Codecs of media lines."""

    places: I64
    """Row of ``Tables.media`` times 256 plus payload type, ascending; of each format."""
    codec: pl.Series
    """Encoding name as SDP has it, "" where it has none."""
    rate: npt.NDArray[np.uint32]
    """Clock rate in Hz, 0 where unknown."""
    events: tuple[I64, npt.NDArray[np.uint8]]
    """Rows with telephone-event, ascending, and its first payload type there (RFC 4733)."""

    def has(self, media: I64, payload_type: npt.NDArray[np.generic]) -> Mask:
        """Does this row list this payload type?"""
        wanted = media * 256 + payload_type.astype(np.int64)
        return self._at(wanted)[1]

    def _at(self, wanted: I64) -> tuple[I64, Mask]:
        if not len(self.places):
            return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
        at = np.minimum(np.searchsorted(self.places, wanted), len(self.places) - 1)
        return at, self.places[at] == wanted

    def codecs(self, media: I64, payload_type: npt.NDArray[np.uint8]) -> pl.DataFrame:
        """``codec``, ``clock_rate`` and ``clock_guessed`` for rows of ``Tables.media`` (-1: none) and payload types.

        From the line, else the static assignment, else DEFAULT_CLOCK as a guess.
        """
        at, known = self._at(media * 256 + payload_type.astype(np.int64))
        rate = np.where(known, self.rate[at], 0) if len(self.rate) else np.zeros(len(known), np.uint32)
        rate = np.where(rate > 0, rate, _STATIC_RATE[payload_type])
        named = self.codec.gather(pl.Series(at)) if len(self.rate) else pl.Series([""] * len(known), dtype=pl.String)
        static = _STATIC_NAME.gather(pl.Series(payload_type))
        use = pl.Series(known) & (named != "")
        return pl.DataFrame({
            "codec": named.zip_with(use, static), "clock_guessed": rate == 0,
            "clock_rate": np.where(rate > 0, rate, DEFAULT_CLOCK).astype(np.uint32)})

    def event_types(self, media: I64) -> npt.NDArray[np.uint8]:
        """Payload type of telephone-event in each row, 255 where there is none."""
        rows, types = self.events
        out = np.full(len(media), 255, np.uint8)
        if len(rows):
            at = np.minimum(np.searchsorted(rows, media), len(rows) - 1)
            out = np.where(rows[at] == media, types[at], out)
        return out


_STATIC_NAME = pl.Series([STATIC_TYPES.get(i, ("", 0))[0] for i in range(256)], dtype=pl.String)
_STATIC_RATE = np.array([STATIC_TYPES.get(i, ("", 0))[1] for i in range(256)], np.uint32)


def touched(tables: Tables, ports: npt.NDArray[np.generic]) -> U64:
    """Keys of both ends of the UDP flows that use one of these ports, ascending."""
    packets = tables.packets
    first = packets.order[packets.flow_start[packets.flow_size > 0]]
    said = np.zeros(1 << 16, np.bool_)
    said[ports] = True
    first = first[(packets.proto[first] == UDP) & (said[packets.sport[first]] | said[packets.dport[first]])]
    return np.unique(np.concatenate([endpoint_keys(packets, first, True), endpoint_keys(packets, first, False)]))


def advertised(tables: Tables, port: str = "port") -> Lines:
    """Media lines whose address and ``port`` (or "rtcp_port") a UDP flow touches, with the time each is valid.

    From EARLY_NS before the message to the end of the call; from the beginning where the call began before the
    capture, since its first SDP was not seen.
    """
    media = tables.media.select("call", "point", "ts_ns", "side", "address", port=port).with_row_index("media").filter(
        pl.col("address").is_not_null(), pl.col("port") > 0).with_columns(ice=pl.lit(False))
    if tables.media["ice"].any():
        from netdiag.tables import rtp_candidates
        candidates = rtp_candidates.lines(tables).select(media.columns)
        media = pl.concat([media, candidates.join(media, on=["call", "side", "address", "port"], how="anti")])
    keys = touched(tables, media["port"].unique().to_numpy()) if len(media) else np.zeros(0, np.uint64)
    return _lines(tables, media, keys)


def _lines(tables: Tables, media: pl.DataFrame, keys: U64) -> Lines:
    """Those of ``media`` whose key is among ``keys``."""
    low, port = keys & np.uint64(0xFFFF), media["port"].to_numpy()
    here = np.zeros(1 << 16, np.bool_)
    here[low] = True
    media = media.filter(here[port])
    numbers = address_numbers(tables.packets, media["address"].unique())
    points = {name: i << 49 for i, name in enumerate(tables.points)}
    media = media.join(numbers, on="address", how="inner").filter(pl.col("point").is_in(list(points))).with_columns(
        key=pl.col("number") + pl.col("port")
        + pl.col("point").replace_strict(points, default=0, return_dtype=pl.UInt64))
    place = np.minimum(np.searchsorted(keys, media["key"].to_numpy()), max(len(keys) - 1, 0))
    media = media.filter(keys[place] == media["key"].to_numpy()) if len(keys) else media.clear()
    media = media.join(lifetimes(tables), on="call", how="left").with_columns(
        start=pl.when(pl.col("midstream").fill_null(False)).then(-NEVER).otherwise(pl.col("ts_ns") - EARLY_NS),
        end=pl.col("end_ns").fill_null(NEVER)).sort("key", "start", "media")
    return Lines(media["key"].to_numpy(), media["start"].to_numpy(), media["end"].to_numpy(),
                 media["media"].cast(pl.Int64).to_numpy(), (media["side"] == "caller").to_numpy(),
                 media["ice"].to_numpy())


def lifetimes(tables: Tables) -> pl.DataFrame:
    """``call``, ``end_ns`` and ``midstream`` of all calls."""
    return tables.calls.select("call", "end_ns", "midstream").unique("call", keep="last")


def _packed(text: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        return None


def address_numbers(packets: Packets, texts: pl.Series) -> pl.DataFrame:
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


def formats(media: pl.DataFrame) -> Formats:
    """Formats of these rows of ``Tables.media``; they have ``media``, their row number."""
    listed = (
        media.filter(pl.col("payload_types").list.len() == pl.col("codecs").list.len())
        .select("media", payload_type="payload_types", codec="codecs")
        .explode("payload_type", "codec").drop_nulls("payload_type")
        .filter(pl.col("payload_type") < 128)
        .with_columns(place=pl.col("media").cast(pl.Int64) * 256 + pl.col("payload_type"))
        .unique("place", keep="first", maintain_order=True).sort("place")
    )
    parts = pl.col("codec").str.split("/")
    listed = listed.select("place", codec=parts.list.get(0, null_on_oob=True).fill_null(""), rate=parts.list.get(
        1, null_on_oob=True).cast(pl.UInt32, strict=False).fill_null(0))
    events = listed.filter(pl.col("codec").str.to_lowercase() == "telephone-event").select(
        row=pl.col("place") // 256, type=(pl.col("place") % 256).cast(pl.UInt8)).unique(
        "row", keep="first", maintain_order=True)
    return Formats(listed["place"].to_numpy(), listed["codec"], listed["rate"].to_numpy(),
                   (events["row"].to_numpy(), events["type"].to_numpy()))
