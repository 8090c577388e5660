"""Writes large, reproducible captures for measuring: the same arguments give the same bytes.

    python bench/generate.py mixed --packets 1000000 -o mixed.pcap

Classic little-endian pcap, microseconds, Ethernet and IPv4, RFC 1918 and documentation addresses only. The traffic is
made in windows of time and written as it is made, so memory does not grow with the number of packets. UDP checksums
are 0 (none, RFC 768) and TCP checksums are 0, as a capture with checksum offload shows them.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BEGIN = 1_700_000_000_000_000
"""Time of the first packet, microseconds since the epoch (November 2023)."""
WINDOW = 10_000_000
"""Microseconds of traffic made at once: about 45 000 packets of the mix."""
PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
ETHERNET = bytes.fromhex("020000000001020000000002") + b"\x08\x00"
RECORD = 16
"""Bytes of the header that classic pcap puts before each frame."""

# A second of the mix: 90 % RTP, 5 % SIP, 5 % TCP (half of it TLS, half bulk transfer), about 4 400 packets.
MEDIA_CALLS, DIALOGS, TLS_CONNECTIONS, TRANSFERS = 2.2, 32, 2, 0.25
MEDIA_PACKETS = 909
"""Per direction and call: 18.2 s of 20 ms packets."""
CALL_US = 18_500_000
LOSS, REORDER = 0.01, 0.005
SEGMENTS = 250

SYN, ACK, SYN_ACK, PSH_ACK, FIN_ACK, RST_ACK = 2, 16, 18, 24, 17, 20

Packet = tuple[int, bytes]
"""Microseconds and frame."""


@dataclass(slots=True)
class Batch:
    """Packets in order of time; ``data`` holds their pcap records one behind the other, in any order."""

    ts: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    data: np.ndarray

    def split(self, limit: int) -> tuple[Batch, Batch]:
        """What is before ``limit``, and the rest."""
        at = int(np.searchsorted(self.ts, limit))
        return (Batch(self.ts[:at], self.offset[:at], self.size[:at], self.data),
                Batch(self.ts[at:], self.offset[at:], self.size[at:], self.data))


def sort_batch(ts: np.ndarray, size: np.ndarray, data: np.ndarray) -> Batch:
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


def _windows(data: np.ndarray, width: int) -> np.ndarray:
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


# ---------------------------------------------------------------- frames

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


# ---------------------------------------------------------------- SIP and RTP

@dataclass(frozen=True, slots=True)
class Dialog:
    number: int
    begin: int
    caller: int
    callee: int
    caller_port: int
    callee_port: int

    @property
    def busy(self) -> bool:
        return self.number % 11 == 10


def dialog_of(number: int, begin: int) -> Dialog:
    return Dialog(number, begin, address(10, 1, number >> 8 & 255, number & 255),
                  address(10, 2, number * 7 >> 8 & 63, number & 255),
                  10000 + 2 * (number % 20000), 10002 + 2 * (number * 3 % 20000))


def sdp(ip_text: str, port: int, number: int) -> str:
    return (f"v=0\r\no=- {number} 1 IN IP4 {ip_text}\r\ns=-\r\nc=IN IP4 {ip_text}\r\nt=0 0\r\n"
            f"m=audio {port} RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
            "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n")


def signalling(d: Dialog) -> list[Packet]:
    """INVITE to 200 to BYE; every eleventh call is answered 486."""
    n, caller, callee = d.number, dotted(d.caller), dotted(d.callee)
    call_id = f"{n:08x}-{n * 2654435761 & 0xFFFFFFFF:08x}@{caller}"
    branch = f"z9hG4bK{n * 40503 & 0xFFFFFF:06x}{n:x}"
    from_ = f'From: "Caller {n % 977}" <sip:caller{n % 977}@{caller}>;tag=ft{n:x}\r\n'
    methods = "INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE, SUBSCRIBE, INFO, PRACK, UPDATE"

    def tail(tag: str, cseq: str, contact: str, agent: str, body: str) -> str:
        kind = "Content-Type: application/sdp\r\n" if body else ""
        return (f"{from_}To: <sip:user{n % 9973}@{callee}>{tag}\r\nCall-ID: {call_id}\r\nCSeq: {cseq}\r\n"
                f"Contact: <sip:{contact}>\r\n{agent}\r\nAllow: {methods}\r\n"
                f"Supported: replaces, norefersub, timer, outbound, path\r\n{kind}"
                f"Content-Length: {len(body)}\r\n\r\n{body}")

    def request(method: str, cseq: int, suffix: str, tag: str, body: str = "") -> bytes:
        text = (f"{method} sip:user{n % 9973}@{callee}:5060 SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {caller}:5060;branch={branch}{suffix};rport\r\nMax-Forwards: 70\r\n")
        contact = f"caller{n % 977}@{caller}:5060;transport=udp"
        text += tail(tag, f"{cseq} {method}", contact, "User-Agent: Bench Phone 1.0", body)
        return udp(d.caller, d.callee, 5060, 5060, text.encode())

    def response(status: str, cseq: str, suffix: str, tag: str, body: str = "") -> bytes:
        text = (f"SIP/2.0 {status}\r\n"
                f"Via: SIP/2.0/UDP {caller}:5060;branch={branch}{suffix};rport=5060;received={caller}\r\n"
                f"Record-Route: <sip:{callee};lr;ftag=ft{n:x}>\r\n")
        text += tail(tag, cseq, f"user{n % 9973}@{callee}:5060", "Server: Bench PBX 1.0", body)
        return udp(d.callee, d.caller, 5060, 5060, text.encode())

    tag, t = f";tag=tt{n:x}", d.begin
    packets = [(t, request("INVITE", 1, "", "", sdp(caller, d.caller_port, n))),
               (t + 5_000, response("100 Trying", "1 INVITE", "", "")),
               (t + 60_000, response("180 Ringing", "1 INVITE", "", tag))]
    if d.busy:
        return [*packets, (t + 90_000, response("486 Busy Here", "1 INVITE", "", tag)),
                (t + 95_000, request("ACK", 1, "", tag))]
    return [*packets, (t + 200_000, response("200 OK", "1 INVITE", "", tag, sdp(callee, d.callee_port, n))),
            (t + 210_000, request("ACK", 1, "a", tag)), (t + CALL_US, request("BYE", 2, "b", tag)),
            (t + CALL_US + 8_000, response("200 OK", "2 BYE", "b", tag))]


def media(d: Dialog, rng: np.random.Generator) -> Batch:
    """Both directions of a G.711 call: 1 % lost, 0.5 % late by 25 ms, about 2 ms of jitter."""
    times, frames = [], []
    for direction in (0, 1):
        ends = (d.caller, d.callee, d.caller_port, d.callee_port)
        source, destination, sport, dport = ends if direction == 0 else (ends[1], ends[0], ends[3], ends[2])
        rtp = struct.pack(">BBHII", 0x80, 0, 0, 0, 0x10000000 + d.number * 2 + direction)
        n = MEDIA_PACKETS
        rows = np.empty((n, RECORD + 214), np.uint8)
        rows[:, RECORD:] = np.frombuffer(udp(source, destination, sport, dport, rtp + rng.bytes(160)), np.uint8)
        at = RECORD + 42
        sequence = (int(rng.integers(65536)) + np.arange(n)) % 65536
        timestamp = (int(rng.integers(2**32)) + 160 * np.arange(n)) % 2**32
        rows[:, at + 2 : at + 4] = sequence.astype(">u2").view(np.uint8).reshape(-1, 2)
        rows[:, at + 4 : at + 8] = timestamp.astype(">u4").view(np.uint8).reshape(-1, 4)
        rows[0, at + 1] |= 0x80
        ts = d.begin + 220_000 + 20_000 * np.arange(n) + np.abs(rng.normal(0, 2_000, n)).astype(np.int64)
        ts[rng.random(n) < REORDER] += 25_000
        kept = rng.random(n) >= LOSS
        kept[[0, -1]] = True
        times.append(ts[kept])
        frames.append(rows[kept])
    ts = np.concatenate(times)
    return sort_batch(ts, np.full(len(ts), RECORD + 214, np.int64), np.concatenate(frames).reshape(-1))


# ---------------------------------------------------------------- TCP, TLS, DNS

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


def bulk_transfer(k: int, t: int, rng: np.random.Generator) -> list[Packet]:
    """250 segments one way with ACKs, 1 % sent twice; every 40th SYN stays unanswered, every 15th ends with RST."""
    a, b, sport = address(10, 4, k >> 8 & 255, k & 255), address(198, 51, 100, k % 250 + 1), 1024 + k % 60000
    up, down = int(rng.integers(2**32)), int(rng.integers(2**32))
    if k % 40 == 39:
        return [(t + 1_000_000 * s, tcp(a, b, sport, 80, up, 0, SYN)) for s in (0, 1, 3, 7)]
    packets = [(t, tcp(a, b, sport, 80, up, 0, SYN)), (t + 10_000, tcp(b, a, 80, sport, down, up + 1, SYN_ACK)),
               (t + 20_000, tcp(a, b, sport, 80, up + 1, down + 1, ACK))]
    t, up, down, data = t + 30_000, up + 1, down + 1, b"payload %06d " % k * 66
    for again in rng.random(SEGMENTS) < 0.01:
        frame = tcp(a, b, sport, 80, up, down, PSH_ACK, data)
        packets.append((t, frame))
        if again:
            packets.append((t + 250_000, frame))
        up += len(data)
        packets.append((t + 10_000, tcp(b, a, 80, sport, down, up, ACK)))
        t += 1_500
    t += 300_000
    if k % 15 == 0:
        return [*packets, (t, tcp(b, a, 80, sport, down, up, RST_ACK))]
    return [*packets, (t, tcp(a, b, sport, 80, up, down, FIN_ACK)),
            (t + 9_000, tcp(b, a, 80, sport, down, up + 1, FIN_ACK)),
            (t + 9_500, tcp(a, b, sport, 80, up + 1, down + 1, ACK))]


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


# ---------------------------------------------------------------- the mixes

def starts(rate: float, rng: np.random.Generator, window: int) -> list[int]:
    """Begin times of ``rate`` events a second in a window, ascending."""
    count = round(rate * WINDOW / 1e6)
    return np.sort(BEGIN + window * WINDOW + rng.integers(0, WINDOW, count)).tolist()


def mixed(seed: int) -> Iterator[list[Batch]]:
    """Calls with media among many without, TLS connections, and bulk transfers with loss."""
    template, dialogs, connections, transfers = tls_template(), itertools.count(), itertools.count(), itertools.count()
    for window in itertools.count():
        rng = np.random.default_rng((seed, window))
        singles: list[Packet] = []
        batches = []
        for begin, has_media in zip(starts(DIALOGS, rng, window), _spread(MEDIA_CALLS / DIALOGS), strict=False):
            d = dialog_of(next(dialogs), begin)
            singles += signalling(d)
            if has_media and not d.busy:
                batches.append(media(d, rng))
        for begin in starts(TLS_CONNECTIONS, rng, window):
            singles += tls_connection(next(connections), begin, rng, template)
        for begin in starts(TRANSFERS, rng, window):
            singles += bulk_transfer(next(transfers), begin, rng)
        yield [*batches, batch_of(singles)]


def _spread(share: float) -> Iterator[bool]:
    """True for ``share`` of the places, evenly; the tenth that is busy is made up for."""
    for i in itertools.count(1):
        yield int(i * share * 1.1) > int((i - 1) * share * 1.1)


Maker = Callable[[int, int, np.random.Generator], list[Packet]]


def only(make: Maker, rate: float) -> Callable[[int], Iterator[list[Batch]]]:
    """A mix of one kind of conversation."""
    def mix(seed: int) -> Iterator[list[Batch]]:
        number = itertools.count()
        for window in itertools.count():
            rng = np.random.default_rng((seed, window))
            yield [batch_of([p for begin in starts(rate, rng, window) for p in make(next(number), begin, rng)])]
    return mix


MIXES: dict[str, Callable[[int], Iterator[list[Batch]]]] = {
    "mixed": mixed,
    "sip": only(lambda n, t, _: signalling(dialog_of(n, t)), 80),
    "tcp": only(bulk_transfer, 7),
    "dns": only(lookup, 1000),
}


def write(mix: str, packets: int, path: str, seed: int = 7) -> None:
    """Writes exactly ``packets`` packets of a mix."""
    waiting: list[Batch] = []
    with open(path, "wb") as out:
        out.write(PCAP_HEADER)
        for window, made in enumerate(MIXES[mix](seed)):
            parts = [b.split(BEGIN + (window + 1) * WINDOW) for b in waiting + made]
            waiting = [rest for _, rest in parts if len(rest.ts)]
            ready = [now for now, _ in parts if len(now.ts)]
            out.write(render(ready, packets))
            packets -= min(packets, sum(len(b.ts) for b in ready))
            if not packets:
                return


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Writes a large, reproducible capture for measuring.")
    parser.add_argument("mix", choices=sorted(MIXES))
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    if options.packets < 1:
        parser.error("--packets must be at least 1")
    write(options.mix, options.packets, options.output, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
