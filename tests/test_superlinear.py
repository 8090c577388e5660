"""Input made to cost more than its size: time and memory must stay in proportion, and what is left out must be told.

Each case is measured at n and at 4 n. Linear work takes four times as long, quadratic sixteen; the bound of nine
leaves room for a noisy machine, and what is far cheaper than a benign capture of the same size passes anyhow.
"""

from __future__ import annotations

import random
import re
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from checkout import ROOT, udp_frame
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateBuilder, Name, NameAttribute
from cryptography.x509.oid import NameOID

import netdiag
from netdiag import engine
from netdiag.decode import sdp, sip, tls_hello, x509
from netdiag.model import Severity
from netdiag.render import digest, terminal
from netdiag.tables import Options, Tables
from netdiag.tables.reader import open_captures

Frames = Iterable[bytes]
GROWTH = 9.0
CHEAP = 1.0
"""Seconds of processor time that pass in any case: below, the fixed costs of a run count for more than its size."""


def capture(path: Path, frames: Frames) -> str:
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        for i, frame in enumerate(frames):
            file.write(struct.pack("<IIII", 1_700_000_000 + i // 1000, i % 1000 * 1000, len(frame), len(frame)) + frame)
    return str(path)


def ip(protocol: int, payload: bytes, src: int = 0xC0000201, dst: int = 0xC6336402, ident: int = 1,
       place: int = 0) -> bytes:
    """Ethernet and IPv4; ``place``: the field of fragment flags and offset."""
    return (b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + struct.pack(
        ">BBHHHBBHII", 0x45, 0, 20 + len(payload), ident & 0xFFFF, place, 64, protocol, 0, src, dst) + payload)


def udp(payload: bytes, src: int = 0xC0000201, port: int = 5060) -> bytes:
    return ip(17, struct.pack(">HHHH", port, port, 8 + len(payload), 0) + payload, src)


def tcp(payload: bytes, seq: int, flags: int = 16, ack: int = 500, src: int = 0xC0000201) -> bytes:
    return ip(6, struct.pack(">HHIIBBHHH", 50000, 443, seq & 0xFFFFFFFF, ack, 0x50, flags, 65535, 0, 0) + payload, src)


def stream(data: bytes, size: int = 1400) -> Iterator[bytes]:
    yield tcp(b"", 99, 2, 0)
    for at in range(0, len(data), size):
        yield tcp(data[at : at + size], 100 + at, 24)


def message(i: int, method: str = "INVITE", call: str = "", extra: bytes = b"", body: bytes = b"") -> bytes:
    head = (f"{method} sip:b@b.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{i}\r\n"
            f"From: <sip:a@a.example>;tag={i}\r\nTo: <sip:b@b.example>\r\nCall-ID: {call or i}\r\n"
            f"CSeq: {i % 9 + 1} {method}")
    return head.encode() + b"\r\n" + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


# What it costs.

def cost(path: str) -> float:
    """Processor time of all tables and all detectors, and of the report."""
    begin = time.process_time()
    tables = open_captures([path], options=Options(checksums=False))
    report, hidden = digest.above(engine.analyze(tables), Severity.LOW)
    assert terminal.render(report, hidden=hidden)
    return time.process_time() - begin


def fragments_of_one_datagram(n: int) -> Frames:
    return (ip(17, b"x" * 8, place=0x2000 | i % 8000) for i in range(n))


def fragments_of_many_datagrams(n: int) -> Frames:
    return (ip(17, b"x" * 8, 1 + i // 60000, ident=i, place=0x2000 | i & 1) for i in range(n))


def open_dialogs(n: int) -> Frames:
    """Also Call-IDs that differ in a few characters at their end."""
    return (udp(message(i, call="c" * 40 + str(i))) for i in range(n))


def requests_of_one_dialog(n: int) -> Frames:
    return (udp(message(i, ("INVITE", "ACK", "BYE")[i % 3], "same")) for i in range(n))


def registrations(n: int) -> Frames:
    return (udp(message(i, "REGISTER", extra=b"Contact: <sip:a@192.0.2.1>\r\nExpires: 60\r\n")) for i in range(n))


def shuffled_segments(n: int) -> Frames:
    order = list(range(n))
    random.Random(1).shuffle(order)
    yield tcp(b"", 99, 2, 0)
    for i in order:
        yield tcp(b"x" * 10, 100 + 10 * i)


def overlapping_segments(n: int) -> Frames:
    order = list(range(n))
    random.Random(1).shuffle(order)
    yield tcp(b"", 99, 2, 0)
    for i in order:
        yield tcp(b"\x16\x03\x01\x00\x05\x01" * 10, 100 + 7 * i)


def tiny_records(n: int) -> Frames:
    return stream(b"\x16\x03\x01\0\x01\x01" * n * 10)


def many_alerts(n: int) -> Frames:
    return stream(b"\x16\x03\x01\0\x04\x01\0\0\0" + b"\x15\x03\x01\0\x02\x01\0" * n * 5)


def one_packet_flows(n: int) -> Frames:
    return (tcp(b"", i, 2, 0, 0x0A000001 + i) if i & 1 else udp(b"x", 0x0A000001 + i, 9) for i in range(n))


def refused_everywhere(n: int) -> Frames:
    """One host tries as many others as there are, and each refuses."""
    for i in range(n // 2):
        ends = struct.pack(">HH", 50000, 443), struct.pack(">HH", 443, 50000)
        yield ip(6, ends[0] + struct.pack(">IIBBHHH", i, 0, 0x50, 2, 65535, 0, 0), dst=0x0A000001 + i)
        yield ip(6, ends[1] + struct.pack(">IIBBHHH", 0, i + 1, 0x50, 20, 0, 0, 0), 0x0A000001 + i, 0xC0000201)


def strangers_with_one_call_id(n: int) -> Frames:
    return (udp(message(1, call="same"), 0x0A000001 + i) for i in range(n))


def reused_ports(n: int) -> Frames:
    return (tcp(b"", 70_000 * i, 2 if i & 1 else 4, 0) for i in range(n))


def rtp_sources(n: int) -> Frames:
    return (udp(struct.pack(">BBHII", 0x80, 0, i & 0xFFFF, i, i // 4) + b"x" * 20, port=40000) for i in range(n))


def unanswered_lookups(n: int) -> Frames:
    return (udp(struct.pack(">HHHHHH", i & 0xFFFF, 0x100, 1, 0, 0, 0) + b"\x08%08d\0\0\1\0\1" % i, port=53)
            for i in range(n))


def pointer_loops(n: int) -> Frames:
    record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\0"
    return (udp(struct.pack(">HHHHHH", i & 0xFFFF, 0x8180, 1, 50, 0, 0) + b"\xc0\x0c\0\1\0\1" + record * 50, port=53)
            for i in range(n))


def icmp_about_everything(n: int) -> Frames:
    for i in range(n):
        lost = udp(b"x", 0x0A000001 + i, 9)
        yield lost if i & 1 else ip(1, struct.pack(">BBHI", 3, 1, 0, 0) + udp(b"x", 0x0A000002 + i, 9)[14:], 0x0A000000)


def vxlan(inner: bytes, network: int) -> bytes:
    """RFC 7348 §5."""
    head = struct.pack(">HHHHBBHI", 49152, 4789, min(16 + len(inner), 65535), 0, 8, 0, 0, network << 8)
    return ip(17, head + inner)


def nested_tunnels(n: int) -> Frames:
    frame = udp(b"x", port=9)
    for i in range(60):
        frame = vxlan(frame, i)
    return (frame for _ in range(n))


def a_tunnel_for_each_packet(n: int) -> Frames:
    return (vxlan(udp(b"x", port=9), i) for i in range(n))


HOSTILE: list[tuple[Callable[[int], Frames], int]] = [
    (fragments_of_one_datagram, 20_000), (fragments_of_many_datagrams, 10_000), (open_dialogs, 8_000),
    (requests_of_one_dialog, 8_000), (registrations, 8_000), (shuffled_segments, 20_000),
    (overlapping_segments, 10_000), (tiny_records, 4_000), (many_alerts, 4_000), (one_packet_flows, 20_000),
    (refused_everywhere, 8_000), (strangers_with_one_call_id, 4_000), (reused_ports, 10_000),
    (rtp_sources, 20_000), (unanswered_lookups, 10_000), (pointer_loops, 4_000),
    (icmp_about_everything, 10_000), (nested_tunnels, 4_000), (a_tunnel_for_each_packet, 20_000)]


@pytest.mark.parametrize(("frames", "n"), HOSTILE, ids=lambda v: getattr(v, "__name__", ""))
def test_time_grows_with_size(frames: Callable[[int], Frames], n: int, tmp_path: Path) -> None:
    small, large = capture(tmp_path / "1.pcap", frames(n)), capture(tmp_path / "4.pcap", frames(4 * n))
    cost(small)  # imports, caches
    one, four = cost(small), cost(large)
    if four > max(GROWTH * one, CHEAP):
        one, four = min(one, cost(small)), min(four, cost(large))
    assert four <= max(GROWTH * one, CHEAP), f"{one:.2f} s for {n}, {four:.2f} s for {4 * n}"


# A million of one kind: not slow, and not in memory what the capture does not hold.

MILLION = """
import resource, sys, time
sys.path[:0] = {paths!r}
import test_superlinear as t
from pathlib import Path
path = t.capture(Path({where!r}), getattr(t, {name!r})({n}))
begin = time.process_time()
tables = t.open_captures([path], options=t.Options(checksums=False))
t.engine.analyze(tables)
with open("/proc/self/status") as status:
    high = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(time.process_time() - begin, high >> 10, tables.packets.n)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "fragments_of_one_datagram", "shuffled_segments", "one_packet_flows", "rtp_sources"])
def test_a_million_packets(name: str, tmp_path: Path) -> None:
    """Here 200 000; that time is linear, above, carries it to the million."""
    n = 200_000
    paths = [str(Path(netdiag.__file__).parents[1]), str(ROOT / "tests")]
    code = MILLION.format(paths=paths, where=str(tmp_path / "m.pcap"), name=name, n=n)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True).stdout
    seconds, mebibytes, packets = map(float, out.split())
    assert packets >= n
    assert seconds < 60
    assert mebibytes < 1024


# One message of the largest size.

N = 65_000
ENDLESS = [
    b"A" * N, b"Via: " + b"v" * N, b"a: b\r\n" * (N // 6), b"Via: x\r\n" + b" folded\r\n" * (N // 9),
    b"\r\n" * (N // 2),
    b"From: \"" + b"\\\"" * (N // 2), b"To: <sip:a@b>;x=\"" + b"\\\"" * (N // 2), b"From: " + b"<" * N,
    b"Contact: " + b"," * N, b"m: <a>\r\n" * (N // 8), b"Via: " + b";branch" * (N // 7), b"To: " + b";tag" * (N // 4),
    b"CSeq: 1" + b" " * N + b"x", b"Expires: 1" + b"(" * N, b"Call-ID " + b" " * N + b":", b"l" + b" " * N,
    b"Content-Type: multipart/mixed\r\n\r\n" + b"\ncontent-type: application/sdp\n" * (N // 31)]


@pytest.mark.parametrize("text", ENDLESS, ids=lambda text: text[:12].decode("latin-1").strip())
def test_endless_sip(text: bytes, tmp_path: Path) -> None:
    head = b"INVITE sip:a@b.example SIP/2.0\r\n"
    path = capture(tmp_path / "endless.pcap", [udp(head + text), udp(head + text + b"\r\n\r\n"), *stream(head + text)])
    cost(path)
    assert cost(path) < 2


@pytest.mark.parametrize("value", [
    '"' + '\\"' * 30_000, '<sip:a@b>;x="' + '\\"' * 30_000, '<a>;x="' + '\\"' * 30_000 + "\\", "<" * N, "," * N,
    ";tag" * (N // 4), '"' * N, "1" + " " * N + "x", ";expires=\"" * (N // 10), ";+sip.instance=" * (N // 16)])
def test_no_pattern_backtracks(value: str) -> None:
    begin = time.process_time()
    for read in (sip.start_line, sip.cseq, sip.number, sip.address, sip.elements, sip.via, sip.contact,
                 sip.contact_expires, sip.contact_uri, sip.contact_instance, sip.header_lines):
        read(value)
    assert time.process_time() - begin < 1


def test_start_lines_in_front_of_a_hole_are_not_searched_again() -> None:
    data = b"\nSIP/2.0 200 " * 5000 + b"\r\n\r\n"
    begin = time.process_time()
    found = sip.frame_stream(data, ((len(data) - 30, len(data) - 20),))
    assert len(found) > 4990
    assert not any(m.complete for m in found[:4990])
    assert time.process_time() - begin < 0.5


def test_patterns_of_the_source_have_no_nested_repeats() -> None:
    """(a+)+ and the like are where exponential time comes from; every pattern of the source is looked at."""
    literal = re.compile(r"""re\.(?:compile|match|search|sub|split)\(\s*r?b?r?(["'])(.*?)\1""", re.DOTALL)
    nested = re.compile(r"\((?:\?:)?[^()|\\\[\]]*[+*]\)[+*]")
    seen = 0
    for path in (ROOT / "src").glob("**/*.py"):
        for _, pattern in literal.findall(path.read_text(encoding="utf-8")):
            seen += 1
            assert not nested.search(pattern), f"{path.name}: {pattern}"
    assert seen > 10


BODY = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"


@pytest.mark.parametrize(("lines", "told"), [
    (b"m=audio 4000 RTP/AVP 0\r\n" * 2500, "more than 64 media lines"),
    (b"m=audio 4000 RTP/AVP " + b"0 " * 30_000, ""),
    (b"m=audio 4000 RTP/AVP 0\r\n" + b"a=rtpmap:0 " + b"x" * 60_000, ""),
    (b"m=audio 4000 RTP/AVP 0\r\n" + b"a=x\r\n" * 12_000, "more than 1000 lines"),
    (b"m=audio 4000 RTP/AVP 0\r\n" + b"".join(b"a=candidate:1 1 udp 1 10.0.0.%d 9\r\n" % (i % 250)
                                              for i in range(900)), "more than 256 candidates")])
def test_session_description_bombs(lines: bytes, told: str) -> None:
    begin = time.process_time()
    session = sdp.parse(BODY + lines)
    assert time.process_time() - begin < 0.5
    assert told in session.odd
    assert 1 <= len(session.media) <= sdp.MEDIA_LIMIT
    assert all(len(m.codecs) <= sdp.FORMAT_LIMIT and all(len(c) <= sdp.WORD_LIMIT for c in m.codecs)
               for m in session.media)


def test_media_lines_beyond_the_cap_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netdiag.tables import sdp as table
    monkeypatch.setattr(table, "SPARE_LINES", 100)
    extra = b"Content-Type: application/sdp\r\n"
    body = BODY + b"m=audio 4000 RTP/AVP 0\r\n" * 60
    tables = read(tmp_path, [udp(message(i, extra=extra, body=body)) for i in range(5)])
    assert tables.media.height == 60 + 4 * table.LINES
    assert anomalies(tables, "media") == {"media lines behind the first 4 of a body left out: too many in all": 4 * 56}


# TLS, DNS, registrations: caps and what is said of them.

def read(tmp_path: Path, frames: Frames) -> Tables:
    return open_captures([capture(tmp_path / "c.pcap", frames)], options=Options(checksums=False))


def anomalies(tables: Tables, table: str) -> dict[str, int]:
    return {a.reason: a.count for a in tables.anomalies() if a.table == table}


def hello(i: int) -> bytes:
    body = b"\x03\x03" + struct.pack(">I", i) + bytes(28) + b"\0\0\x02\xc0\x2f\x01\0\0\0"
    return b"\x16\x03\x01" + struct.pack(">HB", len(body) + 4, 1) + len(body).to_bytes(3, "big") + body


def test_handshakes_beyond_the_cap_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netdiag.tables import tls_build
    monkeypatch.setattr(tls_build, "MAX_HANDSHAKES", 3)
    tables = read(tmp_path, [tcp(hello(i), 100, 24, src=0x0A000001 + i) for i in range(8)])
    assert tables.handshakes.height == 3
    assert anomalies(tables, "handshakes") == {"TLS connections behind the first 3 handshakes not read": 5}


def test_alerts_beyond_the_cap_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netdiag.tables import tls_build
    monkeypatch.setattr(tls_build, "MAX_ALERTS", 10)
    tables = read(tmp_path, stream(hello(1) + b"\x15\x03\x01\0\x02\x01\0" * 50))
    assert tables.alerts.height == 10
    assert anomalies(tables, "handshakes")["TLS alerts behind the first 10 left out"] == 40


def certificate_message(certificates: list[bytes], claimed: int | None = None) -> bytes:
    listed = b"".join(len(c).to_bytes(3, "big") + c for c in certificates)
    body = len(listed).to_bytes(3, "big") + listed
    size = len(body) if claimed is None else claimed
    whole = b"\x0b" + size.to_bytes(3, "big") + body
    return b"".join(b"\x16\x03\x03" + struct.pack(">H", len(whole[at : at + 16000])) + whole[at : at + 16000]
                    for at in range(0, len(whole), 16000))


def test_thousands_of_certificates_in_one_message() -> None:
    """A message of 1 MB could hold 200 000 of two bytes; each would become an object of a kilobyte."""
    ders, problem = tls_hello.certificates(certificate_message([b"%05d" % i for i in range(9000)])[9:], 0x0303)
    assert len(ders) <= tls_hello.MAX_CERTIFICATES
    assert "certificates" in problem


def test_a_certificate_of_16_megabytes(tmp_path: Path) -> None:
    tables = read(tmp_path, stream(hello(1) + certificate_message([b"\x30" * 200_000], 0xFFFFFF)))
    begin = time.process_time()
    assert tables.certs.height == 0
    assert tables.handshakes.height == 1
    assert "handshake message longer than 1 MiB is not read" in anomalies(tables, "handshakes")
    assert time.process_time() - begin < 2
    assert x509.parse(b"\x30\x84" + bytes(1 << 21)).problem.startswith("larger than")


def test_distinct_certificates_beyond_the_cap_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netdiag.tables import certs
    monkeypatch.setattr(certs, "MAX_ROWS", 20)
    tables = read(tmp_path, stream(hello(1) + certificate_message([b"\x30%d" % i for i in range(50)])))
    assert tables.certs.height == 20
    assert anomalies(tables, "certs")["distinct certificates beyond what is kept"] == 30


def test_lookups_beyond_the_caps_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netdiag.tables import dns
    monkeypatch.setattr(dns, "MAX_MESSAGES", 30)
    monkeypatch.setattr(dns, "DETAIL_BYTES", 300)
    answer = b"\1a\0\0\1\0\1\xc0\x0c\0\1\0\1\0\0\0\1\0\4\xc0\0\2\1"
    tables = read(tmp_path, [udp(struct.pack(">HHHHHH", i, 0x8180, 1, 1, 0, 0) + answer, port=53) for i in range(50)])
    assert tables.lookups.height == 30
    read_out = tables.lookups["answers"].list.len().to_list()
    assert read_out == [1] * (300 // (12 + len(answer))) + [0] * (30 - 300 // (12 + len(answer)))
    assert sorted(anomalies(tables, "lookups").values()) == [20, 30 - sum(read_out)]


def test_a_record_of_60_kilobytes_is_not_kept_whole(tmp_path: Path) -> None:
    text = b"".join(b"\xff" + b"\x01" * 255 for _ in range(234))
    data = struct.pack(">HHHHHH", 1, 0x8180, 1, 1, 0, 0) + b"\1a\0\0\x10\0\1\xc0\x0c\0\x10\0\1\0\0\0\1"
    tables = read(tmp_path, [udp(data + struct.pack(">H", len(text)) + text, port=53)])
    assert [len(a) < 5000 for a in tables.lookups["answers"][0]] == [True]


def test_registrations_beyond_the_budget_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netdiag.tables import registrations as table
    frames = []
    for i in range(6):
        asked = message(i, "REGISTER", extra=b"Contact: <sip:a@192.0.2.1>\r\nExpires: 60\r\n")
        told = asked.replace(b"REGISTER sip:b@b.example SIP/2.0", b"SIP/2.0 200 OK", 1).replace(
            b"Contact:", b"Contact: <sip:z@192.0.2.9>;expires=9\r\nContact:")
        datagram = struct.pack(">HHHH", 5060, 5060, 8 + len(told), 0) + told
        frames += [udp(asked), ip(17, datagram, 0xC6336402, 0xC0000201)]
    assert read(tmp_path, frames).registrations["expires_granted"].to_list() == [60] * 6
    monkeypatch.setattr(table, "READ_BYTES", 2 * len(told) + 10)
    tables = read(tmp_path, frames)
    assert tables.registrations["expires_granted"].to_list() == [60] * 2 + [None] * 4
    assert list(anomalies(tables, "registrations").values()) == [4]


def certificate(exponent: int) -> bytes:
    """Self-issued; its key has the given public exponent."""
    key = rsa.generate_private_key(65537, 2048)
    shown = rsa.RSAPublicNumbers(exponent, key.public_key().public_numbers().n).public_key()
    name = Name([NameAttribute(NameOID.COMMON_NAME, "gw.example")])
    day = datetime(2026, 1, 1, tzinfo=UTC)
    return CertificateBuilder(name, name, shown, 1, day, day.replace(month=2)).sign(key, SHA256()).public_bytes(
        Encoding.DER)


def test_signatures_of_monstrous_keys_are_not_computed() -> None:
    """15 to 40 ms each, and sixteen such certificates in one message make 240 pairs to try."""
    plain, monstrous = certificate(65537), certificate((1 << 2000) + 1)
    assert x509.issued_by(plain, plain) is True
    begin = time.process_time()
    for _ in range(50):
        assert x509._issued_by(monstrous, monstrous) is None
    assert time.process_time() - begin < 0.3


# Files.

def block(kind: int, body: bytes) -> bytes:
    size = 12 + len(body) + -len(body) % 4
    return struct.pack("<II", kind, size) + body + bytes(-len(body) % 4) + struct.pack("<I", size)


def sections(n: int, per_packet: bool) -> bytes:
    frame = udp_frame()
    out = [block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    interface = block(1, struct.pack("<HHI", 1, 0, 65535))
    if not per_packet:
        out.append(interface * n)
    for i in range(n):
        if per_packet:
            out.append(interface)
        out.append(block(6, struct.pack("<IIIII", i, 0, i, len(frame), len(frame)) + frame))
    return b"".join(out)


@pytest.mark.parametrize("per_packet", [False, True])
def test_an_interface_for_each_packet(per_packet: bool, tmp_path: Path) -> None:
    took = []
    for n in (500, 500, 2000):
        path = tmp_path / f"{n}.pcapng"
        path.write_bytes(sections(n, per_packet))
        begin = time.process_time()
        assert open_captures([str(path)]).packets.n == n
        took.append(time.process_time() - begin)
    assert took[2] <= max(GROWTH * took[1], CHEAP)


def test_a_compressed_bomb_of_nothing(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte: not unpacked into memory, and the damage is named."""
    import gzip
    path = tmp_path / "bomb.pcap.gz"
    with gzip.open(path, "wb", compresslevel=6) as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for _ in range(256):
            file.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    tables = open_captures([str(path)])
    assert "zeros" in tables.captures[0].damage
    assert time.process_time() - begin < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000
