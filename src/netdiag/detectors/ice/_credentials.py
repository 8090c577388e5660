"""TURN credentials that are valid for a time: the user name says until when."""

from __future__ import annotations

import re
from datetime import UTC, datetime

TIMED = re.compile(r"(\d{9,10})(?::|$)")
"""User name of credentials for a time: when they end as Unix time, a colon and a name (draft-uberti-behave-turn-rest-00
§2.2)."""
PLAUSIBLE_S = 10 * 365 * 86400
"""A number that is further from the time of the packet is another number (practice)."""
_UNITS = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))


def ended(username: str, at_ns: int) -> tuple[int, str]:
    """Seconds since the credentials of this user name ended, with words for it; 0 and "" when they have not, or it
    names no time."""
    timed = TIMED.match(username)
    over = at_ns // 10**9 - int(timed[1]) if timed else 0
    if not timed or not 0 < over < PLAUSIBLE_S:
        return 0, ""
    unit, size = next((u for u in _UNITS if over >= 2 * u[1]), _UNITS[-1])
    return over, (f"its user name begins with the time at which the credentials ended, {over // size} {unit} before "
                  f"({datetime.fromtimestamp(int(timed[1]), UTC):%Y-%m-%d %H:%M:%S} UTC)")
