"""STUN, ICE and TURN messages for samples: the same bytes in every run (RFC 8489, RFC 8445, RFC 8656)."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import struct
import zlib
from dataclasses import dataclass, field

from _craft.network import Wire

COOKIE = 0x2112A442
REQUEST, INDICATION, SUCCESS, ERROR = 0x000, 0x010, 0x100, 0x110
BINDING, ALLOCATE, REFRESH, SEND, DATA, PERMISSION, CHANNEL_BIND = 1, 3, 4, 6, 7, 8, 9
REASONS = {300: "Try Alternate", 400: "Bad Request", 401: "Unauthenticated", 403: "Forbidden",
           437: "Allocation Mismatch", 438: "Stale Nonce", 440: "Address Family not Supported",
           486: "Allocation Quota Reached", 487: "Role Conflict", 508: "Insufficient Capacity"}
End = tuple[str, int]
PRIORITY = 0x6E0001FF
"""Of a peer-reflexive candidate (RFC 8445 §5.1.2.1, §7.1.1)."""


def xored(end: End, tid: bytes) -> bytes:
    """Value of an address attribute with the XOR of RFC 8489 §14.2."""
    packed = ipaddress.ip_address(end[0]).packed
    mask = struct.pack(">I", COOKIE) + tid
    return struct.pack(">BBH", 0, 1 if len(packed) == 4 else 2, end[1] ^ COOKIE >> 16) + bytes(
        a ^ b for a, b in zip(packed, mask, strict=False))


def attribute(kind: int, value: bytes = b"") -> bytes:
    return struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)


def message(kind: int, method: int, tid: bytes, attributes: bytes = b"", key: bytes | None = None,
            fingerprint: bool = True) -> bytes:
    """A message; ``key`` signs it."""
    def head(size: int) -> bytes:
        return struct.pack(">HHI", kind | method, size, COOKIE) + tid

    if key is not None:
        signed = head(len(attributes) + 24) + attributes
        attributes += attribute(0x08, hmac.digest(key, signed, "sha1"))
    if fingerprint:
        covered = head(len(attributes) + 8) + attributes
        attributes += attribute(0x8028, struct.pack(">I", zlib.crc32(covered) ^ 0x5354554E))
    return head(len(attributes)) + attributes


def error_code(code: int) -> bytes:
    return attribute(0x09, struct.pack(">HBB", 0, code // 100, code % 100) + REASONS[code].encode())


def number(value: int) -> bytes:
    """A transaction id."""
    return hashlib.shake_256(f"tid {value}".encode()).digest(12)


@dataclass
class Agents:
    """Two ICE agents and one candidate pair; ``a`` is controlling. Each method adds datagrams."""

    wire: Wire
    a: End
    b: End
    ufrags: tuple[str, str] = ("aaaa", "bbbb")
    passwords: tuple[str, str] = ("password-of-agent-a-000", "password-of-agent-b-000")
    tids: int = 0
    rtt: float = 0.02
    seen_as: End | None = None
    """How b sees a, when a NAT lies before the capture."""
    repeated: bytes = field(default=b"", repr=False)

    def request(self, at: float, from_a: bool = True, nominate: bool = False, role: str = "",
                again: bool = False) -> int:
        """A connectivity check; ``again`` retransmits the last one."""
        if not again:
            self.tids += 1
            mine, theirs = (0, 1) if from_a else (1, 0)
            controlling = (role or ("controlling" if from_a else "controlled")) == "controlling"
            body = attribute(0x06, f"{self.ufrags[theirs]}:{self.ufrags[mine]}".encode())
            body += attribute(0x24, struct.pack(">I", PRIORITY))
            body += attribute(0x802A if controlling else 0x8029, bytes(7) + b"\1")
            body += attribute(0x25) if nominate else b""
            self.repeated = message(REQUEST, BINDING, number(self.tids), body, self.passwords[theirs].encode())
        return self._send(at, from_a, self.repeated)

    def response(self, at: float, to_a: bool = True, source: End | None = None) -> int:
        """Success for the last request of that side."""
        tid = number(self.tids)
        signed = self.passwords[1 if to_a else 0].encode()
        raw = message(SUCCESS, BINDING, tid, attribute(0x20, xored((self.seen_as or self.a) if to_a else self.b, tid)),
                      signed)
        if source is not None:
            return self.wire.udp(at, *source, *self.a, raw)
        return self._send(at, not to_a, raw)

    def refusal(self, at: float, code: int, to_a: bool = True) -> int:
        """An error response to the last request of that side."""
        return self._send(at, not to_a, message(ERROR, BINDING, number(self.tids), error_code(code)))

    def check(self, at: float, from_a: bool = True, nominate: bool = False, role: str = "") -> int:
        """A check that is answered."""
        out = self.request(at, from_a, nominate, role)
        self.response(at + self.rtt, from_a)
        return out

    def connect(self, at: float) -> None:
        """Checks both ways, the last one nominates."""
        self.check(at)
        self.check(at + 0.05, from_a=False)
        self.check(at + 0.1, nominate=True)

    def retransmitted(self, at: float, from_a: bool = True, most: int = 7) -> None:
        """One check and its retransmissions: 500 ms, doubled each time (RFC 8489 §6.2.1)."""
        self.request(at, from_a)
        for i in range(1, most):
            self.request(at + 0.5 * (2**i - 1), from_a, again=True)

    def data(self, at: float, payload: bytes, from_a: bool = True) -> int:
        return self._send(at, from_a, payload)

    def _send(self, at: float, from_a: bool, raw: bytes) -> int:
        (src, sp), (dst, dp) = (self.a, self.b) if from_a else (self.b, self.a)
        return self.wire.udp(at, src, sp, dst, dp, raw)


@dataclass
class TurnClient:
    """A TURN client and its server (RFC 8656); each method adds a request and what answers it."""

    wire: Wire
    client: End
    server: End
    relay: End = ("198.51.100.9", 50000)
    username: str = "1767229200:alice"
    realm: str = "turn.example"
    nonce: str = "adl7W7PeDU4hKE72jdaQ"
    password: str = "turn-password"
    tids: int = 1000
    rtt: float = 0.02

    def key(self) -> bytes:
        return hashlib.md5(f"{self.username}:{self.realm}:{self.password}".encode()).digest()

    def ask(self, at: float, method: int, body: bytes = b"", signed: bool = True) -> int:
        """A request alone."""
        self.tids += 1
        if signed:
            body += attribute(0x06, self.username.encode()) + attribute(0x14, self.realm.encode())
            body += attribute(0x15, self.nonce.encode())
        raw = message(REQUEST, method, number(self.tids), body, self.key() if signed else None, False)
        return self.wire.udp(at, *self.client, *self.server, raw)

    def answer(self, at: float, method: int, code: int = 0, body: bytes = b"") -> int:
        """A response to the last request; ``code`` 0 is success."""
        if code in (401, 438):
            body += attribute(0x14, self.realm.encode()) + attribute(0x15, self.nonce.encode())
        raw = message(ERROR if code else SUCCESS, method, number(self.tids), (error_code(code) if code else b"") + body,
                      None, False)
        return self.wire.udp(at, *self.server, *self.client, raw)

    def challenged(self, at: float) -> None:
        """The first Allocate, without credentials, and its 401."""
        self.ask(at, ALLOCATE, attribute(0x19, b"\x11\0\0\0"), signed=False)
        self.answer(at + self.rtt, ALLOCATE, 401)

    def allocate(self, at: float, code: int = 0, lifetime: int = 600, family: int = 0) -> None:
        wanted = attribute(0x17, bytes([family, 0, 0, 0])) if family else b""
        self.ask(at, ALLOCATE, attribute(0x19, b"\x11\0\0\0") + wanted)
        self.answer(at + self.rtt, ALLOCATE, code, b"" if code else self._granted(lifetime))

    def _granted(self, lifetime: int) -> bytes:
        tid = number(self.tids)
        return (attribute(0x16, xored(self.relay, tid)) + attribute(0x20, xored(self.client, tid))
                + attribute(0x0D, struct.pack(">I", lifetime)))

    def refresh(self, at: float, lifetime: int = 600, code: int = 0) -> None:
        self.ask(at, REFRESH, attribute(0x0D, struct.pack(">I", lifetime)))
        self.answer(at + self.rtt, REFRESH, code, b"" if code else attribute(0x0D, struct.pack(">I", lifetime)))

    def permit(self, at: float, peer: End, code: int = 0) -> None:
        self.ask(at, PERMISSION, attribute(0x12, xored(peer, number(self.tids + 1))))
        self.answer(at + self.rtt, PERMISSION, code)

    def bind(self, at: float, peer: End, channel: int = 0x4000, code: int = 0) -> None:
        self.ask(at, CHANNEL_BIND, attribute(0x0C, struct.pack(">HH", channel, 0))
                 + attribute(0x12, xored(peer, number(self.tids + 1))))
        self.answer(at + self.rtt, CHANNEL_BIND, code)

    def send(self, at: float, peer: End, payload: bytes) -> int:
        """A Send indication."""
        self.tids += 1
        tid = number(self.tids)
        raw = message(INDICATION, SEND, tid, attribute(0x12, xored(peer, tid)) + attribute(0x13, payload), None, False)
        return self.wire.udp(at, *self.client, *self.server, raw)

    def receive(self, at: float, peer: End, payload: bytes) -> int:
        """A Data indication."""
        self.tids += 1
        tid = number(self.tids)
        raw = message(INDICATION, DATA, tid, attribute(0x12, xored(peer, tid)) + attribute(0x13, payload), None, False)
        return self.wire.udp(at, *self.server, *self.client, raw)

    def channel(self, at: float, payload: bytes, out: bool = True, channel: int = 0x4000) -> int:
        """ChannelData (RFC 8656 §12.4)."""
        raw = struct.pack(">HH", channel, len(payload)) + payload
        ends = (*self.client, *self.server) if out else (*self.server, *self.client)
        return self.wire.udp(at, *ends, raw)


def sdp(address: str, port: int, ufrag: str, password: str, candidates: tuple[str, ...] = (), setup: str = "actpass",
        fingerprint: str = "", session: str = "") -> str:
    """A description with ICE and DTLS-SRTP (RFC 8839, RFC 5763); ``candidates`` are "address port type"."""
    lines = "".join(
        f"a=candidate:{i} 1 UDP {2130706431 - i} {c.split()[0]} {c.split()[1]} typ {c.split()[2]}"
        + (f" raddr {address} rport {port}" if c.split()[2] != "host" else "") + "\r\n"
        for i, c in enumerate(candidates or (f"{address} {port} host",), 1))
    return (f"v=0\r\no=- 100 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n{session}"
            f"m=audio {port} UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-mux\r\n"
            f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\n"
            + (f"a=fingerprint:sha-256 {fingerprint}\r\na=setup:{setup}\r\n" if fingerprint else "") + lines)
