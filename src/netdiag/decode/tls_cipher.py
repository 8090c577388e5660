"""Opens TLS records, one after the other, with keys made from the secrets of a key log.

Sources: RFC 5246 §5, §6.2.3, §6.3 and RFC 4346 (CBC), RFC 7366 (encrypt-then-MAC), RFC 5288 (GCM), RFC 6655 (CCM),
RFC 7905 (ChaCha20-Poly1305), RFC 8446 §5.2, §5.3, §7.1 to §7.3 (TLS 1.3).
"""

from __future__ import annotations

import hmac
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

Aead = AESGCM | AESCCM | ChaCha20Poly1305

_HEADER = 5
_EXPLICIT_NONCE = 8  # RFC 5288 §3, RFC 6655 §3
_BLOCK = 16  # AES
_TLS11, _TLS12 = 0x0302, 0x0303


class Suite(NamedTuple):
    """What of a cipher suite decides how records are protected."""

    mode: str
    """"cbc", "gcm", "ccm", "ccm8" or "chacha"."""
    key: int
    """Bytes of the key."""
    hash: str
    """Of the PRF from TLS 1.2 on."""
    mac: str = ""
    """Hash of the MAC; "" with an AEAD."""


SUITES: dict[int, Suite] = {
    number: suite for suite, numbers in (
        (Suite("gcm", 16, "sha256"), (0x1301, 0x9C, 0x9E, 0xA0, 0xA2, 0xA4, 0xA6, 0xA8, 0xAA, 0xAC, 0xC02B, 0xC02D,
                                      0xC02F, 0xC031, 0xD001)),
        (Suite("gcm", 32, "sha384"), (0x1302, 0x9D, 0x9F, 0xA1, 0xA3, 0xA5, 0xA7, 0xA9, 0xAB, 0xAD, 0xC02C, 0xC02E,
                                      0xC030, 0xC032, 0xD002)),
        (Suite("chacha", 32, "sha256"), (0x1303, *range(0xCCA8, 0xCCAF))),
        (Suite("ccm", 16, "sha256"), (0x1304, 0xC09C, 0xC09E, 0xC0A4, 0xC0A6, 0xC0AC, 0xD005)),
        (Suite("ccm", 32, "sha256"), (0xC09D, 0xC09F, 0xC0A5, 0xC0A7, 0xC0AD)),
        (Suite("ccm8", 16, "sha256"), (0x1305, 0xC0A0, 0xC0A2, 0xC0A8, 0xC0AA, 0xC0AE, 0xD003)),
        (Suite("ccm8", 32, "sha256"), (0xC0A1, 0xC0A3, 0xC0A9, 0xC0AB, 0xC0AF)),
        (Suite("cbc", 16, "sha256", "sha1"), (*range(0x2F, 0x35), 0x8C, 0x90, 0x94, 0xC004, 0xC009, 0xC00E, 0xC013,
                                              0xC018, 0xC01D, 0xC01E, 0xC01F, 0xC035)),
        (Suite("cbc", 32, "sha256", "sha1"), (*range(0x35, 0x3B), 0x8D, 0x91, 0x95, 0xC005, 0xC00A, 0xC00F, 0xC014,
                                              0xC019, 0xC020, 0xC021, 0xC022, 0xC036)),
        (Suite("cbc", 16, "sha256", "sha256"), (0x3C, 0x3E, 0x3F, 0x40, 0x67, 0x6C, 0xAE, 0xB2, 0xB6, 0xC023, 0xC025,
                                                0xC027, 0xC029, 0xC037)),
        (Suite("cbc", 32, "sha256", "sha256"), (0x3D, 0x68, 0x69, 0x6A, 0x6B, 0x6D)),
        (Suite("cbc", 32, "sha384", "sha384"), (0xAF, 0xB3, 0xB7, 0xC024, 0xC026, 0xC028, 0xC02A, 0xC038)),
    ) for number in numbers
}
"""AES and ChaCha20 suites of the IANA TLS Cipher Suites registry, by number."""
_MAC_SIZE = {"sha1": 20, "sha256": 32, "sha384": 48}


class Keys(Protocol):
    """Protection of one direction from some record on."""

    def open(self, record: bytes) -> tuple[int, bytes] | None:
        """(content type, content) of the next record, given whole with its header; None when it does not open."""

    def updated(self) -> Keys | None:
        """Keys after a KeyUpdate (RFC 8446 §7.2); None where there is none."""


class Keys13:
    """Keys of one TLS 1.3 traffic secret."""

    def __init__(self, cipher: int, secret: bytes) -> None:
        """ValueError when the secret does not have the size that the suite asks for."""
        self.suite = SUITES[cipher]
        if len(secret) != _MAC_SIZE[self.suite.hash]:
            raise ValueError("secret of another size than the hash of the cipher suite")
        self.cipher = cipher
        self.secret = secret
        self.key = _aead(self.suite.mode, self._expand(b"key", self.suite.key))
        self.iv = int.from_bytes(self._expand(b"iv", 12), "big")
        self.number = 0

    def _expand(self, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label (RFC 8446 §7.1) of at most one hash, which is what keys take."""
        name = b"tls13 " + label
        info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
        return hmac.digest(self.secret, info + b"\1", self.suite.hash)[:length]

    def updated(self) -> Keys13:
        return Keys13(self.cipher, self._expand(b"traffic upd", _MAC_SIZE[self.suite.hash]))

    def open(self, record: bytes) -> tuple[int, bytes] | None:
        nonce = (self.iv ^ self.number).to_bytes(12, "big")
        try:
            inner = self.key.decrypt(nonce, record[_HEADER:], record[:_HEADER]).rstrip(b"\0")
        except (InvalidTag, ValueError):
            return None
        self.number += 1
        return (inner[-1], inner[:-1]) if inner else None


class KeysAead:
    """Keys of TLS 1.2 with an AEAD."""

    def __init__(self, suite: Suite, key: bytes, iv: bytes) -> None:
        self._key = _aead(suite.mode, key)
        self._iv = iv
        self._tag = 8 if suite.mode == "ccm8" else 16
        self._explicit = 0 if suite.mode == "chacha" else _EXPLICIT_NONCE
        self._number = 0

    def updated(self) -> None:
        return None

    def open(self, record: bytes) -> tuple[int, bytes] | None:
        size = len(record) - _HEADER - self._explicit - self._tag
        if size < 0:
            return None
        if self._explicit:
            nonce = self._iv + record[_HEADER : _HEADER + self._explicit]
        else:
            nonce = (int.from_bytes(self._iv, "big") ^ self._number).to_bytes(12, "big")
        try:
            content = self._key.decrypt(nonce, record[_HEADER + self._explicit :],
                                        self._number.to_bytes(8, "big") + record[:3] + size.to_bytes(2, "big"))
        except (InvalidTag, ValueError):
            return None
        self._number += 1
        return record[0], content


class KeysCbc:
    """Keys of TLS up to 1.2 with AES-CBC and a MAC, computed before the encryption or, by RFC 7366, after it."""

    def __init__(self, suite: Suite, version: int, key: bytes, iv: bytes, mac_key: bytes,
                 encrypt_then_mac: bool) -> None:
        self._key = algorithms.AES(key)
        self._mac, self._mac_key, self._mac_size = suite.mac, mac_key, _MAC_SIZE[suite.mac]
        self._chain = iv if version < _TLS11 else b""
        """TLS 1.0: the IV is the last block of the record before (RFC 2246 §6.2.3.2)."""
        self._encrypt_then_mac = encrypt_then_mac
        self._number = 0

    def updated(self) -> None:
        return None

    def _authentic(self, record: bytes, content: bytes, tag: bytes) -> bool:
        head = self._number.to_bytes(8, "big") + record[:3] + len(content).to_bytes(2, "big")
        return hmac.compare_digest(hmac.digest(self._mac_key, head + content, self._mac), tag)

    def open(self, record: bytes) -> tuple[int, bytes] | None:
        body = record[_HEADER:]
        if self._encrypt_then_mac:
            body, tag = body[: -self._mac_size], body[-self._mac_size :]
            if not self._authentic(record, body, tag):
                return None
        iv, sealed = (self._chain, body) if self._chain else (body[:_BLOCK], body[_BLOCK:])
        if not sealed or len(sealed) % _BLOCK:
            return None
        decryptor = Cipher(self._key, modes.CBC(iv)).decryptor()
        plain = decryptor.update(sealed) + decryptor.finalize()
        padding = plain[-1] + 1
        end = len(plain) - padding
        if end < 0 or plain[end:] != plain[-1:] * padding:
            return None
        content = plain[:end]
        if not self._encrypt_then_mac:
            content, tag = plain[: max(end - self._mac_size, 0)], plain[max(end - self._mac_size, 0) : end]
            if not self._authentic(record, content, tag):
                return None
        if self._chain:
            self._chain = sealed[-_BLOCK:]
        self._number += 1
        return record[0], content


def supported(cipher: int | None, version: int) -> bool:
    """Can records of that suite and version (0x0303 is TLS 1.2) be opened?"""
    suite = SUITES.get(cipher) if cipher is not None else None
    if suite is None or not 0x0301 <= version <= 0x0304:
        return False
    if version == 0x0304 or cipher in _ONLY_13:
        return version == 0x0304 and cipher in _ONLY_13
    return version == _TLS12 or (suite.mode == "cbc" and suite.mac == "sha1")


_ONLY_13 = frozenset(range(0x1301, 0x1306))


def connection_keys(cipher: int, version: int, master: bytes, client_random: bytes, server_random: bytes,
                    encrypt_then_mac: bool) -> tuple[Keys, Keys]:
    """Keys of client and server up to TLS 1.2, behind their first ChangeCipherSpec (RFC 5246 §6.3)."""
    suite = SUITES[cipher]
    mac = _MAC_SIZE[suite.mac] if suite.mac else 0
    iv = {"cbc": 0 if version >= _TLS11 else _BLOCK, "chacha": 12}.get(suite.mode, 4)
    block = prf(suite.hash if version >= _TLS12 else "", master, b"key expansion" + server_random + client_random,
                2 * (mac + suite.key + iv))
    out: list[Keys] = []
    for side in (0, 1):
        at = [2 * mac + side * suite.key, 2 * (mac + suite.key) + side * iv]
        key, nonce = block[at[0] : at[0] + suite.key], block[at[1] : at[1] + iv]
        if suite.mac:
            out.append(KeysCbc(suite, version, key, nonce, block[side * mac : (side + 1) * mac], encrypt_then_mac))
        else:
            out.append(KeysAead(suite, key, nonce))
    return out[0], out[1]


def prf(hash: str, secret: bytes, seed: bytes, size: int) -> bytes:
    """``size`` bytes of the PRF of TLS 1.2 (RFC 5246 §5), or with ``hash`` "" of the one before (RFC 4346 §5)."""
    if not hash:
        half = -(-len(secret) // 2)
        first, second = prf("md5", secret[:half], seed, size), prf("sha1", secret[-half:], seed, size)
        return bytes(a ^ b for a, b in zip(first, second, strict=True))
    out, a = b"", seed
    while len(out) < size:
        a = hmac.digest(secret, a, hash)
        out += hmac.digest(secret, a + seed, hash)
    return out[:size]


def _aead(mode: str, key: bytes) -> Aead:
    if mode == "gcm":
        return AESGCM(key)
    return ChaCha20Poly1305(key) if mode == "chacha" else AESCCM(key, 8 if mode == "ccm8" else 16)
