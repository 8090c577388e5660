"""DTLS 1.2 handshakes for samples: flights in records and fragments, the same bytes in every run (RFC 6347)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from _craft.tls import Authority, noise

DTLS10, DTLS12 = 0xFEFF, 0xFEFD
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
CLIENT_HELLO, SERVER_HELLO, HELLO_VERIFY_REQUEST, CERTIFICATE = 1, 2, 3, 11
SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, SERVER_HELLO_DONE = 12, 13, 14
CERTIFICATE_VERIFY, CLIENT_KEY_EXCHANGE = 15, 16
Send = Callable[[float, bytes, bool], int]
"""Adds a datagram at a time; True is from the client."""


def fingerprint(of: Authority) -> str:
    """SHA-256 as a=fingerprint writes it (RFC 8122 §5)."""
    return hashlib.sha256(of.der).digest().hex(":").upper()


def piece(kind: int, sequence: int, body: bytes, start: int = 0, end: int | None = None) -> bytes:
    """A handshake fragment (RFC 6347 §4.2.2)."""
    part = body[start:end]
    return (struct.pack(">B", kind) + len(body).to_bytes(3, "big") + struct.pack(">H", sequence)
            + start.to_bytes(3, "big") + len(part).to_bytes(3, "big") + part)


@dataclass
class Peers:
    """Client and server of one handshake; ``send`` puts datagrams on the wire."""

    send: Send
    server_certificate: Authority
    client_certificate: Authority | None = None
    label: str = "dtls"
    version: int = DTLS12
    numbers: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})

    def record(self, from_client: bool, kind: int, body: bytes, epoch: int = 0) -> bytes:
        number = self.numbers[from_client]
        self.numbers[from_client] += 1
        return struct.pack(">BHHHIH", kind, self.version, epoch, 0, number, len(body)) + body

    def hello(self, at: float, cookie: bytes = b"", sequence: int = 0, from_client: bool = True,
              label: str = "") -> int:
        """A ClientHello with use_srtp (RFC 5764 §4.1.1)."""
        extensions = struct.pack(">HHHHB", 14, 5, 2, 1, 0) + struct.pack(">HHHH", 10, 4, 2, 29)
        body = (struct.pack(">H", DTLS12) + noise(f"{label or self.label} client", 32) + b"\0"
                + bytes([len(cookie)]) + cookie + struct.pack(">HHH", 4, 0xC02B, 0xC02F) + b"\1\0"
                + struct.pack(">H", len(extensions)) + extensions)
        return self.send(at, self.record(from_client, HANDSHAKE, piece(CLIENT_HELLO, sequence, body)), from_client)

    def verify(self, at: float, cookie: bytes) -> int:
        """A HelloVerifyRequest."""
        body = struct.pack(">HB", DTLS10, len(cookie)) + cookie
        return self.send(at, self.record(False, HANDSHAKE, piece(HELLO_VERIFY_REQUEST, 0, body)), False)

    def flight(self, at: float, mtu: int = 1200, sequence: int = 0) -> list[int]:
        """ServerHello to ServerHelloDone, in as many datagrams as ``mtu`` asks for."""
        der = self.server_certificate.der
        chain = len(der).to_bytes(3, "big") + der
        hello = struct.pack(">H", DTLS12) + noise(f"{self.label} server", 32) + b"\0" + struct.pack(">HB", 0xC02B, 0)
        bodies = ((SERVER_HELLO, hello), (CERTIFICATE, len(chain).to_bytes(3, "big") + chain),
                  (SERVER_KEY_EXCHANGE, noise(f"{self.label} key exchange", 110)),
                  (CERTIFICATE_REQUEST, b"\1\x40\0\2\4\3\0\0"), (SERVER_HELLO_DONE, b""))
        datagrams = [b""]
        for i, (kind, body) in enumerate(bodies):
            start = 0
            while True:
                room = mtu - len(datagrams[-1]) - 25
                if room < min(len(body) - start, 40) and datagrams[-1]:
                    datagrams.append(b"")
                    continue
                end = min(len(body), start + max(room, 1))
                datagrams[-1] += self.record(False, HANDSHAKE, piece(kind, sequence + i, body, start, end))
                start = end
                if start >= len(body):
                    break
        return [self.send(at + i * 0.0005, raw, False) for i, raw in enumerate(datagrams)]

    def finish(self, at: float, sequence: int = 1, rtt: float = 0.02) -> None:
        """The client's certificate and keys, and both sides' Finished."""
        raw = b""
        if self.client_certificate is not None:
            der = self.client_certificate.der
            chain = len(der).to_bytes(3, "big") + der
            raw += self.record(True, HANDSHAKE, piece(CERTIFICATE, sequence, len(chain).to_bytes(3, "big") + chain))
        raw += self.record(True, HANDSHAKE, piece(CLIENT_KEY_EXCHANGE, sequence + 1, noise(f"{self.label} share", 33)))
        self.send(at, raw + self.changed(True), True)
        self.send(at + rtt, self.changed(False), False)

    def changed(self, from_client: bool) -> bytes:
        """ChangeCipherSpec and an encrypted Finished."""
        return (self.record(from_client, CHANGE_CIPHER_SPEC, b"\1")
                + self.record(from_client, HANDSHAKE, noise(f"{self.label} finished {from_client}", 48), 1))

    def alert(self, at: float, description: int, from_client: bool = True, level: int = 2) -> int:
        return self.send(at, self.record(from_client, ALERT, bytes([level, description])), from_client)

    def close(self, at: float, from_client: bool = True) -> int:
        """An encrypted alert: close_notify."""
        body = noise(f"{self.label} close {from_client}", 26)
        return self.send(at, self.record(from_client, ALERT, body, 1), from_client)
