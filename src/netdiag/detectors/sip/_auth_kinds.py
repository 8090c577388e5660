"""What is wrong with rounds of digest authentication: the servers, the nonces, or the credentials."""

from __future__ import annotations

from itertools import pairwise

from netdiag.tables.sip_auth import AuthRound, Key
from netdiag.tables.sip_digest import Digest

SURE = 3
"""Refusals of one user in one realm that make it probable (practice)."""
SECRET, STALE, FOREIGN, ALGORITHM, OLD, NONE, TURNS, REALM = (
    "the credentials are wrong", "each nonce is called stale", "servers do not share their nonces",
    "the algorithm was not offered", "an old nonce is used again", "no credentials are sent",
    "the credentials are accepted at some times and refused at others", "the credentials are for another realm")

DO_NOW = {
    SECRET: "Enter the password and the authentication user name of this account again.",
    STALE: "Send this client to one server only, and let a nonce live longer than the client takes to answer.",
    FOREIGN: "Send each client to one server of the pool only: balance by source address or by Call-ID.",
    TURNS: "Send this client to one server only: its credentials are right.",
    ALGORITHM: "Offer the algorithm that the client uses as well (RFC 8760 §2.3), or set the client to one on offer.",
    OLD: "Restart the client, or make it register again: it has to take the nonce of the last challenge.",
    NONE: "Give the client a user name and password for this realm, or let the server know it by its address.",
    REALM: "Set the realm of the client's credentials to the one that the server asks for, or leave it open."}
"""What helps at once with each kind."""


def pools(rounds: list[AuthRound]) -> list[list[AuthRound]]:
    """All rounds together where a server refuses what another one issued, else those of each server."""
    issuer = {d.nonce: r.server for r in rounds for d in r.issued}
    if any(r.refused and r.used and issuer.get(r.used.nonce, r.server) != r.server for r in rounds):
        return [rounds]
    servers: dict[str, list[AuthRound]] = {}
    for r in rounds:
        servers.setdefault(r.server, []).append(r)
    return list(servers.values())


def judge(rounds: list[AuthRound], least: int) -> tuple[str, list[AuthRound]]:
    """What is wrong, "" for nothing, and the rounds that show it."""
    issuer = {d.nonce: r.server for r in rounds for d in r.issued}
    strange = [r for r in rounds if r.refused and r.used and issuer.get(r.used.nonce, r.server) != r.server]
    if len(strange) >= least:
        return FOREIGN, rounds
    if not any(r.used for r in rounds):
        return (NONE, rounds) if len(rounds) >= SURE else ("", [])
    best = _longest(rounds)
    refused = [r for r in best if r.refused]
    if len(refused) < least:
        return "", []
    if sum(any(d.stale for d in r.issued) for r in refused) > len(refused) // 2:
        return STALE, best
    last: tuple[Digest, ...] = ()
    wrong = old = 0
    for r in best:
        if r.used and r.refused and last:
            wrong += r.used.algorithm not in {d.algorithm for d in last}
            old += r.used.nonce not in {d.nonce for d in last}
        last = r.issued or last
    if max(wrong, old) > len(refused) // 2:
        return ALGORITHM if wrong >= old else OLD, best
    return (TURNS, rounds) if _changes(rounds) > 1 else (SECRET, best)


def _changes(rounds: list[AuthRound]) -> int:
    """How often refusals of the nonce just issued follow an acceptance, or the other way round."""
    verdicts, last = [], set[str]()
    for r in rounds:
        if r.used and (not r.refused or r.used.nonce in last):
            verdicts.append(r.refused)
        last = {d.nonce for d in r.issued}
    return sum(a != b for a, b in pairwise(verdicts))


def refused_first(pool: list[AuthRound]) -> bool:
    """Is a nonce accepted that was refused before? Then neither password nor age were the reason."""
    refused: set[str] = set()
    for r in pool:
        if r.used and r.refused:
            refused.add(r.used.nonce)
        elif r.used and r.used.nonce in refused:
            return True
    return False


def waits(rounds: list[AuthRound], told_ns: list[int]) -> list[float]:
    """Seconds from each challenge to the refused credentials that answer it; ``told_ns``: when each round ended.

    Empty when the challenge of some refused credentials is not here.
    """
    issued: dict[str, int] = {}
    out = []
    for r, at_ns in zip(rounds, told_ns, strict=True):
        if r.refused and r.used:
            if r.used.nonce not in issued:
                return []
            out.append((r.at_ns - issued[r.used.nonce]) / 1e9)
        issued |= {d.nonce: at_ns for d in r.issued}
    return out


def _longest(rounds: list[AuthRound]) -> list[AuthRound]:
    """The rounds without accepted credentials between that have the most refusals, up to the last of these."""
    best, most, begin, count = (0, 0), 0, 0, 0
    for i, r in enumerate(rounds):
        if r.used and not r.refused:
            begin, count = i + 1, 0
        count += r.refused
        if count > most:
            best, most = (begin, i + 1), count
    return rounds[slice(*best)]


def other_realms(rounds: dict[Key, list[AuthRound]]) -> dict[tuple[str, str, str], str]:
    """Point, client and user of credentials for a realm that nobody asks for, and that realm."""
    return {key[:3]: key[3] for key, mine in rounds.items()
            if any(r.used for r in mine) and not any(r.issued for r in mine)}
