"""Fixtures that all tests share."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checkout import REAL, PcapWriter, real_captures


@pytest.fixture(scope="session")
def real() -> Path:
    if not real_captures():
        pytest.skip(f"no real captures in {REAL} (set NETDIAG_REAL_CAPTURES)")
    return REAL


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
