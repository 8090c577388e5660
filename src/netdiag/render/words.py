"""Numbers, times and frame lists as people write them; no escaping, no layout."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from netdiag.model import singular

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RANGES_SHOWN = 12
"""Frame ranges listed before "and n more" (practice: about two lines of a terminal)."""


def iso(ns: int) -> str:
    """ISO 8601 in UTC with all nine digits: "2026-11-22T06:08:18.123456789Z"."""
    second, part = divmod(ns, 1_000_000_000)
    return f"{_EPOCH + timedelta(seconds=second):%Y-%m-%dT%H:%M:%S}.{part:09d}Z"


def utc(ns: int, digits: int = 3) -> str:
    """Date and time in UTC, cut (not rounded) to ``digits`` decimals: "2026-11-22 06:08:18.123"."""
    text = iso(ns)[:-1].replace("T", " ")
    return text[: 19 + (digits + 1 if digits else 0)]


def clock(ns: int, digits: int = 3) -> str:
    """Time of day in UTC."""
    return utc(ns, digits)[11:]


def duration(seconds: float) -> str:
    """"350 ms", "12.3 s", "2 min 2 s", "1 h 5 min", "3 d 4 h"."""
    if seconds < 0:
        return "-" + duration(-seconds)
    if 0 < seconds < 0.001:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 3600:
        return _pair(total, 60, "min", "s")
    minutes = round(total / 60)
    return _pair(minutes, 60, "h", "min") if minutes < 1440 else _pair(round(total / 3600), 24, "d", "h")


def _pair(value: int, size: int, unit: str, below: str) -> str:
    whole, rest = divmod(value, size)
    return f"{whole} {unit} {rest} {below}" if rest else f"{whole} {unit}"


def span(first_ns: int, last_ns: int) -> str:
    """"2026-11-22 06:08:18 – 06:10:20 UTC (2 min 2 s)"; the second date, or time, only where it differs."""
    first, last = utc(first_ns, 0), utc(last_ns, 0)
    end = "" if last == first else f" – {last[11:]}" if last[:10] == first[:10] else f" – {last}"
    return f"{first}{end} UTC ({duration((last_ns - first_ns) / 1e9)})"


def number(value: int | float) -> str:
    """With thousands separators: "1,234,567"."""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def count(n: int, noun: str, plural: str = "") -> str:
    """"1 call", "1,234 calls"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def of(affected: int, examined: int, population: str) -> str:
    """"3 of 12 calls"; where nothing was counted to compare with, "3 calls"."""
    if examined >= affected and examined > 0:
        return f"{affected:,} of {examined:,} {singular(population) if examined == 1 else population}"
    return f"{affected:,} {singular(population) if affected == 1 else population}"


def frames(numbers: Iterable[int], limit: int = RANGES_SHOWN) -> str:
    """"12, 15, 20–35"; more ranges than ``limit`` end in "and n more"."""
    ordered = sorted(set(numbers))
    ranges: list[tuple[int, int]] = []
    for value in ordered:
        if ranges and value == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], value)
        else:
            ranges.append((value, value))
    shown = [str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}–{b}" for a, b in ranges[:limit]]
    rest = sum(b - a + 1 for a, b in ranges[limit:])
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def framed(numbers: Iterable[int]) -> str:
    """"frame 31", "frames 12, 15, 20–35"; "no frame"."""
    listed = list(numbers)
    return f"frame{'s' if len(listed) > 1 else ''} {frames(listed)}" if listed else "no frame"


def short(text: str, limit: int) -> str:
    """At most ``limit`` characters; "…" stands for the rest. A header field may be as long as a datagram."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def join(items: Iterable[str], limit: int) -> str:
    """The first ``limit`` items with commas, then "and n more"."""
    listed = list(items)
    rest = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {rest:,} more" if rest > 0 else "")
