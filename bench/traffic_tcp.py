"""Bulk transfers over TCP with loss on both sides of the capture point."""

from __future__ import annotations

import heapq

import numpy as np
from frames import ACK, FIN_ACK, PSH_ACK, RST_ACK, SYN, SYN_ACK, address, tcp
from records import Packet

SEGMENTS = 250
LOSS = 0.01
"""Share of data segments that are lost, half of them before the capture point and half behind it."""
PORT = 9000
"""One that tshark has no dissector for: it would look for HTTP in these bytes, and pay for that."""
FIRST = 32_768
"""Linux's ephemeral ports: net.ipv4.ip_local_port_range is 32768 to 60999."""
GAP_US, TRIP_US = 1_500, 10_000
"""Between two data segments; from a data segment at the capture point to its ACK there."""


def bulk_transfer(k: int, t: int, rng: np.random.Generator) -> list[Packet]:
    """250 segments one way with ACKs; every 40th SYN stays unanswered, every 15th connection ends with RST.

    A lost segment makes the receiver repeat its ACK for each segment that follows, until the third of these
    (RFC 5681 §3.2) brings the segment again.
    """
    a, b, sport = address(10, 4, k >> 8 & 255, k & 255), address(198, 51, 100, k % 250 + 1), FIRST + k % 28_232
    up, down = int(rng.integers(2**32)), int(rng.integers(2**32))
    if k % 40 == 39:  # sent again after 1, 3 and 7 s (RFC 6298 §2.1, §5.5)
        return [(t + 1_000_000 * s, tcp(a, b, sport, PORT, up, 0, SYN)) for s in (0, 1, 3, 7)]
    packets = [(t, tcp(a, b, sport, PORT, up, 0, SYN)), (t + 10_000, tcp(b, a, PORT, sport, down, up + 1, SYN_ACK)),
               (t + 20_000, tcp(a, b, sport, PORT, up + 1, down + 1, ACK))]
    t, up, down, data = t + 30_000, up + 1, down + 1, b"payload %06d " % k * 66
    fate = rng.random(SEGMENTS)
    fate[-20:] = 1  # what is lost at the end needs the timer
    arrivals = []
    for index in range(SEGMENTS):
        sent = t + index * GAP_US
        if not LOSS / 2 <= fate[index] < LOSS:
            packets.append((sent, tcp(a, b, sport, PORT, up + index * len(data), down, PSH_ACK, data)))
        if fate[index] >= LOSS:
            arrivals.append((sent + TRIP_US, index))
    expected = 0
    missing: set[int] = set()
    repeats: dict[int, int] = {}
    while arrivals:
        now, index = heapq.heappop(arrivals)
        missing.update(range(expected, index))
        missing.discard(index)
        beyond, expected = index >= expected, max(expected, index + 1)
        first = min(missing, default=expected)
        packets.append((now, tcp(b, a, PORT, sport, down, up + first * len(data), ACK)))
        if missing and beyond:
            repeats[first] = repeats.get(first, 0) + 1
            if repeats[first] == 3:
                again = now + GAP_US // 2
                packets.append((again, tcp(a, b, sport, PORT, up + first * len(data), down, PSH_ACK, data)))
                heapq.heappush(arrivals, (again + TRIP_US, first))
    t, up = t + SEGMENTS * GAP_US + 300_000, up + SEGMENTS * len(data)
    if k % 15 == 0:
        return [*packets, (t, tcp(b, a, PORT, sport, down, up, RST_ACK))]
    return [*packets, (t, tcp(a, b, sport, PORT, up, down, FIN_ACK)),
            (t + 9_000, tcp(b, a, PORT, sport, down, up + 1, FIN_ACK)),
            (t + 9_500, tcp(a, b, sport, PORT, up + 1, down + 1, ACK))]
