"""What makes a SIP message large."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from netdiag.tables.sip_head import lines

if TYPE_CHECKING:
    from netdiag.tables import Tables

HEAVIEST = 3
"""Parts that are named (practice)."""


def weight(tables: Tables, message: int) -> list[tuple[str, int]]:
    """The heaviest parts of a row of ``Tables.sip``, headers of one name together, "body" for the body; with bytes."""
    size, offset, length = (int(tables.sip[name][message]) for name in ("size", "raw_offset", "raw_length"))
    parts: Counter[str] = Counter()
    for name, value in lines(tables, message):
        parts[name] += len(name) + len(": \r\n") + len(value)
    end = tables.packets.space.read(offset, length).find(b"\r\n\r\n")
    parts["body"] = max(size - end - 4, 0) if end >= 0 else 0
    return [part for part in parts.most_common(HEAVIEST) if part[1]]
