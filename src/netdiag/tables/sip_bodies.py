"""What kind of body a SIP message carries, read for the few messages that somebody asks about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netdiag.decode.sip import HEAD_LIMIT, header_lines

if TYPE_CHECKING:
    from netdiag.tables import Tables


def content_type(tables: Tables, message: int) -> str:
    """Content-Type (or ``c``, RFC 3261 §20.15) of a message in lower case without parameters; "" without."""
    offset, length = tables.sip.select("raw_offset", "raw_length").row(message)
    head = tables.packets.space.read(offset, min(length, HEAD_LIMIT)).decode("latin-1")
    for name, value in header_lines(head):
        if name in ("content-type", "c"):
            return value.partition(";")[0].strip().lower()
    return ""
