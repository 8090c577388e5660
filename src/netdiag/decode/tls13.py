"""The encrypted part of a TLS 1.3 handshake, read with the secrets of a key log (RFC 8446 §4, §5.2, §7.3)."""

from __future__ import annotations

from dataclasses import dataclass, field

from netdiag.decode import tls_records as rec
from netdiag.decode.tls_cipher import Keys13
from netdiag.decode.tls_cipher import supported as openable

KEY_UPDATE = 24
MAX_FAILED = 64
"""Records that may fail to open before the first that does: early data has other keys (RFC 8446 §2.3; practice)."""


@dataclass(slots=True)
class Opened:
    """What lay in the encrypted records of one direction; positions are those of the stream."""

    messages: list[rec.Message] = field(default_factory=list)
    alerts: list[rec.ClearAlert] = field(default_factory=list)
    application_data: bool = False
    finished: bool = False
    failed: int = 0
    """Records that did not open."""


def supported(cipher: int | None) -> bool:
    return openable(cipher, 0x0304)


def read(data: bytes, side: rec.Side, cipher: int, handshake: bytes, application: bytes | None) -> Opened:
    """Opens the application data records of ``side``, which was read from ``data``.

    ``handshake`` and ``application`` are that direction's secrets; without the second, reading ends at Finished.
    """
    out = Opened()
    keys: Keys13 | None
    try:
        keys = Keys13(cipher, handshake)
    except ValueError:
        return out
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
                    keys = Keys13(cipher, application) if fits and application is not None else None
                elif message.type == KEY_UPDATE and keys is not None:
                    keys = keys.updated()
        elif kind == rec.ALERT and len(content) == 2:
            out.alerts.append(rec.ClearAlert(content[0], content[1], record.end))
        elif kind == rec.APPLICATION_DATA:
            out.application_data = True
    return out
