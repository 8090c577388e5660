"""Packets of many RTP streams at once, for facts that only the streams somebody asks about need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import rtp as header
from netdiag.tables import rtp_stats
from netdiag.tables.packets import FORWARD
from netdiag.tables.rtp import candidates
from netdiag.tables.rtp_stats import sizes

if TYPE_CHECKING:
    from netdiag.tables import Tables

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class StreamPackets:
    """Packets of streams, stream by stream in the order asked for, each in order of arrival."""

    stream: U32
    """Row of ``Tables.rtp`` for each stream."""
    start: I64
    """First packet of each stream."""
    packet: U32
    ts_ns: I64
    sequence: U16
    timestamp: U32
    payload_type: U8
    marker: Mask

    @property
    def owner(self) -> I64:
        """For each packet, the index of its stream (into ``stream``)."""
        return np.repeat(np.arange(len(self.start)), sizes(self.start, len(self.packet)))

    def part(self, index: int) -> slice:
        """Where the packets of the stream with this index stand."""
        end = self.start[index + 1] if index + 1 < len(self.start) else len(self.packet)
        return slice(int(self.start[index]), int(end))


@dataclass(slots=True)
class Extended:
    """Sequence numbers on one line over all streams: streams and what follows a restart never overlap."""

    kept: I64
    """Packets that are not strays, by arrival."""
    number: I64
    """Extended sequence number of each kept packet."""
    segment: I64
    """First kept packet of each stretch between restarts."""
    behind: I64
    """For each run of missing numbers, the packet after it (an index into the packets)."""
    first: I64
    """Lowest missing number of each run."""
    size: I64
    """Missing numbers of each run."""
    again: I64
    """Packets whose number came before: duplicates."""
    late: I64
    """Packets behind a higher number, duplicates not among them."""


def affordable(streams: pl.DataFrame, packets: int) -> pl.DataFrame:
    """The first of ``streams`` that have no more than so many packets in all; at least one."""
    before = streams["packets"].cast(pl.Int64).cum_sum() - streams["packets"]
    return streams.filter(before.cast(pl.Int64) < packets)


def read(tables: Tables, streams: pl.DataFrame) -> StreamPackets:
    """Packets of ``streams``, rows of ``Tables.rtp``; every stream has one at least."""
    p = tables.packets
    flows = streams["flow"].unique().sort().to_numpy()
    size = p.flow_size[flows]
    places = np.arange(int(size.sum())) + np.repeat(p.flow_start[flows] - (np.cumsum(size) - size), size)
    rows = candidates(p, p.order[places])
    rows = rows[p.length[rows] >= header.HEADER]
    data = p.head(rows, header.HEADER)
    fields = header.headers(data)
    good = ~header.looks_rtcp(data[:, 1]) & (p.wire[rows] >= fields.minimum)
    key = _keys(p.flow[rows], p.flags[rows], fields.ssrc)
    wanted = _keys(streams["flow"].to_numpy(), p.flags[streams["first_packet"].to_numpy()], streams["ssrc"].to_numpy())
    by_key = np.argsort(wanted)
    at = np.minimum(np.searchsorted(wanted[by_key], key), len(wanted) - 1)
    index = np.flatnonzero(good & (wanted[by_key][at] == key))
    owner = by_key[at[index]]
    order = np.argsort(owner, kind="stable")
    index, owner = index[order], owner[order]
    start = np.searchsorted(owner, np.arange(len(wanted)))
    fields = fields.take(index)
    packet = rows[index]
    return StreamPackets(streams["stream"].to_numpy(), start, packet, p.ts[packet], fields.sequence, fields.timestamp,
                         fields.payload_type, fields.marker)


def _keys(flow: U32, flags: U8, ssrc: U32) -> npt.NDArray[np.uint64]:
    forward = (flags & FORWARD > 0).astype(np.uint64)
    keys: npt.NDArray[np.uint64] = (flow.astype(np.uint64) << np.uint64(1) | forward) << np.uint64(32) | ssrc
    return keys


def extend(s: StreamPackets) -> Extended:
    """Sequence numbers counted on over wraps, and what is missing in them (RFC 3550 A.1)."""
    order = rtp_stats.sequence_statistics(s.start, s.sequence)
    kept = np.arange(len(s.sequence)) if order.kept is None else np.flatnonzero(order.kept)
    sequence = s.sequence[kept]
    step = np.zeros(len(kept), np.int64)
    step[1:] = (sequence[1:] - sequence[:-1]).view(np.int16)
    step[order.segment] = 0
    number = np.cumsum(step)
    low = np.minimum.reduceat(number, order.segment)
    span = np.maximum.reduceat(number, order.segment) - low + 1
    number += np.repeat(np.cumsum(span) - span - low, sizes(order.segment, len(kept)))
    by_number = np.argsort(number, kind="stable")
    line = number[by_number]
    hole = np.zeros(len(line), np.int64)
    hole[1:] = line[1:] - line[:-1] - 1
    again = hole < 0
    again[order.segment] = False
    hole[order.segment] = 0
    late = np.zeros(len(number), np.bool_)
    late[1:] = number[1:] <= np.maximum.accumulate(number)[:-1]
    late[by_number[again]] = False
    runs = np.flatnonzero(hole > 0)
    return Extended(kept, number, order.segment, kept[by_number[runs]], line[runs] - hole[runs], hole[runs],
                    kept[by_number[again]], kept[late])
