"""Rounds of digest authentication: what a client offered for a realm, and what the server made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from netdiag.tables.scanners import scanner
from netdiag.tables.sip_details import details
from netdiag.tables.sip_digest import Digest, digests
from netdiag.tables.sip_head import lines

if TYPE_CHECKING:
    import polars as pl

    from netdiag.tables import Tables

CHALLENGED = (401, 407)
"""Status codes that carry a challenge (RFC 3261 §22.2, §22.3)."""
Key = tuple[str, str, str, str, str]
"""Point, client, user (AoR), realm, header of the credentials."""


@dataclass(frozen=True, slots=True)
class AuthRound:
    """One transaction, as far as one realm is concerned."""

    request: int
    """Rows of ``Tables.sip``: the first send, and the first final response."""
    final: int
    server: str
    call_id: str
    at_ns: int
    used: Digest | None
    """Credentials of the request for this realm."""
    issued: tuple[Digest, ...]
    """Challenges for this realm; one for each algorithm (RFC 8760 §2.3). Empty: not challenged."""
    refused: bool
    """The credentials were challenged again; or got 403, for a REGISTER or right after such a challenge."""


def auth_rounds(tables: Tables, transactions: pl.DataFrame) -> dict[Key, list[AuthRound]]:
    """Rounds by user and realm, in the order of ``transactions``, which all have a final response; for few of them.

    Requests of scanning tools are left out. Credentials are taken as accepted where another realm asks.
    """
    out: dict[Key, list[AuthRound]] = {}
    if not len(transactions):
        return out
    request = transactions["request_messages"].list.first()
    names = details(tables, request, ("from_uri", "to_uri", "user_agent"))
    shown = transactions.select(
        "point", "client", "server", "call_id", "method", "status", "first_ns", "final_message")
    for t, (first, caller, callee, agent) in zip(shown.iter_rows(), names.iter_rows(), strict=True):
        point, client, server, call_id, method, status, at_ns, final = t
        if scanner(agent):
            continue
        user = ((callee if method == "REGISTER" else caller) or "").partition(";")[0]
        used = {(d.header, d.realm): d for d in digests(lines(tables, first))}
        issued: dict[tuple[str, str], list[Digest]] = {}
        for challenge in digests(lines(tables, final)) if status in CHALLENGED else ():
            issued.setdefault((challenge.header, challenge.realm), []).append(challenge)
        for header, realm in sorted({*used, *issued}):
            mine, theirs = used.get((header, realm)), tuple(issued.get((header, realm), ()))
            before = out.setdefault((point, client, user, realm, header), [])
            refused = mine is not None and (bool(theirs) or (status == 403 and (
                method == "REGISTER" or _denied(before[-2:], call_id))))
            before.append(AuthRound(first, final, server, call_id, at_ns, mine, theirs, refused))
    return out


def _denied(rounds: list[AuthRound], call_id: str) -> bool:
    """Were credentials with the nonce just issued refused in this call, and not called stale (RFC 7616 §3.3)?"""
    if len(rounds) < 2 or {r.call_id for r in rounds} != {call_id}:
        return False
    first, second = rounds
    return second.refused and second.used is not None and second.used.nonce in {d.nonce for d in first.issued} and \
        not any(d.stale for d in second.issued)
