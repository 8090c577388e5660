"""DTLS records and handshake messages of datagrams (RFC 6347 up to version 1.2, RFC 9147 for 1.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from netdiag.decode import tls_hello

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA, WITH_ID = 20, 21, 22, 23, 25
"""ContentType (RFC 6347 §4.1; with a connection id: RFC 9146 §4)."""
UNIFIED = 32
"""First byte 001xxxxx: an encrypted record of DTLS 1.3 (RFC 9147 §4)."""
CLIENT_HELLO, SERVER_HELLO, HELLO_VERIFY_REQUEST, CERTIFICATE = 1, 2, 3, 11
NAMES = {
    0: "HelloRequest", 1: "ClientHello", 2: "ServerHello", 3: "HelloVerifyRequest", 4: "NewSessionTicket",
    8: "EncryptedExtensions", 11: "Certificate", 12: "ServerKeyExchange", 13: "CertificateRequest",
    14: "ServerHelloDone", 15: "CertificateVerify", 16: "ClientKeyExchange", 20: "Finished",
}
"""RFC 6347 §4.3.2, RFC 9147 §5.2."""
VERSIONS = {0xFEFF: "DTLS 1.0", 0xFEFD: "DTLS 1.2", 0xFEFC: "DTLS 1.3"}
RECORD, MESSAGE = struct.Struct(">BHHHIH"), struct.Struct(">BBHHBHBH")
"""type, version, epoch, sequence (16 and 32 bits), length; type, length, message_seq, offset, fragment length."""
MAX_MESSAGE = 1 << 17
"""Largest handshake message that is put together (practice: a chain with a post-quantum certificate is below it)."""
MAX_MESSAGES = 32
"""Messages of one side in the making (practice: a handshake has fewer than ten)."""
MAX_PARTS = 512
"""Fragments of one message (practice: 64 kB in pieces of 128 bytes)."""
USE_SRTP = 14
"""Extension number (RFC 5764 §4.1.1)."""


class Record(NamedTuple):
    """One record; its body is ``start`` to ``end`` of the datagram."""

    type: int
    """ContentType, or UNIFIED."""
    version: int
    epoch: int
    start: int
    end: int


class Fragment(NamedTuple):
    """A piece of a handshake message, in clear (RFC 6347 §4.2.2)."""

    type: int
    size: int
    """Bytes of the whole message."""
    message_seq: int
    offset: int
    body: bytes


def records(data: bytes) -> tuple[list[Record], bool]:
    """Records of one datagram, and whether something behind them is none."""
    out: list[Record] = []
    at = 0
    while at < len(data):
        if data[at] >> 5 == 1:  # its length may be left out; then it reaches to the end (RFC 9147 §4)
            out.append(Record(UNIFIED, 0xFEFC, data[at] & 3, at, len(data)))
            return out, False
        if at + RECORD.size > len(data):
            return out, True
        kind, version, epoch, _, _, size = RECORD.unpack_from(data, at)
        end = at + RECORD.size + size
        if not 20 <= kind <= 26 or version >> 8 != 0xFE or (end > len(data) and kind != WITH_ID):
            return out, True
        out.append(Record(kind, version, epoch, at + RECORD.size, min(end, len(data))))
        at = end
    return out, False


def fragments(data: bytes, record: Record) -> tuple[list[Fragment], bool]:
    """Handshake fragments of a clear record, and whether it does not hold together."""
    out: list[Fragment] = []
    at = record.start
    while at + MESSAGE.size <= record.end:
        kind, size_high, size, seq, offset_high, offset, part_high, part = MESSAGE.unpack_from(data, at)
        size, offset, part = size_high << 16 | size, offset_high << 16 | offset, part_high << 16 | part
        at += MESSAGE.size
        if at + part > record.end or offset + part > size:
            return out, True
        out.append(Fragment(kind, size, seq, offset, data[at : at + part]))
        at += part
    return out, at != record.end


@dataclass(slots=True)
class _Parts:
    by_offset: dict[int, bytes] = field(default_factory=dict)
    have: int = 0
    done: bool = False


@dataclass(slots=True)
class Assembly:
    """Handshake messages of one side, put together from fragments in any order and number."""

    _parts: dict[tuple[int, int, int], _Parts] = field(default_factory=dict)

    def add(self, f: Fragment) -> bytes | None:
        """The body of the message when this fragment is the first to complete it, else None."""
        key = f.message_seq, f.type, f.size
        if f.size > MAX_MESSAGE or (key not in self._parts and len(self._parts) >= MAX_MESSAGES):
            return None
        parts = self._parts.setdefault(key, _Parts())
        known = len(parts.by_offset.get(f.offset, b""))
        if parts.done or len(parts.by_offset) >= MAX_PARTS or len(f.body) < known:
            return None
        parts.by_offset[f.offset] = f.body
        parts.have += len(f.body) - known
        whole = _joined(parts.by_offset, f.size) if parts.have >= f.size else None
        parts.done = whole is not None
        return whole


def _joined(parts: dict[int, bytes], size: int) -> bytes | None:
    out, reach = bytearray(size), 0
    for offset in sorted(parts):
        if offset > reach:
            return None
        out[offset : offset + len(parts[offset])] = parts[offset]
        reach = max(reach, offset + len(parts[offset]))
    return bytes(out) if reach == size else None


def client_hello(body: bytes) -> tuple[tls_hello.ClientHello | None, bytes]:
    """A ClientHello and its cookie (RFC 6347 §4.2.1), which TLS has not; ``version`` is that of DTLS."""
    try:
        at = 35 + body[34]
        size = body[at]
    except IndexError:
        return None, b""
    hello = tls_hello.client_hello(b"\x03\x03" + body[2:at] + body[at + 1 + size :])
    if hello is not None:
        hello.version = int.from_bytes(body[:2], "big")
    return hello, body[at + 1 : at + 1 + size]


def server_hello(body: bytes) -> tls_hello.ServerHello | None:
    """A ServerHello; ``version`` is that of DTLS."""
    hello = tls_hello.server_hello(b"\x03\x03" + body[2:])
    if hello is not None and hello.version == 0x0303:
        hello.version = int.from_bytes(body[:2], "big")
    return hello
