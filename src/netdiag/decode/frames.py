"""From records to packet columns: link, network and transport headers of one batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiag.capture.records import NO_PACKET, Records
from netdiag.capture.space import Space
from netdiag.decode import ip, link, transport

IPV4, IPV6, CUT, FRAGMENT, BAD, FIRST_FRAGMENT = 1, 2, 4, 8, 32, 128
"""Bits of the column ``flags``, as ``tables.packets`` documents them."""
BLOCK = 1 << 14
"""Frames decoded at once: their columns stay in the second-level cache (measured)."""

COLUMNS: dict[str, str] = {
    "ts": "i8", "src": "u4", "dst": "u4", "sport": "u2", "dport": "u2", "proto": "u1", "ttl": "u1", "ip_id": "u2",
    "flags": "u1", "kind": "u1", "offset": "i8", "length": "u4", "wire": "u4",
}
TCP_COLUMNS: dict[str, str] = {"row": "u4", "seq": "u4", "ack": "u4", "window": "u2", "flags": "u1", "header": "u1"}

Columns = dict[str, npt.NDArray[Any]]


@dataclass(slots=True)
class Piece:
    """A fragment of an IP datagram."""

    row: int
    src: int
    dst: int
    version: int
    proto: int
    id: int
    start: int
    more: bool
    at: int
    captured: int
    size: int


@dataclass(slots=True)
class Decoded:
    """Columns of one file, batch by batch, with what was left out."""

    parts: list[Columns] = field(default_factory=list)
    tcp: list[Columns] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    addresses: ip.Addresses6 = field(default_factory=ip.Addresses6)
    rows: int = 0

    def add(self, space: Space, records: Records) -> None:
        """Decodes one batch and appends it."""
        # Columns of a whole batch: small pieces of all blocks would leave the heap in shreds.
        batch: Columns = {name: np.zeros(len(records.offset), kind) for name, kind in COLUMNS.items()}
        known = len(self.tcp)
        for begin in range(0, len(records.offset), BLOCK):
            cut = slice(begin, begin + BLOCK)
            self._block(space, Records(records.offset[cut], records.captured[cut], records.wire[cut],
                                       records.ts[cut], records.link[cut]),
                        {name: column[cut] for name, column in batch.items()})
        self.parts.append(batch)
        segments = self.tcp[known:]
        if len(segments) > 1:
            self.tcp[known:] = [{name: np.concatenate([s[name] for s in segments]) for name in TCP_COLUMNS}]

    def _block(self, space: Space, records: Records, out: Columns) -> None:
        n = len(records.offset)
        out["ts"][:] = records.ts
        end = records.offset + records.captured
        wire_end = records.offset + records.wire
        out["flags"][records.captured < records.wire] = CUT
        at, protocol = records.offset, np.zeros(n, np.uint16)
        links = np.unique(records.link).tolist()
        if len(links) == 1:
            network = link.decode(space, links[0], records.offset, records.captured)
            at, protocol = network.at, network.protocol
        else:
            at = at.copy()
            for one in links:
                mine = np.flatnonzero(records.link == one)
                network = link.decode(space, one, records.offset[mine], records.captured[mine])
                at[mine], protocol[mine] = network.at, network.protocol
        self._count_skipped(records, protocol)
        six = protocol == link.IP6
        rows = np.flatnonzero(six | (protocol == link.IP4))
        if len(rows) == n:
            self._internet(space, out, slice(None), at, end, wire_end, six)
        elif len(rows):
            self._internet(space, out, rows, at[rows], end[rows], wire_end[rows], six[rows])
        self.rows += n

    def _count_skipped(self, records: Records, protocol: npt.NDArray[np.uint16]) -> None:
        odd = protocol[(protocol != link.IP4) & (protocol != link.IP6)]
        if not len(odd):
            return
        for value, count in zip(*np.unique(odd, return_counts=True), strict=True):
            if value == link.UNKNOWN_LINK:
                self._count_links(records.link[protocol == link.UNKNOWN_LINK])
            elif value == link.CUT:
                self.skipped["frame too short for a network header"] += int(count)
            elif value == link.LLC:
                self.skipped["802.3 with LLC, or PPP that is not IP"] += int(count)
            elif value == link.ARP:
                self.skipped["ARP"] += int(count)
            else:
                self.skipped[f"EtherType 0x{int(value):04x}"] += int(count)

    def _count_links(self, links: npt.NDArray[np.uint16]) -> None:
        for kind, number in zip(*np.unique(links, return_counts=True), strict=True):
            name = link.NAMES.get(int(kind), "unknown")
            if kind == NO_PACKET:
                reason = "pcapng block that holds no packet"
            elif int(kind) in link.DECODED:
                reason = f"not IP on link type {kind} ({name})"
            else:
                reason = f"link type {kind} ({name})"
            self.skipped[reason] += int(number)

    def _internet(self, space: Space, out: Columns, rows: npt.NDArray[np.int64] | slice, at: npt.NDArray[np.int64],
                  end: npt.NDArray[np.int64], wire_end: npt.NDArray[np.int64], six: npt.NDArray[np.bool_]) -> None:
        net = ip.decode(space, at, end, wire_end, six, self.addresses)
        flags = np.where(six, IPV6, IPV4).astype(np.uint8)
        bad = int((~net.good).sum())
        if bad:
            self.skipped["malformed or cut IP header"] += bad
            flags[~net.good] = BAD
            for column in (net.src, net.dst, net.proto, net.ttl, net.id, net.size):
                column[~net.good] = 0
        flags[net.fragment & net.good] |= FRAGMENT
        flags[net.fragment & net.good & (net.piece == 0)] |= FIRST_FRAGMENT
        captured = np.minimum(net.size, np.maximum(end - net.at, 0))
        sport, dport = np.zeros(len(at), np.uint16), np.zeros(len(at), np.uint16)
        kind = np.zeros(len(at), np.uint8)
        offset, wire = net.at, net.size
        with_ports = net.good & ((net.proto == 6) | (net.proto == 17)) & (net.piece == 0)
        head = np.flatnonzero(with_ports)
        if len(head):
            whole = ~net.fragment[head]
            tcp = net.proto[head] == 6
            seg = transport.decode(space, net.at[head], np.minimum(end[head], net.at[head] + net.size[head]),
                                   net.size[head], tcp, whole)
            flags[head[~seg.good]] |= BAD
            use = np.flatnonzero(seg.good)
            mine = head[use]
            sport[mine], dport[mine], kind[mine] = seg.sport[use], seg.dport[use], seg.kind[use]
            full = use[whole[use]]
            offset[head[full]], wire[head[full]] = seg.at[full], seg.size[full]
            captured[head[full]] = np.minimum(seg.size[full], np.maximum(end[head[full]] - seg.at[full], 0))
            segments = full[tcp[full]]
            if len(segments):
                here = head[segments] if isinstance(rows, slice) else rows[head[segments]]
                self.tcp.append({
                    "row": (here + self.rows).astype(np.uint32), "seq": seg.seq[segments], "ack": seg.ack[segments],
                    "window": seg.window[segments], "flags": seg.flags[segments], "header": seg.header[segments]})
        for name, column in (("src", net.src), ("dst", net.dst), ("proto", net.proto), ("ttl", net.ttl),
                             ("ip_id", net.id), ("sport", sport), ("dport", dport), ("kind", kind),
                             ("offset", offset), ("length", captured), ("wire", wire)):
            out[name][rows] = column
        out["flags"][rows] |= flags
        for i in np.flatnonzero(net.fragment & net.good).tolist():
            row = i if isinstance(rows, slice) else int(rows[i])
            have = min(int(net.size[i]), max(int(end[i]) - int(net.at[i]), 0))
            self.pieces.append(Piece(self.rows + row, int(net.src[i]), int(net.dst[i]), int(net.version[i]),
                                     int(net.proto[i]), int(net.frag_id[i]), int(net.piece[i]), bool(net.more[i]),
                                     int(net.at[i]), have, int(net.size[i])))
