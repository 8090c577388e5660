"""The WebSocket protocol on a byte stream: the HTTP upgrade, and messages put together from frames.

Sources: RFC 6455 §4 (opening handshake), §5 (frames), RFC 7692 (permessage-deflate), RFC 7118 (SIP).
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
"""Opcodes (RFC 6455 §5.2)."""
MAX_MESSAGE = 1 << 20
"""Bytes of a message that are kept, also when inflated (practice): SIP over UDP ends at 2^16."""
MAX_HEAD = 1 << 14
"""Bytes of an HTTP request or answer up to the end of its header (practice; twice the default of common servers)."""
SEARCHED = 1 << 16
"""Bytes at the start of a connection in which the upgrade is looked for (practice)."""
MAX_FRAMES = 1 << 21
"""Frames of one direction that are read (practice): two bytes can be one."""
MAX_RATIO = 64
"""How much longer than it was sent a compressed stream may be, beyond one message (practice: the same request again
and again gets some 50 times shorter)."""
MAX_CONTROL = 125
"""Payload of a control frame (RFC 6455 §5.5)."""

NO_FRAME = "bytes that are no WebSocket frame: what follows on that side is not read"
BAD_FRAGMENT = "WebSocket fragments out of order (RFC 6455 §5.4): what follows on that side is not read"
BAD_MASK = "WebSocket frame of a client that is not masked, or of a server that is (RFC 6455 §5.1)"
LONG = f"WebSocket message longer than {MAX_MESSAGE >> 20} MiB is cut"
BAD_DEFLATE = "compressed WebSocket message that cannot be inflated"
TOO_MANY = f"WebSocket frames behind the first {MAX_FRAMES} of one side are not read"

_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_ASKS = re.compile(rb"^GET ([^\r\n]{1,8192}) HTTP/1\.1\r\n", re.MULTILINE)
_ANSWERS = re.compile(rb"^HTTP/1\.1 101[ \r]", re.MULTILINE)
_TAIL = b"\0\0\xff\xff"  # RFC 7692 §7.2.2


@dataclass(frozen=True, slots=True)
class Upgrade:
    """An HTTP connection that became a WebSocket."""

    client: int
    """Position in the client's stream where its frames begin."""
    server: int | None
    """The same in the server's stream; None when the answer was not captured."""
    protocol: str
    """Subprotocol that the server chose, "" for none; without an answer the first that was offered."""
    offered: tuple[str, ...]
    path: str
    """Request target."""
    deflate: Deflate | None = None
    """permessage-deflate was agreed on."""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Deflate:
    """Does a side begin each message without what it compressed before (RFC 7692 §7.1.1)?"""

    client_alone: bool
    server_alone: bool


class Message(NamedTuple):
    """One text or binary message; positions are those of the stream, control frames in between included."""

    opcode: int
    start: int
    end: int
    data: bytes
    """Unmasked and inflated, at most MAX_MESSAGE bytes."""
    complete: bool
    note: str
    """What was odd, our own words."""


def upgrade(client: bytes, server: bytes) -> Upgrade | None:
    """The upgrade of a connection on which the client sent ``client`` and the server ``server``; None without one."""
    at, fields, path = 0, None, ""
    while fields is None:
        match = _ASKS.search(client, at, SEARCHED)
        head = _head(client, match.start()) if match is not None else None
        if match is None or head is None:
            return None
        at, path = head[0], match[1].decode("utf-8", "replace")
        fields = head[1] if _asks(head[1]) else None
    offered = tuple(_list(fields.get(b"sec-websocket-protocol", b"")))
    if not server:  # the capture has one direction
        return Upgrade(at, None, offered[0] if offered else "", offered, path)
    reply = _ANSWERS.search(server, 0, SEARCHED)
    answer = _head(server, reply.start()) if reply is not None else None
    if answer is None:
        return None
    key = fields.get(b"sec-websocket-key", b"")
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    problem = ""
    if answer[1].get(b"sec-websocket-accept") != accept:
        problem = "Sec-WebSocket-Accept does not answer the key (RFC 6455 §4.2.2)"
    return Upgrade(at, answer[0], next(iter(_list(answer[1].get(b"sec-websocket-protocol", b""))), ""), offered, path,
                   _deflate(answer[1].get(b"sec-websocket-extensions", b"")), problem)


def _head(data: bytes, start: int) -> tuple[int, dict[bytes, bytes]] | None:
    """End and fields (lower-case names) of an HTTP header; None when it does not end."""
    end = data.find(b"\r\n\r\n", start, start + MAX_HEAD)
    if end < 0:
        return None
    fields: dict[bytes, bytes] = {}
    for line in data[start:end].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name, value = name.strip().lower(), value.strip()
        fields[name] = fields[name] + b", " + value if name in fields else value
    return end + 4, fields


def _asks(fields: dict[bytes, bytes]) -> bool:
    return b"websocket" in fields.get(b"upgrade", b"").lower() and b"sec-websocket-key" in fields


def _list(value: bytes) -> list[str]:
    return [item.strip().decode("utf-8", "replace") for item in value.split(b",") if item.strip()]


def _deflate(extensions: bytes) -> Deflate | None:
    for extension in _list(extensions):
        name, *parameters = [part.strip().lower() for part in extension.split(";")]
        if name == "permessage-deflate":
            return Deflate("client_no_context_takeover" in parameters, "server_no_context_takeover" in parameters)
    return None


def messages(data: bytes, start: int, holes: Sequence[tuple[int, int]] = (), masked: bool = False,
             deflate: bool = False, alone: bool = False) -> Iterator[Message]:
    """Text and binary messages of one direction from position ``start`` on.

    ``masked``: the frames are the client's, which must be masked (RFC 6455 §5.1). ``deflate``: permessage-deflate was
    agreed on; ``alone``: without context takeover. What follows a hole, or bytes that are no frame, is not read.
    """
    inflater = _Inflater(alone) if deflate else None
    limit = next((a for a, b in holes if b > start), len(data))
    at = begin = start
    opcode, compressed, note = -1, False, ""
    parts: list[bytes] = []
    kept = frames = 0
    while at + 2 <= limit:
        frames += 1
        final, kind, long = bool(data[at] & 0x80), data[at] & 0x0F, data[at + 1] & 0x7F
        control, continued = kind >= CLOSE, kind == CONTINUATION
        reserved = data[at] & (0x30 if inflater is not None and not control and not continued else 0x70)
        if reserved or kind not in _OPCODES or (control and (not final or long > MAX_CONTROL)):
            yield Message(-1, at, at + 2, b"", False, NO_FRAME)
            return
        if not control and continued == (opcode < 0):
            yield Message(-1, at, at + 2, b"", False, BAD_FRAGMENT)
            return
        if frames > MAX_FRAMES:
            yield Message(-1, at, at + 2, b"", False, TOO_MANY)
            return
        body = at + 2 + {126: 2, 127: 8}.get(long, 0)
        size = int.from_bytes(data[at + 2 : body], "big") if long > MAX_CONTROL else long
        has_mask = bool(data[at + 1] & 0x80)
        mask = data[body : body + 4] if has_mask else b""
        body += 4 * has_mask
        end = body + size
        if control:
            if kind == CLOSE:
                return
            at = end
            continue
        if not continued:
            opcode, begin, compressed, parts, kept = kind, at, bool(data[at] & 0x40), [], 0
        if has_mask != masked:
            note = BAD_MASK
        piece = data[body : min(end, limit, body + MAX_MESSAGE - kept)]
        whole = end <= limit and len(piece) == size
        if end <= limit and not whole:
            note = LONG
        if piece:
            parts.append(_unmask(piece, mask) if has_mask else piece)
            kept += len(piece)
        if final or not whole:
            plain = b"".join(parts)
            if compressed and inflater is not None:
                plain, fine = inflater.message(plain, whole)
                note = note or ("" if fine or not whole else BAD_DEFLATE)
                whole = whole and fine
            yield Message(opcode, begin, min(end, limit), plain, whole, note)
            if not whole and (end > limit or not final):
                return
            opcode, note = -1, ""
        at = end
    if opcode >= 0:
        yield Message(opcode, begin, limit, b"" if compressed else b"".join(parts), False, note)


def _unmask(data: bytes, mask: bytes) -> bytes:
    """RFC 6455 §5.3."""
    size = len(data)
    wide = (mask * (-(-size // 4)))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(wide, "big")).to_bytes(size, "big")


class _Inflater:
    """Inflates the messages of one direction (RFC 7692 §7.2.2)."""

    def __init__(self, alone: bool) -> None:
        self._alone = alone
        self._failed = False
        self._room = MAX_MESSAGE
        self._stream: Any = zlib.decompressobj(-zlib.MAX_WBITS)

    def message(self, data: bytes, whole: bool) -> tuple[bytes, bool]:
        """(message, is that all of it), at most MAX_MESSAGE bytes; nothing more once something failed."""
        if self._failed:
            return b"", False
        if self._alone or self._stream.eof:
            self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._room += MAX_RATIO * len(data)
        most = max(1, min(MAX_MESSAGE, self._room))  # 0 would be without limit
        try:
            out: bytes = self._stream.decompress(data + _TAIL if whole else data, most)
        except zlib.error:
            out = b""
            self._failed = True
        self._failed |= not whole or len(out) >= most
        self._room -= len(out)
        return out, not self._failed
