"""IPv4 and IPv6 headers, in columns."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space

I64 = npt.NDArray[np.int64]

_V4 = np.dtype({
    "names": ["version", "total", "id", "fragment", "ttl", "proto", "src", "dst"],
    "formats": ["u1", ">u2", ">u2", ">u2", "u1", "u1", ">u4", ">u4"],
    "offsets": [0, 2, 4, 6, 8, 9, 12, 16], "itemsize": 20,
})
"""RFC 791 §3.1."""
_V6 = np.dtype({
    "names": ["version", "length", "next", "hops", "src_hi", "src_lo", "dst_hi", "dst_lo"],
    "formats": ["u1", ">u2", "u1", "u1", "<u8", "<u8", "<u8", "<u8"],
    "offsets": [0, 4, 6, 7, 8, 16, 24, 32], "itemsize": 40,
})
"""RFC 8200 §3; addresses as two opaque 64-bit halves."""
_EXTENSIONS = (0, 43, 44, 51, 60)
"""Hop-by-hop, routing, fragment, authentication, destination options (RFC 8200 §4, RFC 4302)."""
_CHAIN = 8
"""Extension headers followed; RFC 8200 §4.1 names seven in their recommended order."""
_AUTHENTICATION, _SHORTEST = 51, 12
"""Authentication header, and its bytes without a check value (RFC 4302 §2)."""
_PADDED = 46
"""Bytes to which Ethernet pads what it carries (IEEE 802.3 §3.2.8)."""


@dataclass(slots=True)
class Internet:
    """IP fields of a batch of frames; where ``good`` is False the others mean nothing."""

    good: npt.NDArray[np.bool_]
    version: npt.NDArray[np.uint8]
    src: npt.NDArray[np.uint32]
    dst: npt.NDArray[np.uint32]
    proto: npt.NDArray[np.uint8]
    ttl: npt.NDArray[np.uint8]
    id: npt.NDArray[np.uint16]
    at: I64
    """Where the payload of IP starts."""
    size: I64
    """Its bytes on the wire, as the header says."""
    fragment: npt.NDArray[np.bool_]
    piece: npt.NDArray[np.int64]
    """Offset of a fragment in its datagram, bytes."""
    more: npt.NDArray[np.bool_]
    frag_id: npt.NDArray[np.uint32]

    def take(self, index: I64) -> Internet:
        """These rows only."""
        return Internet(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(slots=True)
class Addresses6:
    """IPv6 addresses seen, each with a number."""

    values: list[bytes] = field(default_factory=list)
    _index: dict[bytes, int] = field(default_factory=dict)

    def intern(self, hi: npt.NDArray[np.uint64], lo: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
        """Numbers of addresses given as little-endian halves of their bytes."""
        pair = np.empty((len(hi), 2), "<u8")
        pair[:, 0], pair[:, 1] = hi, lo
        order = np.lexsort((pair[:, 1], pair[:, 0]))
        ordered = pair[order]
        new = np.ones(len(order), bool)
        new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        group = np.cumsum(new) - 1
        numbers = np.array([self._number(bytes(raw)) for raw in ordered[new].view("V16").reshape(-1)], np.uint32)
        out = np.empty(len(order), np.uint32)
        if len(numbers):
            out[order] = numbers[group]
        return out

    def _number(self, raw: bytes) -> int:
        number = self._index.get(raw)
        if number is None:
            number = self._index[raw] = len(self.values)
            self.values.append(raw)
        return number


def decode(space: Space, at: I64, end: I64, wire_end: I64, six: npt.NDArray[np.bool_],
           addresses: Addresses6) -> Internet:
    """IP headers at ``at``; ``end`` is where the captured bytes stop, ``wire_end`` where the frame did."""
    n = len(at)
    out = Internet(
        np.zeros(n, bool), np.where(six, 6, 4).astype(np.uint8), np.zeros(n, np.uint32), np.zeros(n, np.uint32),
        np.zeros(n, np.uint8), np.zeros(n, np.uint8), np.zeros(n, np.uint16), at.copy(), np.zeros(n, np.int64),
        np.zeros(n, bool), np.zeros(n, np.int64), np.zeros(n, bool), np.zeros(n, np.uint32))
    if not six.any():
        _four(space, at, end, wire_end, out, slice(None))
    else:
        rows = np.flatnonzero(~six)
        if len(rows):
            _four(space, at[rows], end[rows], wire_end[rows], out, rows)
        _sixth(space, at, end, wire_end, out, np.flatnonzero(six), addresses)
    return out


def _four(space: Space, at: I64, end: I64, wire_end: I64, out: Internet, rows: I64 | slice) -> None:
    h = space.gather(at, 20).view(_V4).reshape(-1)
    version = h["version"]
    header = (version & 15).astype(np.int64) * 4
    total = h["total"].astype(np.int64)
    # A length of 0 is what a sending host shows with segmentation offload: then the frame's length counts.
    total = np.where(total == 0, wire_end - at, total)
    out.good[rows] = (version >> 4 == 4) & (header >= 20) & (total >= header) & (at + header <= end)
    fragment = h["fragment"]
    out.src[rows], out.dst[rows] = h["src"], h["dst"]
    out.proto[rows], out.ttl[rows], out.id[rows] = h["proto"], h["ttl"], h["id"]
    out.at[rows], out.size[rows] = at + header, np.maximum(total - header, 0)
    out.fragment[rows] = (fragment & 0x3FFF) != 0
    out.piece[rows] = (fragment & 0x1FFF).astype(np.int64) * 8
    out.more[rows] = (fragment & 0x2000) != 0
    out.frag_id[rows] = h["id"]


def authenticated(space: Space, net: Internet, end: I64) -> None:
    """Passes authentication headers of IPv4 packets, which IPv6 has among its extension headers; one that does not lie
    in its packet, and in the captured bytes before ``end``, is what the packet carries. Changes ``net`` in place.
    """
    todo = np.flatnonzero(net.proto == _AUTHENTICATION)
    todo = todo[net.good[todo] & (net.version[todo] == 4) & ~net.fragment[todo]]
    for _ in range(_CHAIN):
        if not len(todo):
            break
        head = space.gather(net.at[todo], 2)
        size = (head[:, 1].astype(np.int64) + 2) * 4  # RFC 4302 §2.2
        there = (size >= _SHORTEST) & (size <= net.size[todo]) & (net.at[todo] + size <= end[todo])
        todo, size = todo[there], size[there]
        net.at[todo] += size
        net.size[todo] -= size
        net.proto[todo] = head[there, 0]
        todo = todo[net.proto[todo] == _AUTHENTICATION]


def fills(space: Space, at: I64, end: I64, stop: I64, six: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Is there an IP header at ``at`` whose packet ends where its carrier does on the wire (``stop``), but for the
    padding of a short Ethernet frame; of IPv4 with the right checksum (RFC 791 §3.1)?
    """
    h = space.gather(at, 60)
    words = h.view(">u2").astype(np.int64)
    header = np.where(six, 40, (h[:, 0] & 15).astype(np.int64) * 4)
    size = np.where(six, 40 + words[:, 2], words[:, 1])
    good = (h[:, 0] >> 4 == np.where(six, 6, 4)) & (header >= 20) & (size >= header) & (at + header <= end)
    total = (words * (np.arange(30) < header[:, None] // 2)).sum(axis=1)
    total = (total & 0xFFFF) + (total >> 16)
    good &= six | ((total & 0xFFFF) + (total >> 16) == 0xFFFF)
    out: npt.NDArray[np.bool_] = good & ((at + size == stop) | ((at + size < stop) & (stop - at <= _PADDED)))
    return out


def _sixth(space: Space, at: I64, end: I64, wire_end: I64, out: Internet, rows: I64, addresses: Addresses6) -> None:
    at, end, wire_end = at[rows], end[rows], wire_end[rows]
    h = space.gather(at, 40).view(_V6).reshape(-1)
    length = h["length"].astype(np.int64)
    length = np.where(length == 0, wire_end - at - 40, length)  # jumbogram or offload
    out.good[rows] = (h["version"] >> 4 == 6) & (at + 40 <= end)
    keep = out.good[rows]
    src = addresses.intern(h["src_hi"][keep], h["src_lo"][keep])
    dst = addresses.intern(h["dst_hi"][keep], h["dst_lo"][keep])
    out.src[rows[keep]], out.dst[rows[keep]] = src, dst
    proto = h["next"].copy()
    here = at + 40
    stop = here + np.maximum(length, 0)
    todo = np.flatnonzero(keep & np.isin(proto, _EXTENSIONS))
    for _ in range(_CHAIN):
        if not len(todo):
            break
        head = space.gather(here[todo], 8)
        fragment = np.flatnonzero(proto[todo] == 44)
        if len(fragment):
            mine = rows[todo[fragment]]
            word = head[fragment, 2].astype(np.int64) << 8 | head[fragment, 3]
            out.piece[mine], out.more[mine] = word & 0xFFF8, (word & 1) == 1
            out.fragment[mine] = (word & 0xFFF9) != 0  # an atomic fragment is whole (RFC 6946)
            out.frag_id[mine] = head[fragment, 4:8].copy().view(">u4").reshape(-1)
        inside = _step(head, here, proto, todo, np.minimum(end, stop))
        out.good[rows[todo[~inside]]] = False
        # What follows the header of a fragment is a part of the datagram (RFC 8200 §4.5).
        todo = todo[inside & np.isin(head[:, 0], _EXTENSIONS) & ~out.fragment[rows[todo]]]
    out.proto[rows], out.ttl[rows] = proto, h["hops"]
    out.at[rows], out.size[rows] = here, np.maximum(stop - here, 0)


def _step(head: npt.NDArray[np.uint8], here: I64, proto: npt.NDArray[np.uint8], todo: I64, end: I64
          ) -> npt.NDArray[np.bool_]:
    """Passes the extension headers of the rows ``todo``, whose first bytes are ``head``; which lie before ``end``?"""
    kind = proto[todo]
    size = np.where(kind == 44, 8, np.where(kind == 51, (head[:, 1].astype(np.int64) + 2) * 4,
                                            (head[:, 1].astype(np.int64) + 1) * 8))
    inside: npt.NDArray[np.bool_] = here[todo] + size <= end[todo]
    here[todo] += np.where(inside, size, 0)
    proto[todo] = head[:, 0]
    return inside


def behind_extensions(space: Space, at: I64, end: I64, proto: npt.NDArray[np.uint8]
                      ) -> tuple[I64, npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Place and protocol of what follows the extension headers at ``at``, and where they hold together."""
    here, proto, good = at.copy(), proto.copy(), np.ones(len(at), np.bool_)
    todo = np.flatnonzero(np.isin(proto, _EXTENSIONS))
    for _ in range(_CHAIN):
        if not len(todo):
            break
        head = space.gather(here[todo], 8)
        inside = _step(head, here, proto, todo, end)
        good[todo[~inside]] = False
        todo = todo[inside & np.isin(head[:, 0], _EXTENSIONS)]
    return here, proto, good
