"""Single Ethernet frames with IPv4 and UDP or TCP.

Layer-4 checksums are 0: UDP has none (RFC 768), and TCP has what a sender with offload shows.
"""

from __future__ import annotations

import struct

ETHERNET = bytes.fromhex("020000000001020000000002") + b"\x08\x00"
SYN, ACK, SYN_ACK, PSH_ACK, FIN_ACK, RST_ACK = 2, 16, 18, 24, 17, 20


def address(a: int, b: int, c: int, d: int) -> int:
    return a << 24 | b << 16 | c << 8 | d


def dotted(value: int) -> str:
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def ip(source: int, destination: int, protocol: int, size: int) -> bytes:
    """Ethernet and IPv4 header, DF set, TTL 64, with checksum (RFC 791 §3.1)."""
    words = (0x4500, 20 + size, 0, 0x4000, 64 << 8 | protocol, source >> 16, source & 65535,
             destination >> 16, destination & 65535)
    total = sum(words)
    total = (total & 65535) + (total >> 16)
    total = (total & 65535) + (total >> 16)
    return ETHERNET + struct.pack(">10H", *words[:5], ~total & 65535, *words[5:])


def udp(source: int, destination: int, sport: int, dport: int, payload: bytes) -> bytes:
    size = 8 + len(payload)
    return ip(source, destination, 17, size) + struct.pack(">4H", sport, dport, size, 0) + payload


def tcp(source: int, destination: int, sport: int, dport: int, seq: int, ack: int, flags: int,
        payload: bytes = b"") -> bytes:
    header = struct.pack(">HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, 64240, 0, 0)
    return ip(source, destination, 6, 20 + len(payload)) + header + payload
