"""Where the checkout and the real captures are, and how to make a small frame."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("NETDIAG_REAL_CAPTURES", ROOT.parent / "shared" / "captures"))
"""Real captures that are not part of the project; tests on them run where they are present."""


def real_captures() -> list[Path]:
    """Every real capture beside the checkout; empty where there are none."""
    return sorted(p for p in REAL.glob("*.pcap*") if p.is_file())


PcapWriter = Callable[..., Path]


def udp_frame(src: str = "192.0.2.1", dst: str = "198.51.100.2", sport: int = 4000, dport: int = 5000,
              payload: bytes = b"x" * 20, ident: int = 1) -> bytes:
    """Ethernet, IPv4, UDP without checksums."""
    def address(text: str) -> bytes:
        return bytes(map(int, text.split(".")))
    udp = struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), ident, 0x4000, 64, 17, 0) + address(src) + address(dst)
    return bytes.fromhex("020000000002020000000001") + b"\x08\x00" + ip + udp
