"""Opens TLS 1.3 records with the secrets of a key log (RFC 8446 §5.2, §5.3, §7.1, §7.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from netdiag.decode import tls_records as rec

KEY_UPDATE = 24
MAX_FAILED = 64
"""Records that may fail to open before the first that does: early data has other keys (RFC 8446 §2.3; practice)."""

_Aead = AESGCM | ChaCha20Poly1305
_SUITES: dict[int, tuple[int, hashes.HashAlgorithm, Callable[[bytes], _Aead]]] = {
    0x1301: (16, hashes.SHA256(), AESGCM),
    0x1302: (32, hashes.SHA384(), AESGCM),
    0x1303: (32, hashes.SHA256(), ChaCha20Poly1305),
}
"""Key bytes, hash and AEAD of the suites that RFC 8446 App. B.4 defines without CCM."""


@dataclass(slots=True)
class Opened:
    """What lay in the encrypted records of one direction; positions are those of the stream."""

    messages: list[rec.Message] = field(default_factory=list)
    alerts: list[rec.ClearAlert] = field(default_factory=list)
    application_data: bool = False
    finished: bool = False
    failed: int = 0
    """Records that did not open."""


class _Keys:
    """Key, IV and record number of one secret."""

    def __init__(self, cipher: int, secret: bytes) -> None:
        self.size, self.hash, self.aead = _SUITES[cipher]
        self.cipher = cipher
        self.secret = secret
        self.key = self.aead(self._expand("key", self.size))
        self.iv = int.from_bytes(self._expand("iv", 12), "big")
        self.number = 0

    def _expand(self, label: str, length: int) -> bytes:
        name = b"tls13 " + label.encode()
        info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
        return HKDFExpand(self.hash, length, info).derive(self.secret)

    def updated(self) -> _Keys:
        """Keys after a KeyUpdate (RFC 8446 §7.2)."""
        return _Keys(self.cipher, self._expand("traffic upd", self.hash.digest_size))

    def open(self, record: bytes) -> tuple[int, bytes] | None:
        """(content type, content) of a whole record with its header; None when it does not open."""
        nonce = (self.iv ^ self.number).to_bytes(12, "big")
        try:
            inner = self.key.decrypt(nonce, record[5:], record[:5]).rstrip(b"\0")
        except (InvalidTag, ValueError):
            return None
        self.number += 1
        return (inner[-1], inner[:-1]) if inner else None


def supported(cipher: int | None) -> bool:
    return cipher in _SUITES


def read(data: bytes, side: rec.Side, cipher: int, handshake: bytes, application: bytes | None) -> Opened:
    """Opens the application data records of ``side``, which was read from ``data``.

    ``handshake`` and ``application`` are that direction's secrets; without the second, reading ends at Finished.
    """
    out = Opened()
    if len(handshake) != _SUITES[cipher][1].digest_size:
        return out
    keys: _Keys | None = _Keys(cipher, handshake)
    inner = rec.Side()
    pending = bytearray()
    pending_start = 0
    for index in side.application_data:
        record = side.records[index]
        opened = keys.open(data[record.start : record.end]) if keys is not None else None
        if opened is None:
            out.failed += 1
            if keys is None or out.messages or out.failed > MAX_FAILED:
                break
            continue
        kind, content = opened
        if kind == rec.HANDSHAKE:
            known = len(inner.messages)
            pending_start = rec.assemble(inner, pending, pending_start, content, record.start + 5)
            if pending_start < 0:
                break
            for message in inner.messages[known:]:
                # What was decrypted has the end of the record that carried it.
                out.messages.append(rec.Message(message.type, message.body, record.start, record.end))
                if message.type == rec.FINISHED and not out.finished:
                    out.finished = True
                    fits = application is not None and len(application) == len(handshake)
                    keys = _Keys(cipher, application) if fits and application is not None else None
                elif message.type == KEY_UPDATE and keys is not None:
                    keys = keys.updated()
        elif kind == rec.ALERT and len(content) == 2:
            out.alerts.append(rec.ClearAlert(content[0], content[1], record.end))
        elif kind == rec.APPLICATION_DATA:
            out.application_data = True
    return out
