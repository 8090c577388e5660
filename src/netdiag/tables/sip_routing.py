"""How single SIP messages are routed: Via, Route, Record-Route, Max-Forwards and Retry-After, read when asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netdiag.decode import sip as decode
from netdiag.tables.contacts import contact_host
from netdiag.tables.sip_head import lines as header_lines

if TYPE_CHECKING:
    from netdiag.tables import Tables

MAX_HOPS = 128
"""Via or Route entries of one message that are read: Max-Forwards starts at 70 (RFC 3261 §8.1.1.6; twice: practice)."""
_SENT_BY = re.compile(r"SIP\s*/\s*2\.0\s*/\s*\S+\s+(\[[^\]]*\]|[^\s:;,]+)", re.IGNORECASE)
_RECEIVED = re.compile(r";\s*received\s*=\s*\[?([^\s;,\]]+)", re.IGNORECASE)
_LOOSE = re.compile(r";\s*lr\s*(?:[;=?>]|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Routing:
    """What one message says about its way; text with bad bytes replaced."""

    max_forwards: int | None
    retry_after: int | None
    """Seconds (RFC 3261 §20.33)."""
    via: tuple[frozenset[str], ...]
    """For each element that the request passed, the latest first: its sent-by host and ``received`` address."""
    route: tuple[RouteUri, ...]
    """Elements that the request still has to visit, the next first."""
    record_route: tuple[RouteUri, ...]
    """Elements that want to stay in the dialog, as written: in a request the latest first (RFC 3261 §16.6)."""

    @property
    def passed(self) -> frozenset[str]:
        """Hosts and addresses of all Via entries."""
        return frozenset().union(*self.via)


@dataclass(frozen=True, slots=True)
class RouteUri:
    """One Route or Record-Route entry."""

    host: str
    loose: bool
    """It has the parameter ``lr`` (RFC 3261 §19.1.1)."""


def routing(tables: Tables, message: int) -> Routing:
    """Routing of one row of ``Tables.sip``; about 50 µs, for the few that somebody asks about."""
    lists: dict[str, list[str]] = {"via": [], "route": [], "record-route": []}
    numbers: dict[str, int | None] = {"max-forwards": None, "retry-after": None}
    for name, value in header_lines(tables, message):
        name = "via" if name == "v" else name
        if name in lists:
            lists[name] += decode.elements(value, MAX_HOPS - len(lists[name]))
        elif name in numbers and numbers[name] is None:
            numbers[name] = decode.number(value)
    return Routing(numbers["max-forwards"], numbers["retry-after"], tuple(map(_hosts, lists["via"])),
                   tuple(map(_uri, lists["route"])), tuple(map(_uri, lists["record-route"])))


def after(recorded: tuple[RouteUri, ...], own: set[str]) -> tuple[RouteUri, ...]:
    """What follows the entries of the element with one of these names; all where it has none."""
    last = max((i for i, entry in enumerate(recorded) if entry.host in own), default=-1)
    return recorded[last + 1:]


def _hosts(via: str) -> frozenset[str]:
    found = (pattern.search(via) for pattern in (_SENT_BY, _RECEIVED))
    return frozenset(decode.readable(m[1].strip("[]")).lower() for m in found if m)


def _uri(value: str) -> RouteUri:
    return RouteUri(decode.readable(contact_host(value)).lower(), bool(_LOOSE.search(decode.contact_uri(value) or "")))
