"""Flows: all packets of one capture point with the same addresses, ports and protocol, both directions."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode.community_id import community_id, digest
from netdiag.tables.columns import Columns
from netdiag.tables.packets import CUT, FORWARD, ICMP, ICMPV6, IPV6, TCP, UDP, Packets
from netdiag.tables.packets import U8 as Bytes
from netdiag.tables.packets import U32 as Words
from netdiag.tables.schema import U8, U16, U32, empty

if TYPE_CHECKING:
    from netdiag.tables import Tables

SCTP = 132
BLOCK = 1 << 17
"""Packets whose flows are measured together: the arrays stay in the cache (practice)."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One bidirectional flow at one capture point. "a" is who sent the first packet seen."""

    flow: U32
    point: str
    proto: U8
    """IP protocol number."""
    a: str
    """Address of the sender of the first packet."""
    a_port: U16
    b: str
    b_port: U16
    packets_ab: U32
    packets_ba: U32
    bytes_ab: int
    """Transport payload on the wire."""
    bytes_ba: int
    first_ns: int
    last_ns: int
    first_packet: U32
    last_packet: U32
    max_gap_s: float
    """Longest silence between two packets of the flow, seconds, either direction."""
    cut: bool
    """A packet of it was cut by the snap length."""
    encap: str
    """What its first packet is wrapped in, outermost first: "VLAN 100 / VXLAN 42 10.0.0.1–10.0.0.2"; "" for nothing."""


def build(tables: Tables) -> pl.DataFrame:
    """One row for each flow id, in order of the ids."""
    p = tables.packets
    start = p.flow_start
    if not len(start):
        return empty(Flow)
    first, last = p.order[start], p.order[start + p.flow_size - 1]
    cuts = np.unique(np.append(np.searchsorted(start, np.arange(0, len(p.order), BLOCK)), len(start))).tolist()
    sent, total, ahead, gap = np.empty((4, len(start)), np.int64)
    cut = np.empty(len(start), np.bool_)
    for a, b in pairwise(cuts):
        sent[a:b], total[a:b], ahead[a:b], gap[a:b], cut[a:b] = _measure(p, slice(a, b))
    names = pl.Series(tables.points, dtype=pl.String)
    out = Columns(Flow, p)
    out["flow"] = np.arange(len(start), dtype=np.uint32)
    out["point"] = names.gather(p.points(first))
    out["proto"] = p.proto[first]
    out["a"], out["a_port"] = address_texts(p, p.src[first], p.flags[first]), p.sport[first]
    out["b"], out["b_port"] = address_texts(p, p.dst[first], p.flags[first]), p.dport[first]
    out["packets_ab"], out["packets_ba"] = sent, p.flow_size - sent
    out["bytes_ab"], out["bytes_ba"] = ahead, total - ahead
    out["first_ns"], out["last_ns"] = p.ts[first], p.ts[last]
    out["first_packet"], out["last_packet"] = first, last
    out["max_gap_s"] = np.maximum(gap, 0) / 1e9
    out["cut"] = cut
    out["encap"] = wrappings(p, first)
    return out.frame()


def _measure(p: Packets, flows: slice) -> tuple[npt.NDArray[np.generic], ...]:
    """packets_ab, bytes of both directions, bytes_ab, longest gap (ns) and "was a packet cut" of neighbouring flows."""
    start, size = p.flow_start[flows], p.flow_size[flows]
    rows = p.order[start[0] : start[-1] + size[-1]].astype(np.intp)
    start = start - start[0]
    flags, ts, volume = p.flags[rows], p.ts[rows], p.wire[rows].astype(np.int64)
    forward = (flags & FORWARD) != 0
    gap = np.zeros(len(rows), np.int64)
    np.subtract(ts[1:], ts[:-1], out=gap[1:])
    gap[start] = 0
    return (np.add.reduceat(forward, start, dtype=np.int64), np.add.reduceat(volume, start),
            np.add.reduceat(volume * forward, start), np.maximum.reduceat(gap, start),
            np.logical_or.reduceat((flags & CUT) != 0, start))


def wrappings(packets: Packets, rows: npt.NDArray[np.integer]) -> pl.Series:
    """``Packets.wrapping`` of many rows; each path is written once."""
    if packets.encap is None:
        return pl.repeat("", len(rows), eager=True)
    _, first, back = np.unique(packets.encap[rows], return_index=True, return_inverse=True)
    texts = pl.Series([packets.wrapping(int(rows[i])) for i in first], dtype=pl.String)
    return texts.gather(back.astype(np.uint32))


def address_texts(packets: Packets, values: Words, flags: Bytes) -> pl.Series:
    """Text of many ``src``/``dst`` values; each distinct address is formatted once."""
    six = (flags & IPV6) != 0
    keys = values.astype(np.uint64) | six.astype(np.uint64) << np.uint64(32) if six.any() else values
    unique, back = np.unique(keys, return_inverse=True)
    place = back.astype(np.uint32)
    del keys, back
    first6 = int(np.searchsorted(unique, np.uint64(1 << 32))) if six.any() else len(unique)
    texts = [str(ipaddress.IPv6Address(packets.v6[int(v) & 0xFFFFFFFF])) for v in unique[first6:]]
    # Some at a time: the texts of the four parts take more than the result.
    parts = [_dotted(unique[at : min(at + BLOCK, first6)].astype(np.uint32)) for at in range(0, first6, BLOCK)]
    return pl.concat([*parts, pl.Series("", texts, dtype=pl.String)]).gather(place)


def _dotted(values: Words) -> pl.Series:
    v = pl.col("v")
    dotted = pl.format("{}.{}.{}.{}", v // (1 << 24), v // (1 << 16) % 256, v // 256 % 256, v % 256)
    return pl.DataFrame({"v": values}).select(dotted.alias("")).to_series()


def address_bytes(packets: Packets, value: int, flags: int) -> bytes:
    """A ``src``/``dst`` value in network order."""
    return packets.v6[value] if flags & IPV6 else value.to_bytes(4, "big")


def community_ids(packets: Packets, rows: npt.NDArray[np.integer]) -> pl.Series:
    """Community ID (version 1) of the flow of each packet row."""
    p = packets
    six = (p.flags[rows] & IPV6) != 0
    proto = p.proto[rows]
    out = np.empty(len(rows), object)
    # Nearly all flows are TCP or UDP over IPv4: their bytes are laid out for all at once, one SHA-1 each is left.
    plain = np.flatnonzero(~six & np.isin(proto, (TCP, UDP)))
    r = rows[plain]
    a = p.src[r].astype(np.uint64) << np.uint64(16) | p.sport[r]
    b = p.dst[r].astype(np.uint64) << np.uint64(16) | p.dport[r]
    low, high = np.minimum(a, b), np.maximum(a, b)
    raw = np.zeros((len(r), 14), np.uint8)
    raw[:, 0:4] = (low >> np.uint64(16)).astype(">u4").view(np.uint8).reshape(-1, 4)
    raw[:, 4:8] = (high >> np.uint64(16)).astype(">u4").view(np.uint8).reshape(-1, 4)
    raw[:, 8] = proto[plain]
    raw[:, 10:12] = (low & np.uint64(65535)).astype(">u2").view(np.uint8).reshape(-1, 2)
    raw[:, 12:14] = (high & np.uint64(65535)).astype(">u2").view(np.uint8).reshape(-1, 2)
    packed = raw.tobytes()
    out[plain] = [digest(packed[i : i + 14]) for i in range(0, len(packed), 14)]
    plain_mask = np.zeros(len(rows), np.bool_)
    plain_mask[plain] = True
    for i in np.flatnonzero(~plain_mask).tolist():
        row = int(rows[i])
        flags, number = int(p.flags[row]), int(p.proto[row])
        ports = (int(p.sport[row]), int(p.dport[row]))
        if number in (ICMP, ICMPV6):
            head = p.head([row], 2)[0]
            ports = (int(head[0]), int(head[1]))
        elif number == SCTP and ports == (0, 0):
            head = p.head([row], 4)[0]  # the packet table knows ports of TCP and UDP only
            ports = (int(head[0]) << 8 | int(head[1]), int(head[2]) << 8 | int(head[3]))
        out[i] = community_id(address_bytes(p, int(p.src[row]), flags), address_bytes(p, int(p.dst[row]), flags),
                              number, *ports)
    return pl.Series(out.tolist(), dtype=pl.String)
