"""What one side of a TLS connection sent as application data: the records of its stream, opened in order."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from netdiag.decode import tls_records as rec

if TYPE_CHECKING:
    from netdiag.decode.tls_cipher import Keys

MAX_UNOPENED = 64
"""Records of TLS 1.3 that may come before the first that opens: a handshake without its secret (practice)."""
MAX_RECORDS = 1 << 22
"""Records of one direction that are opened (practice): 12 bytes are kept of each."""
NO_KEY = "TLS records that no secret of the key log opens"
DAMAGED = "TLS record that its key does not open: what follows on that side is not decrypted"
MISSING = "bytes of a TLS connection are missing: what follows on that side is not decrypted"
RENEGOTIATED = "TLS renegotiation: what follows on that side is not decrypted"
NO_RECORD = "bytes that are no TLS record: what follows on that side is not decrypted"
TOO_MANY = f"TLS records behind the first {MAX_RECORDS} of one side are not decrypted"

_HEADER = struct.Struct(">BHH")  # type, version, length


@dataclass(slots=True)
class Application:
    """Application data of one direction, in one piece."""

    data: bytearray = field(default_factory=bytearray)
    end: array[int] = field(default_factory=lambda: array("q"))
    """Where the content of each record with application data ends in ``data``, ascending."""
    record_end: array[int] = field(default_factory=lambda: array("q"))
    """Where that record ends in the stream."""
    problem: str = ""
    """Why it does not reach to the end of the stream: one of the reasons above, or ""."""
    at: int = 0
    """Position in the stream where it ends; with a problem, that of the record at fault."""


def read(data: bytes, start: int, holes: Sequence[tuple[int, int]], keys: Sequence[Keys], version: int) -> Application:
    """Opens the records of ``data`` from ``start``, where the TLS of that direction begins.

    ``keys``: up to TLS 1.2 those behind the first ChangeCipherSpec. In TLS 1.3 those of early data, handshake and
    application as far as they are known, in this order; which of them is in use is found by trying.
    ``holes`` are (start, end) positions whose bytes were not captured, ascending.
    """
    out = Application(at=start)
    limit = next((a for a, b in holes if b > start), len(data))
    left = list(keys)
    new = version >= 0x0304
    changed = opened_any = False
    unopened = 0
    at = start
    while at + 5 <= limit:
        out.at = at
        kind, legacy, length = _HEADER.unpack_from(data, at)
        if not rec.CHANGE_CIPHER_SPEC <= kind <= rec.HEARTBEAT or legacy >> 8 != 3 or length > rec.MAX_RECORD:
            out.problem = NO_RECORD
            return out
        end = at + 5 + length
        if end > limit:
            break
        sealed = kind == rec.APPLICATION_DATA if new else changed
        if not new and kind == rec.CHANGE_CIPHER_SPEC:
            if changed:
                out.problem = RENEGOTIATED
                return out
            changed = True
        elif sealed:
            record = data[at:end]
            content = _open(left, record)
            if content is None and opened_any:
                out.problem = DAMAGED
                return out
            if content is None:
                unopened += 1
                if not new or unopened > MAX_UNOPENED:
                    break
            else:
                opened_any = True
                if content[0] == rec.APPLICATION_DATA and content[1]:
                    if len(out.end) >= MAX_RECORDS:
                        out.problem = TOO_MANY
                        return out
                    out.data += content[1]
                    out.end.append(len(out.data))
                    out.record_end.append(end)
        at = out.at = end
    if unopened and not opened_any:
        out.problem = NO_KEY
    elif limit < len(data):
        out.problem = MISSING
    return out


def _open(keys: list[Keys], record: bytes) -> tuple[int, bytes] | None:
    """Opens a record with the first of ``keys``, with its successor after a KeyUpdate, or with a later one.

    Drops from ``keys`` those that are done with.
    """
    found = keys[0].open(record) if keys else None
    if found is not None or not keys:
        return found
    # A KeyUpdate need not be looked for: the next record opens with the keys it leads to, and with no others.
    successor = keys[0].updated()
    found = successor.open(record) if successor is not None else None
    if successor is not None and found is not None:
        keys[0] = successor
        return found
    for i in range(1, len(keys)):
        found = keys[i].open(record)
        if found is not None:
            del keys[:i]
            return found
    return None
