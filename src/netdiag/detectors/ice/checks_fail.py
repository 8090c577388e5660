"""ICE finds no path: no connectivity check of a session is ever answered with success.

Both agents send STUN Binding requests with their username fragments from each candidate to each (RFC 8445 §7.2). A
request is repeated after 500 ms and then at doubled intervals, seven times in all, and given up after 39.5 s (RFC 8489
§6.2.1); many agents send new transactions instead. Where not one request of either agent gets a success response on
any pair, there is no path for media. Either nothing comes back (UDP is filtered, a NAT on both sides that no candidate
leads through, candidates of an address realm that the other side cannot reach, no TURN server), or what comes back
are errors: 401 and 400 say that the username or password is not that of the session that the peer runs (a stale
description, a restart that one side missed), 487 again and again that both sides keep the same role (RFC 8445
§7.3.1.1).

**What lifts the suspicion.** The time for an answer is over, and the host receives other traffic here, so that an
answer would have been seen (probable). An ICMP error that names the hop, a refusal of every answered check, a role
conflict that nobody resolves, or a second capture that shows where requests or responses vanish (confirmed).

**What looks alike and is not it.** Most pairs fail in every session: one success on one pair of the session is
enough, whatever its candidates are, and so is a success for another session of the same agent (a forked offer, a
restart). A 487 once, after which the roles change, is how conflicts are resolved. An ICE-lite agent sends no checks
and answers those it gets. Checks without an answer on a pair that carries media were answered before the capture began;
where they die later consent is lost (ICE-CONSENT-LOST). Requests without a username ask a STUN server for an address
and are no checks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import polars as pl

from netdiag.detectors.ice._surroundings import Crossing, Descriptions, Hearing, Relays, of_session
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
    inconclusive,
    not_applicable,
    number_of,
)
from netdiag.tables import Tables
from netdiag.tables.ice import Check
from netdiag.tables.schema import rows

PATTERN = Pattern(
    id="ICE-CHECKS-FAIL",
    title="ICE connectivity checks never succeed",
    severity=Severity.HIGH,
    cases=("webrtc-through-turn",),
    needs=("checks", "stun", "allocations", "ice_descriptions", "icmp", "flows", "calls", "quality"),
    references=(Reference("RFC 8445 §7.2, §7.3.1.1, §14.3"), Reference("RFC 8489 §6.2.1, §9.1.3")),
    filter="stun.type.method == 0x0001 && (stun.type.class == 0 || stun.type.class == 3)",
    mitigation="Give both sides a TURN server they can reach (UDP, and TCP or TLS on 443), or let UDP pass between "
               "them; for 401 and 487 end the session and call again.",
    fix="Offer server-reflexive and relayed candidates on both sides; after a restart use the fragments and passwords "
        "of the new descriptions only.",
    prevention="Test candidates and paths before calls; alert on the share of sessions that end without a valid pair.",
    next_capture="Capture at the other agent at the same time, filter `udp`: do the checks arrive, and does it answer?",
    settings=(Setting("min_requests", 7, "requests", "RFC 8489 §6.2.1: Rc, before a client gives up"),
              Setting("min_conflicts", 3, "responses", "practice: one 487 is how roles are settled")),
)
GIVE_UP_S = 39.5
"""RFC 8489 §6.2.1: Rc 7, Rm 16, RTO 500 ms."""
REFUSALS = 2
"""Errors other than 487; one alone may be a check that came before its description (practice)."""
DETAILED = 200
"""Sessions whose frames are listed; the others of a flood are counted (practice)."""
PAIRS_SHOWN = 8
"""Candidate pairs of a session whose frames are listed (practice)."""
_SESSION = ["point", "session"]


@dataclass(slots=True)
class _Session:
    """All checks of two agents at one point, none of which succeeded."""

    checks: list[Check] = field(default_factory=list)

    @property
    def lead(self) -> Check:
        return self.checks[0]

    @property
    def flows(self) -> set[int]:
        return {c.flow for c in self.checks}

    @property
    def span(self) -> tuple[int, int]:
        return min(c.first_ns for c in self.checks), max(c.last_ns for c in self.checks)


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Sessions in which neither agent gets a success response on any pair."""
    checks = tables.checks
    if not checks.height:
        return not_applicable("no ICE connectivity checks in this capture")
    sums = checks.group_by(_SESSION, maintain_order=True).agg(
        pl.col("last_ns").max(),
        pl.col("successes", "requests", "errors", "role_conflicts").sum(), media=pl.col("media_sent").sum(),
        ufrags=pl.col("local_ufrag").append(pl.col("remote_ufrag")).unique())
    # One success of an agent is enough: on this session, or on that of another answer to the same offer.
    lively = sums.filter(pl.col("successes") > 0).select("point", "ufrags").explode("ufrags").unique()
    served = sums.explode("ufrags").join(lively, on=["point", "ufrags"], how="semi").select(_SESSION).unique()
    silent = sums.filter(pl.col("media") == 0).join(served, on=_SESSION, how="anti")
    dead = silent.filter((pl.col("requests") - pl.col("errors") >= settings["min_requests"])
                         | (pl.col("errors") - pl.col("role_conflicts") >= REFUSALS)
                         | (pl.col("role_conflicts") >= settings["min_conflicts"]))
    if not dead.height:
        late = silent.join(tables.quality.select("point", end="last_ns"), on="point").filter(
            pl.col("end") - pl.col("last_ns") < GIVE_UP_S * 1e9)
        if late.height:
            return inconclusive(f"the capture ends while the checks of {number_of(late.height, 'ICE sessions')} are "
                                "still young", PATTERN.next_capture)
        return clear(f"{number_of(sums.height, 'ICE sessions')}; each has a pair that answers, or too few checks")
    sessions: dict[tuple[str, str], _Session] = {}
    for c in rows(checks.join(dead.select(_SESSION), on=_SESSION, how="semi", maintain_order="left"), Check):
        sessions.setdefault((c.point, c.session), _Session()).checks.append(c)
    context = _Context(tables, settings, Counter(h for s in sessions.values() for h in (s.lead.local, s.lead.remote)))
    occurrences = [context.occurrence(s, i < DETAILED) for i, s in enumerate(sessions.values())]
    ends = {(host, session) for *pair, session in checks.select("local", "remote", "session").unique().iter_rows()
            for host in pair}
    hosts = Counter(host for host, _ in ends)
    examined = {o.group: hosts[o.group[1]] for o in occurrences if o.group[1] in hosts}
    return found(occurrences, population="sessions", examined=examined)


class _Context:
    def __init__(self, tables: Tables, settings: dict[str, float], hosts: Counter[str]) -> None:
        self._tables, self._settings, self._hosts = tables, settings, hosts
        self._said, self._hearing, self._crossing = Descriptions(tables), Hearing(tables), Crossing(tables)
        self._relays = Relays(tables)
        self._end = dict(tables.quality.select("point", "last_ns").iter_rows())
        self._errors = tables.stun.filter((pl.col("method") == 1) & (pl.col("response") == "error")).select(
            "path", "username", pl.col("response_packets").list.first())
        asked = tables.stun.filter((pl.col("method") == 1) & pl.col("username").is_null() & (pl.col("sends") > 0))
        self._gathering: dict[tuple[str, str], dict[str, bool]] = defaultdict(dict)
        for point, client, server, answered in asked.group_by("point", "client", "server", maintain_order=True).agg(
                (pl.col("response") == "success").any()).iter_rows():
            self._gathering[point, client][server] = answered
        self._icmp: dict[int, list[tuple[str, str, int]]] = defaultdict(list)
        for flow, *error in tables.icmp.select("quoted_flow", "source", "name", "packet").iter_rows():
            self._icmp[flow].append((error[0], error[1], error[2]))

    def occurrence(self, s: _Session, detailed: bool) -> Occurrence:
        lead = s.lead
        codes = sorted({code for c in s.checks for code in c.codes})
        conflicts = sum(c.role_conflicts for c in s.checks)
        requests, pairs = sum(c.requests for c in s.checks), len({c.path for c in s.checks})
        tried = (self._end[lead.point] - s.span[0]) / 1e9
        text = f"{requests} checks on {number_of(pairs, 'candidate pairs')}, no success response"
        cited: list[int] = []
        for c in s.checks[:PAIRS_SHOWN]:
            cited += [c.first_packet, c.last_packet]
        reasons, confidence = [text], Confidence.SUSPECTED
        # The end that more of these sessions share is where to look.
        shared = lead.remote if self._hosts[lead.remote] > self._hosts[lead.local] else lead.local
        group: tuple[str, ...] = ("silent", shared)
        title = ""
        refused = [code for code in codes if code != 487]
        if refused:
            who = next(c for c in s.checks if set(c.codes) & set(refused))
            confidence, group = Confidence.CONFIRMED, ("refused", who.remote, " ".join(map(str, refused)))
            names = " and ".join(str(code) if code else "an unreadable error" for code in refused)
            title = f"ICE checks are refused with {names}"
            reasons.append(f"{who.remote} answers {who.errors} checks, each with an error")
            reasons += self._stale(s)
        elif conflicts >= self._settings["min_conflicts"]:
            confidence, group, title = Confidence.CONFIRMED, ("conflict", shared), "ICE role conflict without end"
            reasons.append(f"{conflicts} times 487, and no agent changes its role")
        cited += self._refusals(s) if codes else []
        absence = not codes
        if absence:
            errors = self._unreachable(s)
            if errors:
                confidence, group, absence = Confidence.CONFIRMED, ("icmp", errors[0]), False
                reasons.append(f"{errors[0]} answers checks with ICMP: {errors[1]}")
                cited += errors[2]
            elif tried >= GIVE_UP_S:
                reasons.append(f"nothing came for {tried:.0f} s, and a check is given up after {GIVE_UP_S} s")
                own = [host for c in s.checks if c.local_ufrag == lead.local_ufrag
                       for host in self._relays.hosts(c.local, c.local_port)]
                if heard := self._hearing.others(lead.point, own, s.flows, s.span):
                    confidence = Confidence.PROBABLE
                    reasons.append(f"{heard} receives other traffic here meanwhile")
            else:
                reasons.append(f"the capture ends {tried:.0f} s after the first check, before it is given up")
        clock = False
        far = self._crossing.of(lead.point, of_session(lead.session), s.span) if absence and detailed else []
        extra: list[int] = []
        for other in far:
            confidence, absence, clock = Confidence.CONFIRMED, False, True
            group = ("between", *sorted((lead.point, other.point)))
            reasons.append(f"no check arrives at {other.point}" if not other.asked else
                           f"{other.asked} checks arrive at {other.point}, and are not answered" if not other.answered
                           else f"{other.answered} checks are answered at {other.point}, and no response arrives here")
            extra += other.packets
        facts: dict[str, str | int | float] = {
            "stun.checks": requests, "stun.pairs": pairs, "stun.username": f"{lead.remote_ufrag}:{lead.local_ufrag}"}
        keys = self._said.keys(lead.session) | {f"host:{host}" for c in s.checks for host in (c.local, c.remote)}
        local, remote = lead.local, lead.remote
        if lead.relayed or local == remote:
            local, remote = (self._relays.named(local, lead.local_port), self._relays.named(remote, lead.remote_port))
        return Occurrence(
            subject=lead.session, group=group, title=title,
            summary=f"{local} and {remote} find no path: {text}"
                    + (f" (answered with {', '.join(map(str, codes))})." if codes else "."),
            confidence=confidence, reasons=(*reasons, *self._candidates(s)),
            evidence=self._tables.evidence([*cited, *extra], facts) if detailed else (),
            scope={"source.ip": lead.local, "destination.ip": lead.remote}, flows=tuple(sorted(s.flows)), keys=keys,
            absence=absence, clock=clock, start_ns=s.span[0], end_ns=s.span[1],
            alternatives=() if codes else self._alternatives(s))

    def _refusals(self, s: _Session) -> list[int]:
        paths = [c.path for c in s.checks]
        return self._errors.filter(pl.col("path").is_in(paths))["response_packets"].drop_nulls().head(3).to_list()

    def _unreachable(self, s: _Session) -> tuple[str, str, list[int]] | None:
        errors = [self._icmp.get(flow) for flow in sorted(s.flows)]
        if not errors or not all(errors):
            return None  # other pairs are silent for another reason
        some = [e for several in errors if several for e in several]
        return some[0][0], some[0][1], [packet for _, _, packet in some[:3]]

    def _stale(self, s: _Session) -> list[str]:
        """Fragments in the checks that no description of the same call has, and passwords that are another's."""
        wrong = sum(c.signed_right is False for c in s.checks)
        out = [f"on {wrong} of {number_of(len(s.checks), 'pairs')} the checks are signed with another password than "
               "that of the description"] if wrong else []
        for mine, other in {(c.local_ufrag, c.remote_ufrag) for c in s.checks}:
            call = {d.call_id for d in self._said.of(mine)}
            if call and not self._said.of(other):
                out.append(f"no description in that call has the fragment {other} that the checks name")
        return out

    def _candidates(self, s: _Session) -> list[str]:
        """What the descriptions and the gathering say about why."""
        lead, out = s.lead, []
        for who, ufrag in ((lead.local, lead.local_ufrag), (lead.remote, lead.remote_ufrag)):
            kinds = self._said.kinds(ufrag)
            if kinds:
                out.append(f"candidates of {who}: {kinds}" + ("" if "relay" in kinds else ", none is relayed"))
        servers = self._gathering.get((lead.point, lead.local), {})
        if servers and not any(servers.values()):
            out.append(f"the STUN server {next(iter(servers))} does not answer it")
        return out

    def _alternatives(self, s: _Session) -> tuple[Alternative, ...]:
        lead = s.lead
        back = [c for c in s.checks if c.local == lead.remote]
        return (Alternative(
            "the other agent is gone or never started",
            "it sends no checks of its own" if not back else "it answers nothing",
            f"it sends {sum(c.requests for c in back)} checks" if back else "an agent that is ICE-lite sends none"),)
