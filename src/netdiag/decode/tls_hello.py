"""ClientHello, ServerHello and the other clear handshake messages (RFC 5246 §7.4, RFC 8446 §4)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

HELLO_RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""ServerHello.random of a HelloRetryRequest (RFC 8446 §4.1.3)."""
DOWNGRADE_12 = b"DOWNGRD\x01"
DOWNGRADE_11 = b"DOWNGRD\x00"
"""Last eight bytes of ServerHello.random (RFC 8446 §4.1.3)."""
_SENTINELS = {DOWNGRADE_12: 0x0303, DOWNGRADE_11: 0x0302}
FALLBACK_SCSV = 0x5600
"""RFC 7507 §2."""

SERVER_NAME, SUPPORTED_GROUPS, SIGNATURE_ALGORITHMS, ALPN = 0, 10, 13, 16
SESSION_TICKET, PRE_SHARED_KEY, EARLY_DATA, SUPPORTED_VERSIONS, KEY_SHARE = 35, 41, 42, 43, 51
CERTIFICATE_AUTHORITIES, ENCRYPT_THEN_MAC = 47, 22
"""Extension numbers of the IANA registry (RFC 8446 §4.2, RFC 7301 §3.1, RFC 5077 §3.2, RFC 7366 §2)."""

MAX_CERTIFICATES = 101
"""Certificates read of one message: OpenSSL verifies a leaf and at most 100 above it (SSL_CTX_set_verify_depth(3))."""
MAX_NAMES = 512
"""Distinguished names kept of a CertificateRequest; the rest only counts (practice: more names nobody reads)."""


REMEMBERED = 1 << 9
"""Bytes of a list whose meaning is remembered: a capture has few kinds of clients, and each sends the same lists."""

_EXTENSION = struct.Struct(">HH")  # type, length

T = TypeVar("T")


def _remember(parse: Callable[[bytes], T]) -> Callable[[bytes], T]:
    cached = lru_cache(maxsize=1024)(parse)
    return lambda data: cached(data) if len(data) <= REMEMBERED else parse(data)


def grease(value: int) -> bool:
    """Is it one of the reserved values of RFC 8701 §2?"""
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


@dataclass(slots=True)
class ClientHello:
    """Fields of a ClientHello; lists are in the sender's order and without GREASE (RFC 8701)."""

    version: int
    """legacy_version."""
    random: bytes
    session_id: bytes
    ciphers: tuple[int, ...]
    extensions: tuple[int, ...]
    sni: str | None
    alpn: tuple[str, ...]
    versions: tuple[int, ...]
    """supported_versions; empty without that extension."""
    groups: tuple[int, ...]
    signature_algorithms: tuple[int, ...]
    key_shares: tuple[int, ...]
    psk: bool
    """Offers a pre_shared_key."""
    ticket: bool
    """Offers a session ticket that is not empty (RFC 5077)."""
    early_data: bool
    problem: str
    """"" or what was odd, our own words."""
    @property
    def max_version(self) -> int:
        return max(self.versions) if self.versions else self.version


@dataclass(slots=True)
class ServerHello:
    """Fields of a ServerHello or HelloRetryRequest."""

    version: int
    """Chosen version: supported_versions, else legacy_version."""
    random: bytes
    session_id: bytes
    cipher: int
    retry: bool
    """It is a HelloRetryRequest."""
    alpn: str | None
    group: int | None
    psk: bool
    sentinel: int | None
    """0x0303 or 0x0302 when the random ends with a downgrade sentinel."""
    problem: str
    compressed: bool = False
    """A compression method other than null was chosen (RFC 5246 §7.4.1.3)."""
    encrypt_then_mac: bool = False
    """RFC 7366."""


class CertificateRequest(NamedTuple):
    authorities: tuple[bytes, ...]
    """DER names, first MAX_NAMES."""
    names: int
    """How many there are."""
    size: int
    """Bytes of the list."""
    problem: str


class _Reader:
    """Reads big-endian fields; a length that lies raises ``IndexError``."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end

    def number(self, width: int) -> int:
        a = self.at
        self.at = a + width
        if self.at > self.end:
            raise IndexError
        return int.from_bytes(self.data[a : self.at], "big")

    def vector(self, width: int) -> bytes:
        size = self.number(width)
        a = self.at
        self.at = a + size
        if self.at > self.end:
            raise IndexError
        return self.data[a : self.at]

    def left(self) -> int:
        return self.end - self.at


@_remember
def _numbers(data: bytes) -> tuple[int, ...]:
    """16-bit values without GREASE; an odd last byte is dropped."""
    values = struct.unpack(f">{len(data) // 2}H", data[: len(data) & ~1])
    return tuple([v for v in values if v & 0x0F0F != 0x0A0A or not grease(v)])


def text(data: bytes) -> str:
    """Names from the wire: ASCII, every other byte as \\xNN; what is shown is escaped again by the renderers."""
    return data.decode("ascii", "backslashreplace")


def _extensions(data: bytes, at: int = 0) -> tuple[list[tuple[int, bytes]], str]:
    """(type, content) of each extension in the list at ``at``, and "" or what was odd; a hello may end without one."""
    out: list[tuple[int, bytes]] = []
    if at == len(data):
        return out, ""
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    at += 2
    if end > len(data):
        return out, "extension list longer than its hello"
    while at < end:
        kind, size = _EXTENSION.unpack_from(data, at) if at + 4 <= end else (0, end)
        stop = at + 4 + size
        if stop > end:
            return out, "extension longer than the list it is in"
        out.append((kind, data[at + 4 : stop]))
        at = stop
    twice = len(dict(out)) < len(out)
    return out, "extension that appears twice (RFC 8446 §4.2)" if twice else ""


@_remember
def _sni(data: bytes) -> str | None:
    names = _Reader(_Reader(data).vector(2))
    while names.left():
        kind = names.number(1)
        name = names.vector(2)
        if kind == 0:
            return text(name)
    return None


@_remember
def _protocols(data: bytes) -> tuple[str, ...]:
    names = _Reader(_Reader(data).vector(2))
    out = []
    while names.left():
        name = names.vector(1)
        if not (len(name) == 2 and grease(name[0] << 8 | name[1])):
            out.append(text(name))
    return tuple(out)


def _shares(data: bytes) -> tuple[int, ...]:
    shares = _Reader(_Reader(data).vector(2))
    out = []
    while shares.left():
        group = shares.number(2)
        shares.vector(2)
        if not grease(group):
            out.append(group)
    return tuple(out)


@_remember
def _list8(data: bytes) -> tuple[int, ...]:
    return _numbers(_Reader(data).vector(1))


@_remember
def _list16(data: bytes) -> tuple[int, ...]:
    return _numbers(_Reader(data).vector(2))


def client_hello(body: bytes) -> ClientHello | None:
    """Parses the body of a ClientHello; None when not even the cipher suites can be read."""
    try:
        lists = 35 + body[34]
        ended = lists + 2 + (body[lists] << 8 | body[lists + 1])
    except IndexError:
        return None
    if ended > len(body) or body[0] != 3 or lists > 35 + 32:
        return None
    at = ended + 1 + body[ended] if ended < len(body) else ended + 1
    found, problem = _extensions(body, at) if at <= len(body) else ([], "compression methods longer than the hello")
    sni: str | None = None
    alpn: tuple[str, ...] = ()
    versions: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    signatures: tuple[int, ...] = ()
    shares: tuple[int, ...] = ()
    ticket = False
    for kind, data in found:
        try:
            if kind == SERVER_NAME and data:
                sni = _sni(data)
            elif kind == ALPN:
                alpn = _protocols(data)
            elif kind == SUPPORTED_VERSIONS:
                versions = _list8(data)
            elif kind == SUPPORTED_GROUPS:
                groups = _list16(data)
            elif kind == SIGNATURE_ALGORITHMS:
                signatures = _list16(data)
            elif kind == KEY_SHARE:
                shares = _shares(data)
            elif kind == SESSION_TICKET:
                ticket = len(data) > 0
        except IndexError:
            problem = "extension whose inner length is wrong"
    kinds = tuple([kind for kind, _ in found if kind & 0x0F0F != 0x0A0A or not grease(kind)])
    return ClientHello(0x0300 | body[1], body[2:34], body[35:lists], _numbers(body[lists + 2 : ended]), kinds, sni,
                       alpn, versions, groups, signatures, shares, PRE_SHARED_KEY in kinds, ticket,
                       EARLY_DATA in kinds, problem)


def server_hello(body: bytes) -> ServerHello | None:
    """Parses the body of a ServerHello; None when not even the cipher suite can be read."""
    at = 35 + body[34] if len(body) > 34 else 35
    if at + 2 > len(body) or body[0] not in (3, 0x7F) or at > 35 + 32:
        return None
    version, random, session_id = body[0] << 8 | body[1], body[2:34], body[35:at]
    cipher, compressed = body[at] << 8 | body[at + 1], body[at + 2 : at + 3] not in (b"", b"\0")
    at += 3
    found, problem = _extensions(body, at) if at <= len(body) else ([], "server hello without compression method")
    alpn: str | None = None
    group: int | None = None
    psk = False
    for kind, data in found:
        try:
            if kind == SUPPORTED_VERSIONS:
                version = _Reader(data).number(2)
            elif kind == ALPN:
                alpn = next(iter(_protocols(data)), None)
            elif kind == KEY_SHARE:
                group = _Reader(data).number(2)
            elif kind == PRE_SHARED_KEY:
                psk = True
        except IndexError:
            problem = "extension whose inner length is wrong"
    sentinel = _SENTINELS.get(random[24:])
    return ServerHello(version, random, session_id, cipher, random == HELLO_RETRY_RANDOM, alpn, group, psk, sentinel,
                       problem, compressed, any(kind == ENCRYPT_THEN_MAC for kind, _ in found))


def chosen_protocol(body: bytes) -> str | None:
    """ALPN answer in the body of EncryptedExtensions (RFC 8446 §4.3.1)."""
    found, _ = _extensions(body)
    try:
        return next((p for kind, data in found if kind == ALPN for p in _protocols(data)), None)
    except IndexError:
        return None


def certificates(body: bytes, version: int) -> tuple[tuple[bytes, ...], str]:
    """DER certificates of a Certificate message in their order, and "" or what was odd.

    ``version`` is the chosen version: TLS 1.3 puts a context before the list and extensions behind each certificate
    (RFC 8446 §4.4.2).
    """
    reader = _Reader(body)
    out: list[bytes] = []
    try:
        if version >= 0x0304:
            reader.vector(1)
        entries = _Reader(reader.vector(3))
        while entries.left():
            if len(out) >= MAX_CERTIFICATES:
                return tuple(out), f"more than {MAX_CERTIFICATES} certificates: the rest is not read"
            out.append(entries.vector(3))
            if version >= 0x0304:
                entries.vector(2)
    except IndexError:
        return tuple(out), "certificate list whose lengths do not add up"
    return tuple(out), "bytes behind the certificate list" if reader.left() else ""


def certificate_request(body: bytes, version: int) -> CertificateRequest:
    """The certificate authorities a CertificateRequest names (RFC 5246 §7.4.4, RFC 8446 §4.2.4)."""
    names: list[bytes] = []
    count = size = 0
    try:
        reader = _Reader(body)
        if version >= 0x0304:
            reader.vector(1)
            found, problem = _extensions(body, reader.at)
            block = next((_Reader(data).vector(2) for kind, data in found if kind == CERTIFICATE_AUTHORITIES), b"")
        else:
            problem = ""
            reader.vector(1)
            if version >= 0x0303:
                reader.vector(2)
            block = reader.vector(2)
        size = len(block)
        listed = _Reader(block)
        while listed.left():
            name = listed.vector(2)
            count += 1
            if len(names) < MAX_NAMES:
                names.append(name)
    except IndexError:
        problem = "certificate request whose lengths do not add up"
    return CertificateRequest(tuple(names), count, size, problem)


_VERSIONS = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}


def ja4(hello: ClientHello) -> str:
    """JA4 fingerprint of a ClientHello over TCP, as the public (BSD-3-Clause) JA4 specification describes it."""
    parts = (hello.max_version, hello.ciphers, hello.extensions, hello.signature_algorithms,
             hello.alpn[0] if hello.alpn else "")
    # A capture has few kinds of clients; only lists of usual length are worth remembering.
    if len(hello.ciphers) + len(hello.extensions) + len(hello.signature_algorithms) < 300 and len(parts[4]) < 300:
        return _ja4_cached(*parts)
    return _ja4(*parts)


def _ja4(version: int, ciphers: tuple[int, ...], kinds: tuple[int, ...], signatures: tuple[int, ...], alpn: str) -> str:
    if not alpn:
        mark = "00"
    elif alpn[0].isalnum() and alpn[-1].isalnum():
        mark = alpn[0] + alpn[-1]
    else:
        digits = alpn.encode("ascii", "replace").hex()
        mark = digits[0] + digits[-1]
    head = (f"t{_VERSIONS.get(version, '00')}{'d' if SERVER_NAME in kinds else 'i'}"
            f"{min(len(ciphers), 99):02d}{min(len(kinds), 99):02d}{mark}")
    listed = ",".join(sorted(f"{k:04x}" for k in kinds if k not in (SERVER_NAME, ALPN)))
    if signatures:
        listed += "_" + ",".join(f"{s:04x}" for s in signatures)
    return f"{head}_{_short(','.join(sorted(f'{c:04x}' for c in ciphers)))}_{_short(listed)}"


_ja4_cached = lru_cache(maxsize=1024)(_ja4)


def _short(listed: str) -> str:
    return hashlib.sha256(listed.encode()).hexdigest()[:12] if listed else "0" * 12
