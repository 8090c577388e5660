"""Capture files of every format, made byte by byte, and how a format's reader reads them."""

from __future__ import annotations

import os
import struct
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from checkout import udp_frame

from netdiag.capture import formats
from netdiag.capture.records import FileNotes, Records
from netdiag.capture.space import Space
from netdiag.errors import CaptureError

NS = 1_767_225_600_000_000_000


@dataclass(slots=True)
class Read:
    """A file as its format's reader gives it."""

    notes: FileNotes
    space: Space
    frames: list[bytes] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    wire: list[int] = field(default_factory=list)
    links: list[int] = field(default_factory=list)


def read(path: Path) -> Read:
    """CaptureError when no format fits."""
    fd = os.open(path, os.O_RDONLY)
    try:
        space = Space([(fd, path.stat().st_size)])
    finally:
        os.close(fd)
    extent = space.extents[0]
    reader = formats.reader(space.read(0, min(extent.size, formats.HEAD)))
    if reader is None:
        raise CaptureError("no reader")
    out = Read(FileNotes(), space)
    for batch in reader(space, extent, out.notes, str(path)):
        check(batch, extent.end)
        out.frames += [space.read(int(at), int(size)) for at, size in zip(batch.offset, batch.captured, strict=True)]
        out.ts += batch.ts.tolist()
        out.wire += batch.wire.tolist()
        out.links += batch.link.tolist()
    return out


def check(batch: Records, end: int) -> None:
    """A reader must not point out of its file, whatever the file says."""
    assert (batch.offset >= 0).all()
    assert (batch.offset + batch.captured <= end).all()
    assert (batch.wire >= batch.captured).all()


def frames(n: int) -> list[tuple[int, bytes]]:
    return [(NS + i * 20_000_000, udp_frame(sport=4000 + i % 7, payload=bytes([i % 251]) * (20 + i % 90)))
            for i in range(n)]


def lines(*argv: str) -> list[list[str]]:
    done = subprocess.run(argv, capture_output=True, check=False)
    return [line.split("\t") for line in done.stdout.decode("utf-8", "replace").splitlines()]


# pcap


def record(frame: bytes, ts: int, order: str = "<", unit: int = 1000, extra: bytes = b"", swap: bool = False) -> bytes:
    """A record of a frame that was five bytes longer on the wire; ``swap``: the wire length stands first."""
    lengths = (len(frame) + 5, len(frame)) if swap else (len(frame), len(frame) + 5)
    return struct.pack(order + "IIII", ts // 10**9, ts % 10**9 // unit, *lengths) + extra + frame


def classic(records: list[bytes], magic: int = 0xA1B2C3D4, order: str = "<", version: tuple[int, int] = (2, 4),
            network: int = 1, snaplen: int = 262144, more: bytes = b"") -> bytes:
    head = struct.pack(order + "IHHiIII", magic, *version, 0, 0, snaplen, network)
    return head + more + b"".join(records)


LINUX = struct.pack("<IHBB", 3, 0x0800, 4, 0)
SMP = LINUX[:7] + b"\0" * 5
NOKIA = struct.pack("<I", 0x9FBFB601)


# Sun snoop and Endace ERF


def snoop(items: list[tuple[int, bytes]], datalink: int = 4, trailer: int = 0, drops: int = 0) -> bytes:
    out = [b"snoop\0\0\0" + struct.pack(">II", 2, datalink)]
    for i, (ts, frame) in enumerate(items):
        padding = -len(frame) % 4 + trailer
        out.append(struct.pack(">IIIIII", len(frame) + 5, len(frame), 24 + len(frame) + padding, drops * i,
                               ts // 10**9, ts % 10**9 // 1000) + frame + b"\0" * padding)
    return b"".join(out)


def erf(items: list[tuple[int, bytes]], kind: int = 2, extensions: int = 0, lost: int = 0) -> bytes:
    out = []
    for ts, frame in items:
        head = b"".join(bytes([0x80 if i < extensions - 1 else 0]) + b"\0" * 7 for i in range(extensions))
        body = head + (b"\0\0" if kind == 2 else b"") + frame
        body += b"\0" * (-len(body) % 8)
        stamp = (ts // 10**9 << 32) | ((ts % 10**9 << 32) // 10**9)
        out.append(struct.pack("<QBB", stamp, kind | (0x80 if extensions else 0), 4)
                   + struct.pack(">HHH", 16 + len(body), lost, len(frame)) + body)
    return b"".join(out)


# pcapng


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += b"\0" * (-len(body) % 4)
    size = len(body) + 12
    return struct.pack(order + "II", kind, size) + body + struct.pack(order + "I", size)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def section(order: str = "<", length: int = -1, version: tuple[int, int] = (1, 0)) -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, *version, length), order)


def interface(number: int = 1, snaplen: int = 0, options: bytes = b"", order: str = "<") -> bytes:
    return block(1, struct.pack(order + "HHI", number, 0, snaplen) + options, order)


def packet(frame: bytes, ticks: int, which: int = 0, options: bytes = b"", order: str = "<") -> bytes:
    body = struct.pack(order + "IIIII", which, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame))
    return block(6, body + frame + b"\0" * (-len(frame) % 4) + options, order)


def old_packet(frame: bytes, ticks: int, drops: int) -> bytes:
    return block(2, struct.pack("<HHIIII", 0, drops, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame)) + frame)


def statistics(which: int, *counts: tuple[int, int]) -> bytes:
    return block(5, struct.pack("<III", which, 0, 0) + b"".join(option(c, struct.pack("<Q", n)) for c, n in counts))
