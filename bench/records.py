"""Records of classic pcap: batches of packets, put into the order of time and written as bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
"""Little-endian, microseconds, Ethernet."""
RECORD = 16
"""Bytes of the header that classic pcap puts before each frame."""

Packet = tuple[int, bytes]
"""Microseconds and frame."""


@dataclass(slots=True)
class Batch:
    """Packets in order of time; ``data`` holds their pcap records one behind the other, in any order."""

    ts: Array
    offset: Array
    size: Array
    data: Array

    def split(self, limit: int) -> tuple[Batch, Batch]:
        """What is before ``limit``, and the rest."""
        at = int(np.searchsorted(self.ts, limit))
        return (Batch(self.ts[:at], self.offset[:at], self.size[:at], self.data),
                Batch(self.ts[at:], self.offset[at:], self.size[at:], self.data))


def sort_batch(ts: Array, size: Array, data: Array) -> Batch:
    """A batch from records that lie one behind the other in ``data``; fills in their time and length."""
    offset = np.cumsum(size) - size
    header = np.empty((len(ts), 4), "<u4")
    header[:, 0], header[:, 1] = ts // 1_000_000, ts % 1_000_000
    header[:, 2] = header[:, 3] = size - RECORD
    _windows(data, RECORD)[offset] = header.view(f"V{RECORD}")[:, 0]
    order = np.argsort(ts, kind="stable")
    return Batch(ts[order], offset[order], size[order], data)


def batch_of(packets: list[Packet]) -> Batch:
    """A batch from single frames."""
    data = np.frombuffer(bytearray(b"".join(b"\0" * RECORD + frame for _, frame in packets)), np.uint8)
    ts = np.array([t for t, _ in packets], np.int64)
    return sort_batch(ts, np.array([len(frame) + RECORD for _, frame in packets], np.int64), data)


def _windows(data: Array, width: int) -> Array:
    """All overlapping pieces of ``width`` bytes, for copying many of them at once."""
    return np.ndarray((len(data) - width + 1,), f"V{width}", data, 0, (1,))


def render(batches: list[Batch], limit: int | None) -> bytes:
    """The records of all batches in order of time, at most ``limit`` of them."""
    ts = np.concatenate([b.ts for b in batches])
    order = np.argsort(ts, kind="stable")[:limit]
    size = np.concatenate([b.size for b in batches])
    place = np.full(len(ts), -1, np.int64)
    place[order] = np.cumsum(size[order]) - size[order]
    out = np.empty(int(size[order].sum()), np.uint8)
    begin = 0
    for batch in batches:
        mine = place[begin : begin + len(batch.ts)]
        begin += len(batch.ts)
        for width in np.unique(batch.size).tolist():
            chosen = np.flatnonzero((batch.size == width) & (mine >= 0))
            if len(chosen):
                _windows(out, width)[mine[chosen]] = _windows(batch.data, width)[batch.offset[chosen]]
    return out.tobytes()
