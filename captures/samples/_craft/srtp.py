"""SRTP packets with true tags, and calls whose descriptions name their keys (RFC 3711, RFC 4568, RFC 7714)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from _craft.network import Wire
from _craft.offer import body, media
from _craft.rtp import packet
from _craft.sip import Dialog

PHONE, GATEWAY = "203.0.113.140", "192.0.2.20"
PORT, GATEWAY_PORT = 16100, 16102
SUITES = {"AES_CM_128_HMAC_SHA1_80": (16, 14, 10), "AES_CM_128_HMAC_SHA1_32": (16, 14, 4),
          "AES_256_CM_HMAC_SHA1_80": (32, 14, 10), "AEAD_AES_128_GCM": (16, 12, 16), "AEAD_AES_256_GCM": (32, 12, 16)}
"""Bytes of key, salt and tag."""
PTIME = 0.09
"""Eleven packets in a second keep samples small."""


def _stream(key: bytes, counter: bytes, data: bytes) -> bytes:
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(data)


@dataclass(frozen=True)
class Key:
    """A master key and salt made from a name, always the same."""

    name: str
    suite: str = "AES_CM_128_HMAC_SHA1_80"
    mki: bytes = b""

    @property
    def material(self) -> bytes:
        key, salt, _ = SUITES[self.suite]
        return hashlib.sha512(self.name.encode()).digest()[: key + salt]

    def line(self, tag: int = 1, session: str = "") -> str:
        """The a=crypto line (RFC 4568 §9.1)."""
        mki = f"|2^31|{int.from_bytes(self.mki, 'big')}:{len(self.mki)}" if self.mki else ""
        text = f"a=crypto:{tag} {self.suite} inline:{base64.b64encode(self.material).decode()}{mki}"
        return f"{text} {session}\r\n" if session else text + "\r\n"

    def _derived(self, label: int, size: int) -> bytes:
        length = SUITES[self.suite][0]
        master, salt = self.material[:length], self.material[length:].ljust(14, b"\0")
        counter = bytes(byte ^ (label if i == 7 else 0) for i, byte in enumerate(salt))
        return _stream(master, counter + b"\0\0", bytes(size))

    def protect(self, rtp: bytes, roc: int) -> bytes:
        """The SRTP packet of an RTP packet with a header of 12 bytes."""
        length, salt_length, tag = SUITES[self.suite]
        cipher, salt = self._derived(0, length), self._derived(2, salt_length)
        index = roc.to_bytes(4, "big") + rtp[2:4]
        if "GCM" in self.suite:
            nonce = bytes(a ^ b for a, b in zip(b"\0\0" + rtp[8:12] + index, salt, strict=True))
            return rtp[:12] + AESGCM(cipher).encrypt(nonce, rtp[12:], rtp[:12]) + self.mki
        counter = bytes(a ^ b for a, b in zip(b"\0" * 4 + rtp[8:12] + index + b"\0\0", salt + b"\0\0", strict=True))
        sealed = rtp[:12] + _stream(cipher, counter, rtp[12:])
        made = hmac.digest(self._derived(1, 20), sealed + roc.to_bytes(4, "big"), "sha1")
        return sealed + self.mki + made[:tag]


ALICE, GATE = Key("alice"), Key("gateway")


def described(address: str, port: int, lines: str, direction: str = "sendonly", version: int = 1,
              protocol: str = "RTP/SAVP") -> str:
    """A description with one media line and these a=crypto lines."""
    return body(address, media(port, protocol=protocol, extra=f"a={direction}\r\n{lines}"), version=version)


def call(wire: Wire, seconds: float, offer: str = "", answer: str = "", *, at: float = 0.0, number: int = 1,
         bye: bool = True, by_caller: bool = True) -> tuple[Dialog, float]:
    """A call from PHONE to GATEWAY with SRTP by ALICE and GATE; the phone alone sends. The time of its answer."""
    dialog = Dialog(wire, PHONE, GATEWAY, call_id=f"call-{number}@a.example", branches=20 * number)
    shift = 100 * (number - 1)
    answered = dialog.answered(at, offer or described(PHONE, PORT + shift, ALICE.line()),
                               answer or described(GATEWAY, GATEWAY_PORT + shift, GATE.line(), "recvonly"))
    if bye:
        dialog.bye(answered + seconds, by_caller)
    return dialog, answered


def offered(dialog: Dialog, at: float, offer: str, answer: str) -> float:
    """A re-INVITE of the caller that is accepted; the time of the answer."""
    dialog.cseq += 1
    dialog.request(at, "INVITE", body=offer, to_tag=True)
    dialog.response(at + 0.1, 200, "OK", body=answer)
    dialog.request(at + 0.11, "ACK", to_tag=True)
    return at + 0.1


def talk(wire: Wire, at: float, seconds: float, key: Callable[[int], Key | None] | Key = ALICE, *, ssrc: int = 1,
         back: bool = False, number: int = 1, first: int = 1000, roc: Callable[[int], int] | None = None,
         size: int = 4, ptime: float = PTIME, port: int = 0, skip: range = range(0)) -> list[int]:
    """A stream from PHONE to GATEWAY, or ``back``; ``roc`` takes the extended sequence number, a key None is plain."""
    shift = 100 * (number - 1)
    ends = ((PHONE, port or PORT + shift), (GATEWAY, GATEWAY_PORT + shift))
    (src, sp), (dst, dp) = reversed(ends) if back else ends
    out = []
    for i in range(round(seconds / ptime)):
        if i in skip:
            continue
        plain = packet(first + i, round(8000 * ptime) * i, ssrc, marker=i == 0, data=b"\x7f" * size)
        used = key if isinstance(key, Key) else key(i)
        count = (first + i) >> 16 if roc is None else roc(first + i)
        out.append(wire.udp(at + i * ptime, src, sp, dst, dp, used.protect(plain, count) if used else plain))
    return out
