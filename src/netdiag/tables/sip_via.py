"""Where a topmost Via asks for the response (RFC 3261 §18.2.2, RFC 3581 §4)."""

from __future__ import annotations

import re
from typing import NamedTuple

DEFAULT_PORT = 5060
"""Where sent-by names no port, over UDP and TCP (RFC 3261 §18.2.2)."""
_SENT_BY = re.compile(r"\s*SIP\s*/\s*2\.0\s*/\s*[^\s;]+\s+(\[[^\]]*\]|[^\s:;]+)\s*(?::\s*(\d{1,5}))?(?=[\s;]|\Z)",
                      re.IGNORECASE)
_RPORT = re.compile(r";\s*rport\s*(?:[=;]|\Z)", re.IGNORECASE)


class SentBy(NamedTuple):
    """Host without brackets, port, and whether the response is asked back to the packet's source port."""

    host: str
    port: int
    rport: bool


def sent_by(via: str | None) -> SentBy | None:
    """What a topmost Via value says; None when it is none."""
    match = _SENT_BY.match(via) if via else None
    if not match or not via:
        return None
    port = int(match[2]) if match[2] else DEFAULT_PORT
    return SentBy(match[1].strip("[]"), port, bool(_RPORT.search(via, match.end()))) if port <= 0xFFFF else None
