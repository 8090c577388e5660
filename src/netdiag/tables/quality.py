"""Capture quality: what this capture could not have shown, per point and per flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables import schema as schemas
from netdiag.tables import tcp_segments
from netdiag.tables.packets import (
    ACK,
    BAD,
    CUT,
    FIRST_FRAGMENT,
    FRAGMENT,
    I64,
    ICMP,
    ICMPV6,
    SYN,
    Packets,
)
from netdiag.tables.schema import U32

if TYPE_CHECKING:
    from netdiag.tables import Tables

BACKWARD_NS = 1_000_000
"""Timestamps that go back by less are the reordering of multi-queue captures (practice)."""
ONEWAY_PACKETS = 5
"""Packets of the visible side before one-way means anything (practice)."""


@dataclass(frozen=True, slots=True)
class PointQuality:
    """One capture point."""

    point: str
    first_ns: int
    last_ns: int
    packets: U32
    cut_packets: U32
    """caplen < len."""
    backward_steps: U32
    """Timestamps that go back by more than 1 ms (practice; multi-queue captures reorder by microseconds)."""
    interface_drops: U32 | None
    """Sum of isb_ifdrop and isb_osdrop (pcapng), None when not recorded."""
    acked_unseen: U32
    data_segments: U32
    tcp_connections: U32
    tcp_oneway: U32
    """Connections of which only one direction was seen although ACK numbers advanced."""
    tcp_midstream: U32
    first_fragments: U32
    later_fragments: U32
    icmp_packets: U32
    capture_filter: str | None
    """if_filter option of pcapng."""


def build(tables: Tables) -> pl.DataFrame:
    """One row for each capture point that has packets, in the order of ``Tables.points``."""
    p = tables.packets
    segments = tcp_segments.segments(tables)
    entry_point = p.points(segments.row)
    first = segments.row[segments.start]
    connection_point = p.points(first)
    oneway = _oneway_connections(segments)
    midstream = (segments.flags[segments.start] & SYN) == 0
    unseen = (segments.classes & tcp_segments.ACKED_UNSEEN) != 0
    first_fragment, later_fragment = _fragments(p)
    icmp = ((p.proto == ICMP) | (p.proto == ICMPV6)) & (p.flow < len(p.flow_start))
    point = p.points(np.arange(p.n))
    out = []
    for number, name in enumerate(tables.points):
        mine = np.flatnonzero(point == number)
        if not len(mine):
            continue
        ts, flags = p.ts[mine], p.flags[mine]
        here = connection_point == number
        entries = entry_point == number
        capture, _ = p.locate(mine)
        # Two files of a point may follow in any order; a step back between them is not the clock's.
        same_file = capture[1:] == capture[:-1]
        out.append(PointQuality(
            point=name, first_ns=int(ts.min()), last_ns=int(ts.max()), packets=len(mine),
            cut_packets=int(((flags & CUT) != 0).sum()),
            backward_steps=int(((ts[1:] - ts[:-1] < -BACKWARD_NS) & same_file).sum()),
            interface_drops=tables.interface_drops.get(name),
            acked_unseen=int((unseen & entries).sum()),
            data_segments=int(((segments.length > 0) & entries).sum()),
            tcp_connections=int(here.sum()), tcp_oneway=int((oneway & here).sum()),
            tcp_midstream=int((midstream & here).sum()),
            first_fragments=int(first_fragment[mine].sum()), later_fragments=int(later_fragment[mine].sum()),
            icmp_packets=int(icmp[mine].sum()),
            capture_filter=tables.capture_filters.get(name)))
    return schemas.frame(PointQuality, out)


def _fragments(p: Packets) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Rows that are the first piece of a datagram, and rows that are a later one."""
    counted = p.flow < len(p.flow_start)
    first = (p.flags & FIRST_FRAGMENT) != 0
    return first & counted, ((p.flags & FRAGMENT) != 0) & ~first & counted


def _oneway_connections(s: tcp_segments.Segments) -> npt.NDArray[np.bool_]:
    """Connections with packets of one side only, whose ACK numbers advance: the other side did answer."""
    count = len(s.start)
    if not count:
        return np.zeros(0, np.bool_)
    sent = np.add.reduceat(s.client, s.start, dtype=np.int64)
    alone = ((sent == 0) | (sent == s.size)) & (s.size >= ONEWAY_PACKETS)
    acks = (s.flags & ACK) != 0
    limits = np.iinfo(np.int64)
    highest = np.maximum.reduceat(np.where(acks, s.ack, limits.min), s.start)
    lowest = np.minimum.reduceat(np.where(acks, s.ack, limits.max), s.start)
    oneway: npt.NDArray[np.bool_] = alone & (highest > lowest) & (highest != limits.min)
    return oneway


def oneway_flows(tables: Tables) -> I64:
    """Flow ids of TCP connections of which only one side was captured although the other answered (CAP-ONEWAY)."""
    s = tcp_segments.segments(tables)
    return _flows(tables, _oneway_connections(s))


def midstream_flows(tables: Tables) -> I64:
    """Flow ids of TCP connections whose start was not captured (CAP-MIDSTREAM)."""
    s = tcp_segments.segments(tables)
    return _flows(tables, (s.flags[s.start] & SYN) == 0)


def lossy_flows(tables: Tables) -> I64:
    """Flow ids of TCP connections with acknowledged bytes that the capture does not hold (CAP-LOSS)."""
    s = tcp_segments.segments(tables)
    unseen = (s.classes & tcp_segments.ACKED_UNSEEN) != 0
    return _flows(tables, np.bincount(s.connection[unseen], minlength=len(s.start)) > 0)


def cut_packets(tables: Tables) -> I64:
    """Packet rows that the snap length has cut, of any protocol (CAP-SNAPLEN).

    Frames that have lost nothing but what follows the IP packet (padding, a checksum of the link) are left out.
    """
    p = tables.packets
    cut = np.flatnonzero((p.flags & CUT) != 0)
    kept: I64 = cut[((p.flags[cut] & BAD) != 0) | (p.length[cut] < p.wire[cut])]
    return kept


def cut_flows(tables: Tables) -> I64:
    """Flow ids of ``cut_packets``."""
    p = tables.packets
    ids = np.unique(p.flow[cut_packets(tables)]).astype(np.int64)
    return ids[ids < len(p.flow_start)]


def _flows(tables: Tables, connections: npt.NDArray[np.bool_]) -> I64:
    s = tcp_segments.segments(tables)
    return np.unique(tables.packets.flow[s.row[s.start[connections]]]).astype(np.int64)
