"""TLS connections that replay a recorded handshake."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path

import numpy as np
from frames import ACK, FIN_ACK, PSH_ACK, RST_ACK, SYN, SYN_ACK, address, tcp
from records import Packet

Template = tuple[bytes, list[tuple[bool, bytes]]]


def tls_template() -> Template:
    """Server name and flights (from the client?, bytes) of a recorded TLS 1.2 handshake, then some ciphertext."""
    stored = json.loads((Path(__file__).parent / "tls12.json").read_text())
    flights = [(f["from"] == "client", base64.b64decode("".join(f["base64"]))) for f in stored["flights"]]
    noise = np.random.default_rng(0)
    flights += [(True, b"\x17\x03\x03" + struct.pack(">H", 620) + noise.bytes(620))]
    flights += [(False, b"\x17\x03\x03" + struct.pack(">H", 8020) + noise.bytes(8020))] * 3  # an answer of 24 kB
    return stored["name"].encode(), flights


def tls_connection(k: int, t: int, rng: np.random.Generator, template: Template) -> list[Packet]:
    """A TLS connection; every 50th SYN stays unanswered, every 20th connection ends with RST."""
    name, flights = template
    a, b, sport = address(10, 3, k >> 8 & 255, k & 255), address(192, 0, 2, k % 250 + 1), 20000 + k % 40000
    up, down = int(rng.integers(2**32)), int(rng.integers(2**32))
    if k % 50 == 49:  # sent again after 1, 3 and 7 s (RFC 6298 §2.1, §5.5)
        return [(t + 1_000_000 * s, tcp(a, b, sport, 443, up, 0, SYN)) for s in (0, 1, 3, 7)]
    packets = [(t, tcp(a, b, sport, 443, up, 0, SYN)), (t + 10_000, tcp(b, a, 443, sport, down, up + 1, SYN_ACK)),
               (t + 20_000, tcp(a, b, sport, 443, up + 1, down + 1, ACK))]
    t, up, down = t + 20_500, up + 1, down + 1
    mine = f"host{k % 250:08d}.voice.example".encode()  # each server has one name and certificate
    for from_client, flight in flights:
        data = flight.replace(name, mine)
        for i in range(0, len(data), 1400):
            piece, t = data[i : i + 1400], t + 700
            if from_client:
                packets.append((t, tcp(a, b, sport, 443, up, down, PSH_ACK, piece)))
                up += len(piece)
                packets.append((t + 300, tcp(b, a, 443, sport, down, up, ACK)))
            else:
                packets.append((t, tcp(b, a, 443, sport, down, up, PSH_ACK, piece)))
                down += len(piece)
                packets.append((t + 300, tcp(a, b, sport, 443, up, down, ACK)))
        t += 10_000
    if k % 20 == 0:
        return [*packets, (t, tcp(b, a, 443, sport, down, up, RST_ACK))]
    return [*packets, (t, tcp(a, b, sport, 443, up, down, FIN_ACK)),
            (t + 9_000, tcp(b, a, 443, sport, down, up + 1, FIN_ACK)),
            (t + 9_500, tcp(a, b, sport, 443, up + 1, down + 1, ACK))]
