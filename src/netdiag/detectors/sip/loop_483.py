"""A request goes in a circle between servers until its Max-Forwards is used up.

Each element that forwards a request takes one from Max-Forwards, 70 at first (RFC 3261 §8.1.1.6, §16.6 item 3), puts
its own Via on top, and refuses with 483 at zero (§16.3 item 3); one that looks for itself in Via may refuse earlier
with 482 (item 4). Two servers whose default routes point at each other, calls that are forwarded to each other, or a
number that neither dial plan has send a request round; where it forks on the way, each round multiplies it
(RFC 5393). Met where one request (Call-ID, CSeq, method) takes the same hop three times or more, with Max-Forwards
lower each time and the server of that hop already in its Via, or where a 483 or 482 is answered. With the same
Request-URI each time it is a loop; with changing ones a spiral that does not end.

**What lifts the suspicion.** A lone 482 is suspected, a lone 483, or a 482 from a server that stands in the Via of the
request, probable. Three passes or more over one hop are proof (confirmed).

**What looks alike and is not it.** OPTIONS and REGISTER with Max-Forwards 0 or 1 ask who is there: 483 is their
answer. A spiral through a server once or twice is legitimate. A chain of proxies on one tapped segment has another
pair of addresses each time; branches of a fork to one server have equal Max-Forwards, as have packets that are
captured twice. A user agent that two branches of a fork reach answers the second one with 482 (§8.2.2.2).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
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
    number_of,
    seconds,
)
from netdiag.tables import Tables
from netdiag.tables.schema import rows
from netdiag.tables.sip import Transaction
from netdiag.tables.sip_details import details
from netdiag.tables.sip_hops import hop_messages
from netdiag.tables.sip_routing import Routing, routing

PATTERN = Pattern(
    id="SIP-LOOP-483",
    title="Routing loop: a request circles until Max-Forwards is used up",
    severity=Severity.HIGH,
    cases=("overload-retry-storm",),
    needs=("transactions", "sip"),
    references=(Reference("RFC 3261 §8.1.1.6, §8.2.2.2, §16.3"), Reference("RFC 5393")),
    filter="sip.Status-Code == 483 || sip.Status-Code == 482 || (sip.Request-Line && sip.Max-Forwards < 70)",
    mitigation="Remove the route of one of the servers that leads back to the other.",
    fix="Refuse what the dial plan does not know (404), and never send a request back to where it came from.",
    prevention="Detect loops by Via (RFC 5393 §4.2), and test dial plans with numbers that nobody has.",
    next_capture="Capture at the servers named here: which of them sends the request back?",
    settings=(Setting("min_passes", 3, "passes", "practice: a spiral passes a server once or twice more"),),
)

LOOP_DETECTED, TOO_MANY_HOPS = 482, 483
PROBES = ("OPTIONS", "REGISTER")
FEW_HOPS = 10
"""A request that still has more did not begin with too few (practice; 70 is recommended, RFC 3261 §8.1.1.6)."""
PROBE_HOPS = 1
"""Max-Forwards of a question for the next server or two (RFC 3261 §11 for OPTIONS; REGISTER likewise: practice)."""
READ = 8
"""Passes of a hop whose headers are read (practice: two more than prove it, twice over)."""
SLOTS, SPREAD = 1 << 20, np.uint64(1_000_003)
"""How requests are counted at first: slots (8 MB) and a prime that spreads dialogs over them (practice)."""
DETAILED = 200
"""Requests that are looked at closely; the others of a flood are counted (practice)."""
CITED = 20
_REQUEST = ["point", "call_id", "cseq", "method"]


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Requests that take one hop again and again, or that are refused with 482 or 483."""
    asked = tables.transactions.filter(~pl.col("midstream"))
    if not len(asked):
        return not_applicable("no SIP request with its transaction in this capture")
    again = _repeated(tables, asked, max(2, int(settings["min_passes"])))
    refused = asked.filter(pl.col("status").is_in([LOOP_DETECTED, TOO_MANY_HOPS]))
    suspects = pl.concat([again, refused]).select(_REQUEST).unique(maintain_order=True)
    if not len(suspects):
        return clear(f"{number_of(len(asked), 'requests')}; none is refused with 482 or 483, or takes one hop three "
                     "times")
    occurrences: list[Occurrence] = []
    leads: dict[frozenset[tuple[str, str]], Occurrence] = {}
    for part in asked.join(suspects, on=_REQUEST, how="semi", maintain_order="left").partition_by(
            _REQUEST, maintain_order=True):
        hops = frozenset(part.select("client", "server").iter_rows())
        made: Occurrence | None
        if len(occurrences) < DETAILED:
            made = _occurrence(tables, settings, list(rows(part, Transaction)))
        else:
            made = _alike(leads.get(hops), part)
        if made is not None:
            occurrences.append(made)
            leads.setdefault(hops, made)
    if not occurrences:
        return clear(f"{number_of(len(suspects), 'requests')} took a hop again or got 482 or 483: probes and forks")
    servers = asked.select("server", "call_id").unique()["server"]
    counts = Counter(servers.to_list())
    return found(occurrences, population="calls", examined={
        o.group: max(counts[s] for s in o.group) for o in occurrences})


def _repeated(tables: Tables, asked: pl.DataFrame, least: int) -> pl.DataFrame:
    """Transactions that share request and hop with others."""
    messages = hop_messages(tables)
    sent = (messages["method"].is_not_null() & (messages["method"] != "ACK") & ~messages["retransmission"]).to_numpy()
    # Counted by a number made of dialog and CSeq, which is cheap; those that share it by chance fall out below.
    code = messages["dialog"].to_numpy()[sent] * SPREAD + messages["cseq"].to_numpy()[sent]
    code = (code % np.uint64(SLOTS)).astype(np.int64)
    many = np.flatnonzero(sent)[np.bincount(code, minlength=SLOTS)[code] >= least]
    if not len(many):
        return asked.clear()
    calls = messages.select("dialog", "call_id", "cseq", "method", "client", "server", "key")[many].group_by(
        "dialog", "cseq", "method", "client", "server").agg(
        pl.col("call_id").first(), passes=pl.col("key").n_unique()).filter(pl.col("passes") >= least)
    some = asked.filter(pl.col("call_id").is_in(calls["call_id"].implode())) if len(calls) else asked.clear()
    hop = [*_REQUEST, "client", "server"]
    hops = some.group_by(hop).agg(passes=pl.len()).filter(pl.col("passes") >= least)
    return some.join(hops, on=hop, how="semi", maintain_order="left")


def _alike(lead: Occurrence | None, part: pl.DataFrame) -> Occurrence | None:
    """One request more over the hops of ``lead``, which is not looked at closely."""
    if lead is None:
        return None
    call_id = part["call_id"][0]
    return replace(lead, subject=call_id, confidence=Confidence.SUSPECTED, evidence=(), flows=(),
                   reasons=("it takes the same hops; its header fields are not looked at",),
                   summary=f"{part['method'][0]} {call_id} takes the same hops.", keys=frozenset({f"call:{call_id}"}),
                   start_ns=part["first_ns"].to_list()[0], end_ns=part["last_ns"].to_list()[-1])


def _occurrence(tables: Tables, settings: dict[str, float], all_: list[Transaction]) -> Occurrence | None:
    hops: dict[tuple[str, str], list[Transaction]] = {}
    for t in all_:
        hops.setdefault((t.client, t.server), []).append(t)
    loops = [passes for passes in hops.values()
             if len(passes) >= settings["min_passes"] and _circles(tables, passes)]
    first = all_[0]
    if loops:
        circle = sorted((t for passes in loops for t in passes), key=lambda t: t.first_ns)
        low, high = (routing(tables, t.request_messages[0]).max_forwards for t in (circle[-1], circle[0]))
        uris = details(tables, [t.request_messages[0] for t in loops[0][:READ]], ("uri",))["uri"]
        kind = "loop" if uris.n_unique() == 1 else "spiral"
        confidence = Confidence.CONFIRMED
        reasons = [f"{len(p)} passes from {p[0].client} to {p[0].server}, already in Via" for p in loops]
        reasons.append(f"Max-Forwards falls from {high} to {low}; the Request-URI "
                       + ("stays the same" if kind == "loop" else "changes"))
        group = tuple(sorted({t.server for t in circle}))
        cited = [t.request_messages[0] for t in circle[:CITED]]
        summary = (f"{first.method} {first.call_id} goes in a {kind} over {', '.join(group)}, "
                   f"{len(circle)} passes in {seconds((circle[-1].last_request_ns - circle[0].first_ns) / 1e9)}.")
    else:
        lone = [t for t in all_ if t.status in (LOOP_DETECTED, TOO_MANY_HOPS)]
        told = next(((t, said) for t in lone if (said := _refusal(tables, t, all_))), None)
        if told is None:
            return None
        t, (confidence, reason) = told
        reasons, group = [reason], (t.server,)
        cited = [t.request_messages[0]]
        summary = f"{t.server} answers {first.method} {first.call_id} of {t.client} with {t.status}."
    answered = next((t for t in all_ if t.status in (LOOP_DETECTED, TOO_MANY_HOPS)), None)
    if answered is not None and answered.final_message is not None:
        cited.append(answered.final_message)
        if loops:
            reasons.append(f"{answered.server} ends it with {answered.status}")
    others: tuple[Alternative, ...] = ()
    if not loops:
        left = routing(tables, cited[0]).max_forwards
        small = left is not None and left < FEW_HOPS
        others = (Alternative("two branches of a fork met at one user agent", "that too is answered with 482", ""),) \
            if answered is not None and answered.status == LOOP_DETECTED else (
            Alternative("the request began with too small a Max-Forwards",
                        f"it comes with {left}" if small else "its passes are not in this capture",
                        "" if small or left is None else f"it comes with {left}"),
            Alternative("the way is long, and no circle", "", "70 hops are far more than any network needs"))
    packets, flows = tables.sip["packet"][cited].to_list(), tables.sip["flow"][cited].unique().to_list()
    return Occurrence(
        subject=first.call_id, group=group, summary=summary, confidence=confidence, reasons=tuple(reasons),
        title="" if loops or answered is None else f"Routing loop reported: {first.method} is answered with "
        f"{answered.status}",
        evidence=tables.evidence(packets, {"sip.call_id": first.call_id, "sip.method": first.method}),
        scope={"destination.ip": group[0], "sip.method": first.method}, flows=tuple(flows),
        keys=frozenset({f"call:{first.call_id}", *(f"host:{server}" for server in group)}),
        start_ns=first.first_ns, end_ns=max(t.last_ns for t in all_), alternatives=others)


def _circles(tables: Tables, passes: list[Transaction]) -> bool:
    """Max-Forwards falls from pass to pass, and from the second pass on the server has been there."""
    said = [routing(tables, t.request_messages[0]) for t in passes[:READ]]
    falls = all(a.max_forwards is not None and b.max_forwards is not None and a.max_forwards > b.max_forwards
                for a, b in pairwise(said))
    return falls and all(_been_there(r, passes[0].server) for r in said[1:])


def _been_there(said: Routing, server: str) -> bool:
    """The server, or whatever name it goes by, is in Via: somebody is twice where names are written."""
    return server in said.passed or len(set(said.via)) < len(said.via)


def _refusal(tables: Tables, t: Transaction, all_: list[Transaction]) -> tuple[Confidence, str] | None:
    """What a lone 482 or 483 says; None for the answer to a probe, or to the second branch of a fork."""
    said = routing(tables, t.request_messages[0])
    hops = said.max_forwards
    if t.method in PROBES and hops is not None and hops <= PROBE_HOPS:
        return None
    if t.status == TOO_MANY_HOPS:
        return Confidence.PROBABLE, f"{t.server} answers 483 to a request that comes with Max-Forwards {hops}"
    if _been_there(said, t.server):
        return Confidence.PROBABLE, f"{t.server} answers 482 and is already in the Via of the request"
    if any(o.server == t.server and o.branch != t.branch for o in all_):
        return None
    return Confidence.SUSPECTED, f"{t.server} answers 482; its Via does not show a circle"
