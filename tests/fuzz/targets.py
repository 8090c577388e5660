"""Fuzz targets: one callable for each decoder, each table and the whole engine.

``TARGETS[name](data)`` runs that part on any bytes. What its documentation says it raises is caught here; whatever
else comes out of it is a defect. The targets use the same functions as the commands do, on captures in memory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from netdiag import engine
from netdiag.capture.space import Space
from netdiag.decode import (
    dns,
    dtls,
    icmp,
    keylog,
    rtcp_xr,
    rtp,
    sdp,
    sip,
    srtp,
    stun,
    tcp_options,
    tls13,
    tls_application,
    tls_cipher,
    tls_hello,
    tls_records,
    websocket,
    x509,
)
from netdiag.decode.fragments import reassemble
from netdiag.decode.frames import Piece
from netdiag.errors import CaptureError
from netdiag.model import Report, Status
from netdiag.render import escape, facts, listing, markdown, terminal
from netdiag.render import json as as_json
from netdiag.tables import Options, Tables, rtp_reports, rtp_stats
from netdiag.tables.call_details import call_details
from netdiag.tables.reader import open_captures
from netdiag.tables.tcp_segments import connection_segments

MEDIA_PORT, SIP_PORT, DNS_PORT, TLS_PORT, TURN_PORT = 40000, 5060, 53, 443, 3478
NOUNS = ("calls", "streams", "handshakes", "connections", "lookups", "checks")
TABLES = ("flows", "tcp", "icmp", "sip", "transactions", "calls", "media", "registrations", "rtp", "rtcp", "rtcp_xr",
          "srtp", "stun", "allocations", "turn_peers", "checks", "ice_descriptions", "dtls", "handshakes", "alerts",
          "certs", "lookups", "quality")
RECORD = struct.Struct("<IIII")
HEADER = struct.pack("<IHHiII", 0xA1B2C3D4, 2, 4, 0, 0, 262144)


# From bytes to captures.

@contextmanager
def in_memory(*files: bytes) -> Iterator[list[str]]:
    """Paths of files that exist in memory only."""
    fds = [os.memfd_create("fuzz") for _ in files]
    try:
        for fd, data in zip(fds, files, strict=True):
            os.write(fd, data)
        yield [f"/proc/self/fd/{fd}" for fd in fds]
    finally:
        for fd in fds:
            os.close(fd)


def pcap(frames: list[bytes], link: int = 1) -> bytes:
    """A capture with one frame each 10 ms."""
    out = [HEADER, struct.pack("<I", link)]
    for i, frame in enumerate(frames):
        out += [RECORD.pack(1_700_000_000 + i // 100, i % 100 * 10_000, len(frame), len(frame)), frame]
    return b"".join(out)


def opened(*files: bytes) -> Tables | None:
    """Tables of one or two capture points; None for what is refused with a message."""
    with in_memory(*files) as paths:
        points = [(f"p{i}", path) for i, path in enumerate(paths)]
        try:
            return open_captures(paths if len(paths) == 1 else (), points if len(paths) > 1 else (),
                                 Options(checksums=False))
        except CaptureError:
            return None


def ip4(protocol: int, payload: bytes, back: bool = False) -> bytes:
    """Ethernet and IPv4 between the same two hosts."""
    ends = b"\xc0\x00\x02\x01", b"\xc6\x33\x64\x02"
    head = struct.pack(">BBHHHBBH", 0x45, 0, min(20 + len(payload), 65535), 1, 0, 64, protocol, 0)
    return b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + head + ends[back] + ends[not back] + payload


def udp(payload: bytes, port: int, back: bool = False) -> bytes:
    return ip4(17, struct.pack(">HHHH", port, port, min(8 + len(payload), 65535), 0) + payload, back)


def tcp(payload: bytes, seq: int, ack: int, flags: int, back: bool = False, port: int = TLS_PORT) -> bytes:
    ports = (port, 50000) if back else (50000, port)
    return ip4(6, struct.pack(">HHIIBBHHH", *ports, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, 65535, 0, 0)
               + payload, back)


def chunks(data: bytes) -> Iterator[bytes]:
    """Pieces, each behind two bytes with its length; the last one may be shorter."""
    at = 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        yield data[at + 2 : at + 2 + size]
        at += 2 + size


def joined(pieces: list[bytes]) -> bytes:
    """The reverse of ``chunks``."""
    return b"".join(len(p[:65535]).to_bytes(2, "big") + p[:65535] for p in pieces)


def connection(client: bytes, server: bytes, port: int, size: int = 1200) -> list[bytes]:
    """A TCP connection that carries these bytes in segments, the two sides in turn."""
    out = [tcp(b"", 99, 0, 2, port=port), tcp(b"", 499, 100, 18, True, port)]
    for at in range(0, max(len(client), len(server)), size):
        for back, data, seq, ack in ((False, client, 100, 500), (True, server, 500, 100)):
            if data[at : at + size]:
                out.append(tcp(data[at : at + size], seq + at, ack, 24, back, port))
    return out


# Captures and frames.

def captures(data: bytes) -> None:
    """Any capture file: pcap, pcapng, other formats, plain or compressed."""
    opened(data)


def frames(data: bytes) -> None:
    """Frames of the link type in the first two bytes: link, tunnels, IP, transport, fragments, flows."""
    opened(pcap(list(chunks(data[2:]))[:256], int.from_bytes(data[:2], "big")))


def fragments(data: bytes) -> None:
    """Pieces of IP datagrams, 8 bytes each: identification, place, size, flags, time."""
    fd = os.memfd_create("fuzz")
    try:
        os.truncate(fd, 1 << 17)
        space = Space([(fd, 1 << 17)])
    finally:
        os.close(fd)
    pieces, times = [], []
    for row in range(min(len(data) // 8, 512)):
        ident, start, size, odd, when = struct.unpack_from(">BHHBH", data, row * 8)
        pieces.append(Piece(
            row=row, src=1, dst=2, version=6 if odd & 1 else 4, proto=17, id=ident & 3, start=start & ~7,
            more=bool(odd & 2), at=start, captured=size >> 1 if odd & 4 else size, size=size, path=0))
        times.append((times[-1] if times else 0) + when * 1_000_000)
    result = reassemble(space, pieces, [0] * len(pieces), times)
    for datagram in result.whole:
        assert datagram.size == datagram.total == datagram.have
    told = {r for d in (*result.whole, *result.broken) for r in (*d.rows, *d.again)}
    told |= {r for rows in result.odd.values() for r in rows}
    assert told == set(range(len(pieces)))


# TCP.

def segments(data: bytes) -> None:
    """TCP segments, 8 bytes each: side, flags, sequence and acknowledgment number, length; classes and streams."""
    out = []
    for at in range(0, min(len(data) - 7, 8 * 200), 8):
        side, flags, seq, ack, size = struct.unpack_from(">BBHHH", data, at)
        # near the wrap of sequence numbers, so that both sides of it are met
        out.append(tcp(data[at : at + 8] * (size % 40), 0xFFFFC000 + seq, 0xFFFFC000 + ack, flags, bool(side & 1)))
    tables = opened(pcap(out))
    assert tables is not None
    for number in range(tables.tcp.height):
        connection_segments(tables, number)
        for stream in tables.streams.both(number):
            assert all(0 <= a < b <= len(stream.data) for a, b in stream.holes)
            if len(stream.data):
                stream.packet_at(0)
                stream.time_at(len(stream.data) - 1)
                stream.packets(0, len(stream.data))


def options(data: bytes) -> None:
    """TCP options, 40 bytes a segment."""
    rows = max(len(data) // tcp_options.WIDTH, 1)
    padded = np.frombuffer(data[: rows * tcp_options.WIDTH].ljust(rows * tcp_options.WIDTH, b"\0"), np.uint8)
    tcp_options.parse(padded.reshape(rows, -1), np.full(rows, min(len(data), tcp_options.WIDTH)))


# SIP and SDP.

def sip_text(data: bytes) -> None:
    """Start lines and header values, one by one."""
    text = data.decode("latin-1")
    sip.start_line(text.partition("\r\n")[0])
    values = [value for _, value in sip.header_lines(text)[:16]]
    for value in values or [text]:
        for read in (sip.cseq, sip.number, sip.address, sip.first_element, sip.elements, sip.via, sip.contact,
                     sip.contact_expires, sip.contact_uri, sip.contact_instance):
            read(value)


def sip_stream(data: bytes) -> None:
    """Framing on a stream; the first bytes say where it has holes."""
    holes, at = [], 0
    for step, size in zip(data[:8:2], data[1:8:2], strict=False):
        at += step * 256
        if size:
            holes.append((at, at + size))
            at += size + 1
    body = data[8:]
    known = tuple((a, min(b, len(body))) for a, b in holes if a < len(body))
    for message in sip.frame_stream(body, known):
        assert 0 <= message.start <= message.end <= len(body)


def sip_messages(data: bytes) -> None:
    """Datagrams with SIP: columns, transactions, calls with their details and legs, media, registrations, bindings."""
    tables = opened(pcap([udp(m, SIP_PORT, bool(i & 1)) for i, m in enumerate(list(chunks(data))[:64])]))
    assert tables is not None
    for name in ("sip", "transactions", "calls", "media", "registrations", "legs", "bindings"):
        getattr(tables, name)
    assert call_details(tables).height == tables.calls.height


def sip_over_tcp(data: bytes) -> None:
    """SIP on both sides of a TCP connection."""
    middle = len(data) // 2
    tables = opened(pcap(connection(data[:middle], data[middle:], SIP_PORT)))
    assert tables is not None
    assert tables.calls.height <= tables.sip.height


def session(data: bytes) -> None:
    """SDP bodies."""
    for line in sdp.parse(data).media:
        assert len(line.codecs) == len(line.payload_types)


# DNS, ICMP.

def dns_message(data: bytes) -> None:
    """One DNS message: header, question, records."""
    head = dns.headers(np.frombuffer(data[:12].ljust(12, b"\0"), np.uint8).reshape(1, 12))
    counts = tuple(head.counts[0].tolist())
    end = dns.HEADER
    try:
        end = dns.question(data).end
    except ValueError:
        return
    found = dns.details(data, end, counts, int(head.rcode[0]))
    assert len(dns.rcode_text(found.rcode)) > 0


def lookups(data: bytes) -> None:
    """DNS datagrams and a DNS stream, as queries and answers."""
    messages = list(chunks(data))[:64]
    sent = [udp(m, DNS_PORT, bool(i & 1)) for i, m in enumerate(messages)]
    tables = opened(pcap(sent + connection(data, data[::-1], DNS_PORT)))
    assert tables is not None
    assert tables.lookups.height <= tables.packets.n * 200


def icmp_error(data: bytes) -> None:
    """ICMP messages of both versions with what they quote."""
    for version in (4, 6):
        icmp.quote(version, data)
        icmp.mtu(version, data)
    icmp.name(4, data[0] if data else 0, data[1] if len(data) > 1 else 0)


def icmp_table(data: bytes) -> None:
    """ICMP errors beside the packets that they may quote."""
    messages = list(chunks(data))[:64]
    tables = opened(pcap([udp(b"x", MEDIA_PORT), *(ip4(1, m, True) for m in messages)]))
    assert tables is not None
    assert tables.icmp.height <= len(messages)


# TLS.

def records(data: bytes) -> None:
    """TLS records, alerts and the messages in clear; the first two bytes place a hole."""
    body = data[2:]
    hole = int.from_bytes(data[:2], "big")
    for holes in ((), ((hole, hole + 3),) if hole < len(body) else ()):
        side = tls_records.read(body, 0, holes)
        assert all(0 <= r.start < r.end <= len(body) for r in side.records)
    tls_records.find_hello(body, tls_records.CLIENT_HELLO)
    tls_records.find_hello(body, tls_records.SERVER_HELLO)


def hellos(data: bytes) -> None:
    """Bodies of handshake messages."""
    hello = tls_hello.client_hello(data)
    if hello is not None:
        tls_hello.ja4(hello)
    tls_hello.server_hello(data)
    tls_hello.chosen_protocol(data)
    for version in (0x0301, 0x0303, 0x0304):
        tls_hello.certificates(data, version)
        tls_hello.certificate_request(data, version)


def handshake(data: bytes) -> None:
    """A connection with these bytes on its two sides (the first chunk is the client's): all TLS tables."""
    sides = [*chunks(data), b"", b""]
    tables = opened(pcap(connection(sides[0], b"".join(sides[1:]), TLS_PORT)))
    assert tables is not None
    assert tables.handshakes.height <= tables.tcp.height
    assert tables.alerts.height <= len(data)
    assert tables.certs.height <= len(data)


_SECRET = bytes(range(32))


@cache
def _sealing_keys() -> Any:
    return tls_cipher.Keys13(0x1301, _SECRET)


def sealed(data: bytes) -> None:
    """TLS 1.3 records that the key opens: what is inside them."""
    keys = _sealing_keys()
    out = []
    for number, inner in enumerate(list(chunks(data))[:16]):
        head = struct.pack(">BHH", 23, 0x0303, min(len(inner) + 16, tls_records.MAX_RECORD))
        nonce = (keys.iv ^ number).to_bytes(12, "big")
        out.append(head + keys.key.encrypt(nonce, inner[: tls_records.MAX_RECORD - 16], head))
    stream = b"".join(out)
    tls13.read(stream, tls_records.read(stream), 0x1301, _SECRET, _SECRET)


def protected(data: bytes) -> None:
    """Records as they come, with keys of each kind; the first two bytes place a hole."""
    body, hole = data[2:], int.from_bytes(data[:2], "big")
    holes = ((hole, hole + 3),) if hole < len(body) else ()
    for cipher, version, after in ((0x2F, 0x0301, False), (0x3C, 0x0303, True), (0xC02F, 0x0303, False),
                                   (0xC0A0, 0x0303, False), (0xCCA8, 0x0303, False)):
        keys = tls_cipher.connection_keys(cipher, version, _SECRET, _SECRET, _SECRET, after)[0]
        keys.open(body)
        keys.open(body[: len(body) // 16 * 16 + 5])
        tls_application.read(body, 0, holes, [keys], version)
    found = tls_application.read(body, 0, holes, [tls_cipher.Keys13(0x1301, _SECRET)], 0x0304)
    assert 0 <= found.at <= len(body)


_CLIENT_HELLO = (b"\x03\x03" + _SECRET + b"\0\0\x02\x13\x01\x01\0\0\x07\0\x2b\0\x03\x02\x03\x04")
_SERVER_HELLO = (b"\x03\x03" + _SECRET + b"\0\x13\x01\0\0\x06\0\x2b\0\x02\x03\x04")


def secure(data: bytes) -> None:
    """Application data of both sides of a TLS connection, in turns, whose secrets are known: what SIP comes of it."""
    sides = []
    for index, (kind, hello) in enumerate(((1, _CLIENT_HELLO), (2, _SERVER_HELLO))):
        out = [struct.pack(">BHHB", 22, 0x0303, len(hello) + 4, kind), len(hello).to_bytes(3, "big"), hello]
        for number, content in enumerate(list(chunks(data))[index:64:2]):
            inner = content[:16000] + b"\x17"
            head = struct.pack(">BHH", 23, 0x0303, len(inner) + 16)
            nonce = (_sealing_keys().iv ^ number).to_bytes(12, "big")
            out.append(head + _sealing_keys().key.encrypt(nonce, inner, head))
        sides.append(b"".join(out))
    secrets = (f"{who}_TRAFFIC_SECRET_0 {_SECRET.hex()} {_SECRET.hex()}\n" for who in ("CLIENT", "SERVER"))
    tables = opened(pcap(connection(*sides, TLS_PORT)))
    assert tables is not None
    tables.secrets = ("".join(secrets).encode(),)
    assert tables.decrypted.connections == [0]
    assert set(tables.sip["transport"]) <= {"tls", "wss"}
    assert tables.calls.height <= tables.sip.height


def web_socket(data: bytes) -> None:
    """Frames, the first byte says of which kind; and all of it as an upgrade, and behind one, on a connection."""
    flags, body = data[0] if data else 0, data[1:]
    end = 0
    for message in websocket.messages(body, 0, (), bool(flags & 1), bool(flags & 2), bool(flags & 4)):
        assert end <= message.start <= message.end <= len(body)
        assert len(message.data) <= websocket.MAX_MESSAGE
        end = message.end
    websocket.upgrade(body, body)
    ask = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n"
    answer = b"HTTP/1.1 101 \r\nSec-WebSocket-Protocol: sip\r\n\r\n"
    tables = opened(pcap(connection(ask + body, answer + body[::-1], 80)))
    assert tables is not None
    assert set(tables.sip["transport"]) <= {"ws", "tcp"}


def key_log(data: bytes) -> None:
    """Key-log text."""
    keylog.KeyLog().add(data)


def certificate(data: bytes) -> None:
    """One certificate, also as its own issuer."""
    parsed = x509.parse(data)
    if parsed.subject:
        x509.issued_by(data, data)


# RTP and RTCP.

def rtp_numbers(data: bytes) -> None:
    """RTP headers, 12 bytes each, and the statistics of one stream of them."""
    n = len(data) // rtp.HEADER
    if not n:
        return
    head = rtp.headers(np.frombuffer(data[: n * rtp.HEADER], np.uint8).reshape(n, rtp.HEADER))
    start = np.unique(np.minimum(np.array([0, n // 3, n // 2]), n - 1))
    found = rtp_stats.sequence_statistics(start, head.sequence.copy())
    assert (found.lost >= 0).all()
    assert (found.expected >= found.lost).all()
    arrival = np.cumsum(head.ssrc.astype(np.int64))
    rate = np.full(len(start), 8000, np.uint32)
    mean, worst = rtp_stats.jitter_ms(start, start, arrival, head.timestamp, rate)
    assert (worst >= 0).all()
    assert np.isfinite(mean).all()


def media(data: bytes) -> None:
    """UDP datagrams on media ports: RTP and RTCP tables."""
    tables = opened(pcap([udp(m, MEDIA_PORT, bool(i & 1)) for i, m in enumerate(list(chunks(data))[:200])]))
    assert tables is not None
    assert tables.rtp.height <= tables.packets.n
    assert tables.rtcp.height <= 32 * 31 * tables.packets.n
    assert tables.rtcp_xr.height <= 32 * 64 * 31 * tables.packets.n


def extended_reports(data: bytes) -> None:
    """Blocks of RTCP extended reports, each piece one packet behind an empty receiver report, and their traces."""
    empty = struct.pack(">BBHI", 0x80, 201, 1, 7)
    bodies = [m[: len(m) // 4 * 4] for m in list(chunks(data))[:200]]
    packets = [empty + struct.pack(">BBHI", 0x80, 207, len(b) // 4 + 1, 7) + b for b in bodies]
    tables = opened(pcap([udp(p, MEDIA_PORT, bool(i & 1)) for i, p in enumerate(packets)]))
    assert tables is not None
    found = tables.rtcp_xr
    assert found.height <= 64 * 31 * len(packets)
    assert found["mos_lq"].is_between(1.0, 5.0).all()
    lost = found.filter(found["block"] == rtcp_xr.LOSS_RLE)
    assert (lost["lost"] <= 0xFFFF).all()
    rtp_reports.told(tables)


_DIALOG = ("Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@a.example>;tag=a\r\nTo: <sip:b@b.example>{}\r\n"
           "Call-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Type: application/sdp\r\n\r\n"
           "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/SAVP 0\r\na=crypto:")


@cache
def _srtp_keys() -> list[srtp.Key]:
    return [srtp.Key(suite, bytes(suite.key), bytes(suite.salt)) for suite in srtp.SUITES.values()]


def srtp_call(data: bytes) -> None:
    """A call with SRTP: two a=crypto values, then packets in both directions."""
    pieces = [*list(chunks(data))[:64], b"", b""]
    for piece in pieces[:4]:
        tag, _, rest = piece.decode("utf-8", "replace").partition(" ")
        for suite in (rest.partition(" ")[0], *srtp.SUITES):
            for key in srtp.crypto(tag, suite, rest.partition(" ")[2]).keys:
                srtp.verify(key, data, 1)
        for key in _srtp_keys():
            srtp.verify(key, piece, 0)
        assert srtp.header_size(piece) <= len(piece)
        srtp.chosen_profile(piece)
    ends = (("INVITE sip:b@b.example SIP/2.0\r\n", "", "192.0.2.1"), ("SIP/2.0 200 OK\r\n", ";tag=b", "198.51.100.2"))
    said = [udp((start + _DIALOG.format(tag, ip=ip, port=MEDIA_PORT)).encode() + pieces[i] + b"\r\n", SIP_PORT, bool(i))
            for i, (start, tag, ip) in enumerate(ends)]
    tables = opened(pcap(said + [udp(piece, MEDIA_PORT, bool(i & 1)) for i, piece in enumerate(pieces[2:])]))
    assert tables is not None
    for row in tables.srtp.iter_rows(named=True):
        assert row["matched"] <= row["sampled"]
        assert row["first_packet"] <= row["last_packet"]


# STUN, TURN and DTLS.

def stun_message(data: bytes) -> None:
    """One STUN message."""
    message = stun.read(data)
    if message is not None:
        assert all(at + size <= len(message.raw) for _, at, size in message.attributes)
        message.endpoints(stun.XOR_MAPPED_ADDRESS)
        stun.integrity_fits(message, b"key")
    stun.fingerprint_fits(data)


def stun_table(data: bytes) -> None:
    """Datagrams and a stream on TURN's port: messages, what TURN carries, pairs, allocations."""
    messages = list(chunks(data))[:64]
    sent = [udp(m, TURN_PORT, bool(i & 1)) for i, m in enumerate(messages)]
    tables = opened(pcap(sent + connection(b"".join(messages[::2]), b"".join(messages[1::2]), TURN_PORT)))
    assert tables is not None
    for name in ("checks", "allocations", "turn_peers", "dtls"):
        getattr(tables, name)
    assert tables.stun.height <= len(data)


def dtls_table(data: bytes) -> None:
    """DTLS datagrams between two ports."""
    messages = list(chunks(data))[:64]
    for message in messages:
        found, _ = dtls.records(message)
        assert all(r.start <= r.end <= len(message) for r in found)
    tables = opened(pcap([udp(m, MEDIA_PORT, bool(i & 1)) for i, m in enumerate(messages)]))
    assert tables is not None
    assert tables.dtls.height <= len(messages)


# Output, and everything together.

def escapes(data: bytes) -> None:
    """Text from the wire on its way to a terminal, to Markdown and to CSV."""
    text = data.decode("utf-8", "surrogateescape")
    for safe in (escape.plain, escape.markdown, escape.advice, escape.code, escape.cell, escape.valid, escape.mermaid):
        assert safe(text).replace("\n", "").isprintable() or safe is escape.valid
    escape.block(escape.plain(text))


def _whole(tables: Tables) -> Report:
    for name in TABLES:
        getattr(tables, name)
    report = engine.analyze(tables)
    failed = [f"{o.pattern}: {o.reason}" for o in report.outcomes if o.status is Status.ERROR]
    assert not failed, failed
    unbuilt = [a.table for a in report.anomalies if "could not be built" in a.reason]
    assert not unbuilt, unbuilt
    for c in report.captures:
        assert c.frames == c.decoded + sum(c.skipped.values()), c.skipped
    shown = [terminal.render(report, 80, False, True), markdown.render(report, True), as_json.render(report)]
    shown += [listing.render(facts.of(tables, noun), form, 100) for noun in NOUNS for form in ("terminal", "csv")]
    assert all(line.isprintable() for text in shown for line in text.split("\n"))
    return report


def whole(data: bytes) -> None:
    """A capture through all tables, all detectors and every output."""
    tables = opened(data)
    if tables is not None:
        _whole(tables)


def two_points(data: bytes) -> None:
    """The same at two points: the second one misses every fifth frame and has another clock."""
    other = [data[:24]]
    at, number = 24, 0
    while at + 16 <= len(data):
        seconds, fraction, size, wire = RECORD.unpack_from(data, at)
        if size > len(data):
            break
        if number % 5:
            other.append(RECORD.pack(seconds + 1 & 0xFFFFFFFF, fraction, size, wire) + data[at + 16 : at + 16 + size])
        at, number = at + 16 + size, number + 1
    tables = opened(data, b"".join(other))
    if tables is not None:
        _whole(tables)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "captures": captures, "frames": frames, "fragments": fragments, "segments": segments, "tcp-options": options,
    "sip-text": sip_text, "sip-stream": sip_stream, "sip-messages": sip_messages, "sip-tcp": sip_over_tcp,
    "sdp": session, "dns": dns_message, "lookups": lookups, "icmp": icmp_error, "icmp-table": icmp_table,
    "tls-records": records, "tls-hello": hellos, "tls-handshake": handshake, "tls13": sealed, "keylog": key_log,
    "tls-protected": protected, "tls-secure": secure, "websocket": web_socket,
    "x509": certificate, "rtp": rtp_numbers, "media": media, "rtcp-xr": extended_reports,
    "srtp": srtp_call, "stun": stun_message, "stun-table": stun_table, "dtls": dtls_table, "escape": escapes,
    "engine": whole,
    "two-points": two_points,
}
"""Name to target; the name of a file in ``crashes`` begins with it."""
CAPTURES = frozenset({"captures", "engine", "two-points"})
"""Targets that take a capture file."""
CHUNKED = frozenset({"frames", "sip-messages", "lookups", "icmp-table", "tls-handshake", "tls13", "tls-secure",
                     "media", "rtcp-xr", "srtp", "stun-table", "dtls"})
"""Targets that take several pieces, see ``chunks`` (``frames`` behind two bytes with the link type)."""
