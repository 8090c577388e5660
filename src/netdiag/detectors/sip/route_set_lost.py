"""An ACK, BYE or other request inside a call leaves the way of its INVITE, and is not answered.

A proxy that wants to stay in a dialog writes itself into Record-Route (RFC 3261 §16.6 item 4); both ends keep that
list and put it into the Route of each later request, the caller in reverse order (§12.1.1, §12.1.2, §12.2.1.1). A
proxy that does not, or an end that loses or changes the list, makes ACK and BYE go straight to the Contact, past the
proxy: through another firewall or NAT binding, to an address that only the proxy can reach. The call is cut after
32 s for want of an ACK, or its BYE never arrives and it lives on in the proxy's books. Met where an INVITE that is
seen to have passed a proxy (two or more Via) is followed by a request to another host that gets no response, sent
four times or more, or by an ACK to another host after which the 2xx goes on coming; for PRACK, a reliable 18x stands
for the 2xx (RFC 3262 §3). It may be the proxy before that sends it past the next one, which the response is seen to
have come through. Also where such a request of an end, not answered either, has another Route than was recorded, a
Route without ``lr`` (strict routing, §16.12, of which RFC 2543 left little), or is sent elsewhere than its topmost
Route says.

A Contact that only the proxy can reach (SIP-CONTACT-PRIVATE) is then no fault of its own: with the proxy in the route
nobody else would need it.

**What lifts the suspicion.** That it goes past the proxy (probable; a strange Route alone is suspected). A second
capture point at the proxy which has the INVITE, and never the request (confirmed).

**What looks alike and is not it.** A proxy that keeps out of dialogs on purpose: then the direct BYE is answered. A
back-to-back user agent makes two dialogs, each with its own Call-ID. A request on its recorded way that nobody answers
speaks of a dead end; without a second Via nothing shows that there was a proxy. What a proxy sends of its own accord
has one Via.
"""

from __future__ import annotations

from collections import Counter

import polars as pl

from netdiag.detectors.sip._ways import Way, fault
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
    times,
)
from netdiag.tables import Tables
from netdiag.tables.addresses import endpoint, realm, routable
from netdiag.tables.schema import rows
from netdiag.tables.sip import SipMessage, Transaction
from netdiag.tables.sip_head import head
from netdiag.tables.sip_routing import RouteUri, after, routing
from netdiag.tables.sip_twins import SipTwins

PATTERN = Pattern(
    id="SIP-ROUTE-SET-LOST",
    title="ACK or BYE bypasses the proxy and is not answered: the route set is lost",
    severity=Severity.HIGH,
    cases=("thirty-two-seconds",),
    needs=("transactions", "sip", "quality"),
    references=(Reference("RFC 3261 §12.1, §12.2.1.1, §16.6 item 4, §16.12"),),
    filter='sip.Method == "BYE" || sip.Method == "ACK" || sip.Method == "PRACK" || (sip.Method == "INVITE" && sip.Via)',
    mitigation="Let the proxy record its route on every INVITE; with two networks or transports, twice.",
    fix="Correct the element that drops or rewrites Record-Route or Route, or does not obey them.",
    prevention="Use session timers (RFC 4028), which end calls whose BYE was lost; test ACK and BYE through each path.",
    next_capture="Capture at the proxy: does it see the ACK, the PRACK and the BYE of the call?",
    settings=(Setting("min_sends", 4, "sends", "practice: 3.5 s of Timer E"),
              Setting("min_2xx", 3, "sends", "practice: the 2xx and two repetitions, 1.5 s")),
    explains=("SIP-CONTACT-PRIVATE", "SIP-ACK-LOST", "SIP-PRACK-TIMEOUT"),
)

TIMER_F_NS = 32_000_000_000
"""64 times T1 (RFC 3261 §17.1.2.2)."""
DETAILED = 1000
"""Calls that are looked at closely (practice)."""
COPIES = 8
"""INVITEs and 2xx of one call that are read, one for each hop (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Requests inside calls, not answered, that left the way of the INVITE."""
    calls = tables.transactions.filter((pl.col("method") == "INVITE") & pl.col("to_tag").is_null())
    if not len(calls):
        return not_applicable("no INVITE that starts a call in this capture")
    failed = _failed(tables, settings)
    if not len(failed):
        return clear(f"{number_of(len(calls), 'INVITEs')}; no request inside a call goes unanswered")
    context = _Context(tables, failed)
    occurrences = [o for t in rows(failed.head(DETAILED), Transaction) if (o := context.occurrence(t))]
    if not occurrences:
        return clear(f"{number_of(len(failed), 'requests')} inside calls without an answer, none of them is seen to "
                     "leave its way")
    examined = Counter(calls.select("point", "call_id").unique()["point"].to_list())
    more = f"; {len(failed) - DETAILED} more requests go unanswered, and are not looked at"
    return found(occurrences, population="calls", examined={o.group: max(examined.values()) for o in occurrences},
                 reason=f"{len(occurrences)} met" + (more if len(failed) > DETAILED else ""))


def _failed(tables: Tables, settings: dict[str, float]) -> pl.DataFrame:
    """Requests inside dialogs without any response, and INVITEs whose 2xx keeps coming."""
    ends = tables.quality.select("point", end="last_ns")
    silent = (pl.col("to_tag").is_not_null() & (pl.col("response_messages").list.len() == 0) & ~pl.col("cancelled")
              & ~pl.col("method").is_in(["ACK", "CANCEL"]) & ~pl.col("midstream"))
    repeated = (pl.col("method") == "INVITE") & pl.col("status").is_between(200, 299) & (
        pl.col("final_sends") >= settings["min_2xx"])
    lasting = (pl.col("sends") >= settings["min_sends"]) | (
        (pl.col("transport") != "udp") & (pl.col("end") - pl.col("first_ns") >= TIMER_F_NS))
    chosen = tables.transactions.filter(silent | repeated)
    return chosen.join(ends, on="point", how="left", maintain_order="left").filter(repeated | lasting).drop("end")


class _Context:
    def __init__(self, tables: Tables, failed: pl.DataFrame) -> None:
        self._tables = tables
        self._twins = SipTwins(tables)
        self._spans = {point: (first, last) for point, first, last in tables.quality.select(
            "point", "first_ns", "last_ns").iter_rows()}
        sip = tables.sip.filter(pl.col("call_id").is_in(failed["call_id"].head(DETAILED).unique().implode()))
        self._calls: dict[str, list[SipMessage]] = {}
        for message in rows(sip.filter(pl.col("cseq_method").is_in(["INVITE", "ACK"]) & ~pl.col("retransmission")),
                            SipMessage):
            self._calls.setdefault(message.call_id or "", []).append(message)

    def _way(self, call_id: str, early: bool) -> Way | None:
        """None where nothing shows that a proxy was passed; ``early``: a reliable 18x has the route as well."""
        hops: dict[tuple[object, ...], SipMessage] = {}
        answers: dict[tuple[object, ...], SipMessage] = {}
        for m in self._calls.get(call_id, ()):
            hop = m.point, m.source, m.destination
            if m.method == "INVITE" and m.to_tag is None:
                hops.setdefault((*hop, m.branch), m)
            elif m.cseq_method == "INVITE" and m.status is not None and (200 <= m.status < 300 or (
                    early and 100 < m.status < 200 and "rseq" in head(self._tables, m.message))):
                answers.setdefault(hop, m)
        invites = [(m, routing(self._tables, m.message)) for m in list(hops.values())[:COPIES]]
        invites.sort(key=lambda pair: -len(pair[1].via))
        if not invites or len(invites[0][1].via) < 2 or not answers:
            return None
        return Way(invites, [(m, routing(self._tables, m.message)) for m in list(answers.values())[:COPIES]])

    def _astray(self, t: Transaction) -> list[SipMessage]:
        """The sends of the request that failed; for a 2xx that keeps coming, its ACKs that go past the server."""
        if t.method == "INVITE" and t.status is not None:
            return [m for m in self._calls.get(t.call_id, ()) if m.method == "ACK" and m.cseq == t.cseq
                    and m.point == t.point and m.source == t.client and m.destination != t.server]
        return list(rows(self._tables.sip[list(t.request_messages)], SipMessage))

    def occurrence(self, t: Transaction) -> Occurrence | None:
        way, sent = self._way(t.call_id, t.method == "PRACK"), self._astray(t)
        if way is None or not sent:
            return None
        request, said = sent[0], routing(self._tables, sent[0].message)
        by_caller = request.from_tag == way.invites[0][0].from_tag
        recorded, passed = self._recorded(way, request, by_caller), way.proxies
        if request.source in way.proxies:
            own, passed = {request.source, *said.via[0]} if said.via else set(), way.following(request, by_caller)
            recorded = after(recorded, own)
            if not passed or recorded or said.route or len(said.via) < 2:
                return None
        past = request.destination not in way.proxies and request.destination not in {r.host for r in recorded}
        whose = f" of {min(passed)}" if passed is not way.proxies else ""
        wrong = fault(request, said, recorded, past, whose)
        if wrong is None:
            return None
        confidence = Confidence.PROBABLE if past else Confidence.SUSPECTED
        proxies = sorted(p for p in passed if realm(p) != "name") or sorted(passed)
        what = ("the 2xx goes on coming" if request.method == "ACK" else
                f"sent {times(t.sends)}, no response of any kind")
        reasons = [f"the INVITE came by {', '.join(proxies)} ({len(way.invites[0][1].via)} Via)", wrong, what]
        missed = self._missed_at(request, way, proxies) if past else ""
        if missed:
            confidence = Confidence.CONFIRMED
            reasons.append(f"{missed} has the INVITE, and never this {request.method}")
        cited = [way.invites[0][0].packet, way.answers[0][0].packet, *(m.packet for m in sent),
                 *self._tables.sip["packet"][list(t.response_messages)].to_list(),
                 *(m.packet for m, _ in way.invites if m.point == missed)]
        lost = past and routable(request.source) and not routable(request.destination)
        if lost:
            reasons.append(f"{request.destination} cannot be reached from a public network")
        gone = Alternative("the other end is gone", "no response of any kind" if request.method != "ACK" else "",
                           self._last_seen(request))
        return Occurrence(
            subject=t.call_id, group=tuple(proxies),
            summary=f"{request.source} sends {request.method} to "
                    f"{endpoint(request.destination, request.destination_port)}"
                    + (f", past {proxies[0]}" if past else "") + f": {what}.",
            confidence=confidence, reasons=tuple(reasons),
            evidence=self._tables.evidence(cited, {"sip.call_id": t.call_id, "destination.ip": request.destination}),
            scope={"source.ip": request.source, "destination.ip": request.destination, "sip.proxy": proxies[0]},
            flows=(request.flow,), keys=frozenset({f"call:{t.call_id}"}),
            absence=not missed and not lost, clock=bool(missed), start_ns=request.ts_ns,
            end_ns=max(sent[-1].ts_ns, t.last_ns), alternatives=() if lost else (gone,))

    def _last_seen(self, request: SipMessage) -> str:
        """What shows that the end to which the request goes was there; "" when nothing does."""
        for m in reversed(self._calls[request.call_id or ""]):
            if m.source == request.destination and m.ts_ns <= request.ts_ns:
                what = m.method or m.status
                return f"its last {what} came {(request.ts_ns - m.ts_ns) / 1e9:.1f} s before"
        return ""

    def _recorded(self, way: Way, request: SipMessage, by_caller: bool) -> tuple[RouteUri, ...]:
        """What the sender was told to put into Route."""
        if by_caller:
            said = next((said for m, said in way.answers if m.destination == request.source), way.answers[0][1])
            return said.record_route[::-1]
        said = next((said for m, said in way.invites if m.destination == request.source), way.invites[0][1])
        return said.record_route

    def _missed_at(self, request: SipMessage, way: Way, passed: list[str]) -> str:
        """A point that ran at that time without the request, at a proxy: the INVITE comes in and goes out there.

        Or it shows the INVITE between the sender and the proxy that was passed.
        """
        there = set(self._twins.of([request.message])["point"].to_list()) | {request.point}
        hops = Counter(message.point for message, _ in way.invites)
        between = {m.point for m, _ in way.invites for proxy in passed
                   if {m.source, m.destination} == {request.source, proxy}}
        for point, count in hops.items():
            low, high = self._spans[point]
            if (count > 1 or point in between) and point not in there and low <= request.ts_ns <= high:
                return point
        return ""
