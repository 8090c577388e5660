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
    TCP,
    UDP,
    Packets,
)
from netdiag.tables.schema import U32
from netdiag.tables.sip_sources import log

if TYPE_CHECKING:
    from netdiag.tables import Tables

BACKWARD_NS = 1_000_000
"""Timestamps that go back by less are the reordering of multi-queue captures (practice)."""
ONEWAY_PACKETS = 5
"""Packets of the visible side before one-way means anything (practice)."""
_FILTERED_FOR = frozenset((0, TCP, UDP, 132, ICMP, ICMPV6))
"""What filters on ports pass: TCP, UDP and SCTP (pcap-filter(7), "port"), often ICMP; 0 is unknown."""
_NO_PROTOCOL = ("malformed", "frame too short", "link type", "pcapng", "cut")
"""Reasons for skipped frames that name no protocol beside IP."""


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
    s = tcp_segments.segments(tables)
    first = s.row[s.start]
    oneway = _oneway_connections(s)
    midstream = (s.flags[s.start] & SYN) == 0
    unseen = (s.classes & tcp_segments.ACKED_UNSEEN) != 0
    data = s.length > 0
    first_fragment, later_fragment = _fragments(p)
    icmp = ((p.proto == ICMP) | (p.proto == ICMPV6)) & (p.flow < len(p.flow_start))
    out = []
    for number, name in enumerate(tables.points):
        mine = _rows(p, number)
        ts, flags = p.ts[mine], p.flags[mine]
        if not len(ts):
            continue
        here = (first >= mine.start) & (first < mine.stop)
        entries = (s.row >= mine.start) & (s.row < mine.stop)
        # Two files of a point may follow in any order; a step back between them is not the clock's.
        back = mine.start + np.flatnonzero(ts[1:] - ts[:-1] < -BACKWARD_NS)
        same_file = p.locate(back)[0] == p.locate(back + 1)[0]
        log(tables, "time goes back by more than a millisecond", back[same_file] + 1, "packets")
        out.append(PointQuality(
            point=name, first_ns=int(ts.min()), last_ns=int(ts.max()), packets=len(ts),
            cut_packets=_count(flags & CUT), backward_steps=_count(same_file),
            interface_drops=tables.interface_drops.get(name),
            acked_unseen=_count(unseen & entries), data_segments=_count(data & entries),
            tcp_connections=_count(here), tcp_oneway=_count(oneway & here), tcp_midstream=_count(midstream & here),
            first_fragments=_count(first_fragment[mine]), later_fragments=_count(later_fragment[mine]),
            icmp_packets=_count(icmp[mine]),
            capture_filter=tables.capture_filters.get(name)))
    return schemas.frame(PointQuality, out)


def beyond_ports(tables: Tables, point: str) -> bool:
    """Whether a point shows a protocol that has no ports, such as ARP or VRRP; ICMP, which filters name, is none."""
    seen = set(tables.flows.filter(pl.col("point") == point)["proto"].unique())
    return not seen <= _FILTERED_FOR or any(
        not why.startswith(_NO_PROTOCOL) for c in tables.captures if c.point == point for why in c.skipped)


def _rows(p: Packets, point: int) -> slice:
    """Packet rows of a capture point, which are one block."""
    files = np.flatnonzero(p.files.point == point)
    if not len(files):
        return slice(0, 0)
    ends = np.append(p.files.start[1:], p.files.total)
    return slice(int(p.files.start[files[0]]), int(ends[files[-1]]))


def _count(what: npt.NDArray[np.generic]) -> int:
    return int(np.count_nonzero(what))


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
