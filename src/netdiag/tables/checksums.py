"""TCP and UDP checksums that nobody computed: what a host shows that leaves this work to its network card.

The kernel hands such a packet over with the sum of the pseudo-header (RFC 9293 §3.1, RFC 768) in the checksum field,
for the card to complete; some systems write 0. Only a sample of the packets is looked at, and only where the field
looks like that is the checksum computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables.flows import address_texts
from netdiag.tables.packets import BAD, FRAGMENT, IPV6, REASSEMBLED, TCP, UDP, Packets

if TYPE_CHECKING:
    from netdiag.tables import Tables

SAMPLE = 20_000
"""Packets looked at, spread over the captures (practice)."""
VERIFIED = 2_000
"""Packets of which the checksum is computed (practice)."""

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def unset(tables: Tables) -> pl.DataFrame:
    """Hosts as senders: ``point``, ``host``, ``packets`` in the sample, how many of them have an ``unset`` checksum or
    an IPv4 total length of 0 (``lengthless``), and ``rows`` of some of these. Empty when no host has one.

    Frames that the capture cut, and packets whose header does not stand before their payload (HEP3), are left out.
    """
    p = tables.packets
    rows, start = _headers(p, _sample(p.n))
    is_tcp = p.proto[rows] == TCP
    field = _words(p, start + np.where(is_tcp, 16, 6))
    size = p.offset[rows] - start + p.wire[rows]
    # Nobody sends a TCP checksum of 0 but by chance; for UDP over IPv4 it means that there is none (RFC 768). Where all
    # have it, a program that wrote the packets (a generator, an anonymiser) left them out.
    zero = (field == 0) & is_tcp
    point = p.points(rows)
    for number in np.unique(point[zero]).tolist():
        here = is_tcp & (point == number)
        zero[here] &= not zero[here].all()
    odd = (field == _pseudo(p, rows, size)) | zero
    odd[odd] = _wrong(p, rows[odd], start[odd], size[odd])
    ip = p.space.gather(start - 20, 4)
    lengthless = (ip[:, 0] == 0x45) & (ip[:, 2] == 0) & (ip[:, 3] == 0) & ((p.flags[rows] & IPV6) == 0)
    marked = odd | lengthless
    if not marked.any():
        return pl.DataFrame(schema={"point": pl.String, "host": pl.String, "packets": pl.UInt32, "unset": pl.UInt32,
                                    "lengthless": pl.UInt32, "rows": pl.List(pl.UInt32)})
    seen = pl.DataFrame({
        "point": pl.Series(tables.points, dtype=pl.String).gather(point),
        "host": address_texts(p, p.src[rows], p.flags[rows]),
        "odd": odd, "lengthless": lengthless, "row": rows.astype(np.uint32)})
    return seen.group_by("point", "host", maintain_order=True).agg(
        packets=pl.len(), unset=pl.col("odd").sum(), lengthless=pl.col("lengthless").sum(),
        rows=pl.col("row").filter(pl.col("odd") | pl.col("lengthless")).head(3))


def verify(p: Packets, rows: I64) -> tuple[Bools, Bools]:
    """Which of these packets have a right checksum, and which a wrong one; neither where a part was not captured."""
    right, bad = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    known, start = _headers(p, rows)
    for begin in range(0, len(known), VERIFIED):
        some, at = known[begin : begin + VERIFIED], start[begin : begin + VERIFIED]
        wrong = _wrong(p, some, at, p.offset[some] - at + p.wire[some])
        right |= np.isin(rows, some[~wrong])
        bad |= np.isin(rows, some[wrong])
    return right, bad


def _sample(count: int) -> I64:
    """Rows, ascending: all of a small capture, else the same random ones in every run."""
    if count <= SAMPLE:
        return np.arange(count)
    return np.unique(np.random.default_rng(0).integers(0, count, SAMPLE))


def _headers(p: Packets, rows: I64) -> tuple[I64, I64]:
    """Those of ``rows`` that are whole TCP or UDP packets, and where their transport headers start."""
    is_tcp = p.proto[rows] == TCP
    plain = (is_tcp | (p.proto[rows] == UDP)) & ((p.flags[rows] & (BAD | FRAGMENT | REASSEMBLED)) == 0)
    plain &= (p.length[rows] == p.wire[rows]) & (p.flow[rows] < len(p.flow_start))  # no repeated packets
    rows, is_tcp = rows[plain], is_tcp[plain]
    header = np.full(len(rows), 8, np.int64)
    header[is_tcp] = p.tcp.header[np.searchsorted(p.tcp.row, rows[is_tcp])]
    start = p.offset[rows] - header
    there = (start >= 40) & (_words(p, start) == p.sport[rows]) & (_words(p, start + 2) == p.dport[rows])
    return rows[there], start[there]


def _words(p: Packets, at: I64) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(p.space.gather(at, 2)).view(">u2").reshape(-1).astype(np.uint16)


def _fold(total: I64) -> I64:
    """One's complement sum of 16 bits (RFC 1071)."""
    for _ in range(3):
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _pseudo(p: Packets, rows: I64, size: I64) -> I64:
    """Sum of the pseudo-header of each row, folded, not inverted."""
    total = p.proto[rows].astype(np.int64) + (size & 0xFFFF) + (size >> 16)
    six = (p.flags[rows] & IPV6) != 0
    for column in (p.src, p.dst):
        value = column[rows].astype(np.int64)
        words = (value & 0xFFFF) + (value >> 16)
        if six.any():
            index, back = np.unique(value[six], return_inverse=True)
            raw = np.frombuffer(b"".join(p.v6[i] for i in index.tolist()), ">u2").reshape(-1, 8)
            words[six] = raw.sum(axis=1, dtype=np.int64)[back]
        total += words
    return _fold(total)


def _wrong(p: Packets, rows: I64, start: I64, size: I64) -> Bools:
    """Is the checksum of each packet wrong? It is taken to be where more than VERIFIED are asked for."""
    out = np.ones(len(rows), np.bool_)
    pseudo = _pseudo(p, rows, size)
    for i in np.unique(np.linspace(0, len(rows) - 1, VERIFIED).astype(np.int64)).tolist() if len(rows) else ():
        data = p.space.read(int(start[i]), int(size[i]))
        words = np.frombuffer(data + bytes(len(data) & 1), ">u2")
        out[i] = int(_fold(np.array(words.sum(dtype=np.int64) + pseudo[i]))) != 0xFFFF
    return out
