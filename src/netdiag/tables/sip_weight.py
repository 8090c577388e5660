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
    size = int(tables.sip["size"][message])
    parts: Counter[str] = Counter()
    for name, value in lines(tables, message):
        parts[name] += len(name) + len(": \r\n") + len(value)
    parts["body"] = max(size - sum(parts.values()), 0)
    return [part for part in parts.most_common(HEAVIEST) if part[1]]
