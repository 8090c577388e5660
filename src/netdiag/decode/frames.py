"""From records to packet columns: link, network and transport headers of one batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from netdiag.capture.records import NO_PACKET, Records
from netdiag.capture.space import Space
from netdiag.decode import encap, hep, ip, link, link_types, plain, transport, tunnels
from netdiag.decode.ethertype import ARP, ETHERNET, IP4, IP6, REASONS, UNKNOWN_LINK
from netdiag.decode.store import Columns, Store

IPV4, IPV6, CUT, FRAGMENT, BAD, FIRST_FRAGMENT = 1, 2, 4, 8, 32, 128
"""Bits of the column ``flags``, as ``tables.packets`` documents them."""
REASSEMBLED = 16
KEPT = CUT | REASSEMBLED
"""Bits that belong to the frame, not to the IP packet in it; REASSEMBLED says that the frame itself is a FRAGMENT."""
BLOCK = 1 << 14
"""Frames decoded at once: their columns stay in the second-level cache (measured)."""

COLUMNS: dict[str, str] = {
    "ts": "i8", "src": "u4", "dst": "u4", "sport": "u2", "dport": "u2", "proto": "u1", "ttl": "u1", "ip_id": "u2",
    "flags": "u1", "kind": "u1", "offset": "i8", "length": "u4", "wire": "u4",
}
TCP_COLUMNS: dict[str, str] = {"row": "u4", "seq": "u4", "ack": "u4", "window": "u2", "flags": "u1", "header": "u1"}

I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]


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
    path: int
    """What the datagram is wrapped in."""


@dataclass(slots=True)
class Decoded:
    """Frames of one file in columns, with what was left out.

    The row of a frame is its innermost IP packet; ``encap`` says what that is wrapped in.
    """

    store: Store
    """Columns of all files, of which those of this one begin at ``first``."""
    segments: Store
    """TCP columns of all files, of which those of this one begin at ``first_segment``; rows count from ``first``."""
    tcp: list[Columns] = field(default_factory=list)
    """TCP columns of blocks that are not in ``segments`` yet."""
    pieces: list[Piece] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    addresses: ip.Addresses6 = field(default_factory=ip.Addresses6)
    paths: encap.Paths = field(default_factory=encap.Paths)
    encap: list[tuple[int, U16]] = field(default_factory=list)
    """Where frames are wrapped: row of the first frame of a block, and the path of each."""
    rows: int = 0
    first: int = 0
    first_segment: int = 0
    last_segment: int = 0
    """The one behind the last."""

    def __post_init__(self) -> None:
        self.first = self.store.used
        self.first_segment = self.last_segment = self.segments.used

    @property
    def columns(self) -> Columns:
        """Columns of this file."""
        return self.store.rows(self.first, self.first + self.rows)

    def add(self, space: Space, records: Records) -> Columns:
        """Decodes one batch, and returns its columns."""
        batch = self.store.take(len(records.offset))
        for begin in range(0, len(records.offset), BLOCK):
            cut = slice(begin, begin + BLOCK)
            path = self._block(space, Records(
                records.offset[cut], records.captured[cut], records.wire[cut], records.ts[cut], records.link[cut]),
                {name: column[cut] for name, column in batch.items()})
            if path is not None:
                self.encap.append((self.rows - len(path), path))
        for part in self.tcp:
            for name, column in self.segments.take(len(part["row"])).items():
                column[:] = part[name]
        self.tcp.clear()
        self.last_segment = self.segments.used
        return batch

    def _block(self, space: Space, records: Records, out: Columns) -> U16 | None:
        n, known = len(records.offset), len(self.tcp)
        out["ts"][:] = records.ts
        out["flags"][records.captured < records.wire] = CUT
        done, path = None, None
        rows: I64 | None = None
        if int(records.link[0]) in plain.LINKS and (records.link == records.link[0]).all():
            done, segments = plain.decode(space, records, out, self.rows)
            if segments is not None:
                self.tcp.append(segments)
            rows = np.flatnonzero(~done) if done is not None else np.empty(0, np.int64)
        if rows is None or len(rows):
            path = self._layers(space, records, out, rows)
        if len(self.tcp) > known + 1:  # segments inside tunnels were found after those outside
            self.tcp[known:] = [ascending(self.tcp[known:])]
        self.rows += n
        return path

    def _layers(self, space: Space, records: Records, out: Columns, rows: I64 | None) -> U16 | None:
        """Decodes frames layer by layer, all or those in ``rows``; their paths, for the whole block."""
        n = len(records.offset)
        if rows is not None:
            records = Records(records.offset[rows], records.captured[rows], records.wire[rows], records.ts[rows],
                              records.link[rows])
        end = records.offset + records.captured
        wire_end = records.offset + records.wire
        at, protocol = records.offset.copy(), np.zeros(len(records.offset), np.uint16)
        path: U16 | None = None
        for one in np.unique(records.link).tolist():
            mine = np.flatnonzero(records.link == one)
            network = link.decode(space, one, records.offset[mine], records.captured[mine], self.paths)
            at[mine], protocol[mine] = network.at, network.protocol
            if network.path is not None:
                path = np.zeros(n, np.uint16) if path is None else path
                path[mine if rows is None else rows[mine]] = network.path
        self._count_skipped(records, protocol)
        six = protocol == IP6
        inside = np.flatnonzero(six | (protocol == IP4))
        wrapping = Wrapping(path, n)
        if len(inside):
            net = ip.decode(space, at[inside], end[inside], wire_end[inside], six[inside], self.addresses)
            bad = int((~net.good).sum())
            if bad:
                self.skipped["malformed or cut IP header"] += bad
            self.packets(space, out, inside if rows is None else rows[inside], net, end[inside], wrapping)
        return wrapping.path

    def _count_skipped(self, records: Records, protocol: npt.NDArray[np.uint16]) -> None:
        odd = protocol[(protocol != IP4) & (protocol != IP6)]
        if not len(odd):
            return
        for value, count in zip(*np.unique(odd, return_counts=True), strict=True):
            if value == UNKNOWN_LINK:
                self._count_links(records.link[protocol == UNKNOWN_LINK])
            elif value == ARP:
                self.skipped["ARP"] += int(count)
            elif value in REASONS:
                self.skipped[REASONS[int(value)]] += int(count)
            else:
                self.skipped[f"EtherType 0x{int(value):04x}"] += int(count)

    def _count_links(self, links: npt.NDArray[np.uint16]) -> None:
        for kind, number in zip(*np.unique(links, return_counts=True), strict=True):
            name = link_types.NAMES.get(int(kind), "unknown")
            if kind == NO_PACKET:
                reason = "pcapng block that holds no packet"
            elif int(kind) in link_types.DECODED:
                reason = f"not IP on link type {kind} ({name})"
            else:
                reason = f"link type {kind} ({name})"
            self.skipped[reason] += int(number)

    def packets(self, space: Space, out: Columns, rows: I64, net: ip.Internet, end: I64,
                wrapping: Wrapping) -> None:
        """Writes IP packets to ``rows`` of ``out``, then those inside them, as deep as tunnels go.

        ``end`` is where the captured bytes of each frame stop.
        """
        for depth in range(tunnels.MAX_DEPTH + 1):
            ip.authenticated(space, net, end)
            sport, dport, payload, captured, kind = self._transport(space, out, rows, net, end, wrapping.path)
            reports = np.flatnonzero(kind == transport.HEP)
            if len(reports):
                where = rows[reports]
                self._hep(space, out, where, payload[reports], payload[reports] + captured[reports], wrapping)
            if depth == tunnels.MAX_DEPTH:
                return
            opened = _inside(space, rows, net, sport, dport, payload, captured, kind, self.paths, wrapping)
            if opened is None:
                return
            rows, at, end, wire_end, six, mirrored = opened
            net = ip.decode(space, at, end, wire_end, six, self.addresses)
            long = net.at + net.size > wire_end
            # Chance finds packets in what is no tunnel, but hardly ones that fit. Mirrors cut the frames they carry.
            good = np.flatnonzero(net.good & (mirrored | ~long))
            if len(good) < len(rows):
                rows, end, net, long = rows[good], end[good], net.take(good), long[good]
            wrapping.settle(rows)
            out["flags"][rows[long]] |= CUT

    def _transport(self, space: Space, out: Columns, rows: I64, net: ip.Internet, end: I64, path: U16 | None
                   ) -> tuple[U16, U16, I64, I64, npt.NDArray[np.uint8]]:
        """Ports, place, captured bytes and kind of the payload of each packet, which are also written to ``out``."""
        n = len(net.at)
        flags = np.where(net.version == 6, IPV6, IPV4).astype(np.uint8)
        if not net.good.all():
            flags[~net.good] = BAD
            for column in (net.src, net.dst, net.proto, net.ttl, net.id, net.size):
                column[~net.good] = 0
        flags[net.fragment & net.good] |= FRAGMENT
        flags[net.fragment & net.good & (net.piece == 0)] |= FIRST_FRAGMENT
        captured = np.minimum(net.size, np.maximum(end - net.at, 0))
        sport, dport = np.zeros(n, np.uint16), np.zeros(n, np.uint16)
        kind = np.zeros(n, np.uint8)
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
                here = rows[head[segments]]
                self.tcp.append({
                    "row": (here + self.rows).astype(np.uint32), "seq": seg.seq[segments], "ack": seg.ack[segments],
                    "window": seg.window[segments], "flags": seg.flags[segments], "header": seg.header[segments]})
        for name, column in (("src", net.src), ("dst", net.dst), ("proto", net.proto), ("ttl", net.ttl),
                             ("ip_id", net.id), ("sport", sport), ("dport", dport), ("kind", kind),
                             ("offset", offset), ("length", captured), ("wire", wire)):
            out[name][rows] = column
        kept = out["flags"][rows] & KEPT
        out["flags"][rows] = kept | flags | np.where(kept & REASSEMBLED, FRAGMENT, 0).astype(np.uint8)
        for i in np.flatnonzero(net.fragment & net.good).tolist():
            row = int(rows[i])
            have = min(int(net.size[i]), max(int(end[i]) - int(net.at[i]), 0))
            self.pieces.append(Piece(self.rows + row, int(net.src[i]), int(net.dst[i]), int(net.version[i]),
                                     int(net.proto[i]), int(net.frag_id[i]), int(net.piece[i]), bool(net.more[i]),
                                     int(net.at[i]), have, int(net.size[i]), int(path[row]) if path is not None else 0))
        return sport, dport, offset, captured, kind

    def _hep(self, space: Space, out: Columns, rows: I64, at: I64, end: I64, wrapping: Wrapping) -> None:
        """Puts the packet that an agent reports in the place of its report."""
        found = hep.decode(space, at, end, self.addresses)
        good = np.flatnonzero(found.good)
        rows = rows[good]
        wrapping.propose(rows, self.paths.extend(wrapping.of(rows), encap.HEP, found.agent[good]))
        wrapping.settle(rows)
        timed = found.ts[good] > 0
        out["ts"][rows[timed]] = found.ts[good][timed]
        for name in ("src", "dst", "sport", "dport"):
            out[name][rows] = getattr(found, name)[good]
        out["proto"][rows], out["ttl"][rows], out["ip_id"][rows] = 17, 0, 0
        out["offset"][rows], out["length"][rows] = found.at[good], found.captured[good]
        out["wire"][rows] = found.size[good]
        out["kind"][rows] = transport.datagram_kind(space, found.at[good], found.captured[good])
        out["flags"][rows] = (out["flags"][rows] & KEPT) | np.where(found.six[good], IPV6, IPV4).astype(np.uint8)


class Wrapping:
    """Paths of the rows of a block; those of opened tunnels count once the packet inside has proved sound."""

    def __init__(self, path: U16 | None, n: int) -> None:
        self.path, self.n = path, n
        self._new: tuple[I64, U16] | None = None
        self.opened: list[I64] = []
        """Rows in which a tunnel was found, one array for each level."""

    def of(self, rows: I64) -> U16:
        return self.path[rows] if self.path is not None else np.zeros(len(rows), np.uint16)

    def propose(self, rows: I64, path: U16) -> None:
        self._new = rows, path

    def settle(self, rows: I64) -> None:
        """Accepts what was proposed for ``rows``, a part of those proposed (both ascending)."""
        if self._new is None or not len(rows):
            return
        if self.path is None:
            self.path = np.zeros(self.n, np.uint16)
        self.path[rows] = self._new[1][np.searchsorted(self._new[0], rows)]
        self.opened.append(rows)


def _inside(space: Space, rows: I64, net: ip.Internet, sport: U16, dport: U16, payload: I64, captured: I64,
            seen: npt.NDArray[np.uint8], paths: encap.Paths, wrapping: Wrapping
            ) -> tuple[I64, I64, I64, I64, Mask, Mask] | None:
    """(rows, place, captured end, end on the wire, is IPv6, had an Ethernet header) of the IP packets inside tunnels.

    None without any. ``seen`` is the kind of each payload.
    """
    candidates = np.flatnonzero(tunnels.BY_PORT[dport] | tunnels.BY_PORT[sport] | tunnels.BY_PROTOCOL[net.proto])
    candidates = candidates[net.good[candidates] & ~net.fragment[candidates] & (seen[candidates] != transport.HEP)]
    if not len(candidates):
        return None
    udp = net.proto[candidates] == 17
    port = tunnels.BY_PORT[dport[candidates]]
    port = np.where(port == 0, tunnels.BY_PORT[sport[candidates]], port)
    kind = np.where(udp, port, tunnels.BY_PROTOCOL[net.proto[candidates]])
    # What the outer headers say of the length holds for what is inside; the snap length may have cut it.
    wire_end = net.at + net.size
    found: list[tuple[I64, I64, U16, U16, Mask]] = []
    for one in np.unique(kind[kind != 0]).tolist():
        mine = candidates[kind == one]
        end = payload[mine] + captured[mine]
        inside = tunnels.open_kind(space, one - 1, payload[mine], end, np.maximum(wire_end[mine], end))
        keep = np.flatnonzero(inside.good)
        mine = mine[keep]
        where = rows[mine]
        path, six = wrapping.of(where), net.version[mine] == 6
        named = inside.kind[keep] if inside.kind is not None else np.full(len(keep), one - 1, np.uint8)
        for name in np.unique(named).tolist():
            pick = named == name
            path[pick] = paths.extend(path[pick], name, inside.ident[keep][pick], six[pick], net.src[mine][pick],
                                      net.dst[mine][pick])
        exact = inside.exact[keep] if inside.exact is not None else np.zeros(len(keep), np.bool_)
        found.append((mine, inside.at[keep], inside.protocol[keep], path, exact))
    if not found:
        return None
    index = np.concatenate([f[0] for f in found])
    order = np.argsort(index)
    index, at = index[order], np.concatenate([f[1] for f in found])[order]
    protocol, path = (np.concatenate([f[i] for f in found])[order] for i in (2, 3))
    exact = np.concatenate([f[4] for f in found])[order]
    end = payload[index] + captured[index]
    wire_end = np.maximum(wire_end[index], end)
    mirrored = protocol == ETHERNET
    network = link.follow(space, at, protocol, end, paths, path)
    six = network.protocol == IP6
    inner = six | (network.protocol == IP4)
    check = np.flatnonzero(exact & inner)
    if len(check):
        inner[check] = ip.fills(space, network.at[check], end[check], wire_end[check], six[check])
    keep = np.flatnonzero(inner)
    if not len(keep):
        return None
    index = index[keep]
    where = rows[index]
    wrapping.propose(where, path[keep])
    return where, network.at[keep], end[keep], wire_end[keep], six[keep], mirrored[keep]


def ascending(segments: list[Columns]) -> Columns:
    """TCP columns put together in the order of their rows."""
    every = {name: np.concatenate([s[name] for s in segments]) for name in TCP_COLUMNS}
    order = np.argsort(every["row"], kind="stable")
    return {name: column[order] for name, column in every.items()}
