"""Session timers of calls (RFC 4028): what the last 2xx set, and what was tried to refresh it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from netdiag.tables.schema import U16, U32, empty
from netdiag.tables.sip_details import added, details

if TYPE_CHECKING:
    from netdiag.tables import Tables

_VALUE = re.compile(r"\s*(\d{1,9})\s*(?:;|\Z)")
_REFRESHER = re.compile(r";\s*refresher\s*=\s*(uac|uas)\b", re.IGNORECASE)
_KEY = ["point", "call_id"]
REFRESHING = ("INVITE", "UPDATE")
"""Requests whose 2xx starts the timer anew (RFC 4028 §7.2)."""
EARLY_S = 32
"""Who does not refresh gives up min(32 s, a third of the interval) before it ends (RFC 4028 §10)."""


@dataclass(frozen=True, slots=True)
class TimedCall:
    """A call with BYE whose last 2xx to INVITE or UPDATE set a session timer, at one capture point."""

    point: str
    call_id: str
    caller: str
    bye_message: U32
    reset_message: U32
    """The last 2xx to INVITE or UPDATE."""
    gap_s: float
    """From there to the BYE."""
    session_expires: str
    uac: str
    """Who sent the request of that 2xx, and who answered it (addresses of the hop)."""
    uas: str
    bye_source: str
    end_ns: int
    reset_ns: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """A refresh after the last 2xx that got none itself."""

    point: str
    call_id: str
    method: str
    client: str
    server: str
    status: U16 | None
    sends: U16
    first_ns: int
    last_ns: int
    request_messages: tuple[U32, ...]
    response_messages: tuple[U32, ...]
    with_timer: bool
    """It carries Session-Expires."""


def seconds(session_expires: str | None) -> int | None:
    """Interval of a Session-Expires value."""
    match = _VALUE.match(session_expires) if session_expires else None
    return int(match[1]) if match else None


def refresher(call: TimedCall) -> str:
    """Address of the side that must refresh, "" where the 2xx does not say (RFC 4028 §9)."""
    match = _REFRESHER.search(call.session_expires)
    return "" if not match else call.uac if match[1].lower() == "uac" else call.uas


def timed_calls(tables: Tables, shortest_s: float) -> pl.DataFrame:
    """Calls whose BYE comes ``shortest_s`` or more after their last 2xx to INVITE or UPDATE; see ``TimedCall``."""
    calls = tables.calls.filter(pl.col("bye_message").is_not_null() & (pl.col("duration_s") >= shortest_s)).select(
        *_KEY, "caller", "bye_message", "end_ns")
    if not len(calls):
        return empty(TimedCall)
    sip = tables.sip
    reset = tables.transactions.filter(
        pl.col("method").is_in(REFRESHING) & pl.col("status").is_between(200, 299)
    ).join(calls.select(_KEY), on=_KEY, how="semi").select(
        *_KEY, reset_message="final_message", uac="client", uas="server")
    reset = reset.with_columns(reset_ns=sip["ts_ns"].gather(reset["reset_message"])).sort(
        "reset_ns", maintain_order=True).unique(_KEY, keep="last", maintain_order=True)
    calls = calls.join(reset, on=_KEY, how="inner", maintain_order="left").with_columns(
        gap_s=(pl.col("end_ns") - pl.col("reset_ns")) / 1e9).filter(pl.col("gap_s") >= shortest_s)
    calls = added(tables, calls, ("session_expires",), "reset_message").filter(
        pl.col("session_expires").is_not_null())
    return calls.with_columns(bye_source=sip["source"].gather(calls["bye_message"]))


def attempts(tables: Tables, calls: pl.DataFrame) -> pl.DataFrame:
    """Refreshes of ``calls`` (as ``timed_calls`` gives them) that failed after their last 2xx, in order of time."""
    tried = tables.transactions.filter(
        pl.col("method").is_in(REFRESHING) & pl.col("to_tag").is_not_null() & ~pl.col("midstream")
        & ((pl.col("status") >= 300) | pl.col("status").is_null())
    ).join(calls.select(*_KEY, "reset_ns"), on=_KEY, how="inner", maintain_order="left").filter(
        pl.col("first_ns") > pl.col("reset_ns")).sort("first_ns", maintain_order=True)
    first = tried["request_messages"].list.first()
    return tried.with_columns(
        with_timer=details(tables, first, ("session_expires",))["session_expires"].is_not_null())


def deadlines(interval: int) -> tuple[float, float]:
    """When the side that does not refresh gives up, and when the session ends: seconds after the last 2xx."""
    return interval - min(EARLY_S, interval / 3), float(interval)
