"""Fragmented IP datagrams: which were put together, which have gaps, which contradict themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from netdiag.decode.fragments import Datagram
from netdiag.tables.packets import IPV4, IPV6
from netdiag.tables.schema import U8, U32, frame

if TYPE_CHECKING:
    from netdiag.tables import Tables


@dataclass(frozen=True, slots=True)
class FragmentedDatagram:
    """One IP datagram of which fragments were captured at one point (RFC 791 §3.2, RFC 8200 §4.5)."""

    point: str
    source: str
    destination: str
    protocol: U8
    """IP protocol number, of its first fragment where that was captured."""
    identification: U32
    """16 bits in IPv4, 32 in IPv6."""
    pieces: U32
    """Fragments captured, up to the one that made it whole."""
    packets: tuple[U32, ...]
    """Their packet rows, in order of arrival."""
    repeated: tuple[U32, ...]
    """Packet rows of fragments that came again when it was whole."""
    size: U32 | None
    """Bytes of the IP payload; None while the last fragment is missing."""
    seen: U32
    """Distinct bytes of it on the wire."""
    missing: U32 | None
    """size - seen; None where the size is not known."""
    complete: bool
    """Put together, so that its payload stands in the packet table at ``last_packet``."""
    overlap: bool
    """Fragments brought the same bytes twice: repeated on the way, or made to deceive (RFC 5722)."""
    conflict: bool
    """Fragments disagree about bytes or about the length; what came first counts."""
    has_first: bool
    """The fragment with offset 0, which alone carries ports, was captured."""
    has_last: bool
    first_packet: U32
    last_packet: U32
    first_ns: int
    last_ns: int
    given_up: str
    """Why it was not put together, "" where it was."""


def build(tables: Tables) -> pl.DataFrame:
    """One row for each datagram, in the order in which their first fragments arrived."""
    datagrams = sorted(tables.datagrams, key=lambda d: d.rows[0])
    return frame(FragmentedDatagram, [_row(tables, d) for d in datagrams])


def _row(tables: Tables, d: Datagram) -> FragmentedDatagram:
    p, one = tables.packets, d.piece
    family = IPV6 if one.version == 6 else IPV4
    first, last = d.rows[0], d.rows[-1]
    head = first if d.first_row is None else d.first_row
    return FragmentedDatagram(
        point=tables.points[d.point], source=p.address(one.src, family), destination=p.address(one.dst, family),
        protocol=int(p.proto[head]), identification=one.id, pieces=len(d.rows), packets=tuple(d.rows),
        repeated=tuple(d.again), size=d.total,
        seen=d.have, missing=None if d.total is None else d.total - d.have, complete=d.offset >= 0, overlap=d.overlap,
        conflict=d.conflict, has_first=d.first_row is not None, has_last=d.total is not None, first_packet=first,
        last_packet=last, first_ns=int(p.ts[first]), last_ns=int(p.ts[last]), given_up=d.given_up)
