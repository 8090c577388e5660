"""Hosts, datagrams and TCP conversations for samples.

A recipe is a module ``captures/samples/<family>/<pattern>.py`` with ``hit()``, ``near_miss_<why>()`` and, for
each hit, the frames that the finding must cite. A function returns a list of frames (one capture point) or a
dict of point name to list. Addresses are those of RFC 5737, RFC 3849 and RFC 1918.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

START = 1_767_225_600.0
"""2026-01-01 00:00:00 UTC: when all samples begin."""


def mac(address: str) -> str:
    """A locally administered MAC address made from the last bytes of an IP address."""
    packed = IP(dst=address).dst if ":" not in address else address
    digits = [ord(c) for c in packed]
    value = 0
    for d in digits:
        value = (value * 131 + d) & 0xFFFFFFFF
    return f"02:00:{value >> 24 & 255:02x}:{value >> 16 & 255:02x}:{value >> 8 & 255:02x}:{value & 255:02x}"


@dataclass
class Wire:
    """Collects frames in order of time; every frame gets an IP identifier of its own."""

    frames: list[Packet] = field(default_factory=list)
    ids: count[int] = field(default_factory=lambda: count(1))

    def add(self, at: float, packet: Packet) -> int:
        """Adds an IP packet ``at`` seconds after START; returns its index in order of adding."""
        layer = packet
        if IP in packet and packet[IP].id == 1:
            packet[IP].id = next(self.ids) & 0xFFFF
        frame = Ether(src=mac(layer.src), dst=mac(layer.dst)) / packet
        frame.time = START + at
        self.frames.append(frame)
        return len(self.frames) - 1

    def udp(self, at: float, src: str, sport: int, dst: str, dport: int, payload: bytes, ttl: int = 64) -> int:
        return self.add(at, ip(src, dst, ttl) / UDP(sport=sport, dport=dport) / Raw(payload))

    def icmp_error(self, at: float, source: str, offending: Packet, type: int = 3, code: int = 3, ttl: int = 64) -> int:
        """An ICMPv4 error about an IP packet, quoting its header and 8 bytes (RFC 792)."""
        quoted = bytes(offending[IP])[: offending[IP].ihl * 4 + 8 if offending[IP].ihl else 28]
        return self.add(at, ip(source, offending[IP].src, ttl) / ICMP(type=type, code=code) / Raw(quoted))

    def sorted(self) -> list[Packet]:
        """Frames in order of time, ready to be written."""
        return sorted(self.frames, key=lambda f: f.time)


def ip(src: str, dst: str, ttl: int = 64) -> Packet:
    """An IPv4 or IPv6 header."""
    if ":" in src:
        return IPv6(src=src, dst=dst, hlim=ttl)
    return IP(src=src, dst=dst, ttl=ttl, flags="DF")


@dataclass
class Connection:
    """A TCP conversation; each method adds one segment and keeps both sequence numbers."""

    wire: Wire
    client: str
    cport: int
    server: str
    sport: int
    cseq: int = 1000
    sseq: int = 5000
    client_ttl: int = 64
    server_ttl: int = 57
    options: tuple[tuple[str, object], ...] = (("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7))

    def segment(self, at: float, from_client: bool, flags: str, payload: bytes = b"", *, seq: int | None = None,
                ack: int | None = None, ttl: int | None = None, options: tuple[tuple[str, object], ...] = (),
                window: int = 502) -> int:
        """Any segment; sequence numbers advance unless ``seq`` is given (a retransmission)."""
        src, sp, dst, dp = ((self.client, self.cport, self.server, self.sport) if from_client
                            else (self.server, self.sport, self.client, self.cport))
        mine, theirs = (self.cseq, self.sseq) if from_client else (self.sseq, self.cseq)
        header = ip(src, dst, ttl if ttl is not None else (self.client_ttl if from_client else self.server_ttl))
        number = self.wire.add(at, header / TCP(
            sport=sp, dport=dp, flags=flags, seq=(mine if seq is None else seq) & 0xFFFFFFFF,
            ack=((theirs if ack is None else ack) & 0xFFFFFFFF) if "A" in flags else 0, window=window,
            options=list(options)) / (Raw(payload) if payload else b""))
        if seq is None:
            step = len(payload) + ("S" in flags) + ("F" in flags)
            if from_client:
                self.cseq += step
            else:
                self.sseq += step
        return number

    def open(self, at: float, rtt: float = 0.02) -> list[int]:
        """Three-way handshake."""
        return [self.segment(at, True, "S", options=self.options, window=64240),
                self.segment(at + rtt, False, "SA", options=self.options, window=65160),
                self.segment(at + rtt + 0.0001, True, "A")]

    def syn(self, at: float, again: bool = False) -> int:
        """A SYN; ``again`` repeats the one before."""
        if again:
            return self.segment(at, True, "S", seq=self.cseq - 1, options=self.options, window=64240)
        return self.segment(at, True, "S", options=self.options, window=64240)

    def data(self, at: float, from_client: bool, payload: bytes, acked_after: float | None = 0.02) -> list[int]:
        """A data segment and, unless ``acked_after`` is None, the other side's ACK."""
        out = [self.segment(at, from_client, "PA", payload)]
        if acked_after is not None:
            out.append(self.segment(at + acked_after, not from_client, "A"))
        return out

    def again(self, at: float, from_client: bool, payload: bytes) -> int:
        """A retransmission of the last data of that side."""
        seq = (self.cseq if from_client else self.sseq) - len(payload)
        return self.segment(at, from_client, "PA", payload, seq=seq)

    def close(self, at: float, rtt: float = 0.02, by_client: bool = True) -> list[int]:
        """FIN both ways."""
        return [self.segment(at, by_client, "FA"), self.segment(at + rtt, not by_client, "FA"),
                self.segment(at + rtt + 0.0001, by_client, "A")]
