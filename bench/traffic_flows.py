"""A fixed number of flows that go on for any number of packets: for measuring how time grows.

Packet ``i`` belongs to flow ``i % flows``, so a short capture is the beginning of a long one. Even flows are RTP
(G.729, one direction, 1 % lost), odd flows are TCP connections met in the middle: 20 bytes of data, then its ACK, one
data segment in a hundred being sent twice.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np
from frames import ACK, PSH_ACK, address, tcp, udp
from records import RECORD, Array

BEGIN_NS = 1_700_000_000_000_000_000
PERIOD_NS = 20_000_000
"""Between two packets of a flow: that of G.729 with two frames a packet (RFC 3551 §4.5.6)."""
PCAP_HEADER_NS = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
"""Little-endian, nanoseconds, Ethernet: a million flows are a million packets in 20 ms."""
CHUNK = 250_000
BODY = 20
"""Bytes of payload: two G.729 frames, and as much TCP data."""


def append(out: BinaryIO, flows: int, begin: int, end: int) -> None:
    """Writes packets ``begin`` to ``end`` of a capture with that many flows."""
    for at in range(begin, end, CHUNK):
        out.write(_records(np.arange(at, min(end, at + CHUNK)), flows))


def _records(number: Array, flows: int) -> bytes:
    flow, turn = number % flows, number // flows
    rtp, ack = flow % 2 == 0, (flow % 2 == 1) & (turn % 2 == 1)
    voice = udp(0, address(172, 16, 0, 0), 0, 0, struct.pack(">BBHII", 0x80, 18, 0, 0, 0) + b"\xd5" * BODY)
    data = tcp(0, address(172, 16, 0, 0), 0, 0, 0, 0, PSH_ACK, b"\xd5" * BODY)
    reply = tcp(0, address(172, 16, 0, 0), 0, 0, 0, 0, ACK)
    width = RECORD + max(len(voice), len(data))
    rows = np.zeros((len(number), width), np.uint8)
    size = np.empty(len(number), np.int64)
    for mask, frame in ((rtp, voice), (~rtp & ~ack, data), (ack, reply)):
        rows[mask, RECORD : RECORD + len(frame)] = np.frombuffer(frame, np.uint8)
        size[mask] = RECORD + len(frame)
    ts = BEGIN_NS + turn * PERIOD_NS + flow * PERIOD_NS // flows
    for at, column in enumerate((ts // 10**9, ts % 10**9, size - RECORD, size - RECORD)):
        rows[:, 4 * at : 4 * at + 4] = column.astype("<u4").view(np.uint8).reshape(-1, 4)

    caller, callee = address(10, 0, 0, 0) + flow, address(172, 16, 0, 0) + flow % 1000
    low, high = 10_000 + 2 * (flow % 20_000), np.where(rtp, 40_000 + 2 * (flow % 10_000), 9000)
    _put(rows, 26, np.where(ack, callee, caller), 4)
    _put(rows, 30, np.where(ack, caller, callee), 4)
    _put(rows, 34, np.where(ack, high, low), 2)
    _put(rows, 36, np.where(ack, low, high), 2)
    _checksums(rows)

    sequence = turn + turn // 100
    _put(rows, 44, sequence, 2, rtp)
    _put(rows, 46, sequence * 160, 4, rtp)
    _put(rows, 50, 0x20000000 + flow, 4, rtp)
    segment = turn // 2
    sent = segment - segment // 100  # every hundredth repeats the one before
    stands = (sent + 1) * BODY
    _put(rows, 38, np.where(ack, 1, 1 + sent * BODY), 4, ~rtp)
    _put(rows, 42, np.where(ack, 1 + stands, 1), 4, ~rtp)
    return rows[np.arange(width) < size[:, None]].tobytes()


def _put(rows: Array, at: int, value: Array, width: int, mask: Array | None = None) -> None:
    """Big-endian numbers into the frames, ``at`` bytes from their start."""
    field = (value % (1 << 8 * width)).astype(f">u{width}").view(np.uint8).reshape(-1, width)
    where = slice(RECORD + at, RECORD + at + width)
    if mask is None:
        rows[:, where] = field
    else:
        rows[mask, where] = field[mask]


def _checksums(rows: Array) -> None:
    """IPv4 header checksums (RFC 791 §3.1)."""
    rows[:, RECORD + 24 : RECORD + 26] = 0
    header = np.ascontiguousarray(rows[:, RECORD + 14 : RECORD + 34])
    total = header.view(">u2").astype(np.uint32).sum(1)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    _put(rows, 24, ~total & 0xFFFF, 2)
