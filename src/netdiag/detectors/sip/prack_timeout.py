"""A ringing or progress response that must be acknowledged is not: it is repeated, and the call fails.

With the extension 100rel, a provisional response carries Require: 100rel and a number in RSeq, and is repeated after
0.5, 1, 2, 4, 8… s, without the 4 s limit of other repetitions, until a PRACK names that number and the CSeq in RAck;
after 64 times T1, 32 s, the call is rejected with 5xx (RFC 3262 §3). PRACK is a request inside the early dialog: like
the ACK of a 200 it follows Contact and route set, and gets lost the same way. Where the two sides cannot agree on the
extension at all, the answer is 420 (Unsupported: 100rel) or 421 (Require: 100rel) (RFC 3262 §3, RFC 3261 §8.2.2.3,
§21.4.16). A PRACK that is answered with 481 names a response which that element does not have (§3).

**What lifts the suspicion.** Four sends without a PRACK (probable). The call fails 32 s after the first send, another
capture point shows the PRACK that is missing here, or the answer is 420 or 421 (confirmed).

**What looks alike and is not it.** Ringing that is repeated without Require, as proxies do every minute. One or two
repetitions, a PRACK that is late, a call that is answered all the same. A 420 or 421 after which the caller tries
again with the right options. A 481 to a PRACK that crossed the final response of its INVITE.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

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
    times,
)
from netdiag.tables import Tables
from netdiag.tables.contacts import contact_host
from netdiag.tables.schema import rows
from netdiag.tables.sip import SipMessage, Transaction
from netdiag.tables.sip_head import has_option, head
from netdiag.tables.sip_routing import routing

PATTERN = Pattern(
    id="SIP-PRACK-TIMEOUT",
    title="Reliable provisional response is not acknowledged",
    severity=Severity.HIGH,
    cases=("thirty-two-seconds",),
    needs=("sip", "transactions"),
    references=(Reference("RFC 3262 §3, §4"), Reference("RFC 3261 §8.2.2.3, §21.4.16")),
    filter="sip.RSeq || sip.Method == \"PRACK\" || sip.Status-Code == 420 || sip.Status-Code == 421 || "
           "sip.CSeq.method == \"PRACK\"",
    mitigation="Switch 100rel off on this trunk, or make it optional (Supported, not Require) at both ends.",
    fix="Put a reachable Contact and the whole Record-Route into the 18x, and let both sides treat 100rel alike.",
    prevention="Test calls with early media and with 100rel when a trunk or a border element changes.",
    next_capture="Capture at the caller: does it send a PRACK, and where to?",
    settings=(Setting("min_sends", 4, "sends", "practice: three repetitions, 3.5 s; fewer are loss"),),
)

END_S, END_TOLERANCE_S = 32.0, 1.0
"""64 times T1 (RFC 3262 §3); tolerance of a constant below 60 s (practice)."""
DETAILED = 200
"""Calls whose frames are listed; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Reliable responses that are repeated in vain, and calls that fail for the extension."""
    asked = tables.transactions.select("transaction", "method", "status", "provisional_status", "server", "call_id")
    invites = asked.filter((pl.col("method") == "INVITE")
                           & (pl.col("status").is_not_null() | pl.col("provisional_status").is_not_null()))
    if not len(invites):
        return not_applicable("no INVITE with a response in this capture")
    context = _Context(tables, settings)
    faults = [*context.repeated(), *context.refused(invites), *context.unknown(asked)]
    if not faults:
        return clear(f"{number_of(len(invites), 'INVITEs')} with a response; no reliable response waits for its "
                     "PRACK, none fails for the extension 100rel")
    kinds = {f.kind for f in faults}
    examined = Counter(host for host, _ in set(invites.select("server", "call_id").iter_rows()))
    return found([context.occurrence(f, i < DETAILED) for i, f in enumerate(faults)], population="calls",
                 examined={(host, kind): n for host, n in examined.items() for kind in kinds})


class _Fault(NamedTuple):
    kind: str
    lead: SipMessage
    text: str
    confidence: Confidence
    reasons: tuple[str, ...]
    packets: tuple[int, ...]
    absence: bool = False
    constant: float | None = None
    end_ns: int = 0


class _Context:
    def __init__(self, tables: Tables, settings: dict[str, float]) -> None:
        self._tables, self._settings = tables, settings

    def repeated(self) -> Iterator[_Fault]:
        """Responses that were sent too often; the series nearest to their sender where several hops are seen."""
        sip = self._tables.sip
        again = sip.select("message", "status", "retransmission", "cseq_method").filter(
            pl.col("retransmission") & pl.col("status").is_between(101, 199) & (pl.col("cseq_method") == "INVITE"))
        if not len(again):
            return
        one = ["point", "call_id", "cseq", "branch", "to_tag", "status", "source"]
        keys = sip[again["message"]].select(one).group_by(one).len().filter(
            pl.col("len") >= self._settings["min_sends"] - 1).drop("len")
        series: dict[tuple[object, ...], list[SipMessage]] = {}
        for m in self._messages(sip.join(keys, on=one, how="semi", nulls_equal=True)):
            fields = head(self._tables, m.message)
            if has_option(fields.get("require", []), "100rel") and "rseq" in fields:
                series.setdefault((m.point, m.call_id, m.cseq, m.to_tag, fields["rseq"][0], m.source, m.branch),
                                  []).append(m)
        best: dict[tuple[object, ...], list[SipMessage]] = {}
        for key, sent in series.items():
            if len(sent) >= self._settings["min_sends"]:
                best.setdefault(key[:5], sent)
        best = self._nearest(best)
        calls = {sent[0].call_id for sent in best.values()}
        tried = sip.filter(pl.col("call_id").is_in(list(calls)) & pl.col("cseq_method").is_in(["PRACK", "INVITE"]))
        others: dict[str | None, list[SipMessage]] = {}
        for m in self._messages(tried):
            others.setdefault(m.call_id, []).append(m)
        for key, sent in best.items():
            fault = self._series(str(key[4]), sent, others[sent[0].call_id])
            if fault:
                yield fault

    def _nearest(self, best: dict[tuple[object, ...], list[SipMessage]]) -> dict[tuple[object, ...], list[SipMessage]]:
        """Without the points that are nearer to the caller than another one: there the response has fewer Via."""
        if len(self._tables.points) < 2:
            return best
        depths = {key: len(routing(self._tables, sent[0].message).via) for key, sent in best.items()}
        deepest: dict[tuple[object, ...], int] = {}
        for key, depth in depths.items():
            deepest[key[1:]] = max(depth, deepest.get(key[1:], 0))
        return {key: sent for key, sent in best.items() if depths[key] == deepest[key[1:]]}

    def _series(self, rseq: str, sent: list[SipMessage], others: list[SipMessage]) -> _Fault | None:
        first = sent[0]
        wanted = f"{rseq} {first.cseq} INVITE"
        pracks = [m for m in others if m.method == "PRACK" and m.ts_ns >= first.ts_ns and not m.retransmission]
        right = [m for m in pracks if self._rack(m) == wanted]
        arriving = [m for m in right if m.point == first.point and m.destination == first.source]
        after = [m for m in sent if arriving and m.ts_ns > arriving[0].ts_ns]
        accepted = any(200 <= (m.status or 0) < 300 for m in others
                       if m.cseq == first.cseq and m.cseq_method == "INVITE" and m.point == first.point)
        if accepted or (arriving and len(after) < self._settings["min_sends"]):
            return None
        moments = ", ".join(f"{(m.ts_ns - first.ts_ns) / 1e9:.1f}" for m in sent)
        reasons = [f"the {first.status} with RSeq {rseq} is sent {len(sent)} times ({moments} s)"]
        packets, confidence, away = [m.packet for m in sent], Confidence.PROBABLE, False
        here = [m for m in pracks if m.point == first.point and m not in arriving]
        there = [m for m in right if m.point != first.point]
        if arriving:
            reasons.append(f"a PRACK with RAck {wanted} passes here, and the repetition goes on")
            packets += [m.packet for m in arriving[:3]]
        elif here:
            said = self._rack(here[0])
            reasons.append(f"the PRACK with RAck {said} goes to {here[0].destination}, "
                           + (f"not to {first.source}" if said == wanted else
                              f"and {first.source} waits for RAck {wanted}"))
            packets += [m.packet for m in here[:3]]
        elif there:
            away, confidence = True, Confidence.CONFIRMED
            last = [m for m in there if m.point == there[0].point][-1]
            reasons.append(f"no PRACK passes here; at {last.point} it leaves for {last.destination}")
            packets += [m.packet for m in there[:3]]
        else:
            reasons.append("no PRACK passes here")
        end = next((m for m in others if (m.status or 0) >= 300 and m.cseq == first.cseq and m.point == first.point
                    and m.cseq_method == "INVITE" and m.source == first.source), None)
        lasted = (end.ts_ns - first.ts_ns) / 1e9 if end else 0.0
        cut = abs(lasted - END_S) <= END_TOLERANCE_S
        if end and cut:
            confidence = Confidence.CONFIRMED
            reasons.append(f"{end.status} ends the call {lasted:.1f} s after the first send (64 times T1)")
            packets.append(end.packet)
        return _Fault("no PRACK stops the repetition", first, f"repeats its {first.status} response {times(len(sent))} "
                      "and gets no PRACK for it" + (f"; the call fails after {lasted:.1f} s" if cut else ""),
                      confidence, tuple(reasons), tuple(packets), absence=not (away or arriving or cut),
                      constant=lasted if cut else None, end_ns=(end or sent[-1]).ts_ns)

    def refused(self, invites: pl.DataFrame) -> Iterator[_Fault]:
        """420 and 421 for the extension, without another try that got further."""
        few = invites.filter(pl.col("status").is_in([420, 421]))
        if not len(few):
            return
        several = self._tables.transactions.filter(
            (pl.col("method") == "INVITE") & pl.col("call_id").is_in(few["call_id"].unique().implode()))
        last = {(t.point, t.call_id): t for t in rows(several, Transaction)}
        for t in last.values():
            field = "unsupported" if t.status == 420 else "require"
            if t.status not in (420, 421) or t.final_message is None or not has_option(
                    head(self._tables, t.final_message).get(field, []), "100rel"):
                continue
            lead, *asked = self._messages(self._tables.sip[[t.final_message, *t.request_messages]])
            text = "does not know 100rel" if t.status == 420 else "insists on 100rel"
            yield _Fault("the extension is refused", lead, f"answers {t.status}: it {text}", Confidence.CONFIRMED,
                         (f"{t.status} with {field.capitalize()}: 100rel, and the caller does not try again",),
                         (lead.packet, *(m.packet for m in asked)))

    def unknown(self, asked: pl.DataFrame) -> Iterator[_Fault]:
        """PRACKs answered with 481 while their INVITE still waits, in calls that are not answered."""
        few = asked.filter((pl.col("method") == "PRACK") & (pl.col("status") == 481))
        if not len(few):
            return
        calls = few["call_id"].unique().implode()
        finals = list(self._messages(self._tables.sip.filter(pl.col("call_id").is_in(calls) & (
            pl.col("cseq_method") == "INVITE") & (pl.col("status") >= 200))))
        done: set[tuple[str, str]] = set()
        for t in rows(self._tables.transactions[few["transaction"]], Transaction):
            lead, *sent = self._messages(self._tables.sip[[t.final_message or 0, *t.request_messages]])
            ends = [m for m in finals if m.call_id == t.call_id and m.point == t.point]
            if (t.point, t.call_id) in done or any(m.ts_ns < lead.ts_ns or (m.status or 0) < 300 for m in ends):
                continue
            done.add((t.point, t.call_id))
            failed = [m for m in ends if (m.status or 0) >= 500]
            reasons = [f"481 to the PRACK with RAck {self._rack(sent[0]) if sent else '?'}"]
            if failed:
                reasons.append(f"{failed[0].status} to the INVITE {(failed[0].ts_ns - lead.ts_ns) / 1e9:.1f} s later")
            yield _Fault("the PRACK is answered with 481", lead, "answers the PRACK with 481",
                         Confidence.CONFIRMED if failed else Confidence.PROBABLE, tuple(reasons),
                         (lead.packet, *(m.packet for m in sent), *(m.packet for m in failed[:1])))

    def _messages(self, data: pl.DataFrame) -> Iterable[SipMessage]:
        return rows(data, SipMessage)

    def _rack(self, prack: SipMessage) -> str:
        return " ".join(head(self._tables, prack.message).get("rack", [""])[0].split())

    def occurrence(self, f: _Fault, detailed: bool) -> Occurrence:
        m = f.lead
        contact = contact_host(head(self._tables, m.message).get("contact", [""])[0]) if detailed else ""
        return Occurrence(
            subject=m.call_id or "", group=(m.source, f.kind), title=f"Reliable provisional response: {f.kind}",
            summary=f"{m.source} {f.text}.", confidence=f.confidence, reasons=f.reasons,
            evidence=self._tables.evidence(f.packets, {
                "sip.call_id": m.call_id or "", **({"sip.contact": contact} if contact else {})}) if detailed else (),
            scope={"source.ip": m.source, "destination.ip": m.destination}, flows=(m.flow,), absence=f.absence,
            keys=frozenset({f"call:{m.call_id}", f"host:{m.source}"}), constant=f.constant, start_ns=m.ts_ns,
            end_ns=max(m.ts_ns, f.end_ns), alternatives=(Alternative(
                "the PRACK is sent to where nobody reads it", f"it follows the Contact, {contact}",
                ""),) if contact else ())
