"""Captures made byte by byte: one call with media, a lost SYN, and an ICMP error."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

START = 1_790_000_000_000_000_000
PHONE, SERVER, GATEWAY = "192.0.2.10", "198.51.100.5", "203.0.113.9"
CALL_ID = "made-call@192.0.2.10"


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(source: str, destination: str, proto: int, body: bytes) -> bytes:
    """An IPv4 packet."""
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0x4000, 64, proto, 0,
                       ipaddress.IPv4Address(source).packed, ipaddress.IPv4Address(destination).packed)
    return head[:10] + struct.pack(">H", _checksum(head)) + head[12:] + body


def udp(source: str, sport: int, destination: str, dport: int, payload: bytes) -> bytes:
    return ip(source, destination, 17, struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload)


def tcp(source: str, sport: int, destination: str, dport: int, flags: int, seq: int, payload: bytes = b"") -> bytes:
    return ip(source, destination, 6,
              struct.pack(">HHIIBBHHH", sport, dport, seq, 0, 0x50, flags, 64240, 0, 0) + payload)


def unreachable(source: str, quoted: bytes) -> bytes:
    """ICMP port unreachable (RFC 792) that quotes an IPv4 packet, sent to its source."""
    body = struct.pack(">BBHI", 3, 3, 0, 0) + quoted[:28]
    body = body[:2] + struct.pack(">H", _checksum(body)) + body[4:]
    return ip(source, str(ipaddress.IPv4Address(quoted[12:16])), 1, body)


def rtp(source: str, sport: int, destination: str, dport: int, number: int) -> bytes:
    head = struct.pack(">BBHII", 0x80, 0, number, number * 160, 0xABCD)
    return udp(source, sport, destination, dport, head + b"\xff" * 160)


def sip(first: str, sdp: str = "", cseq: str = "1 INVITE", tag: str = "", call_id: str = CALL_ID) -> bytes:
    """A SIP message of that start line."""
    head = [first, f"Via: SIP/2.0/UDP {PHONE}:5060;branch=z9hG4bK-{cseq.replace(' ', '')}", "Max-Forwards: 70",
            "From: <sip:alice@a.example>;tag=a1", f"To: <sip:bob@b.example>{tag and ';tag=' + tag}",
            f"Call-ID: {call_id}", f"CSeq: {cseq}", f"Contact: <sip:alice@{PHONE}:5060>"]
    head += ["Content-Type: application/sdp"] if sdp else []
    return "\r\n".join([*head, f"Content-Length: {len(sdp)}", "", sdp]).encode()


def sdp(address: str, port: int) -> str:
    return "\r\n".join(["v=0", f"o=- 1 1 IN IP4 {address}", "s=-", f"c=IN IP4 {address}", "t=0 0",
                        f"m=audio {port} RTP/AVP 0", "a=rtpmap:0 PCMU/8000", ""])


def write(path: Path, packets: list[tuple[float, bytes]]) -> str:
    """A nanosecond pcap of (seconds after START, IPv4 packet)."""
    out = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    for seconds, data in packets:
        ns = START + round(seconds * 1e9)
        frame = b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\x00" + data
        out += struct.pack("<IIII", ns // 10**9, ns % 10**9, len(frame), len(frame)) + frame
    path.write_bytes(out)
    return str(path)


def call(call_id: str = CALL_ID) -> list[tuple[float, bytes]]:
    """INVITE sent twice, 100, 200 with SDP, ACK, two-way audio, a port that closes, BYE."""
    def up(first: str, **more: str) -> bytes:
        return udp(PHONE, 5060, SERVER, 5060, sip(first, call_id=call_id, **more))

    def down(first: str, **more: str) -> bytes:
        return udp(SERVER, 5060, PHONE, 5060, sip(first, call_id=call_id, **more))

    out = [
        (0.0, up("INVITE sip:bob@b.example SIP/2.0", sdp=sdp(PHONE, 4000))),
        (0.5, up("INVITE sip:bob@b.example SIP/2.0", sdp=sdp(PHONE, 4000))),
        (0.6, down("SIP/2.0 100 Trying")),
        (1.0, down("SIP/2.0 200 OK", sdp=sdp(GATEWAY, 6000), tag="b1")),
        (1.1, up("ACK sip:bob@b.example SIP/2.0", cseq="1 ACK", tag="b1")),
    ]
    for i in range(50):
        out.append((1.2 + i * 0.02, rtp(PHONE, 4000, GATEWAY, 6000, i)))
        out.append((1.21 + i * 0.02, rtp(GATEWAY, 6000, PHONE, 4000, i)))
    last = rtp(GATEWAY, 6000, PHONE, 4000, 50)
    return [*out, (2.3, last), (2.31, unreachable(PHONE, last)),
            (2.5, up("BYE sip:bob@b.example SIP/2.0", cseq="2 BYE", tag="b1")),
            (2.6, down("SIP/2.0 200 OK", cseq="2 BYE", tag="b1"))]


def lost_syn() -> list[tuple[float, bytes]]:
    """A SYN that is sent three times and never answered, then data of another connection sent twice."""
    syn = tcp(PHONE, 40000, SERVER, 443, 2, 100)
    return [(0.0, syn), (1.0, syn), (3.0, syn),
            (4.0, tcp(PHONE, 40001, SERVER, 80, 24, 500, b"GET / HTTP/1.1\r\n\r\n")),
            (4.3, tcp(PHONE, 40001, SERVER, 80, 24, 500, b"GET / HTTP/1.1\r\n\r\n"))]
