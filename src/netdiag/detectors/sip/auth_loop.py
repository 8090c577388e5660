"""Every request with credentials is challenged again: the client never gets past digest authentication.

A server answers 401, a proxy 407, with a nonce; the client repeats the request with a digest of its password over that
nonce, and is let in (RFC 3261 §22). Here requests that carry credentials for a realm are challenged for the same realm
once more, again and again, or refused with 403: on REGISTER, or right after such a challenge. What the packets say of
the cause: credentials made with the very nonce just issued and refused without ``stale`` are wrong in themselves
(password, user name, realm, or a URI that something rewrote, RFC 7616 §3.4); ``stale=true`` each time means that they
are right and the nonce is not accepted (§3.3); a nonce that another server issued means that the servers do not share
theirs; an algorithm that was not offered is a mismatch (RFC 8760); requests that never carry credentials come from a
client without any for that realm, or with some for another realm; three calls of one client that each end with the
challenge say the same where the server knows this client from other requests. Credentials that are refused, accepted
and refused again at one address, each time with the nonce just issued, are right: several servers answer there, and do
not share their nonces. Credentials that all come seconds after their challenge may be right too: a nonce lives as long
as its server likes.

**What lifts the suspicion.** Three refusals for one realm and user (probable). One server accepts this user with a
nonce of its own, and another refuses nonces that it did not issue (confirmed).

**What looks alike and is not it.** One challenge before success is how digest works; so is one refusal of an old nonce
followed by success. A proxy and a server that challenge once each ask for two realms. An INVITE that is refused with
403 at once, or after a nonce that had grown old, has passed authentication. Scanners guess passwords; their requests
are left out by their User-Agent, or when one address tries many users and none is accepted. A password that is
corrected is refused first and then accepted, once.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl

from netdiag.detectors.sip._auth_alone import left_alone
from netdiag.detectors.sip._auth_kinds import (
    ALGORITHM,
    DO_NOW,
    FOREIGN,
    NONE,
    OLD,
    REALM,
    SECRET,
    STALE,
    SURE,
    TURNS,
    judge,
    other_realms,
    pools,
    refused_first,
    waits,
)
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
    number_of,
)
from netdiag.tables import Tables
from netdiag.tables.sip_auth import CHALLENGED, AuthRound, Key, auth_rounds
from netdiag.tables.sip_details import details
from netdiag.tables.sip_groups import group_codes

PATTERN = Pattern(
    id="SIP-AUTH-LOOP",
    title="Digest challenge loop: every request with credentials is challenged again",
    severity=Severity.HIGH,
    cases=("authentication-loop",),
    needs=("transactions", "sip"),
    references=(Reference("RFC 3261 §22.2–22.4"), Reference("RFC 7616 §3.3–3.4"), Reference("RFC 8760")),
    filter="sip.Status-Code == 401 || sip.Status-Code == 407 || sip.auth || sip.Method == \"REGISTER\"",
    mitigation="Enter the password and the authentication user name again, or send the client to one server only.",
    fix="Make password, user name and realm agree; give all servers of a pool the same nonce secret and clock.",
    prevention="Test a login against each server of the pool by its own address.",
    next_capture="Capture at the server, or at each one behind a load balancer, and read its log: why is it refused?",
    settings=(Setting("min_refused", 2, "requests", "practice: one refusal may be an old nonce"),
              Setting("late_answer", 5, "s", "practice: a client that has its password answers in milliseconds"),
              Setting("max_users", 20, "users", "practice: one address that tries more, all in vain, is a scanner")),
)

POOL = "Capture at each server behind the load balancer: which one issued the nonce, which one refuses it?"
DETAILED = 200
"""Users whose rounds are listed; the others of a flood are counted (practice)."""
GUESSED = (SECRET, NONE, REALM)
_SPEAKS_AGAINST = {STALE: "the server itself calls the nonce the reason",
                   FOREIGN: "each server refuses what another one issued",
                   TURNS: "the same credentials are accepted at other times"}


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Users whose credentials for a realm are refused several times without success between."""
    asked = tables.transactions.select((pl.col("status").is_in(CHALLENGED) & ~pl.col("midstream")).sum()).item()
    if not asked:
        return not_applicable("no SIP request was challenged in this capture")
    suspects = _suspects(tables)
    if asked >= SURE and len(alone := left_alone(tables.transactions, SURE)):
        more = tables.transactions.filter(pl.col("status").is_in(CHALLENGED)).join(
            alone, on=["point", "call_id"], how="semi")
        suspects = pl.concat([suspects, more]).unique("transaction").sort("first_ns", "transaction")
    rounds = auth_rounds(tables, suspects)
    strangers = other_realms(rounds)
    occurrences = []
    for key, mine in rounds.items():
        for one in pools(mine):
            kind, run = judge(one, int(settings["min_refused"]))
            if kind == NONE and key[:3] in strangers:
                kind = REALM
            if kind:
                occurrences.append((key, kind, run, one))
    tried: dict[tuple[str, str], set[str]] = {}
    for (point, client, user, *_), kind, *_ in occurrences:
        if kind in GUESSED:
            tried.setdefault((point, client), set()).add(user)
    kept = [o for o in occurrences if o[1] not in GUESSED
            or len(tried[o[0][0], o[0][1]]) <= settings["max_users"]]
    if not kept:
        return clear(f"{number_of(asked, 'challenges')}; none is repeated in answer to credentials until the client "
                     "gives up"
                     + (f"; left out: {number_of(len(tried), 'addresses')} with many users, all in "
                        "vain" if occurrences else ""))
    # In front of a balancer the same fault shows as one of these: who knows more names it.
    pooled = {(key[2], key[3]) for key, kind, *_ in kept if kind == FOREIGN}
    groups = [(key[3], FOREIGN if (key[2], key[3]) in pooled and kind in (SECRET, TURNS, OLD) else kind)
              for key, kind, *_ in kept]
    examined = Counter(realm for _, realm in {(user, realm) for _, _, user, realm, _ in rounds})
    return found([_occurrence(tables, *o, group, strangers, settings["late_answer"], i < DETAILED)
                  for i, (o, group) in enumerate(zip(kept, groups, strict=True))],
                 population="users challenged more than once", examined={g: examined[g[0]] for g in groups})


def _suspects(tables: Tables) -> pl.DataFrame:
    """All transactions of the calls that show several challenges in a row, which success does not explain.

    In order of time. Arrays, with one grouping: most captures have a challenge for every call.
    """
    data = tables.transactions.select("point", "call_id", "client", "method", "status", "midstream", "first_ns")
    asked = data["call_id"].filter(data["status"].is_in([*CHALLENGED, 403]))
    several = asked.filter(asked.is_duplicated()).unique()
    if not len(several):
        return tables.transactions.clear()
    row = np.flatnonzero((~data["midstream"] & data["status"].is_not_null()
                          & data["call_id"].is_in(several.implode())).to_numpy())
    data = data[row]
    calls, count = group_codes(data, ["call_id", "client", "method", "point"])
    status = data["status"].to_numpy()
    again = np.isin(status, CHALLENGED) | ((status == 403) & (data["method"] == "REGISTER").to_numpy())
    order = np.lexsort((data["first_ns"].to_numpy(), calls))
    call, again, status = calls[order], again[order], status[order]
    begin = again & ~np.concatenate([[False], again[:-1] & (call[1:] == call[:-1])])
    run = np.cumsum(begin)[again]
    size = np.bincount(run)[1:]
    last = np.flatnonzero(begin) + size - 1
    following = np.minimum(last + 1, len(call) - 1)
    accepted = (following > last) & (call[following] == call[last])
    one_kind = status[last] == status[np.maximum(last - 1, 0)]
    bad = np.zeros(count, np.bool_)
    bad[call[last[(size >= 3) | ((size == 2) & (~accepted | one_kind))]]] = True
    chosen = row[np.flatnonzero(bad[calls])]
    return tables.transactions[chosen].sort("first_ns", maintain_order=True)


def _occurrence(tables: Tables, key: Key, kind: str, run: list[AuthRound], pool: list[AuthRound],
                group: tuple[str, str], strangers: dict[tuple[str, str, str], str], late: float,
                detailed: bool) -> Occurrence:
    _, client, user, realm, _ = key
    refused = [r for r in run if r.refused]
    servers = sorted({r.server for r in run})
    seconds = (run[-1].at_ns - run[0].at_ns) / 1e9
    issuer = {d.nonce: r.server for r in pool for d in r.issued}
    confidence, name = Confidence.SUSPECTED, next((r.used.username for r in refused if r.used), "")
    reasons = [f"{len(refused)} requests with credentials of user {name!r} for realm {realm!r} are refused in "
               f"{seconds:.1f} s" if refused else f"{len(run)} requests are challenged in {seconds:.1f} s, none "
               f"of them has credentials for realm {realm!r}"]
    if len(refused) >= SURE or kind == REALM:
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
    elif kind == TURNS:
        accepted = sum(1 for r in pool if r.used and not r.refused)
        reasons.append(f"accepted in between: {number_of(accepted, 'requests')} with credentials of this user"
                       + (", one with a nonce that was refused before" if refused_first(pool) else ""))
    elif kind == REALM:
        reasons.append(f"the credentials that are sent are for realm {strangers[key[:3]]!r}, which no challenge names")
    elif kind == SECRET:
        reasons.append("each used the nonce just issued, and no refusal calls it stale")
    elif refused and (seen := next(r.used for r in refused if r.used)):
        offered = sorted({d.algorithm for r in run for d in r.issued})
        reasons.append(f"credentials use {seen.algorithm}, offered is {', '.join(offered)}" if kind == ALGORITHM
                       else "their nonce is not the one of the challenge before")
    said = details(tables, [r.final for r in refused], ("reason",))["reason"].unique(
        maintain_order=True).to_list() if detailed and refused else []
    expired: tuple[Alternative, ...] = ()
    waited = waits(run, tables.sip["ts_ns"].gather([r.final for r in run]).to_list()) if kind in (SECRET, STALE) else []
    if waited and min(waited) >= late:
        span = " to ".join(dict.fromkeys(f"{s:.1f}" for s in (min(waited), max(waited))))
        reasons.append(f"the credentials come {span} s after their challenge")
        named = next((f", and a refusal says {text!r}" for text in said if "nonce" in text.lower()), "")
        expired = (Alternative(
            "each nonce had expired before it was used (how long it is valid is the server's choice, RFC 7616 §3.3)",
            f"they come {span} s late{named}", "no refusal says stale=true" if kind == SECRET else ""),)
    if said:
        reasons.append("the refusals say " + ", ".join(repr(text) for text in said[:3]))
    rows = tables.sip["packet"].gather([m for r in run for m in (r.request, r.final)]).to_list() if detailed else []
    calls = {f"call:{r.call_id}" for r in run[:20]}
    uris = sorted({r.used.uri for r in refused if r.used})
    forgets = () if kind != TURNS else (Alternative(
        "one server that forgets nonces, and not several", "it is one address",
        "a nonce is accepted that was refused before" if refused_first(pool) else ""),)
    return Occurrence(
        subject=user or client, group=group, title=f"Digest challenge loop: {kind}",
        summary=f"{', '.join(servers)} refuse{'s' if len(servers) == 1 else ''} {len(refused) or len(run)} requests "
                f"of {user or client}: {kind}.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(rows, {k: v for k, v in (
            ("sip.auth.realm", realm), ("sip.auth.username", name), ("sip.auth.uri", ", ".join(uris[:3])),
            ("source.ip", client)) if v}) if detailed else (),
        scope={"source.ip": client, "destination.ip": servers[0], "sip.auth.realm": realm},
        flows=tuple({int(f) for f in tables.sip["flow"].gather([r.request for r in run])}),
        keys=frozenset({f"aor:{user}", *calls, *(f"host:{s}" for s in servers)}),
        start_ns=run[0].at_ns, end_ns=run[-1].at_ns, mitigation=DO_NOW[group[1]],
        next_capture=POOL if group[1] in (FOREIGN, TURNS, STALE, OLD) else "", alternatives=(
            *expired, *_others(kind, uris), *forgets))


def _others(kind: str, uris: list[str]) -> tuple[Alternative, ...]:
    if kind == NONE:
        return (Alternative("the server should know this client by its address, and does not",
                            "the client never shows that it has an account", ""),)
    against = _SPEAKS_AGAINST.get(kind, "")
    covered = f"the digest covers the URI {uris[0]}" if uris else "only the client's side can tell"
    changed = Alternative("something on the way changes the request URI or the credentials", covered, against)
    if kind in (SECRET, REALM):  # that they differ is the finding itself
        return (changed,)
    return (Alternative("password, user name or realm differ between client and server",
                        "it would be refused in the same way", against), changed)
