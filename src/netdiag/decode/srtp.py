"""SRTP: keys of SDES and DTLS-SRTP, session keys, and whether the tag of a packet fits.

Sources: RFC 3711 §4.1.1 (AES counter mode), §4.2 (HMAC-SHA1), §4.3 (key derivation), RFC 6188 (longer AES keys),
RFC 7714 (AES-GCM), RFC 4568 §6, §9.1 (a=crypto), RFC 5764 §4.1.2, §4.2 (profiles and keys of DTLS-SRTP).
``cryptography`` is imported when the first key is used.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from netdiag.decode.rtp import HEADER


class Suite(NamedTuple):
    """A protection profile; lengths in bytes."""

    key: int
    salt: int
    tag: int
    gcm: bool = False


SUITES = {
    "AES_CM_128_HMAC_SHA1_80": Suite(16, 14, 10), "AES_CM_128_HMAC_SHA1_32": Suite(16, 14, 4),
    "F8_128_HMAC_SHA1_80": Suite(16, 14, 10), "F8_128_HMAC_SHA1_32": Suite(16, 14, 4),
    "NULL_HMAC_SHA1_80": Suite(16, 14, 10), "NULL_HMAC_SHA1_32": Suite(16, 14, 4),
    "AES_192_CM_HMAC_SHA1_80": Suite(24, 14, 10), "AES_192_CM_HMAC_SHA1_32": Suite(24, 14, 4),
    "AES_256_CM_HMAC_SHA1_80": Suite(32, 14, 10), "AES_256_CM_HMAC_SHA1_32": Suite(32, 14, 4),
    "AEAD_AES_128_GCM": Suite(16, 12, 16, True), "AEAD_AES_256_GCM": Suite(32, 12, 16, True),
}
"""Crypto-suites of a=crypto (RFC 4568 §6.2, RFC 6188 §4, RFC 7714 §14.1), and three more that rtpengine offers."""
PROFILES = {1: "AES_CM_128_HMAC_SHA1_80", 2: "AES_CM_128_HMAC_SHA1_32", 7: "AEAD_AES_128_GCM", 8: "AEAD_AES_256_GCM"}
"""DTLS-SRTP protection profiles with a tag and a cipher (RFC 5764 §4.1.2, RFC 7714 §14.2)."""
KEY_LIMIT = 8
"""Keys of one a=crypto line that are read (practice)."""
MKI_LIMIT = 128
"""Longest master key identifier, bytes (RFC 4568 §9.2)."""
_CIPHER, _AUTH, _SALT = 0, 1, 2
"""Labels of SRTP session keys (RFC 3711 §4.3.2)."""


@dataclass(frozen=True)
class Key:
    """A master key, and session keys made of it with key derivation rate 0; keys are not shown by ``repr``."""

    suite: Suite
    master: bytes
    salt: bytes
    mki: bytes = b""
    """Master key identifier that packets carry (RFC 3711 §3.1)."""

    def __repr__(self) -> str:
        return f"Key({self.suite}, {self.name})"

    @cached_property
    def name(self) -> str:
        """Eight hexadecimal digits that are the same for the same key, and do not give it away."""
        return hashlib.sha256(b"netdiag" + self.master + self.salt).hexdigest()[:8]

    def shaped(self, tag: int, mki: bytes) -> Key:
        """The same key with a tag or an identifier of another length."""
        return replace(self, suite=self.suite._replace(tag=tag), mki=mki)

    @cached_property
    def auth(self) -> bytes:
        """Session authentication key: 160 bits (RFC 3711 §5.2)."""
        return derive(self.master, self.salt, _AUTH, 20)

    @cached_property
    def cipher(self) -> tuple[bytes, bytes]:
        """Session encryption key and session salt."""
        return derive(self.master, self.salt, _CIPHER, self.suite.key), derive(self.master, self.salt, _SALT,
                                                                               self.suite.salt)


def derive(master: bytes, salt: bytes, label: int, size: int) -> bytes:
    """One session key (RFC 3711 §4.3.3); a salt of 96 bits has zeros behind it (RFC 7714 §11)."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    block = bytearray(salt.ljust(14, b"\0") + b"\0\0")
    block[7] ^= label
    return Cipher(algorithms.AES(master), modes.CTR(bytes(block))).encryptor().update(bytes(size))


def header_size(packet: bytes) -> int:
    """Bytes of the RTP header with sources and extension (RFC 3550 §5.1, §5.3.1); 0 when the packet is shorter."""
    if len(packet) < HEADER:
        return 0
    size = HEADER + 4 * (packet[0] & 15)
    if packet[0] & 16:
        if len(packet) < size + 4:
            return 0
        size += 4 + 4 * int.from_bytes(packet[size + 2 : size + 4], "big")
    return size if size <= len(packet) else 0


def verify(key: Key, packet: bytes, roc: int) -> bool:
    """Does the tag of a whole SRTP packet fit this key and roll-over counter?"""
    size, mki = key.suite.tag, len(key.mki)
    if len(packet) < HEADER + size + mki:
        return False
    if key.suite.gcm:
        return packet.endswith(key.mki) and _opens(key, packet, roc)
    end = len(packet) - size
    if mki and packet[end - mki : end] != key.mki:
        return False
    made = hmac.digest(key.auth, packet[: end - mki] + roc.to_bytes(4, "big"), "sha1")
    return made[:size] == packet[end:]


def _opens(key: Key, packet: bytes, roc: int) -> bool:
    """Does AES-GCM accept the packet (RFC 7714 §8.1, §8.2)?"""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    head = header_size(packet)
    end = len(packet) - len(key.mki)
    if not head or end - head < key.suite.tag:
        return False
    cipher, salt = key.cipher
    counted = packet[8:12] + roc.to_bytes(4, "big") + packet[2:4]
    nonce = bytes(a ^ b for a, b in zip(b"\0\0" + counted, salt, strict=True))
    try:
        AESGCM(cipher).decrypt(nonce, packet[head:end], packet[:head])
    except InvalidTag:
        return False
    return True


class Line(NamedTuple):
    """An a=crypto attribute (RFC 4568 §9.1)."""

    tag: str
    suite: str
    keys: tuple[Key, ...]
    """Several where each has an identifier of its own."""
    unknown: str
    """Why nothing can be verified with it, in our words; "" when it can."""


def crypto(tag: str, suite: str, parameters: str) -> Line:
    """Keys of an a=crypto line; ``parameters`` is what follows the suite."""
    name = suite.upper()
    words = parameters.split()
    session = [word.upper() for word in words[1:]]
    known = SUITES.get(name)
    if known is None:
        return Line(tag, name, (), "unknown suite")
    if "UNAUTHENTICATED_SRTP" in session:
        return Line(tag, name, (), "packets without a tag were agreed")
    if any(word.startswith("KDR=") and word != "KDR=0" for word in session):
        return Line(tag, name, (), "keys that are derived anew")
    keys = [_inline(known, text) for text in (words[0] if words else "").split(";")[:KEY_LIMIT]]
    good = tuple(key for key in keys if key is not None)
    return Line(tag, name, good, "" if good else "unreadable key")


def _inline(suite: Suite, text: str) -> Key | None:
    """``inline:<key and salt>|lifetime|MKI:length`` (RFC 4568 §6.1)."""
    method, _, value = text.partition(":")
    if method.lower() != "inline":
        return None
    first, *rest = value.split("|")
    try:
        raw = base64.b64decode(first + "=" * (-len(first) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != suite.key + suite.salt:
        return None
    mki = b""
    for part in rest:
        number, colon, size = part.partition(":")
        if not colon:
            continue  # the lifetime
        if not (_digits(number, 40) and _digits(size, 3) and 0 < int(size) <= MKI_LIMIT
                and int(number) < 256 ** int(size)):
            return None
        mki = int(number).to_bytes(int(size), "big")
    return Key(suite, raw[: suite.key], raw[suite.key :], mki)


def _digits(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= most


def dtls_keys(profile: int, material: bytes) -> tuple[Key, Key] | None:
    """Keys of the DTLS client and of the server (RFC 5764 §4.2); None for an unknown profile or too few bytes."""
    suite = SUITES.get(PROFILES.get(profile, ""))
    if suite is None or len(material) < 2 * (suite.key + suite.salt):
        return None
    k, s = suite.key, suite.salt
    salts = material[2 * k :]
    return Key(suite, material[:k], salts[:s]), Key(suite, material[k : 2 * k], salts[s : 2 * s])


def chosen_profile(server_hello: bytes) -> int:
    """Profile that a ServerHello takes (extension use_srtp, RFC 5764 §4.1.1); 0 for none."""
    if len(server_hello) < 35:
        return 0
    at = 40 + server_hello[34]  # session id, cipher suite, compression, length of the extensions
    while at + 4 <= len(server_hello):
        kind, size = (int.from_bytes(server_hello[i : i + 2], "big") for i in (at, at + 2))
        if kind == _USE_SRTP and size >= 4:
            return int.from_bytes(server_hello[at + 6 : at + 8], "big")
        at += 4 + size
    return 0


EXPORT_SIZE = 2 * (32 + 14)
"""Bytes of keying material that any profile needs."""
_USE_SRTP = 14
_LABEL = b"EXTRACTOR-dtls_srtp"


def exported(master_secret: bytes, client_random: bytes, server_random: bytes, sha384: bool) -> bytes:
    """Keying material of a DTLS 1.2 session (RFC 5764 §4.2, RFC 5705 §4, RFC 5246 §5)."""
    name = "sha384" if sha384 else "sha256"
    seed = _LABEL + client_random + server_random
    out, a = b"", seed
    while len(out) < EXPORT_SIZE:
        a = hmac.digest(master_secret, a, name)
        out += hmac.digest(master_secret, a + seed, name)
    return out
