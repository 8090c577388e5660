"""Every request with credentials is challenged again: the client never gets past digest authentication.

A server answers 401, a proxy 407, with a nonce; the client repeats the request with a digest of its password over that
nonce, and is let in (RFC 3261 §22). Here requests that carry credentials for a realm are challenged for the same realm
once more, again and again, or refused with 403 on REGISTER. What the packets say of the cause: credentials made with
the very nonce just issued and refused without ``stale`` are wrong in themselves (password, user name, realm, or a URI
that something rewrote, RFC 7616 §3.4); ``stale=true`` each time means that they are right and the nonce is not accepted
(§3.3); a nonce that another server issued means that the servers do not share theirs; an algorithm that was not offered
is a mismatch (RFC 8760); REGISTERs that never carry credentials come from a client without any for that realm.

**What lifts the suspicion.** Three refusals for one realm and user (probable). One server accepts this user with a
nonce of its own, and another refuses nonces that it did not issue (confirmed).

**What looks alike and is not it.** One challenge before success is how digest works; so is one refusal of an old nonce
followed by success. A proxy and a server that challenge once each ask for two realms. An INVITE that is refused with
403 has passed authentication. Scanners guess passwords; their requests are left out by their User-Agent, or when one
address tries many users and none is accepted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import polars as pl

from netdiag.model import (
    Alternative,
    Confidence,
    Detection,
    Occurrence,
    Pattern,
    Reference,
    Setting,
    Severity,
    clear,
    found,
    not_applicable,
)
from netdiag.tables import Tables
from netdiag.tables.sip_details import details
from netdiag.tables.sip_digest import Digest, digests, head

PATTERN = Pattern(
    id="SIP-AUTH-LOOP",
    title="Digest challenge loop: every request with credentials is challenged again",
    severity=Severity.HIGH,
    cases=(),
    needs=("transactions", "sip"),
    references=(Reference("RFC 3261 §22.2–22.4"), Reference("RFC 7616 §3.3–3.4"), Reference("RFC 8760")),
    filter="sip.Status-Code == 401 || sip.Status-Code == 407 || sip.auth || sip.Method == \"REGISTER\"",
    mitigation="Enter the password and the authentication user name again, or send the client to one server only.",
    fix="Make password, user name and realm agree; give all servers of a pool the same nonce secret and clock.",
    prevention="Test a login against each server of the pool by its own address.",
    next_capture="Capture at each server behind the load balancer: which one issued the nonce, which one refuses it?",
    settings=(Setting("min_refused", 2, "requests", "practice: one refusal may be an old nonce"),
              Setting("max_users", 20, "users", "practice: one address that tries more, all in vain, is a scanner")),
)

SURE = 3
"""Refusals of one user in one realm that make it probable (practice)."""
SCANNERS = ("friendly-scanner", "sipvicious", "sipcli", "sundayddr", "sip-scan", "pplsip", "vaxsip")
"""User-Agent values of public scanning tools, in lower case."""
CHALLENGED = (401, 407)
DETAILED = 200
"""Users whose rounds are listed; the others of a flood are counted (practice)."""
SECRET, STALE, FOREIGN, ALGORITHM, OLD, NONE = (
    "the credentials are wrong", "each nonce is called stale", "servers do not share their nonces",
    "the algorithm was not offered", "an old nonce is used again", "no credentials are sent")
Key = tuple[str, str, str, str, str]
"""Point, client, user, realm, header of the credentials."""


@dataclass(frozen=True, slots=True)
class _Round:
    """One transaction of a user, as far as one realm is concerned."""

    request: int
    final: int
    server: str
    call_id: str
    at_ns: int
    used: Digest | None
    """Credentials of the request for this realm."""
    issued: tuple[Digest, ...]
    """Challenges for this realm; one for each algorithm (RFC 8760 §2.3). Empty: not challenged."""
    refused: bool


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Users whose credentials for a realm are refused several times without success between."""
    asked = tables.transactions.filter(pl.col("status").is_in(CHALLENGED) & ~pl.col("midstream"))
    if not len(asked):
        return not_applicable("no SIP request was challenged in this capture")
    rounds = _rounds(tables, _suspects(tables, asked))
    occurrences = []
    for key, mine in rounds.items():
        for one in _pools(mine):
            kind, run = _judge(one, int(settings["min_refused"]))
            if kind:
                occurrences.append((key, kind, run, one))
    tried: dict[tuple[str, str], set[str]] = {}
    for (point, client, user, *_), kind, *_ in occurrences:
        if kind in (SECRET, NONE):
            tried.setdefault((point, client), set()).add(user)
    kept = [o for o in occurrences if o[1] not in (SECRET, NONE)
            or len(tried[o[0][0], o[0][1]]) <= settings["max_users"]]
    if not kept:
        return clear(f"{len(asked)} challenges; none is repeated in answer to credentials until the client gives up")
    examined: Counter[tuple[str, ...]] = Counter()
    users = {(realm, user) for _, _, user, realm, _ in rounds}
    for realm, kind in {(o[0][3], o[1]) for o in kept}:
        examined[realm, kind] = sum(1 for r, _ in users if r == realm)
    return found([_occurrence(tables, *o, i < DETAILED) for i, o in enumerate(kept)],
                 population="users challenged more than once", examined=dict(examined))


def _suspects(tables: Tables, asked: pl.DataFrame) -> pl.DataFrame:
    """All transactions of the calls that show several challenges in a row, which success does not explain."""
    calls = ["point", "call_id", "client", "method"]
    several = asked.select(calls).unique().join(
        tables.transactions.filter(pl.col("call_id").is_in(
            asked.filter(asked["call_id"].is_duplicated() | (asked["method"] == "REGISTER"))["call_id"].implode())),
        on=calls, how="inner").filter(~pl.col("midstream") & pl.col("status").is_not_null()).sort("first_ns")
    again = pl.col("status").is_in(CHALLENGED) | ((pl.col("method") == "REGISTER") & (pl.col("status") == 403))
    runs = several.with_columns(again=again).with_columns(
        run=(~pl.col("again")).cast(pl.UInt32).cum_sum().shift(1, fill_value=0).over(calls))
    worse = runs.group_by([*calls, "run"]).agg(
        n=pl.col("again").sum(), accepted=(~pl.col("again")).any(), kinds=pl.col("status").filter(again).n_unique())
    worse = worse.filter((pl.col("n") >= 3) | ((pl.col("n") == 2) & (~pl.col("accepted") | (pl.col("kinds") == 1))))
    return runs.join(worse.select(calls).unique(), on=calls, how="semi", maintain_order="left")


def _rounds(tables: Tables, suspects: pl.DataFrame) -> dict[Key, list[_Round]]:
    """Rounds by user and realm, in order of time; without those of scanning tools."""
    out: dict[Key, list[_Round]] = {}
    if not len(suspects):
        return out
    request = suspects["request_messages"].list.first()
    names = details(tables, request, ("from_uri", "to_uri", "user_agent"))
    shown = suspects.select("point", "client", "server", "call_id", "method", "status", "first_ns", "final_message")
    for first, t, name in zip(request.to_list(), shown.iter_rows(), names.iter_rows(), strict=True):
        point, client, server, call_id, method, status, at_ns, final = t
        if any(tool in (name[3] or "").lower() for tool in SCANNERS):
            continue
        user = ((name[2] if method == "REGISTER" else name[1]) or "").partition(";")[0]
        used = {(d.header, d.realm): d for d in digests(head(tables, first))}
        issued: dict[tuple[str, str], list[Digest]] = {}
        for challenge in digests(head(tables, final)) if status in CHALLENGED else ():
            issued.setdefault((challenge.header, challenge.realm), []).append(challenge)
        for header, realm in sorted({*used, *issued}):
            mine, theirs = used.get((header, realm)), tuple(issued.get((header, realm), ()))
            refused = mine is not None and (bool(theirs) or (status == 403 and method == "REGISTER"))
            if mine and not refused and status in CHALLENGED:
                continue  # another realm asks: nothing is said about these credentials
            out.setdefault((point, client, user, realm, header), []).append(
                _Round(first, final, server, call_id, at_ns, mine, theirs, refused))
    return out


def _pools(rounds: list[_Round]) -> list[list[_Round]]:
    """All rounds together where a server refuses what another one issued, else those of each server."""
    issuer = {d.nonce: r.server for r in rounds for d in r.issued}
    if any(r.refused and r.used and issuer.get(r.used.nonce, r.server) != r.server for r in rounds):
        return [rounds]
    servers: dict[str, list[_Round]] = {}
    for r in rounds:
        servers.setdefault(r.server, []).append(r)
    return list(servers.values())


def _judge(rounds: list[_Round], least: int) -> tuple[str, list[_Round]]:
    """What is wrong, "" for nothing, and the rounds that show it."""
    issuer = {d.nonce: r.server for r in rounds for d in r.issued}
    strange = [r for r in rounds if r.refused and r.used and issuer.get(r.used.nonce, r.server) != r.server]
    if len(strange) >= least:
        return FOREIGN, rounds
    if not any(r.used for r in rounds):
        return (NONE, rounds) if len(rounds) >= SURE else ("", [])
    best: list[_Round] = []
    run: list[_Round] = []
    for r in rounds:
        run = [*run, r] if r.refused or not r.used else []
        best = run if sum(x.refused for x in run) > sum(x.refused for x in best) else best
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
    return (ALGORITHM if wrong > len(refused) // 2 else OLD if old > len(refused) // 2 else SECRET), best


def _occurrence(tables: Tables, key: Key, kind: str, run: list[_Round], pool: list[_Round], detailed: bool
                ) -> Occurrence:
    _, client, user, realm, _ = key
    refused = [r for r in run if r.refused]
    servers = sorted({r.server for r in run})
    seconds = (run[-1].at_ns - run[0].at_ns) / 1e9
    issuer = {d.nonce: r.server for r in pool for d in r.issued}
    confidence, name = Confidence.SUSPECTED, next((r.used.username for r in refused if r.used), "")
    reasons = [f"{len(refused)} requests with credentials of user {name!r} for realm {realm!r} are refused in "
               f"{seconds:.1f} s" if refused else f"{len(run)} REGISTERs are challenged in {seconds:.1f} s, none "
               f"of them has credentials for realm {realm!r}"]
    if len(refused) >= SURE:
        confidence = Confidence.PROBABLE
    if kind == FOREIGN:
        pairs = sorted({(issuer[r.used.nonce], r.server) for r in refused if r.used and r.used.nonce in issuer
                        and issuer[r.used.nonce] != r.server})
        reasons.append("; ".join(f"{b} refuses a nonce that {a} issued" for a, b in pairs[:3]))
        own = next((r for r in pool if r.used and not r.refused and issuer.get(r.used.nonce) == r.server), None)
        if own:
            confidence = Confidence.CONFIRMED
            reasons.append(f"{own.server} accepts the same user with a nonce of its own")
    elif kind == STALE:
        reasons.append(f"{sum(any(d.stale for d in r.issued) for r in refused)} of the refusals say stale=true")
    elif kind == SECRET:
        reasons.append("each used the nonce just issued, and no refusal calls it stale")
    elif refused and (seen := next(r.used for r in refused if r.used)):
        offered = sorted({d.algorithm for r in run for d in r.issued})
        reasons.append(f"credentials use {seen.algorithm}, offered is {', '.join(offered)}" if kind == ALGORITHM
                       else "their nonce is not the one of the challenge before")
    rows = tables.sip["packet"].gather([m for r in run for m in (r.request, r.final)]).to_list() if detailed else []
    calls = {f"call:{r.call_id}" for r in run[:20]}
    uris = sorted({r.used.uri for r in refused if r.used})
    return Occurrence(
        subject=user or client, group=(realm, kind), title=f"Digest challenge loop: {kind}",
        summary=f"{', '.join(servers)} refuse{'s' if len(servers) == 1 else ''} {len(refused) or len(run)} requests "
                f"of {user or client}: {kind}.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(rows, {"sip.auth.realm": realm, "sip.auth.username": name, "sip.auth.uri":
                                        ", ".join(uris[:3]), "source.ip": client}) if detailed else (),
        scope={"source.ip": client, "destination.ip": servers[0], "sip.auth.realm": realm},
        flows=tuple({int(f) for f in tables.sip["flow"].gather([r.request for r in run])}),
        keys=frozenset({f"aor:{user}", *calls, *(f"host:{s}" for s in servers)}),
        start_ns=run[0].at_ns, end_ns=run[-1].at_ns, alternatives=(
            Alternative("password, user name or realm differ between client and server",
                        "each nonce is fresh" if kind == SECRET else "it would be refused in the same way",
                        "the server itself calls the nonce the reason" if kind in (STALE, FOREIGN) else ""),
            Alternative("something on the way changes the request URI or the credentials",
                        f"the digest covers the URI {uris[0]}" if uris else "only the client's side can tell", "")))
