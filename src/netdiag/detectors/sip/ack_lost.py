"""A call is answered, but the ACK never arrives: the 200 is repeated for 32 seconds, then the call is cut.

Whoever accepts an INVITE repeats its 2xx after 0.5, 1, 2, 4, 4… s until the ACK comes, and gives up after 64 times
T1, 32 s (RFC 3261 §13.3.1.4); most then send BYE. "All calls drop at half a minute" is the usual complaint. That ACK
is a request of its own, sent to the Contact of the 2xx along the recorded route (§13.2.2.4), so a wrong Contact or a
missing Record-Route leads it astray while everything before it went well. Where an ACK is seen, its destination says
which: another host than the one that repeats, the right one, to which it then does not get through, or a proxy on
the way of the INVITE that does not pass it on. Where two branches of a forked INVITE are answered, each 2xx wants an
ACK of its own (§13.2.2.4); they are told apart by their To tags.

**What lifts the suspicion.** A BYE 32 s after the first 2xx, or ACKs that come to a proxy and do not leave it
(probable). A second capture point that shows the ACK
leaving for another place, shows ACKs that this one does not have, or lacks the repeated 2xx (confirmed).

**What looks alike and is not it.** One or two repetitions before the ACK are loss. A last 2xx that crosses the ACK is
normal. An ACK that carries the answer to a delayed offer may take up to four seconds. Final responses other than 2xx
are repeated too, but acknowledged hop by hop (Timer G, §17.2.1).
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import polars as pl

from netdiag.detectors.sip import _branches
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
from netdiag.tables.addresses import endpoint, routable
from netdiag.tables.contacts import contact_host
from netdiag.tables.schema import rows
from netdiag.tables.sip import SipMessage, Transaction
from netdiag.tables.sip_details import detail, details
from netdiag.tables.sip_twins import SipTwins

PATTERN = Pattern(
    id="SIP-ACK-LOST",
    title="ACK never arrives: the 200 is repeated, the call is cut after 32 s",
    severity=Severity.HIGH,
    cases=("thirty-two-seconds",),
    needs=("transactions", "sip", "calls", "quality"),
    references=(Reference("RFC 3261 §13.2.2.4, §13.3.1.4, Table 4"), Reference("RFC 6026 §7.1")),
    filter='(sip.CSeq.method == "INVITE" && sip.Status-Code >= 200 && sip.Status-Code < 300) || sip.Method == "ACK"',
    mitigation="Put a reachable address into the Contact of the answering side, or route its calls through a proxy "
               "that records its route.",
    fix="Correct external address, Record-Route or SIP ALG so that the ACK can follow the Contact and the route set.",
    prevention="Place a test call that lasts 60 s through every path.",
    next_capture="Capture at the caller: does it send an ACK, and where to?",
    settings=(Setting("min_sends", 3, "sends", "practice: the 2xx and two repetitions, 1.5 s"),
              Setting("patience", 4, "s", "practice: an ACK with a delayed answer may take that long")),
)

CUT_S, CUT_TOLERANCE_S = 32.0, 1.0
"""64 times T1 (RFC 3261 §13.3.1.4); tolerance of a constant below 60 s (practice)."""
FORKED = ("Ring one phone after the other, so that one branch answers: the caller must acknowledge each, and end "
          "those that it does not want with BYE.")
DETAILED = 200
"""Calls that are looked at closely; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """INVITE transactions whose 2xx is repeated without an ACK that stops it."""
    answered = tables.transactions.filter((pl.col("method") == "INVITE") & pl.col("status").is_between(200, 299))
    if not len(answered):
        return not_applicable("no answered INVITE in this capture")
    repeated = pl.concat([answered, _branches.others(tables, answered, settings["min_sends"])]).filter(
        pl.col("final_sends") >= settings["min_sends"])
    if not len(repeated):
        return clear(f"{number_of(len(answered), 'answered INVITEs')}; the 2xx of none was sent "
                     f"{settings['min_sends']:.0f} times")
    context = _Context(tables, settings, repeated)
    repeated = _last_hops(repeated)
    occurrences = [o for i, t in enumerate(rows(repeated, Transaction)) if (o := context.occurrence(t, i < DETAILED))]
    if not occurrences:
        least = f"{settings['min_sends']:.0f} times or more"
        return clear(f"{number_of(len(answered), 'answered INVITEs')}; the 2xx of {len(repeated)} was sent {least}, "
                     "none beyond what loss explains")
    contacts = details(tables, answered["final_message"], ("contact",))["contact"]
    pairs = zip(contacts.to_list(), answered["server"].to_list(), answered["call_id"].to_list(), strict=True)
    examined = Counter(host for host, _ in {(contact_host(contact) or server, call) for contact, server, call in pairs})
    return found(occurrences, population="answered calls", examined={(host,): n for host, n in examined.items()})


def _last_hops(repeated: pl.DataFrame) -> pl.DataFrame:
    """Of several hops at one point the last: a proxy passes on what the host beyond it repeats."""
    answer = ["point", "call_id", "cseq"]
    last = repeated.join(repeated.filter(pl.col("client") != pl.col("server")), left_on=[*answer, "server"],
                         right_on=[*answer, "client"], how="anti", maintain_order="left")
    return pl.concat([last, repeated.join(last, on=answer, how="anti", maintain_order="left")])


class _Series(NamedTuple):
    """The 2xx of one transaction and the ACKs of its dialog that this point shows."""

    finals: list[SipMessage]
    arriving: list[SipMessage]
    """ACKs on the way to the host that repeats."""
    stray: list[SipMessage]
    """ACKs on the way to another host."""
    kept: list[SipMessage]
    """ACKs on the way to a proxy before the host that repeats; none is seen to leave it."""
    branches: int
    """Other branches of a fork whose 2xx is acknowledged here."""


class _Context:
    def __init__(self, tables: Tables, settings: dict[str, float], repeated: pl.DataFrame) -> None:
        self._tables, self._settings = tables, settings
        finals = repeated["final_message"]
        self._contacts: dict[int, str | None] = dict(zip(
            finals, details(tables, finals, ("contact",))["contact"], strict=True))
        self._twins = SipTwins(tables)
        self._ends: dict[str, int] = dict(tables.quality.select("point", "last_ns").iter_rows())
        chosen = repeated["call_id"].unique().implode()
        calls = tables.calls.filter(pl.col("call_id").is_in(chosen)).select(
            "point", "call_id", "end_ns", "bye_by", "bye_message")
        self._calls = {(point, call): rest for point, call, *rest in calls.iter_rows()}
        sip = tables.sip.filter(pl.col("call_id").is_in(chosen))
        self._path: dict[tuple[str, str, int], list[tuple[str, int]]] = {}
        for point, call_id, cseq, *end in repeated.select(
                "point", "call_id", "cseq", "server", "final_message").iter_rows():
            self._path.setdefault((point, call_id, cseq), []).append((end[0], end[1]))
        self._acks: dict[tuple[str, str, int], list[SipMessage]] = {}
        for m in rows(sip.filter(pl.col("method") == "ACK"), SipMessage):
            self._acks.setdefault((m.point, m.call_id or "", m.cseq or 0), []).append(m)
        wanted = repeated["response_messages"].explode().unique().implode()
        self._messages = {m.message: m for m in rows(sip.filter(pl.col("message").is_in(wanted)), SipMessage)}

    def _series(self, t: Transaction) -> _Series | None:
        """None when the ACK came in time, or the capture does not show that it did not."""
        tag = self._messages[t.final_message or 0].to_tag
        finals = [m for i in t.response_messages if (m := self._messages[i]).status == t.status and m.to_tag == tag]
        every = self._acks.get((t.point, t.call_id, t.cseq), [])
        acks = [m for m in every if m.ts_ns >= finals[0].ts_ns and m.to_tag == tag]
        arriving = [m for m in acks if m.destination == t.server]
        after = sum(1 for m in finals if arriving and m.ts_ns > arriving[0].ts_ns)
        call = self._calls.get((t.point, t.call_id), (None, None, None))
        watched = max(self._ends[t.point], call[0] or 0) - finals[0].ts_ns
        if arriving:
            if after < self._settings["min_sends"]:
                return None
        elif watched < self._settings["patience"] * 1e9:
            return None
        first = t.final_message or 0  # a 2xx comes by the hop nearest to its sender first
        others = [] if arriving else [m for m in acks if m.source != t.server]
        proxies = {server for server, final in self._path[t.point, t.call_id, t.cseq] if final > first}
        return _Series(finals, arriving, [m for m in others if m.destination not in proxies],
                       [m for m in others if m.destination in proxies], len({m.to_tag for m in every} - {tag}))

    def occurrence(self, t: Transaction, detailed: bool) -> Occurrence | None:
        series = self._series(t)
        if series is None:
            return None
        first = series.finals[0]
        contact = self._contacts[first.message]
        target = contact_host(contact) or t.server
        end_ns, bye_by, bye = self._calls.get((t.point, t.call_id), (None, None, None))
        mine = bye is None or self._of_branch(bye, first.to_tag)
        lasted = (end_ns - first.ts_ns) / 1e9 if end_ns is not None and bye_by and mine else None
        deltas = ", ".join(f"{(m.ts_ns - first.ts_ns) / 1e9:.1f}" for m in series.finals)
        confidence, reasons = Confidence.SUSPECTED, [f"the {t.status} is sent {len(series.finals)} times ({deltas} s)"]
        cited = [m.packet for m in series.finals]
        if series.stray:
            wrong = series.stray[0]
            uri = f" ({self._uri(wrong)})" if detailed else ""
            reasons.append(f"the ACK goes to {endpoint(wrong.destination, wrong.destination_port)}{uri}, "
                           f"not to {t.server}")
            cited += [m.packet for m in series.stray]
        elif series.arriving:
            reasons.append(f"{number_of(len(series.arriving), 'ACKs')} on the way to {t.server} passed here, and it "
                           "goes on repeating")
            cited += [m.packet for m in series.arriving]
        elif series.kept:
            proxy = series.kept[0].destination
            confidence = Confidence.PROBABLE
            reasons.append(f"{number_of(len(series.kept), 'ACKs')} on the way to {proxy} passed here, and none leaves "
                           f"it for {t.server}")
            cited += [m.packet for m in series.kept]
        else:
            reasons.append(f"no ACK is seen at {t.point}" if len(self._tables.points) > 1 else "no ACK passes here")
        if series.branches:
            reasons.append("the INVITE was forked: ACKs to another branch, with another To tag, pass here")
        cut = lasted is not None and abs(lasted - CUT_S) <= CUT_TOLERANCE_S
        if cut and bye is not None:
            confidence = Confidence.PROBABLE
            reasons.append(f"BYE by the {bye_by} {lasted:.1f} s after the first {t.status} (64 times T1)")
            cited.append(int(self._tables.sip["packet"][bye]))
        away, frames = self._elsewhere(t, series) if detailed else ("", [])
        timed = bool(away) and not frames  # the 2xx is missing at a point that ran at that time
        if not away and series.stray and routable(t.server) and not routable(series.stray[0].destination):
            away = f"{series.stray[0].destination} cannot be reached from a public network (RFC 1918)"
        if away:
            confidence = Confidence.CONFIRMED
            reasons.append(away)
            cited += frames
        alternatives = []
        if not away and not series.kept:
            bad = not routable(target)
            alternatives.append(Alternative(
                "the Contact of the 2xx cannot be reached", f"it names {target}, which is not routable" if bad else "",
                "" if bad else f"it names {target}, which is a public address or a name"))
        if not (away or series.arriving or series.stray or series.kept):
            alternatives.append(Alternative(
                "the 2xx does not reach the caller", "it would look the same next to the answering side",
                "only its own side can tell"))
        return Occurrence(
            subject=t.call_id, group=(target,),
            summary=f"{t.server} repeats its {t.status} response {times(len(series.finals))}; the ACK "
                    + (f"comes to {series.kept[0].destination} only" if series.kept else f"should go to {target}")
                    + (f", and the call ends after {lasted:.1f} s." if lasted is not None else "."),
            confidence=confidence, reasons=tuple(reasons),
            evidence=self._tables.evidence(cited, {"sip.call_id": t.call_id, "sip.contact": contact or ""})
            if detailed else (),
            scope={"sip.contact": target, "destination.ip": t.server}, flows=(first.flow,),
            keys=frozenset({f"call:{t.call_id}", f"host:{t.server}"}), absence=not away and not series.kept,
            clock=timed, constant=lasted if cut else None, start_ns=first.ts_ns,
            end_ns=end_ns or series.finals[-1].ts_ns, alternatives=tuple(alternatives),
            mitigation=FORKED if series.branches and not away else "")

    def _of_branch(self, bye: int, tag: str | None) -> bool:
        """Is this BYE of the dialog with that tag of the callee, and not of another branch?"""
        return tag in self._tables.sip.select("from_tag", "to_tag").row(bye)

    def _uri(self, message: SipMessage) -> str | None:
        return detail(self._tables, message.message).uri

    def _elsewhere(self, t: Transaction, series: _Series) -> tuple[str, list[int]]:
        """What another point adds: a clause, and the packets there."""
        if len(self._tables.points) < 2:
            return "", []
        here = {m.branch for m in (*series.arriving, *series.stray)}
        for point in self._tables.points:
            acks = self._acks.get((point, t.call_id, t.cseq), []) if point != t.point else []
            if acks and acks[0].branch not in here:
                place = f"{endpoint(acks[0].destination, acks[0].destination_port)} ({self._uri(acks[0])})"
                return f"at {point} the ACK leaves for {place} and is not seen at {t.point}", [a.packet for a in acks]
        lost = self._twins.missing_at([m.message for m in series.finals])
        return (f"the {t.status} is not seen at {lost}, where other messages of the path are", []) if lost else ("", [])
