"""TLS records and handshake messages of one direction of a connection.

Takes the reassembled bytes of one direction and says which records they hold, which
handshake messages lie in the clear ones, and which alerts. Nothing is decrypted here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA, HEARTBEAT = 20, 21, 22, 23, 24
"""ContentType (RFC 8446 §5.1; heartbeat: RFC 6520 §3)."""

CLIENT_HELLO, SERVER_HELLO, NEW_SESSION_TICKET, ENCRYPTED_EXTENSIONS = 1, 2, 4, 8
CERTIFICATE, SERVER_KEY_EXCHANGE, CERTIFICATE_REQUEST, SERVER_HELLO_DONE = 11, 12, 13, 14
CERTIFICATE_VERIFY, CLIENT_KEY_EXCHANGE, FINISHED, COMPRESSED_CERTIFICATE = 15, 16, 20, 25
"""HandshakeType (RFC 5246 §7.4, RFC 8446 §4, RFC 8879 §4)."""

MAX_RECORD = (1 << 14) + 2048
"""Largest TLSCiphertext.length (RFC 5246 §6.2.3); TLS 1.3 allows 256 above 2^14 (RFC 8446 §5.2)."""
MAX_MESSAGE = 1 << 20
"""Largest handshake message that is read. The format allows 2^24-1 (RFC 8446 §4); OpenSSL takes a Certificate message
of 100 kB unless told otherwise (SSL_CTX_set_max_cert_list(3)), Go 64 kB, Java 32 kB: ten times the largest default."""

_HEADER = struct.Struct(">BHH")  # type, version, length
# type, version 3.0-3.4, length, HandshakeType 1 or 2, 24-bit length, version 3.0-3.4 of the hello.
_HELLO = re.compile(rb"\x16\x03[\x00-\x04]..([\x01\x02])\x00..\x03[\x00-\x04]", re.DOTALL)
# The same where the first record holds less than the hello's fixed head (fragmented on purpose).
_SHORT_HELLO = re.compile(rb"\x16\x03[\x00-\x04]\x00[\x01-\x05][\x01\x02]", re.DOTALL)


class Record(NamedTuple):
    """One record; ``start`` and ``end`` are positions in the stream, the body is ``end - start - 5`` bytes."""

    type: int
    version: int
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start - 5


class Message(NamedTuple):
    """One handshake message in clear: ``body`` without its 4-byte header; ``end`` is where its last byte ends."""

    type: int
    body: bytes
    start: int
    end: int


class ClearAlert(NamedTuple):
    level: int
    description: int
    end: int


@dataclass(slots=True)
class Side:
    """What one direction of a connection holds from its first hello on."""

    records: list[Record] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    alerts: list[ClearAlert] = field(default_factory=list)
    encrypted_alerts: list[int] = field(default_factory=list)
    """End positions of alert records that are encrypted."""
    change_cipher_spec: int | None = None
    """End position of the first ChangeCipherSpec."""
    encrypted_handshake: list[int] = field(default_factory=list)
    """End positions of handshake records after ChangeCipherSpec (TLS up to 1.2)."""
    application_data: list[int] = field(default_factory=list)
    """Indices into ``records``."""
    cut: bool = False
    """The bytes end inside a record or a message, or run into a hole."""
    problems: list[str] = field(default_factory=list)
    """What was odd, our own words."""


def find_hello(data: bytes, kind: int, start: int = 0) -> int:
    """Position of the first record that starts with a hello of HandshakeType ``kind``, or -1."""
    at = start
    while (match := _HELLO.search(data, at)) is not None:
        if match.group(1)[0] == kind:
            record = int.from_bytes(data[match.start() + 3 : match.start() + 5], "big")
            if 4 < record <= MAX_RECORD:
                return match.start()
        at = match.start() + 1
    if (match := _SHORT_HELLO.match(data, start)) is not None and data[match.end() - 1] == kind:
        return match.start()
    return -1


def read(data: bytes, start: int = 0, holes: Sequence[tuple[int, int]] = ()) -> Side:
    """Reads the records from ``start`` to the end, to the first hole, or to what is no record.

    ``holes`` are (start, end) positions whose bytes were not captured, ascending.
    """
    side = Side()
    records, header = side.records, _HEADER.unpack_from
    limit = next((a for a, b in holes if b > start), len(data))
    pending = bytearray()
    pending_start = start
    at = start
    clear = True
    while at < limit:
        if at + 5 > limit:
            side.cut = True
            break
        kind, version, length = header(data, at)
        if not CHANGE_CIPHER_SPEC <= kind <= HEARTBEAT or version >> 8 != 3:
            side.problems.append("bytes that are no TLS record follow a record")
            break
        if length > MAX_RECORD:
            side.problems.append("TLS record longer than the protocol allows")
            break
        end = at + 5 + length
        if end > limit:
            side.cut = True
            # A message can be complete although its record is not.
            if kind == HANDSHAKE and (clear or _hello_in_clear(data, at, limit)):
                assemble(side, pending, pending_start, data[at + 5 : limit], at + 5)
            break
        records.append(Record(kind, version, at, end))
        if kind == APPLICATION_DATA:
            side.application_data.append(len(records) - 1)
        elif kind == HANDSHAKE:
            clear = clear or _hello_in_clear(data, at, end)
            if not clear:
                side.encrypted_handshake.append(end)
            elif length == 0:
                side.problems.append("empty handshake record (RFC 8446 §5.1)")
            else:
                pending_start = assemble(side, pending, pending_start, data[at + 5 : end], at + 5)
                if pending_start < 0:
                    break
        elif kind == ALERT:
            _alert(side, data[at + 5 : end], end)
        elif kind == CHANGE_CIPHER_SPEC:
            clear = False
            if side.change_cipher_spec is None:
                side.change_cipher_spec = end
        at = end
    if limit < len(data):
        side.cut = True
    if pending:
        side.cut = True
    return side


def _hello_in_clear(data: bytes, at: int, end: int) -> bool:
    """Does the handshake record at ``at`` hold a hello in spite of a ChangeCipherSpec before it?

    After a HelloRetryRequest both hellos follow a ChangeCipherSpec that means nothing (RFC 8446 App. D.4). An encrypted
    record looks like this by accident once in 2^40.
    """
    if end < at + 5 + 39 or data[at + 5] not in (CLIENT_HELLO, SERVER_HELLO) or data[at + 9] != 3:
        return False
    size = int.from_bytes(data[at + 6 : at + 9], "big")
    return data[at + 10] <= 4 and data[at + 43] <= 32 and 4 + size >= (data[at + 3] << 8 | data[at + 4]) > 39


def assemble(side: Side, pending: bytearray, pending_start: int, body: bytes, at: int) -> int:
    """Adds the handshake messages that ``body``, a piece at stream position ``at``, completes; keeps the rest.

    Returns where the unfinished message starts, -1 when the rest cannot be handshake messages.
    """
    known = len(pending)
    pieces: bytes | bytearray = body
    if known:
        pending += body
        pieces = pending
    elif len(body) >= 4 and int.from_bytes(body[1:4], "big") == len(body) - 4:  # one record, one message: most are
        side.messages.append(Message(body[0], body[4:], at, at + len(body)))
        return at + len(body)
    else:
        pending_start = at
    total = len(pieces)
    offset = 0
    while total - offset >= 4:
        size = int.from_bytes(pieces[offset + 1 : offset + 4], "big")
        if size > MAX_MESSAGE:
            side.problems.append("handshake message longer than 1 MiB is not read")
            pending.clear()
            return -1
        if total - offset < 4 + size:
            break
        # Record headers lie between the pieces: positions are exact for the piece at hand, which holds the end.
        end = at + offset + 4 + size - known
        start = pending_start if offset == 0 else at + offset - known
        side.messages.append(Message(pieces[offset], bytes(pieces[offset + 4 : offset + 4 + size]), start, end))
        offset += 4 + size
    if known:
        del pending[:offset]
    else:
        pending += body[offset:]
    return at + offset - known if offset else pending_start


def _alert(side: Side, body: bytes, end: int) -> None:
    # A protected alert is longer than 2 bytes in every suite with a MAC or tag. OpenSSL sends certificate alerts in
    # clear after its ChangeCipherSpec in TLS 1.3, so the ChangeCipherSpec alone decides nothing.
    if len(body) == 2 and body[0] in (1, 2):
        side.alerts.append(ClearAlert(body[0], body[1], end))
    elif side.change_cipher_spec is None and len(body) < 2:
        side.problems.append("alert record without an alert")
    elif side.change_cipher_spec is None and len(body) % 2 == 0 and len(body) <= 8 and body[0] in (1, 2):
        # Several alerts in one record: allowed up to TLS 1.2 (RFC 5246 §6.2.1).
        for i in range(0, len(body), 2):
            if body[i] in (1, 2):
                side.alerts.append(ClearAlert(body[i], body[i + 1], end))
    else:
        side.encrypted_alerts.append(end)
