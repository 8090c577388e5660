"""Shared fixtures: the checkout, the shared real captures, and a writer of small pcap files."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[1]
REAL = Path(os.environ.get("NETDIAG_REAL_CAPTURES", ROOT.parent / "shared" / "captures"))
"""Real captures that are not part of the project; tests on them run where they are present."""


def real_captures() -> list[Path]:
    """Every real capture beside the checkout; empty where there are none."""
    return sorted(p for p in REAL.glob("*.pcap*") if p.is_file())


@pytest.fixture(scope="session")
def real() -> Path:
    if not real_captures():
        pytest.skip(f"no real captures in {REAL} (set NETDIAG_REAL_CAPTURES)")
    return REAL


PcapWriter = Callable[..., Path]


@pytest.fixture
def pcap(tmp_path: Path) -> PcapWriter:
    """``pcap([(ns, frame)…], order="<", ns=True, link=1, snaplen=262144) -> path``."""
    count = 0

    def write(frames: list[tuple[int, bytes]], order: str = "<", ns: bool = True, link: int = 1,
              snaplen: int = 262144, name: str | None = None) -> Path:
        nonlocal count
        count += 1
        path = tmp_path / (name or f"capture{count}.pcap")
        magic = 0xA1B23C4D if ns else 0xA1B2C3D4
        out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link)]
        for ts, frame in frames:
            out.append(struct.pack(order + "IIII", ts // 10**9, ts % 10**9 // (1 if ns else 1000),
                                   min(len(frame), snaplen), len(frame)) + frame[:snaplen])
        path.write_bytes(b"".join(out))
        return path

    return write


def udp_frame(src: str = "192.0.2.1", dst: str = "198.51.100.2", sport: int = 4000, dport: int = 5000,
              payload: bytes = b"x" * 20, ident: int = 1) -> bytes:
    """Ethernet, IPv4, UDP without checksums."""
    def address(text: str) -> bytes:
        return bytes(map(int, text.split(".")))
    udp = struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), ident, 0x4000, 64, 17, 0) + address(src) + address(dst)
    return bytes.fromhex("020000000002020000000001") + b"\x08\x00" + ip + udp
