"""Extended reports of RTCP (RFC 3611): what receivers measure beyond loss and jitter, one row for each block.

All packets are gone through together, one block of each at a time. Blocks that are longer than their packet end it,
and are counted; blocks of other types are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import rtcp_xr as xr
from netdiag.tables import rtcp_calls
from netdiag.tables.rtcp_read import Extended, native
from netdiag.tables.rtp import addresses, note
from netdiag.tables.schema import U8, U16, U32, empty, schema

if TYPE_CHECKING:
    from netdiag.capture.space import Space
    from netdiag.tables import Tables

MAX_BLOCKS = 64
"""Blocks read of one packet (practice: reporters send one to four)."""
MAX_SOURCES = 31
"""Sources read of one DLRR block: as many as one report can name (RFC 3550 §6.4.1)."""
WORDS = 1 << 18
"""Words of traces that are decoded together, which bounds the working memory (practice)."""
U32s = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RtcpXr:
    """One block of one extended report; a DLRR block has a row for each source."""

    packet: U32
    point: str
    ts_ns: int
    flow: U32
    source: str
    destination: str
    sender_ssrc: U32
    about_ssrc: U32 | None
    """Stream that it is about; None for a receiver reference time."""
    block: U8
    """Block type 1 to 7 (RFC 3611 §6.2)."""
    name: str
    begin_sequence: U16 | None
    end_sequence: U16 | None
    """One beyond the last sequence number that is reported on."""
    lost: U32 | None
    """Of loss RLE and of the statistics summary."""
    duplicates: U32 | None
    """Of duplicate RLE (packets that came more than once) and of the statistics summary."""
    received: U32 | None
    """Receipt times in the block."""
    ntp: U32 | None
    """Middle 32 bits of the receiver reference time."""
    last_rr: U32 | None
    """DLRR: the reference time it returns, 0 for none."""
    delay_since_rr: U32 | None
    """DLRR, in 1/65536 s; round trip = arrival - last_rr - this (RFC 3611 §4.5)."""
    min_jitter: U32 | None
    """Statistics summary, in RTP timestamp units, as are the next three."""
    max_jitter: U32 | None
    mean_jitter: U32 | None
    dev_jitter: U32 | None
    min_ttl: U8 | None
    """TTL or hop limit."""
    max_ttl: U8 | None
    loss_rate: float | None
    """VoIP metrics (RFC 3611 §4.7), as is all that follows: share lost on the way."""
    discard_rate: float | None
    """Share that came too late or too early for the play-out buffer."""
    burst_density: float | None
    """Share lost or discarded within bursts."""
    gap_density: float | None
    burst_ms: U16 | None
    """Mean length of bursts."""
    gap_ms: U16 | None
    round_trip_ms: U16 | None
    """None where the reporter does not know it (0 on the wire), as for the next one."""
    end_system_delay_ms: U16 | None
    signal_dbm: int | None
    """Level of the received speech, dBm0; None where the reporter does not know it, as for those down to ``mos_cq``."""
    noise_dbm: int | None
    echo_loss_db: U8 | None
    """RERL."""
    gmin: U8 | None
    """Packets that arrive in a row before a gap begins."""
    r_factor: U8 | None
    ext_r_factor: U8 | None
    """R of the network segment behind the reporter."""
    mos_lq: float | None
    """Estimated listening quality, 1 to 5."""
    mos_cq: float | None
    """Estimated conversational quality: with delay and echo."""
    buffer: str | None
    """Play-out buffer: "adaptive", "fixed" or "unknown"."""
    buffer_ms: U16 | None
    """Its present nominal delay."""
    buffer_max_ms: U16 | None
    buffer_limit_ms: U16 | None
    """The longest delay that it may adapt to."""
    call: U32 | None
    call_id: str | None


def build(tables: Tables) -> pl.DataFrame:
    """All blocks of the known types, in order of packets."""
    extended = tables.rtcp_packets.extended
    if not len(extended.packet):
        return empty(RtcpXr)
    parts = [frame for kind, (which, at, size) in _walk(tables, extended).items()
             if len(frame := _READ[kind](tables, kind, extended.packet[which], extended.at[which], at, size))]
    if not parts:
        return empty(RtcpXr)
    types = schema(RtcpXr)
    wide = [part.select(pl.col(n).cast(types[n]) if n in types else pl.col(n) for n in part.columns) for part in parts]
    found = pl.concat(wide, how="diagonal").sort("packet", "at", maintain_order=True)
    packet = found["packet"].to_numpy()
    p = tables.packets
    found = found.with_columns(
        ts_ns=p.ts[packet], flow=p.flow[packet], name=pl.col("block").replace_strict(xr.NAMES, return_dtype=pl.String),
        point=pl.Series(list(tables.points), dtype=pl.String).gather(p.points(packet)),
        source=addresses(p, packet, p.src), destination=addresses(p, packet, p.dst))
    found = rtcp_calls.with_calls(tables, found)
    return found.select(pl.col(n).cast(t) if n in found.columns else pl.lit(None, t).alias(n) for n, t in types.items())


def _walk(tables: Tables, extended: Extended) -> dict[int, tuple[I64, I64, I64]]:
    """Block type to the packets that have it (indices into ``extended``), where the blocks begin and their bytes."""
    space = tables.packets.space
    found: dict[int, list[tuple[I64, I64, I64]]] = {kind: [] for kind in xr.NAMES}
    position, end = extended.at + 8, extended.end
    going = np.flatnonzero(position + 4 <= end)
    broken = np.zeros(len(position), np.bool_)
    short = broken.copy()
    for _ in range(MAX_BLOCKS):
        head = space.gather(position[going], 4)
        size = 4 + 4 * head[:, 2:4].copy().view(">u2")[:, 0].astype(np.int64)
        good = position[going] + size <= end[going]
        broken[going[~good & ~extended.cut[going]]] = True
        going, size, kinds = going[good], size[good], head[good, 0]
        for kind, parts in found.items():
            mine = kinds == kind
            if mine.any():
                enough = mine & (size >= xr.LEAST[kind])
                short[going[mine & ~enough]] = True
                parts.append((going[enough], position[going[enough]], size[enough]))
        position[going] += size
        going = going[position[going] + 4 <= end[going]]
        if not len(going):
            break
    note(tables, "rtcp_xr", "more blocks in one extended report than are read", extended.packet[going])
    note(tables, "rtcp_xr", "extended report blocks longer than their packet", extended.packet[broken])
    note(tables, "rtcp_xr", "extended report blocks too short for their type", extended.packet[short])
    return {kind: (np.concatenate([a for a, _, _ in parts]), np.concatenate([b for _, b, _ in parts]),
                   np.concatenate([c for _, _, c in parts])) for kind, parts in found.items() if parts}


def _lead(tables: Tables, kind: int, packet: U32s, head: I64, at: I64, **columns: Any) -> pl.DataFrame:
    sender = tables.packets.space.gather(head + 4, 4).view(">u4")[:, 0]
    return pl.DataFrame({"packet": packet, "at": at, "block": np.full(len(packet), kind, np.uint8),
                         "sender_ssrc": native(sender), **columns})


def _traces(tables: Tables, kind: int, packet: U32s, head: I64, at: I64, size: I64) -> pl.DataFrame:
    """Loss RLE, duplicate RLE and receipt times."""
    space = tables.packets.space
    fixed = space.gather(at, xr.RANGE.itemsize).view(xr.RANGE)[:, 0]
    begin, end = native(fixed["begin"]), native(fixed["end"])
    if kind == xr.RECEIPT_TIMES:
        counted = {"received": (size - xr.RANGE.itemsize) // 4}
    else:
        pairs = (size - xr.RANGE.itemsize) // 4
        zeros, total, done = [], np.cumsum(pairs), 0
        while done < len(at):
            stop = max(int(np.searchsorted(total, total[done] + WORDS)), done + 1)
            part = slice(done, stop)
            zeros.append(xr.zeros(_chunks(space, at[part] + xr.RANGE.itemsize, pairs[part]), 2 * pairs[part],
                                  xr.covered(begin[part], end[part])))
            done = stop
        counted = {"lost" if kind == xr.LOSS_RLE else "duplicates": np.concatenate(zeros or [pairs])}
    return _lead(tables, kind, packet, head, at, about_ssrc=native(fixed["ssrc"]), begin_sequence=begin,
                 end_sequence=end, **counted)


def _chunks(space: Space, at: I64, pairs: I64) -> npt.NDArray[np.uint16]:
    """Chunks of traces, two in a word."""
    owner = np.repeat(np.arange(len(at)), pairs)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    words = space.gather(at[owner] + 4 * number, 4)
    return words.view(">u2").reshape(-1).astype(np.uint16)


def _times(tables: Tables, kind: int, packet: U32s, head: I64, at: I64, size: I64) -> pl.DataFrame:
    fixed = tables.packets.space.gather(at, xr.TIME.itemsize).view(xr.TIME)[:, 0]
    return _lead(tables, kind, packet, head, at, ntp=native(fixed["ntp"]))


def _returned(tables: Tables, kind: int, packet: U32s, head: I64, at: I64, size: I64) -> pl.DataFrame:
    told = (size - 4) // xr.SUB_BLOCK
    note(tables, "rtcp_xr", "more sources in a DLRR block than are read", packet[told > MAX_SOURCES])
    told = np.minimum(told, MAX_SOURCES)
    owner = np.repeat(np.arange(len(at)), told)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(told) - told, told)
    at = at[owner] + 4 + xr.SUB_BLOCK * number
    fixed = tables.packets.space.gather(at, xr.SUB_BLOCK).view(xr.RETURNED)[:, 0]
    return _lead(tables, kind, packet[owner], head[owner], at, about_ssrc=native(fixed["ssrc"]),
                 last_rr=native(fixed["last_rr"]), delay_since_rr=native(fixed["delay"]))


def _summary(tables: Tables, kind: int, packet: U32s, head: I64, at: I64, size: I64) -> pl.DataFrame:
    f = tables.packets.space.gather(at, xr.STATISTICS.itemsize).view(xr.STATISTICS)[:, 0]
    flagged = {"lost": xr.HAS_LOSS, "duplicates": xr.HAS_DUPLICATES}
    flagged |= dict.fromkeys(("min_jitter", "max_jitter", "mean_jitter", "dev_jitter"), xr.HAS_JITTER)
    flagged |= dict.fromkeys(("min_ttl", "max_ttl"), xr.HAS_TTL)
    out = _lead(tables, kind, packet, head, at, about_ssrc=native(f["ssrc"]), begin_sequence=native(f["begin"]),
                end_sequence=native(f["end"]), flags=f["flags"], **{name: native(f[name]) for name in flagged})
    return out.with_columns(pl.when((pl.col("flags") & bit) > 0).then(pl.col(name)).alias(name)
                            for name, bit in flagged.items()).drop("flags")


def _metrics(tables: Tables, kind: int, packet: U32s, head: I64, at: I64, size: I64) -> pl.DataFrame:
    f = tables.packets.space.gather(at, xr.METRICS.itemsize).view(xr.METRICS)[:, 0]
    out = _lead(tables, kind, packet, head, at, about_ssrc=native(f["ssrc"]), loss_rate=f["loss"] / 256,
                discard_rate=f["discard"] / 256, burst_density=f["burst"] / 256, gap_density=f["gap"] / 256,
                burst_ms=native(f["burst_ms"]), gap_ms=native(f["gap_ms"]), round_trip_ms=native(f["round_trip"]),
                end_system_delay_ms=native(f["end_system"]), signal_dbm=native(f["signal"]).astype(np.int64),
                noise_dbm=native(f["noise"]).astype(np.int64), echo_loss_db=native(f["rerl"]), gmin=native(f["gmin"]),
                r_factor=native(f["r"]), ext_r_factor=native(f["ext_r"]), mos_lq=native(f["mos_lq"]),
                mos_cq=native(f["mos_cq"]), config=native(f["config"]), buffer_ms=native(f["nominal"]),
                buffer_max_ms=native(f["maximum"]), buffer_limit_ms=native(f["absolute"]))
    believed = {name: pl.col(name) != xr.UNAVAILABLE for name in ("signal_dbm", "noise_dbm", "echo_loss_db")}
    # §4.7.5: what is outside of these ranges is to be ignored.
    believed |= {name: pl.col(name) <= xr.MAX_R for name in ("r_factor", "ext_r_factor")}
    believed |= {name: pl.col(name).is_between(*xr.MOS_RANGE) for name in ("mos_lq", "mos_cq")}
    believed |= {name: pl.col(name) > 0 for name in ("round_trip_ms", "end_system_delay_ms")}
    adapts = pl.col("config") // 16 % 4  # §4.7.6: JBA
    return out.with_columns(
        *(pl.when(good).then(pl.col(name)).alias(name) for name, good in believed.items()),
        buffer=pl.when(adapts == 3).then(pl.lit("adaptive")).when(adapts == 2).then(pl.lit("fixed")).otherwise(
            pl.lit("unknown"))).with_columns(pl.col("mos_lq", "mos_cq") / 10).drop("config")


_READ = {xr.LOSS_RLE: _traces, xr.DUPLICATE_RLE: _traces, xr.RECEIPT_TIMES: _traces, xr.REFERENCE_TIME: _times,
         xr.DELAY: _returned, xr.SUMMARY: _summary, xr.VOIP: _metrics}
