"""The packet table: one row a frame, as NumPy columns over the mapped capture files.

Rows of one capture point stand together, in the order of time of its files. A row number
("packet" in the other tables) is an index into these columns; ``locate`` turns rows into
capture index and Wireshark frame number. Payload is never copied: ``offset`` and ``length``
say where it lies in ``space``.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space
from netdiag.decode import frames, transport
from netdiag.decode.encap import NAMES, NUMBERED, Level

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

# Bits of ``flags``; most are set where the headers are decoded.
IPV4 = frames.IPV4
IPV6 = frames.IPV6
CUT = frames.CUT
"""The frame was captured shorter than it was on the wire (snap length)."""
FRAGMENT = frames.FRAGMENT
"""A piece of an IP datagram; ``sport``/``dport`` are known only in the first piece or after reassembly."""
REASSEMBLED = frames.REASSEMBLED
"""Last piece to arrive of a datagram that was put together: ``offset``/``length`` are the whole datagram's payload."""
BAD = frames.BAD
"""The IP or transport header does not hold together; the columns behind it are 0."""
FORWARD = 64
"""Same direction as the first packet of its flow."""
FIRST_FRAGMENT = frames.FIRST_FRAGMENT
"""A FRAGMENT that begins its datagram (offset 0)."""

# Values of ``kind``: a guess from the first bytes of the payload, for choosing rows; tables check again.
KIND_NONE = transport.NONE
KIND_SIP = transport.SIP
KIND_RTP = transport.RTP
"""RTP or RTCP by version 2 (RFC 3550 §5.1), UDP only."""
KIND_TLS = transport.TLS
"""Starts like a TLS record (RFC 8446 §5.1), TCP only."""
KIND_STUN = transport.STUN
"""Magic cookie of RFC 8489 §5 in place, UDP only."""
KIND_DNS = transport.DNS
"""UDP or TCP, either port 53."""
KIND_DTLS = transport.DTLS
KIND_HTTP = transport.HTTP
"""Starts like the GET that a WebSocket begins with (RFC 6455 §4.1), TCP only."""
KIND_KEEPALIVE = transport.KEEPALIVE
"""UDP payload of CRLF or CRLFCRLF only (RFC 5626 §3.5.1), or up to 4 bytes of NUL/CR/LF."""

TCP = 6
UDP = 17
ICMP = 1
ICMPV6 = 58

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


@dataclass(slots=True)
class TcpColumns:
    """TCP header fields; row i of these belongs to packet ``row[i]``; ascending."""

    row: U32
    seq: U32
    ack: U32
    window: U16
    """As on the wire, not scaled."""
    flags: U8
    header: U8
    """Header length in bytes (options included); the header starts at ``offset - header``."""


@dataclass(slots=True)
class Duplicates:
    """Packets that the capture holds twice. They belong to no flow and to no table; ``Packets.tcp`` lacks them too."""

    row: U32
    """Packet rows set aside, ascending."""
    of: U32
    """The packet that each repeats."""
    kind: U8
    """0: the same packet of the same segment; 1: behind a router (TTL lower)."""


@dataclass(slots=True)
class Packets:
    """Columns of equal length ``n``."""

    space: Space
    ts: I64
    """Nanoseconds since the epoch."""
    src: U32
    """IPv4 address as a number; for IPv6 (flags & IPV6) an index into ``v6``."""
    dst: U32
    sport: U16
    dport: U16
    proto: U8
    """IP protocol number (after IPv6 extension headers), 0 where there is no IP."""
    ttl: U8
    ip_id: U16
    """IPv4 identification; 0 for IPv6."""
    flags: U8
    kind: U8
    offset: I64
    """Where the transport payload starts in ``space``; for ICMP and other protocols, where the IP payload starts."""
    length: U32
    """Captured bytes of that payload."""
    wire: U32
    """Bytes of that payload on the wire, from the IP header."""
    flow: U32
    """Flow id, an index into ``flows``; packets without IP, and those captured twice, have ``len(flow_start)``."""
    order: U32
    """Rows sorted by flow, in order of time inside a flow."""
    flow_start: I64
    """For each flow, where its rows start in ``order``."""
    flow_size: I64
    tcp: TcpColumns
    v6: list[bytes]
    """16-byte addresses."""
    files: FileMap
    encap: U16 | None = None
    """What each packet is wrapped in, an index into ``paths``; None where no packet is wrapped."""
    paths: list[tuple[Level, ...]] = field(default_factory=lambda: [()])
    duplicates: Duplicates | None = None
    """Packets captured twice, which no table counts; None without any."""

    @property
    def n(self) -> int:
        return len(self.ts)

    def flow_rows(self, flow: int) -> U32:
        """Rows of one flow, in order of time."""
        a = int(self.flow_start[flow])
        return self.order[a : a + int(self.flow_size[flow])]

    def payload(self, row: int, limit: int | None = None) -> bytes:
        """Captured payload of one packet, at most ``limit`` bytes."""
        size = int(self.length[row])
        if limit is not None and size > limit:
            size = limit
        return self.space.read(int(self.offset[row]), size)

    def head(self, rows: npt.ArrayLike, width: int) -> U8:
        """First ``width`` payload bytes of each row, shape (len(rows), width); what was not captured is 0."""
        index = np.asarray(rows)
        out = self.space.gather(self.offset[index], width)
        have = self.length[index]
        short = np.flatnonzero(have < width)
        if len(short):
            out[short] *= (np.arange(width) < have[short, None]).astype(np.uint8)
        return out

    def address(self, value: int, flags: int) -> str:
        """Text of a ``src``/``dst`` value of a packet with these ``flags``."""
        if flags & IPV6:
            return str(ipaddress.IPv6Address(self.v6[value]))
        return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"

    def wrapping(self, row: int) -> str:
        """What the packet is wrapped in, outermost first: "VLAN 100 / VXLAN 42 10.0.0.1–10.0.0.2"; "" for nothing."""
        if self.encap is None:
            return ""
        return " / ".join(self._level(level) for level in self.paths[int(self.encap[row])])

    def _level(self, level: Level) -> str:
        parts = [NAMES[level.kind]]
        if level.kind in NUMBERED:
            parts.append(str(level.ident))
        if level.version:
            ends = [self.address(end, IPV6 if level.version == 6 else IPV4) for end in (level.low, level.high)]
            parts.append("–".join(ends))
        return " ".join(parts)

    def source(self, row: int) -> str:
        return self.address(int(self.src[row]), int(self.flags[row]))

    def destination(self, row: int) -> str:
        return self.address(int(self.dst[row]), int(self.flags[row]))

    def locate(self, rows: npt.ArrayLike) -> tuple[U16, U32]:
        """Capture index (into ``Tables.captures``) and Wireshark frame number of each row."""
        return self.files.locate(np.asarray(rows, dtype=np.int64))

    def points(self, rows: npt.ArrayLike) -> U8:
        """Capture point index (into ``Tables.points``) of each row."""
        return self.files.points(np.asarray(rows, dtype=np.int64))


@dataclass(slots=True)
class FileMap:
    """Which rows came from which file. Rows of a point are one block."""

    capture: U16
    """Capture index of each segment."""
    point: U8
    """Point index of each segment."""
    start: I64
    """First row of each segment, ascending."""
    total: int
    explicit_capture: U16 | None = field(default=None)
    """Set where files of one point overlap in time, so that their rows are interleaved."""
    explicit_frame: U32 | None = field(default=None)

    def locate(self, rows: I64) -> tuple[U16, U32]:
        if self.explicit_capture is not None and self.explicit_frame is not None:
            return self.explicit_capture[rows], self.explicit_frame[rows]
        segment = np.searchsorted(self.start, rows, side="right") - 1
        return self.capture[segment], (rows - self.start[segment] + 1).astype(np.uint32)

    def all_points(self) -> U8:
        """Point index of every row."""
        return np.repeat(self.point, np.diff(np.append(self.start, self.total)))

    def points(self, rows: I64) -> U8:
        segment = np.searchsorted(self.start, rows, side="right") - 1
        return self.point[segment]
