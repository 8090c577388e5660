"""A request inside a call reaches an element that does not know the call: its state was lost.

Who gets a request with tags of a dialog that it does not have answers 481 (RFC 3261 §12.2.2); some answer 404, or 408
after asking in vain. Here the capture shows that the dialog was set up, with these tags, and not ended. Either another
host answers than the one that answered the INVITE (a failover without copied state, or a load balancer that does not
keep a Call-ID on one node), or the same address answers as a new element: after a restart, or behind a virtual address
that moved. A 481 ends the dialog for the client (§12.2.1.2), while media may go on until somebody misses it.

**What lifts the suspicion.** Another address, another Server header, or another distance (TTL) than that of the answer
to the INVITE; or three dialogs within a minute (probable). Three dialogs within a minute of an outage: requests without
response, ICMP errors, or a new TCP connection (confirmed).

**What looks alike and is not it.** A 481 to CANCEL that crosses the final response; to a BYE that crosses another BYE,
or comes after one; to SUBSCRIBE or NOTIFY, which are about subscriptions (RFC 5057 §5.1). A request with a tag that
the dialog never had is the client's fault. Requests that go directly to the Contact are answered by another address
than the proxy's, as they should be. Of a call that began before the capture nobody knows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from typing import NamedTuple

import polars as pl

from netdiag.model import (
    Alternative,
    Confidence,
    Detection,
    Occurrence,
    Pattern,
    Reference,
    Severity,
    clear,
    found,
    inconclusive,
    not_applicable,
    number_of,
)
from netdiag.tables import Tables
from netdiag.tables.schema import rows
from netdiag.tables.sip import SipMessage, Transaction
from netdiag.tables.sip_details import detail
from netdiag.tables.sip_route import target
from netdiag.tables.sip_routing import routing
from netdiag.tables.speakers import foreign

PATTERN = Pattern(
    id="SIP-DIALOG-481",
    title="Request inside a call reaches an element that does not know the call",
    severity=Severity.HIGH,
    cases=("trunk-flap-after-failover",),
    needs=("transactions", "sip", "icmp", "packets"),
    references=(Reference("RFC 3261 §12.2.1.2, §12.2.2"), Reference("RFC 5057 §5.1")),
    filter="sip.Status-Code == 481 || sip.CSeq.method == \"INVITE\" || sip.Method == \"BYE\"",
    mitigation="Send the requests of a dialog to the node that has it; let calls end before a node is taken out.",
    fix="Copy dialog state to the standby, or write the node's own address into Record-Route and Contact.",
    prevention="Rehearse the failover with calls up, and end them afterwards.",
    next_capture="Capture at each node: which one answers the INVITE, and which one the BYE?",
    explains=("SIP-SESSION-TIMER",),
)

METHODS = ("BYE", "INVITE", "UPDATE", "REFER", "INFO")
UNKNOWN = 481
LIKE = (404, 408)
"""What some elements answer instead; counts where another host answers (RFC 5057 §5.1)."""
MINUTE_NS = 60 * 10**9
MANY = 3
"""Dialogs within a minute (practice)."""
DETAILED = 200
"""Dialogs that are looked at closely; the others of a flood are counted (practice)."""
_CALL = ["point", "call_id"]


class _Denied(NamedTuple):
    """A request of an established dialog, and who answered both."""

    t: Transaction
    request: SipMessage
    final: SipMessage
    setup: SipMessage
    """The message by which the dialog's other end is known: the 2xx to the INVITE, or the INVITE."""
    owners: frozenset[str]
    """Addresses that the request may rightly go to."""
    moved: bool
    """Another address answers."""
    elsewhere: tuple[int, ...] = ()
    """Messages of the same request and answer at other points, farther from who answers."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Requests inside established calls that are answered as if there were no such call."""
    inside = (pl.col("to_tag").is_not_null() & pl.col("method").is_in(METHODS) & ~pl.col("midstream")
              & pl.col("status").is_not_null())
    count = tables.transactions.select(inside.sum()).item()
    if not count:
        return not_applicable("no request inside a call with a final response in this capture")
    refused = tables.transactions.filter(pl.col("status").is_in([UNKNOWN, *LIKE]) & inside)
    if len(refused):
        forwarded = tables.transactions.filter(inside).select(*_CALL, "cseq", "method", server="client")
        refused = refused.join(forwarded, on=[*_CALL, "cseq", "method", "server"], how="anti", maintain_order="left")
    setups = _setups(tables, refused)
    asked = list(rows(refused, Transaction))
    messages = _messages(tables, [*asked, *(t for related in setups.values() for t in related)])
    denied = [d for t in asked if (d := _denied(tables, t, setups, messages))]
    if not denied:
        began = (pl.col("method") == "INVITE") & pl.col("to_tag").is_null()
        unseen = refused.filter(pl.col("status") == UNKNOWN)
        if len(unseen):
            unseen = unseen.join(tables.transactions.filter(began), on=_CALL, how="anti")
        if len(unseen):
            return inconclusive(f"{number_of(len(unseen), 'requests')} got 481 in calls whose start was not captured",
                                "Capture from before the calls are set up.")
        return clear(f"{number_of(count, 'requests')} inside calls; none is answered as if there were no such call")
    denied = _nearest(tables, denied)
    crowd = _crowds(denied)
    occurrences = [_occurrence(tables, d, n, i < DETAILED) for i, (d, n) in enumerate(zip(denied, crowd, strict=True))]
    pairs = tables.transactions.filter(inside).select("server", "call_id").unique()
    examined = Counter(pairs["server"].to_list())
    return found(occurrences, population="calls with requests to it",
                 examined={o.group: examined[str(o.scope["destination.ip"])] for o in occurrences})


def _setups(tables: Tables, refused: pl.DataFrame) -> dict[tuple[str, str], list[Transaction]]:
    """Answered INVITEs, and BYEs, of the calls in question."""
    out: dict[tuple[str, str], list[Transaction]] = {}
    if not len(refused):
        return out
    for t in rows(tables.transactions.filter(pl.col("method").is_in(["INVITE", "BYE"])).join(
            refused.select(_CALL).unique(), on=_CALL, how="semi", maintain_order="left"), Transaction):
        out.setdefault((t.point, t.call_id), []).append(t)
    return out


def _messages(tables: Tables, transactions: list[Transaction]) -> dict[int, SipMessage]:
    """First sends and final responses."""
    wanted = {m for t in transactions for m in (*t.request_messages[:1], t.final_message) if m is not None}
    return {m.message: m for m in rows(tables.sip[sorted(wanted)], SipMessage)}


def _denied(tables: Tables, t: Transaction, setups: dict[tuple[str, str], list[Transaction]],
            messages: dict[int, SipMessage]) -> _Denied | None:
    """None where the dialog was not set up in view, has ended, or the answer means something else."""
    request = messages[t.request_messages[0]]
    final = request if t.final_message is None else messages[t.final_message]
    related = setups.get((t.point, t.call_id), [])
    if any(b.method == "BYE" and b.first_ns < final.ts_ns and not _same_side(messages, b, request) for b in related):
        return None
    ends: list[tuple[int, SipMessage, str]] = []
    for s in related:
        if s.method != "INVITE" or s.midstream or s.to_tag or s.final_message is None or (s.status or 0) >= 300:
            continue
        asked, answer = messages[s.request_messages[0]], messages[s.final_message]
        near = (s.client, s.server)
        if (request.from_tag, request.to_tag) == (answer.from_tag, answer.to_tag):
            ends.append((2 * (near[0] == t.client) + (near[1] == t.server), answer, s.client))
        elif (request.to_tag, request.from_tag) == (answer.from_tag, answer.to_tag):
            ends.append((2 * (near[1] == t.client) + (near[0] == t.server), asked, s.server))
    if not ends:
        return None
    _, setup, sender = max(ends, key=lambda end: end[0])  # the hop of the request, where several were captured
    named = target(tables, setup.message, sender)
    owners = frozenset({setup.source, *([named.host] if named else [])})
    moved = final.source not in owners
    return _Denied(t, request, final, setup, owners, moved) if moved or t.status == UNKNOWN else None


def _nearest(tables: Tables, denied: list[_Denied]) -> list[_Denied]:
    """Each request once, where several points saw it: the one nearest to who answers, by its Via and the TTL left."""
    same: dict[tuple[str, int, str, str | None], list[_Denied]] = {}
    for d in denied:
        same.setdefault((d.t.call_id, d.t.cseq, d.t.method, d.request.from_tag), []).append(d)
    out = []
    for seen in same.values():
        lead = seen[0] if len(seen) == 1 else min(seen, key=lambda d: (
            -len(routing(tables, d.request.message).via), int(tables.packets.ttl[d.request.packet])))
        out.append(lead._replace(elsewhere=tuple(m for d in seen if d is not lead for m in (
            d.setup.message, *d.t.request_messages, d.final.message))))
    return out


def _same_side(messages: dict[int, SipMessage], bye: Transaction, request: SipMessage) -> bool:
    """Is it this request at another hop, or one of the same side that the dialog was denied to as well?"""
    tag = messages[bye.request_messages[0]].from_tag if bye.request_messages else None
    return tag == request.from_tag and (bye.status == UNKNOWN or bye.cseq == request.cseq)


def _crowds(denied: list[_Denied]) -> list[int]:
    """For each, how many calls the same host denies within a minute before and after."""
    times: dict[str, list[int]] = {}
    calls = {(d.final.source, d.t.call_id): d.final.ts_ns for d in reversed(denied)}
    for (host, _), at in calls.items():
        times.setdefault(host, []).append(at)
    for of_host in times.values():
        of_host.sort()
    return [bisect_right(times[d.final.source], d.final.ts_ns + MINUTE_NS)
            - bisect_left(times[d.final.source], d.final.ts_ns - MINUTE_NS) for d in denied]


def _occurrence(tables: Tables, d: _Denied, alike: int, detailed: bool) -> Occurrence:
    t, host = d.t, d.final.source
    lasted = (d.request.ts_ns - d.setup.ts_ns) / 1e9
    reasons = [f"{t.method} {lasted:.1f} s after the call was set up, with its tags and not ended, gets {t.status}"]
    other = f"{host} answers, {d.setup.source} set up the call" if d.moved else _other(tables, d) if detailed else ""
    outage, packets = _outage(tables, d, host) if detailed else ("", [])
    confidence = Confidence.PROBABLE if other or alike >= MANY else Confidence.SUSPECTED
    reasons += [other] if other else []
    if alike >= MANY:
        reasons.append(f"{alike} calls get such an answer from {host} within a minute")
        confidence = Confidence.CONFIRMED if outage else confidence
    reasons += [outage] if outage else []
    sip = tables.sip
    cited = sip["packet"].gather(
        [d.setup.message, *t.request_messages, d.final.message, *d.elsewhere]).to_list() + packets
    return Occurrence(
        subject=t.call_id, group=(host,), severity=None if d.moved or alike >= MANY else Severity.MEDIUM,
        summary=f"{host} answers {t.method} with {t.status}; the call was set up {lasted:.1f} s before, "
                + (f"by {d.setup.source}." if d.setup.source != host else "at this very address."),
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(cited, {"sip.call_id": t.call_id, "sip.status": t.status or 0, "sip.method": t.method,
                                         "destination.ip": host}) if detailed else (),
        scope={"source.ip": t.client, "destination.ip": t.server}, flows=(d.request.flow,),
        keys=frozenset({f"call:{t.call_id}", *(f"host:{h}" for h in {host, d.setup.source})}),
        start_ns=d.setup.ts_ns, end_ns=d.final.ts_ns, alternatives=(
            Alternative("the element ended the call by itself before, and its BYE got lost",
                        "" if d.moved else "the same address answers", other),))


def _other(tables: Tables, d: _Denied) -> str:
    """What shows that another element speaks from the same address."""
    before, now = (detail(tables, m.message).user_agent for m in (d.setup, d.final))
    if before and now and before != now:
        return f"the element that answers calls itself {now!r}, the one that set up the call {before!r}"
    ttl = tables.packets.ttl[[d.setup.packet, d.final.packet]].tolist()
    if foreign(ttl[1], ttl[:1]):
        return f"the answer comes from another distance (TTL {ttl[1]}, before {ttl[0]})"
    return ""


def _outage(tables: Tables, d: _Denied, host: str) -> tuple[str, list[int]]:
    """What shows that the owner or the host that answers was away within a minute before the answer."""
    hosts = sorted({host, d.setup.source})
    errors = tables.icmp.filter(
        (pl.col("point") == d.t.point) & pl.col("quoted_destination").is_in(hosts) & pl.col("name").str.contains(
            "unreachable") & pl.col("ts_ns").is_between(d.final.ts_ns - MINUTE_NS, d.final.ts_ns))
    if len(errors):
        return f"ICMP {errors['name'][0]} about {errors['quoted_destination'][0]}", errors["packet"].head(1).to_list()
    lost = tables.transactions.filter(
        (pl.col("point") == d.t.point) & pl.col("server").is_in(hosts) & (pl.col("response_messages").list.len() == 0)
        & (pl.col("sends") > 1) & pl.col("first_ns").is_between(d.final.ts_ns - MINUTE_NS, d.final.ts_ns))
    if len(lost):
        return (f"{lost['method'][0]} to {lost['server'][0]} got no response, "
                f"{(d.final.ts_ns - lost['first_ns'][0]) / 1e9:.1f} s before", [])
    if d.t.transport != "udp" and not d.moved and d.request.flow != d.setup.flow:
        return "the request came on another TCP connection than the INVITE", []
    return "", []
