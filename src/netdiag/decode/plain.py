"""Frames of the commonest shape in one pass: Ethernet or Linux cooked, whole IPv4 without options, UDP or TCP.

All headers lie at fixed places, so that one gather fetches them. Whatever differs in anything, tunnels
included, is left to the layers one by one (``frames``); both ways give the same columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netdiag.capture.records import Records
from netdiag.capture.space import Space
from netdiag.decode import transport, tunnels
from netdiag.decode.store import Columns

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

LINKS = {1: 14, 113: 16}
"""Link type to the size of its header, the last two bytes of which are the EtherType."""
_HEAD = np.dtype({
    "names": ["type", "version", "total", "id", "fragment", "ttl", "proto", "src", "dst", "sport", "dport", "size",
              "sum", "b0", "b1", "w0", "w1", "seq", "ack", "offset", "flags", "window"],
    "formats": ["<u2", "u1", ">u2", ">u2", "<u2", "u1", "u1", ">u4", ">u4", ">u2", ">u2", ">u2",
                "<u2", "u1", "u1", "<u4", "<u4", ">u4", ">u4", "u1", "u1", ">u2"],
    "offsets": [0, 2, 4, 6, 8, 10, 11, 14, 18, 22, 24, 26, 28, 30, 31, 30, 34, 26, 30, 34, 35, 36], "itemsize": 44,
})
"""EtherType, IPv4 (RFC 791 §3.1), then UDP (RFC 768) and TCP (RFC 9293 §3.1) over one another.

b0, b1, w0 and w1 are the first bytes of a UDP payload.
"""
_HARDWARE = (1, 512, 772, 65534)
"""ARPHRD values of Linux whose cooked frames hold plain EtherTypes: Ethernet, PPP, loopback, none."""
_IPV4, _FRAGMENT = 0x0008, 0xFF3F
"""EtherType, and the bits of a fragment but for "do not fragment", as little-endian numbers."""


def decode(space: Space, records: Records, out: Columns, first_row: int) -> tuple[Mask | None, Columns | None]:
    """Which frames of one link type were decoded into ``out`` (None: all of them), and their TCP columns."""
    base = LINKS[int(records.link[0])]
    h = space.gather(records.offset + (base - 2), _HEAD.itemsize).view(_HEAD).reshape(-1)
    proto, total = h["proto"], h["total"].astype(np.int64)
    left = records.captured.astype(np.int64) - (base + 20)  # captured bytes behind the IP header
    usual = (h["type"] == _IPV4) & (h["version"] == 0x45) & (h["fragment"] & _FRAGMENT == 0)
    if base == LINKS[113]:
        usual &= np.isin(space.numbers(">u2")[records.offset + 2], _HARDWARE)
    udp, tcp = proto == 17, proto == 6
    size = h["size"].astype(np.int64)
    header = np.full(len(h), 8, np.int64)
    some_tcp = bool(tcp.any())
    if some_tcp:
        header[tcp] = (h["offset"][tcp] >> 4).astype(np.int64) * 4
        size[tcp] = (total - 20)[tcp]
    # UDP's own length and TCP's header must fit into IP's, and both headers into what was captured.
    usual &= (udp & (left >= 8)) | (tcp & (left >= 20) & (header >= 20))
    usual &= (size >= header) & (total >= 20 + size)
    sport, dport = h["sport"].astype(np.uint16), h["dport"].astype(np.uint16)
    usual &= ~udp | (tunnels.BY_PORT[sport] | tunnels.BY_PORT[dport] == 0)
    wire = size - header
    captured = np.minimum(wire, np.maximum(left - header, 0))
    kind = transport.udp_kind(h, np.where(udp, captured, 0) if some_tcp else captured)
    usual &= kind != transport.HEP
    whole = bool(usual.all())
    rows: I64 | slice = slice(None) if whole else np.flatnonzero(usual)
    start = np.minimum(records.offset + (base + 20) + header, records.offset + records.captured)
    if some_tcp:
        there = np.flatnonzero(tcp & usual & (captured >= 4))
        kind[there] = transport.tcp_kind(space, start[there])
    dns = ((sport == 53) | (dport == 53)) & (captured >= 2)
    kind[dns] = transport.DNS
    for name, column in (("src", h["src"]), ("dst", h["dst"]), ("proto", proto), ("ttl", h["ttl"]), ("ip_id", h["id"]),
                         ("sport", sport), ("dport", dport), ("kind", kind), ("offset", start), ("length", captured),
                         ("wire", wire)):
        out[name][rows] = column[rows]
    out["flags"][rows] |= 1
    segments: Columns | None = None
    if some_tcp:
        mine = np.flatnonzero(tcp & usual)
        segments = {"row": (mine + first_row).astype(np.uint32), "header": header[mine].astype(np.uint8),
                    **{name: h[name][mine].astype(h[name].dtype.newbyteorder("=")) for name in (
                        "seq", "ack", "window", "flags")}}
    return None if whole else usual, segments
