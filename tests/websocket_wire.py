"""An upgrade to a WebSocket, and frames, for the tests."""

from __future__ import annotations

from netdiag.decode import websocket as ws

ASK = (b"GET /sip HTTP/1.1\r\nHost: sip.example\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
       b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sip, msrp\r\n"
       b"Sec-WebSocket-Version: 13\r\n\r\n")
ANSWER = (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nConnection: Upgrade\r\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: sip\r\n\r\n")
"""Key and accept value are those of RFC 6455 §1.3."""
MASK = bytes.fromhex("37fa213d")


def frame(data: bytes, opcode: int = ws.TEXT, final: bool = True, mask: bytes = b"", bits: int = 0,
          width: int | None = None) -> bytes:
    """One frame; ``width``: bytes of its length field, if not the shortest."""
    width = width if width is not None else 0 if len(data) < 126 else 2 if len(data) < 1 << 16 else 8
    length = bytes([({0: len(data), 2: 126, 8: 127}[width]) | (0x80 if mask else 0)])
    if width:
        length += len(data).to_bytes(width, "big")
    body = bytes(b ^ mask[i % 4] for i, b in enumerate(data)) if mask else data
    return bytes([(0x80 if final else 0) | bits | opcode]) + length + mask + body
