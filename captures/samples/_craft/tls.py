"""Certificates and TLS handshakes for samples: the same bytes in every run.

Keys are Ed25519 from fixed seeds and its signatures are deterministic (RFC 8032 §5.1.6), so certificates
reproduce to the byte. What would be encrypted on the wire is a fixed pseudo-random stream of the right length.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from _craft.network import START, Connection, Wire

SSL30, TLS10, TLS11, TLS12, TLS13 = 0x0300, 0x0301, 0x0302, 0x0303, 0x0304

# Cipher suites of the IANA registry.
AEAD_13 = (0x1301, 0x1302, 0x1303)
ECDHE_12 = (0xC02B, 0xC02F, 0xC02C, 0xC030)
CBC_10 = (0xC009, 0xC013, 0xC00A, 0xC014, 0x002F, 0x0035, 0x000A)
FALLBACK_SCSV = 0x5600

# Alert descriptions, RFC 8446 §6.
CLOSE_NOTIFY, HANDSHAKE_FAILURE, BAD_CERTIFICATE, CERTIFICATE_EXPIRED = 0, 40, 42, 45
CERTIFICATE_UNKNOWN, ILLEGAL_PARAMETER, UNKNOWN_CA = 46, 47, 48
DECODE_ERROR, PROTOCOL_VERSION, INAPPROPRIATE_FALLBACK = 50, 70, 86

DOWNGRADE_12, DOWNGRADE_11 = b"DOWNGRD\x01", b"DOWNGRD\x00"
"""Last bytes of ServerHello.random, RFC 8446 §4.1.3."""

NOW = datetime.fromtimestamp(START, UTC)
SEGMENT = 1460


def noise(label: str, size: int) -> bytes:
    """Bytes that look random and are the same in every run."""
    return hashlib.shake_256(label.encode()).digest(size)


# Certificates


@dataclass(frozen=True)
class Authority:
    """A name with a key, and what it was certified by (itself, when ``issuer`` is None).

    ``key`` gives two certificates one key: a cross certificate has the name and key of another. ``starts`` and
    ``ends`` are days from the beginning of the samples.
    """

    name: str
    issuer: Authority | None = None
    starts: float = -365.0
    ends: float = 365.0
    ca: bool = True
    names: tuple[str, ...] = ()
    """DNS names of a leaf."""
    aia: str = ""
    """URL where its issuer's certificate can be fetched (caIssuers, RFC 5280 §4.2.2.1)."""
    client: bool = False
    key: str = ""

    @cached_property
    def private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(noise("key " + (self.key or self.name), 32))

    @cached_property
    def subject(self) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
                          x509.NameAttribute(NameOID.COMMON_NAME, self.name)])

    @cached_property
    def der(self) -> bytes:
        issuer = self.issuer or self
        public = self.private.public_key()
        serial = int.from_bytes(noise(f"serial {self.name} {issuer.name} {self.starts} {self.ends}", 8)) >> 1
        builder = (
            x509.CertificateBuilder().subject_name(self.subject).issuer_name(issuer.subject).public_key(public)
            .serial_number(serial)
            .not_valid_before(NOW + timedelta(days=self.starts)).not_valid_after(NOW + timedelta(days=self.ends))
            .add_extension(x509.BasicConstraints(ca=self.ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.private.public_key()),
                           critical=False))
        if self.names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name) for name in self.names]), critical=False)
        if not self.ca:
            usage = ExtendedKeyUsageOID.CLIENT_AUTH if self.client else ExtendedKeyUsageOID.SERVER_AUTH
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if self.aia:
            builder = builder.add_extension(x509.AuthorityInformationAccess([x509.AccessDescription(
                AuthorityInformationAccessOID.CA_ISSUERS,
                x509.UniformResourceIdentifier(self.aia))]), critical=False)
        return builder.sign(issuer.private, None).public_bytes(Encoding.DER)


AIA = "http://ca.pki.example/issuer.cer"


def leaf(name: str, issuer: Authority | None, starts: float = -60.0, ends: float = 305.0, aia: str = "",
         client: bool = False) -> Authority:
    """An end-entity certificate for one DNS name; without issuer it signs itself."""
    return Authority(name, issuer, starts, ends, ca=False, names=(name,), aia=aia, client=client)


# Records and messages


def record(kind: int, payload: bytes, version: int = TLS12) -> bytes:
    """TLS records of at most 2^14 bytes (RFC 8446 §5.1)."""
    parts = [payload[i : i + 16384] for i in range(0, len(payload), 16384)]
    return b"".join(struct.pack(">BHH", kind, version, len(part)) + part for part in parts)


def message(kind: int, body: bytes) -> bytes:
    """A handshake message without its record."""
    return bytes([kind]) + len(body).to_bytes(3) + body


def alert(description: int, level: int = 2, version: int = TLS12) -> bytes:
    return record(21, bytes([level, description]), version)


def encrypted(kind: int, label: str, size: int, version: int = TLS12) -> bytes:
    """A record whose content cannot be read."""
    return record(kind, noise(label, size), version)


def _vector(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width) + data


def _extension(number: int, body: bytes) -> bytes:
    return struct.pack(">H", number) + _vector(body, 2)


def client_hello(label: str, version: int = TLS12, versions: Sequence[int] = (), sni: str = "",
                 alpn: Sequence[str] = (), ciphers: Sequence[int] = (), record_version: int | None = None) -> bytes:
    """A ClientHello record; ``versions`` is supported_versions (RFC 8446 §4.2.1), ``version`` the legacy field."""
    suites = tuple(ciphers) or ((*AEAD_13, *ECDHE_12) if TLS13 in versions else
                                (*ECDHE_12, *CBC_10) if version == TLS12 else CBC_10)
    out = b""
    if sni:
        name = sni.encode()
        out += _extension(0, _vector(b"\0" + _vector(name, 2), 2))
    out += _extension(10, _vector(struct.pack(">3H", 29, 23, 24), 2)) + _extension(11, b"\x01\x00")
    if version >= TLS12:
        out += _extension(13, _vector(struct.pack(">5H", 0x0807, 0x0403, 0x0804, 0x0401, 0x0503), 2))
    if alpn:
        out += _extension(16, _vector(b"".join(_vector(p.encode(), 1) for p in alpn), 2))
    out += _extension(23, b"")
    if versions:
        out += _extension(43, _vector(b"".join(struct.pack(">H", v) for v in versions), 1))
    if TLS13 in versions:
        out += _extension(51, _vector(struct.pack(">H", 29) + _vector(noise("share " + label, 32), 2), 2))
    session = noise("session " + label, 32) if TLS13 in versions else b""
    body = (struct.pack(">H", version) + noise("client random " + label, 32) + _vector(session, 1)
            + _vector(b"".join(struct.pack(">H", c) for c in suites), 2) + b"\x01\x00" + _vector(out, 2))
    legacy = TLS10 if record_version is None and version > TLS10 else record_version or version
    return record(22, message(1, body), legacy)  # the first record often says 1.0 (RFC 8446 §5.1)


def server_hello(label: str, version: int = TLS12, cipher: int = 0, sentinel: bytes = b"") -> bytes:
    """A ServerHello message; ``version`` TLS13 goes into supported_versions."""
    random = noise("server random " + label, 32)
    random = random[: 32 - len(sentinel)] + sentinel
    if version == TLS13:
        session = noise("session " + label, 32)
        extensions = (_extension(43, struct.pack(">H", TLS13))
                      + _extension(51, struct.pack(">H", 29) + _vector(noise("server share " + label, 32), 2)))
        suite = cipher or AEAD_13[0]
    else:
        session = noise("server session " + label, 32)
        extensions = _extension(65281, b"\0")
        suite = cipher or (ECDHE_12[0] if version == TLS12 else CBC_10[0])
    return message(2, struct.pack(">H", min(version, TLS12)) + random + _vector(session, 1)
                   + struct.pack(">H", suite) + b"\0" + _vector(extensions, 2))


def certificate(chain: Sequence[Authority]) -> bytes:
    """A Certificate message of TLS 1.2 and before (RFC 5246 §7.4.2)."""
    return message(11, _vector(b"".join(_vector(c.der, 3) for c in chain), 3))


def server_key_exchange(label: str, version: int = TLS12) -> bytes:
    """An ECDHE key on X25519 with a signature of the right length (RFC 8422 §5.4)."""
    scheme = struct.pack(">H", 0x0807) if version >= TLS12 else b""
    return message(12, b"\x03\x00\x1d" + _vector(noise("ecdhe " + label, 32), 1) + scheme
                   + _vector(noise("signature " + label, 64), 2))


def certificate_request() -> bytes:
    """Any issuer will do (RFC 5246 §7.4.4)."""
    return message(13, b"\x01\x40" + _vector(struct.pack(">2H", 0x0807, 0x0403), 2) + b"\0\0")


# Sessions


@dataclass
class Session:
    """A TLS session over TCP; each method sends one flight, in segments of at most 1460 bytes.

    ``version`` is what the server chooses; ``offer`` the legacy version of the ClientHello and ``versions`` its
    supported_versions.
    """

    wire: Wire
    client: str
    cport: int
    server: str
    sport: int = 443
    sni: str = ""
    version: int = TLS12
    offer: int = TLS12
    versions: tuple[int, ...] = ()
    alpn: tuple[str, ...] = ()
    ciphers: tuple[int, ...] = ()
    rtt: float = 0.02
    tcp: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.tcp = Connection(self.wire, self.client, self.cport, self.server, self.sport)
        self.label = f"{self.client}:{self.cport}-{self.server}:{self.sport}"

    def send(self, at: float, from_client: bool, data: bytes) -> None:
        """Data in segments of one instant, then the other side's ACK."""
        for i in range(0, len(data), SEGMENT):
            last = i + SEGMENT >= len(data)
            self.tcp.segment(at + i * 1e-8, from_client, "PA" if last else "A", data[i : i + SEGMENT])
        self.tcp.segment(at + 0.0002, not from_client, "A")

    def hello(self, at: float) -> None:
        """TCP handshake and ClientHello; the server's flight can follow at ``at + 2.5 * rtt``."""
        self.tcp.open(at, self.rtt)
        self.send(at + 1.5 * self.rtt, True, client_hello(
            self.label, self.offer, self.versions, self.sni, self.alpn, self.ciphers))

    def flight(self, at: float, chain: Sequence[Authority], request: bool = False, sentinel: bytes = b"") -> None:
        """ServerHello to ServerHelloDone; in TLS 1.3 everything behind ServerHello is encrypted."""
        v = self.version
        if v == TLS13:
            listed = sum(len(c.der) + 5 for c in chain)
            self.send(at, False, record(22, server_hello(self.label, v)) + record(20, b"\x01")
                      + encrypted(23, "ee " + self.label, 32) + encrypted(23, "cert " + self.label, listed + 8 + 17)
                      + encrypted(23, "cv " + self.label, 4 + 68 + 17) + encrypted(23, "sfin " + self.label, 53))
            return
        messages = [server_hello(self.label, v, sentinel=sentinel), certificate(chain),
                    server_key_exchange(self.label, v)]
        messages += [certificate_request()] if request else []
        self.send(at, False, b"".join(record(22, m, v) for m in [*messages, message(14, b"")]))

    def finish(self, at: float, client_chain: Sequence[Authority] | None = None, answer: bool = True) -> None:
        """The client's second flight and, with ``answer``, the server's Finished."""
        v = self.version
        if v == TLS13:
            self.send(at, True, record(20, b"\x01") + encrypted(23, "cfin " + self.label, 53))
            return
        out = b""
        if client_chain is not None:
            out += record(22, certificate(client_chain), v)
        out += record(22, message(16, _vector(noise("client share " + self.label, 32), 1)), v)
        if client_chain:
            out += record(22, message(15, b"\x08\x07" + _vector(noise("verify " + self.label, 64), 2)), v)
        self.send(at, True, out + record(20, b"\x01", v) + encrypted(22, "cfin " + self.label, 40, v))
        if answer:
            self.send(at + self.rtt, False, record(20, b"\x01", v) + encrypted(22, "sfin " + self.label, 40, v))

    def data(self, at: float) -> None:
        """A request and its response."""
        self.send(at, True, encrypted(23, "request " + self.label, 240, min(self.version, TLS12)))
        self.send(at + 2 * self.rtt, False, encrypted(23, "response " + self.label, 900, min(self.version, TLS12)))

    def alert(self, at: float, description: int, by_client: bool = True, level: int = 2) -> None:
        self.send(at, by_client, alert(description, level, min(self.version, TLS12)))

    def close(self, at: float, by_client: bool = True) -> None:
        self.tcp.close(at, self.rtt, by_client)

    # Whole conversations

    def accepted(self, at: float, chain: Sequence[Authority], client_chain: Sequence[Authority] | None = None,
                 request: bool = False) -> Session:
        """Handshake, a request and its response, regular end."""
        self.hello(at)
        self.flight(at + 0.05, chain, request)
        self.finish(at + 0.08, client_chain)
        self.data(at + 0.15)
        self.send(at + 1.0, True, encrypted(21, "bye " + self.label, 26))
        self.close(at + 1.01)
        return self

    def rejected(self, at: float, chain: Sequence[Authority], description: int) -> Session:
        """The client refuses the server's certificates with an alert in clear."""
        self.hello(at)
        self.flight(at + 0.05, chain)
        self.alert(at + 0.08, description)
        self.close(at + 0.081)
        return self

    def abandoned(self, at: float, chain: Sequence[Authority], after: float = 0.03) -> Session:
        """The client closes ``after`` seconds after the server's certificates, without a word."""
        self.hello(at)
        self.flight(at + 0.05, chain)
        self.close(at + 0.05 + after)
        return self

    def refused(self, at: float, description: int = -1, by_client: bool = False, after: float = 0.0) -> Session:
        """An alert follows the ClientHello, or (without ``description``) a close and nothing else."""
        self.hello(at)
        if description >= 0:
            self.alert(at + 0.05 + after, description, by_client)
        self.close(at + 0.051 + after, by_client)
        return self
