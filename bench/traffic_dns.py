"""DNS queries and answers."""

from __future__ import annotations

import struct

import numpy as np
from frames import address, udp
from records import Packet


def lookup(k: int, t: int, rng: np.random.Generator) -> list[Packet]:
    """A query for an A record and its answer; every 100th goes unanswered and is asked again after 5 s."""
    client, server, sport = address(10, 5, k >> 8 & 255, k & 255), address(192, 0, 2, 53), 1024 + k % 60000
    name = b"".join(bytes([len(label)]) + label for label in (b"host%d" % (k % 5000), b"voice", b"example")) + b"\0"
    ident, question = int(rng.integers(65536)), name + b"\0\x01\0\x01"
    query = udp(client, server, sport, 53, struct.pack(">6H", ident, 0x0100, 1, 0, 0, 0) + question)
    if k % 100 == 99:
        return [(t, query), (t + 5_000_000, query)]
    answer = b"\xc0\x0c\0\x01\0\x01" + struct.pack(">IH", 300, 4) + address(203, 0, 113, k % 250 + 1).to_bytes(4, "big")
    reply = struct.pack(">6H", ident, 0x8180, 1, 1, 0, 0) + question + answer
    return [(t, query), (t + int(rng.integers(1_000, 40_000)), udp(server, client, 53, sport, reply))]
