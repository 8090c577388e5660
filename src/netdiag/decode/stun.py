"""STUN and TURN messages: headers and attributes of many in columns, every value of one on demand.

Sources: RFC 8489 (STUN; RFC 5389 and the classic RFC 3489 before it), RFC 8656 (TURN), RFC 8445 (ICE), RFC 6062.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

PORT = 3478
"""RFC 8489 §18.6, over UDP and TCP; RFC 3489 §8.1 the same."""
COOKIE = 0x2112A442
"""RFC 8489 §5. What lacks it is of RFC 3489, whose transaction id had 16 bytes."""
HEADER = 20
REQUEST, INDICATION, SUCCESS, ERROR = range(4)
"""Classes (RFC 8489 §5)."""
BINDING, SHARED_SECRET, ALLOCATE, REFRESH = 1, 2, 3, 4
SEND, DATA_METHOD, CREATE_PERMISSION, CHANNEL_BIND = 6, 7, 8, 9
METHODS = {
    BINDING: "Binding", SHARED_SECRET: "Shared Secret", ALLOCATE: "Allocate", REFRESH: "Refresh", SEND: "Send",
    DATA_METHOD: "Data", CREATE_PERMISSION: "CreatePermission", CHANNEL_BIND: "ChannelBind", 10: "Connect",
    11: "ConnectionBind", 12: "ConnectionAttempt",
}
"""RFC 8489 §18.2, RFC 3489 §11.1, RFC 8656 §17, RFC 6062 §6.1."""
TURN = frozenset({ALLOCATE, REFRESH, SEND, DATA_METHOD, CREATE_PERMISSION, CHANNEL_BIND})

MAPPED_ADDRESS, USERNAME, MESSAGE_INTEGRITY, ERROR_CODE, CHANNEL_NUMBER, LIFETIME = 0x01, 0x06, 0x08, 0x09, 0x0C, 0x0D
XOR_PEER_ADDRESS, DATA, REALM, NONCE, XOR_RELAYED_ADDRESS = 0x12, 0x13, 0x14, 0x15, 0x16
REQUESTED_FAMILY, MESSAGE_INTEGRITY_SHA256, XOR_MAPPED_ADDRESS, PRIORITY, USE_CANDIDATE = 0x17, 0x1C, 0x20, 0x24, 0x25
OLD_XOR_MAPPED_ADDRESS, SOFTWARE, FINGERPRINT, ICE_CONTROLLED, ICE_CONTROLLING = 0x8020, 0x8022, 0x8028, 0x8029, 0x802A
"""RFC 8489 §18.3, RFC 8656 §18, RFC 8445 §16.1; 0x8020 was that of RFC 5389's drafts."""
COLUMNS = (
    MAPPED_ADDRESS, USERNAME, MESSAGE_INTEGRITY, ERROR_CODE, CHANNEL_NUMBER, LIFETIME, XOR_PEER_ADDRESS, DATA, REALM,
    XOR_RELAYED_ADDRESS, REQUESTED_FAMILY, MESSAGE_INTEGRITY_SHA256, XOR_MAPPED_ADDRESS, PRIORITY, USE_CANDIDATE,
    OLD_XOR_MAPPED_ADDRESS, SOFTWARE, FINGERPRINT, ICE_CONTROLLED, ICE_CONTROLLING,
)
"""Attributes that ``attributes`` finds."""
MAX_ATTRIBUTES = 64
"""Attributes read of one message (practice: real ones have fewer than twenty)."""
ERRORS = {
    300: "Try Alternate", 400: "Bad Request", 401: "Unauthenticated", 403: "Forbidden", 420: "Unknown Attribute",
    430: "Stale Credentials", 437: "Allocation Mismatch", 438: "Stale Nonce", 440: "Address Family not Supported",
    441: "Wrong Credentials", 442: "Unsupported Transport Protocol", 443: "Peer Address Family Mismatch",
    446: "Connection Already Exists", 447: "Connection Timeout or Failure", 486: "Allocation Quota Reached",
    487: "Role Conflict", 500: "Server Error", 508: "Insufficient Capacity",
}
"""RFC 8489 §14.8, RFC 8656 §19, RFC 8445 §7.3.1.1, RFC 6062 §6.3, RFC 3489 §11.2.9."""
_SLOT = np.full(1 << 16, 255, np.uint8)
_SLOT[list(COLUMNS)] = range(len(COLUMNS))
_BEHIND_INTEGRITY = np.isin(COLUMNS, (MESSAGE_INTEGRITY_SHA256, FINGERPRINT))
"""What counts behind MESSAGE-INTEGRITY; anything else there is not protected, and to be ignored (RFC 8489 §14.5)."""
_XOR_CRC = 0x5354554E
"""RFC 8489 §14.7."""


class Headers(NamedTuple):
    """Fixed headers of n messages (RFC 8489 §5)."""

    kind: U8
    """Class: REQUEST, INDICATION, SUCCESS, ERROR."""
    method: U16
    length: I64
    """Bytes behind the header."""
    high: U64
    """Cookie and the first four bytes of the transaction id; ``low`` is the rest of it."""
    low: U64
    cookie: Mask


def headers(data: U8) -> Headers:
    """Fields of headers; ``data`` has shape (n, 20), one message a row."""
    data = np.ascontiguousarray(data)
    words = data.view(">u2")
    kind = words[:, 0].astype(np.uint16)
    ids = np.ascontiguousarray(data[:, 4:20]).view(">u8").astype(np.uint64)
    method = kind & 15 | kind >> 1 & 0x70 | kind >> 2 & 0xF80
    return Headers(((kind >> 4 & 1) | (kind >> 7 & 2)).astype(np.uint8), method.astype(np.uint16),
                   words[:, 1].astype(np.int64),
                   ids[:, 0].copy(), ids[:, 1].copy(), ids[:, 0] >> np.uint64(32) == COOKIE)


def plausible(h: Headers, first: U8, wire: I64) -> Mask:
    """May these be STUN? ``first`` is the first byte, ``wire`` the size of each datagram that it fills.

    RFC 8489 §5: two zero bits, a length that is a multiple of four; here exactly that of the datagram. Without the
    cookie only Binding and Shared Secret of RFC 3489 are believed.
    """
    whole = (first >> 6 == 0) & (h.length & 3 == 0) & (h.length + HEADER == wire)
    classic = ((h.method == BINDING) | (h.method == SHARED_SECRET)) & (h.kind != INDICATION)
    good: Mask = whole & (h.cookie | classic)
    return good


@dataclass(slots=True)
class Attributes:
    """Where the attributes in COLUMNS lie, for n messages."""

    _place: I64
    _size: U16
    broken: Mask
    """An attribute reaches beyond its message, or there are more than MAX_ATTRIBUTES."""

    def at(self, kind: int) -> I64:
        """Offset of each value, -1 where the message has no such attribute."""
        place: I64 = self._place[COLUMNS.index(kind)]
        return place

    def size(self, kind: int) -> U16:
        size: U16 = self._size[COLUMNS.index(kind)]
        return size

    def there(self, kind: int) -> Mask:
        there: Mask = self.at(kind) >= 0
        return there


def attributes(space: Space, at: I64, end: I64) -> Attributes:
    """Steps through the attributes of all messages together; of a repeated one the first counts (RFC 8489 §14).

    ``at`` is where each header begins, ``end`` where the captured part of the message ends.
    """
    place = np.full((len(COLUMNS), len(at)), -1, np.int64)
    length = np.zeros((len(COLUMNS), len(at)), np.uint16)
    broken, signed = np.zeros(len(at), np.bool_), np.zeros(len(at), np.bool_)
    position, going = at + HEADER, np.flatnonzero(at + HEADER + 4 <= end)
    for _ in range(MAX_ATTRIBUTES):
        if not len(going):
            break
        here = position[going]
        head = space.gather(here, 4).view(">u2").reshape(-1, 2)
        kind, size = head[:, 0], head[:, 1].astype(np.int64)
        fits = here + 4 + size <= end[going]
        slot = _SLOT[kind]
        usable = np.flatnonzero(fits & (slot != 255))
        row, column = going[usable], slot[usable]
        good = (place[column, row] < 0) & (~signed[row] | _BEHIND_INTEGRITY[column])
        row, column, usable = row[good], column[good], usable[good]
        place[column, row], length[column, row] = here[usable] + 4, size[usable]
        signed[going[kind == MESSAGE_INTEGRITY]] = True
        broken[going[~fits]] = True
        position[going] = here + 4 + (size + 3 & ~3)
        going = going[fits]
        going = going[position[going] + 4 <= end[going]]
    broken[going] = True
    return Attributes(place, length, broken)


def plain_addresses(space: Space, place: I64, high: U64, low: U64, xor: bool) -> U8:
    """Address values at ``place``, shape (n, 20), without the XOR that ``xor`` says they carry (RFC 8489 §14.2)."""
    value = space.gather(place, 20).copy()
    if xor and len(value):
        mask = np.concatenate([high.astype(">u8").view(np.uint8).reshape(-1, 8),
                               low.astype(">u8").view(np.uint8).reshape(-1, 8)], axis=1)
        value[:, 2:4] ^= mask[:, 0:2]
        value[:, 4:20] ^= mask
    return value


def endpoint(value: bytes) -> tuple[str, int] | None:
    """Address and port of a plain address value (RFC 8489 §14.1); None for another family or too few bytes."""
    if len(value) >= 8 and value[1] == 1:
        return str(ipaddress.IPv4Address(value[4:8])), int.from_bytes(value[2:4], "big")
    if len(value) >= 20 and value[1] == 2:
        return str(ipaddress.IPv6Address(value[4:20])), int.from_bytes(value[2:4], "big")
    return None


def error_name(code: int) -> str:
    """The standard's reason phrase, "" for an unknown code."""
    return ERRORS.get(code, "")


def text(value: bytes) -> str:
    """Names from the wire; bytes that are no UTF-8 as \\xNN."""
    return value.decode("utf-8", "backslashreplace")


class Message(NamedTuple):
    """One message, read whole."""

    raw: bytes
    kind: int
    method: int
    attributes: tuple[tuple[int, int, int], ...]
    """Type, position of the value in ``raw``, its length; all, in order."""

    def value(self, kind: int) -> bytes | None:
        """Value of the first attribute of that type."""
        return next((self.raw[at : at + size] for k, at, size in self.attributes if k == kind), None)

    def values(self, kind: int) -> list[bytes]:
        return [self.raw[at : at + size] for k, at, size in self.attributes if k == kind]

    def endpoints(self, kind: int) -> list[tuple[str, int]]:
        """Addresses and ports of all attributes of that type, which has the XOR of RFC 8489 §14.2."""
        found = []
        for value in self.values(kind):
            mask = self.raw[4:6] + self.raw[4:20]
            plain = value[:2] + bytes(a ^ b for a, b in zip(value[2:20], mask, strict=False))
            found.append(endpoint(plain))
        return [e for e in found if e is not None]


def read(raw: bytes) -> Message | None:
    """One message with or without cookie; None when it is no STUN or was cut."""
    if len(raw) < HEADER or raw[0] >> 6:
        return None
    kind, size = int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:4], "big")
    if size & 3 or HEADER + size > len(raw):
        return None
    found: list[tuple[int, int, int]] = []
    at, end = HEADER, HEADER + size
    while at + 4 <= end and len(found) < MAX_ATTRIBUTES:
        name, length = int.from_bytes(raw[at : at + 2], "big"), int.from_bytes(raw[at + 2 : at + 4], "big")
        if at + 4 + length > end:
            break
        found.append((name, at + 4, length))
        at += 4 + (length + 3 & ~3)
    return Message(raw[:end], kind >> 4 & 1 | kind >> 7 & 2, kind & 15 | kind >> 1 & 0x70 | kind >> 2 & 0xF80,
                   tuple(found))


def _covered(raw: bytes, at: int, size: int) -> bytes:
    """The message before the attribute whose value is at ``at``, with the length it has with that attribute."""
    return raw[:2] + (at - HEADER + size).to_bytes(2, "big") + raw[4 : at - 4]


def fingerprint_fits(raw: bytes | memoryview) -> bool | None:
    """Is the CRC of FINGERPRINT right (RFC 8489 §14.7)? None for a message that does not end with that attribute."""
    if raw[-8:-4] != b"\x80\x28\0\4":
        return None
    return raw[-4:] == (zlib.crc32(raw[:-8]) ^ _XOR_CRC).to_bytes(4, "big")


def integrity_fits(message: Message, key: bytes) -> bool | None:
    """Was it signed with ``key`` (RFC 8489 §14.5, §14.6)? None without such an attribute.

    The key is the password itself (short-term credentials, ICE) or ``long_term_key``.
    """
    for kind, at, size in message.attributes:
        covered = _covered(message.raw, at, size) if kind in (MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256) else b""
        if kind == MESSAGE_INTEGRITY:
            return hmac.compare_digest(hmac.digest(key, covered, "sha1"), message.raw[at : at + size])
        if kind == MESSAGE_INTEGRITY_SHA256:
            made = hmac.digest(key, covered, "sha256")
            return 16 <= size <= 32 and hmac.compare_digest(made[:size], message.raw[at : at + size])
    return None


def long_term_key(username: str, realm: str, password: str) -> bytes:
    """Key of the long-term mechanism (RFC 8489 §9.2.2)."""
    joined = ":".join((username, realm, password)).encode()
    return hashlib.md5(joined, usedforsecurity=False).digest()
