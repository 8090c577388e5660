"""TCP frames for the tests: Ethernet, IPv4, TCP without checksums."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from pathlib import Path

from netdiag.tables import Tables
from netdiag.tables.reader import open_captures

CLIENT, SERVER = "192.0.2.10", "198.51.100.20"
CLIENT_PORT, SERVER_PORT = 40000, 443
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MS = 1_000_000
START = 1_700_000_000_000_000_000

Frame = tuple[int, bytes]


def ip4(src: str, dst: str, proto: int, payload: bytes, ttl: int = 64, ident: int = 0, fragment: int = 0x4000) -> bytes:
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), ident, fragment, ttl, proto, 0)
    packet = header + ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed + payload
    return bytes.fromhex("020000000002020000000001") + b"\x08\x00" + packet


def ip6(src: str, dst: str, proto: int, payload: bytes, hops: int = 64) -> bytes:
    header = struct.pack(">IHBB", 6 << 28, len(payload), proto, hops)
    packet = header + ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed + payload
    return bytes.fromhex("020000000002020000000001") + b"\x86\xdd" + packet


def tcp_header(sport: int, dport: int, seq: int, ack: int, flags: int, window: int = 64240,
               options: bytes = b"") -> bytes:
    options += b"\0" * (-len(options) % 4)
    return struct.pack(">HHIIBBHHH", sport, dport, seq % (1 << 32), ack % (1 << 32), (5 + len(options) // 4) << 4,
                       flags, window, 0, 0) + options


class Talk:
    """Collects the frames of one connection; times in milliseconds, sequence numbers as given."""

    def __init__(self, client_isn: int = 1000, server_isn: int = 5000, client_port: int = CLIENT_PORT) -> None:
        self.frames: list[Frame] = []
        self.client_isn, self.server_isn, self.port = client_isn, server_isn, client_port

    def c(self, ms: float, flags: int, seq: int, ack: int = 0, data: bytes = b"", window: int = 64240,
          options: bytes = b"", ttl: int = 64, ident: int = 0) -> Talk:
        """Client sends; ``seq`` and ``ack`` count from the ISNs."""
        header = tcp_header(self.port, SERVER_PORT, self.client_isn + seq,
                            self.server_isn + ack if flags & ACK else 0, flags, window, options)
        self.frames.append((START + int(ms * MS), ip4(CLIENT, SERVER, 6, header + data, ttl, ident)))
        return self

    def s(self, ms: float, flags: int, seq: int, ack: int = 0, data: bytes = b"", window: int = 64240,
          options: bytes = b"", ttl: int = 57, ident: int = 0) -> Talk:
        """Server sends."""
        header = tcp_header(SERVER_PORT, self.port, self.server_isn + seq,
                            self.client_isn + ack if flags & ACK else 0, flags, window, options)
        self.frames.append((START + int(ms * MS), ip4(SERVER, CLIENT, 6, header + data, ttl, ident)))
        return self

    def handshake(self, ms: float = 0, rtt: float = 10) -> Talk:
        return self.c(ms, SYN, 0).s(ms + rtt, SYN | ACK, 0, 1).c(ms + rtt, ACK, 1, 1)


def write(path: Path, frames: Iterable[Frame], snaplen: int = 262144) -> Path:
    """A pcap file with nanosecond times."""
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, snaplen, 1)]
    for ts, frame in frames:
        head = struct.pack("<IIII", ts // 10**9, ts % 10**9, min(len(frame), snaplen), len(frame))
        out.append(head + frame[:snaplen])
    path.write_bytes(b"".join(out))
    return path


def read(path: Path, frames: Iterable[Frame], snaplen: int = 262144) -> Tables:
    """Tables over frames, through a file at ``path``."""
    return open_captures([str(write(path, frames, snaplen))])
