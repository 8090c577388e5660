"""A Contact or Record-Route names an address that the other side cannot reach: requests inside the dialog get lost.

INVITE and 2xx tell where the other side shall send ACK, BYE and re-INVITE: to the first host of the recorded route,
else to the Contact (RFC 3261 §12.1, §12.2.1.1). Here that host is private (RFC 1918, RFC 6598, link-local, loopback, a
local name), while the message itself came from a public address or from another private network, and what is sent
there fails: a BYE or re-INVITE without response, or a 2xx that is repeated because no ACK arrives. A reliable 18x
tells it before the 2xx does (RFC 3262 §3): its PRACK gets no response.

**What lifts the suspicion.** A request that is seen on its way to that address and gets no response (probable). An
ICMP error about it, a 481 from whoever else has that address, or an ACK seen on its way there while the 2xx goes on
being repeated (confirmed).

**What looks alike and is not it.** The private Contact alone: servers often correct it by the source of the packet,
and the dialog works. A proxy that can be reached and records its route. A Contact with ``ob`` or ``alias``, which asks
for the flow that is there. Requests that go to another place, or arrive, and fail for a reason of their own. Where
both ends are in one private network, private addresses are right.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

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
from netdiag.tables.addresses import endpoint, routable
from netdiag.tables.schema import rows
from netdiag.tables.sip import SipMessage, Transaction
from netdiag.tables.sip_head import head
from netdiag.tables.sip_route import Target, contact, target, unreachable

PATTERN = Pattern(
    id="SIP-CONTACT-PRIVATE",
    title="Contact or Record-Route cannot be reached: requests inside the dialog get lost",
    severity=Severity.HIGH,
    cases=("thirty-two-seconds", "sip-alg-rewrites-messages"),
    needs=("transactions", "sip", "icmp"),
    references=(Reference("RFC 3261 §8.1.1.8, §12.1, §12.2.1.1"), Reference("RFC 3262 §3"),
                Reference("RFC 1918 §3"), Reference("RFC 6598 §7")),
    filter='sip.Contact || sip.Record-Route || sip.Method == "ACK" || sip.Method == "BYE" || sip.Method == "PRACK"',
    mitigation="Have the server replace the Contact by the source of the packet (fix_nated_contact, nat helper).",
    fix="Configure the external signalling address of the PBX, proxy or container that writes this address.",
    prevention="Check Contact and Record-Route of outgoing messages in tests: no address that the others cannot reach.",
    next_capture="Capture at the side that sends to this address: where do its ACK and BYE go? Does ICMP come back?",
    explains=("SIP-ACK-LOST", "SIP-DIALOG-481", "SIP-PRACK-TIMEOUT"),
    settings=(Setting("min_sends", 3, "sends", "practice: 1.5 s of Timer E; fewer is loss"),),
)

RECORDED = ("Have the proxy record the address that this side can reach; where it stands in two networks, one for each "
            "(RFC 5658).")
"""What helps at once where a Record-Route names the address: nobody may correct that one by the source of a packet."""
DETAILED = 200
"""Dialogs that are looked at closely; the others of a flood are counted (practice)."""
_CALL = ["point", "call_id"]
_ANSWERED = (pl.col("method") == "INVITE") & pl.col("status").is_between(200, 299)


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Dialogs in which requests to a private target of one side fail."""
    answered, early = tables.transactions.select(_ANSWERED.sum().alias("answered"),
                                                 (pl.col("method") == "PRACK").sum().alias("early")).row(0)
    if not answered and not early:
        return not_applicable("no answered INVITE in this capture")
    context = _Context(tables, settings["min_sends"])
    occurrences: list[Occurrence] = []
    for t in rows(context.suspects, Transaction):
        occurrences += context.occurrences(t, len(occurrences) < DETAILED)
    if not occurrences:
        return clear(f"{number_of(answered, 'answered INVITEs')}; in none does a request to an unreachable Contact or "
                     "Record-Route fail")
    calls = pl.concat([tables.transactions.filter(_ANSWERED), context.suspects])
    ends = pl.concat([calls.select("call_id", host=end) for end in ("client", "server")]).unique()
    examined = Counter(ends["host"].to_list())
    return found(occurrences, population="calls" if early else "answered calls",
                 examined={o.group: examined[str(o.scope["source.ip"])] for o in occurrences})


@dataclass(slots=True)
class _Fate:
    """What became of the requests to one target."""

    lost: list[Transaction] = field(default_factory=list)
    """Without response."""
    denied: list[Transaction] = field(default_factory=list)
    """481 from there."""
    acks: list[SipMessage] = field(default_factory=list)
    finals: list[int] = field(default_factory=list)
    """The 2xx that is repeated, as rows of ``Tables.sip``."""


class _Context:
    def __init__(self, tables: Tables, least: float) -> None:
        self._tables, self._least = tables, least
        inside = tables.transactions.filter(
            (((pl.col("response_messages").list.len() == 0) & (pl.col("sends") >= least)) | (pl.col("status") == 481))
            & pl.col("to_tag").is_not_null() & ~pl.col("midstream"))
        private = [host for host in inside["server"].unique().to_list() if not routable(host)]
        self._failed: dict[tuple[str, str], list[Transaction]] = {}
        for t in rows(inside.filter(pl.col("server").is_in(private)), Transaction):
            self._failed.setdefault((t.point, t.call_id), []).append(t)
        calls = pl.DataFrame(list(self._failed), schema={"point": pl.String, "call_id": pl.String}, orient="row")
        repeating = tables.transactions.filter((pl.col("final_sends") >= least) & _ANSWERED)
        calls = pl.concat([calls, repeating.select(_CALL)]).unique()
        self.suspects = (tables.transactions.filter(_ANSWERED).join(calls, on=_CALL, how="semi", maintain_order="left")
                         if len(calls) else repeating)
        pracks = pl.DataFrame([key for key, lost in self._failed.items() if any(t.method == "PRACK" for t in lost)],
                              schema=calls.schema, orient="row")
        if len(pracks):
            early = tables.transactions.filter(
                (pl.col("method") == "INVITE") & pl.col("to_tag").is_null() & ~_ANSWERED.fill_null(value=False)
                & pl.col("provisional_status").is_not_null())
            self.suspects = pl.concat([self.suspects, early.join(pracks, on=_CALL, how="semi", maintain_order="left")])
        self._flow = tables.sip["flow"].to_numpy()
        self._errors: dict[tuple[int, str], list[tuple[int, str, str]]] = {}
        for flow, host, *rest in tables.icmp.filter(pl.col("quoted_flow").is_not_null()).select(
                "quoted_flow", "quoted_destination", "packet", "name", "source").iter_rows():
            self._errors.setdefault((flow, host), []).append((rest[0], rest[1], rest[2]))
        self._hops: dict[tuple[str, str, int], list[tuple[str, str, int | None, int | None]]] = {}
        for point, call_id, cseq, *hop in self.suspects.select(
                *_CALL, "cseq", "client", "server", pl.col("request_messages").list.first(),
                "final_message").iter_rows():
            self._hops.setdefault((point, call_id, cseq), []).append((hop[0], hop[1], hop[2], hop[3]))
        self._acks: dict[tuple[str, str, int], list[SipMessage]] = {}
        if len(repeating):
            for m in rows(tables.sip.filter((pl.col("method") == "ACK") & pl.col("call_id").is_in(
                    repeating["call_id"].implode())), SipMessage):
                self._acks.setdefault((m.point, m.call_id or "", m.cseq or 0), []).append(m)

    def occurrences(self, t: Transaction, detailed: bool) -> list[Occurrence]:
        out = []
        answered = t.status is not None and 200 <= t.status < 300
        reply = t.final_message if answered else self._reliable(t)
        for message, source, sender in ((reply, t.server, t.client),
                                        (next(iter(t.request_messages), None), t.client, t.server)):
            named = target(self._tables, message, sender) if message is not None else None
            if message is None or named is None or named.kept_flow or not unreachable(named.host, source):
                continue
            fate = self._fate(t, named, sender, answered and message == reply)
            if fate.lost or fate.denied or fate.finals:
                source = self._author(t, named, source, message == reply)
                out.append(self._occurrence(t, message, named, source, sender, fate, detailed))
        return out

    def _author(self, t: Transaction, named: Target, source: str, by_callee: bool) -> str:
        """Who wrote the Contact, as far as its hops show: proxies pass it on as it is (RFC 3261 §16.6 item 1)."""
        hops = self._hops.get((t.point, t.call_id, t.cseq), ()) if named.header == "Contact" else ()
        told = [(message, host) for client, server, request, final in hops
                for message, host in ((final, server) if by_callee else (request, client),) if message is not None]
        return next((host for message, host in sorted(told) if contact(self._tables, message) == named.uri), source)

    def _reliable(self, t: Transaction) -> int | None:
        """The first provisional response that must be acknowledged."""
        return next((m for m in t.response_messages if 100 < (self._tables.sip["status"][m] or 0) < 200
                     and "rseq" in head(self._tables, m)), None)

    def _fate(self, t: Transaction, named: Target, sender: str, by_callee: bool) -> _Fate:
        fate = _Fate()
        for f in self._failed.get((t.point, t.call_id), ()):
            if f.client == sender and f.server == named.host:
                (fate.lost if f.status is None else fate.denied).append(f)
        if by_callee and t.final_sends >= self._least:
            acks = [a for a in self._acks.get((t.point, t.call_id, t.cseq), ())
                    if a.source == sender or a.destination == t.server]
            fate.acks = [a for a in acks if a.destination == named.host]
            if len(fate.acks) == len(acks):  # none arrives, and none leaves for another place
                fate.finals = list(t.response_messages)
        return fate

    def _occurrence(self, t: Transaction, message: int, named: Target, source: str, sender: str, fate: _Fate,
                    detailed: bool) -> Occurrence:
        sip, failed = self._tables.sip, [*fate.lost, *fate.denied]
        requests = [*(m for f in failed for m in f.request_messages), *(a.message for a in fate.acks)]
        replies = [m for f in fate.denied for m in f.response_messages]
        finals = [m for m in fate.finals if sip["status"][m] == t.status]
        flows = {int(f) for f in self._flow[requests]}
        errors = [e for f in sorted(flows) for e in self._errors.get((f, named.host), ())]
        reasons = [f"the {named.header} of {source} is {named.uri}, which {sender} cannot reach"]
        confidence = Confidence.SUSPECTED
        if failed or fate.acks:
            confidence = Confidence.PROBABLE
        for f in fate.lost:
            reasons.append(f"{f.method} goes to {endpoint(f.server, f.server_port)} {times(f.sends)}, no response")
        if finals:
            reasons.append(f"the {t.status} is sent {times(len(finals))}, "
                           + (f"while the ACK goes to {named.host}" if fate.acks else "no ACK passes here"))
        for f in fate.denied:
            reasons.append(f"{f.server} answers {f.method} with 481: another host has this address")
        if errors:
            reasons.append(f"ICMP {errors[0][1]} from {errors[0][2]} about a request to it")
        if errors or fate.denied or (finals and fate.acks):
            confidence = Confidence.CONFIRMED
        cited = sip["packet"].gather([message, *requests, *replies, *finals]).to_list() if detailed else []
        cited += [packet for packet, *_ in errors[:3]]
        return Occurrence(
            subject=t.call_id, group=(source, named.host),
            title=f"{named.header} cannot be reached: requests inside the dialog get lost",
            summary=f"{source} names {named.host} in its {named.header}; what {sender} sends there "
                    + ("is answered by another host." if fate.denied else "gets lost."),
            confidence=confidence, reasons=tuple(reasons),
            evidence=self._tables.evidence(cited, {"sip.call_id": t.call_id, "sip.contact": named.uri,
                                                   "source.ip": source}) if detailed else (),
            scope={"source.ip": source, "sip.contact": named.host},
            flows=(int(self._flow[message]), *sorted(flows)),
            keys=frozenset({f"call:{t.call_id}"}), absence=confidence < Confidence.CONFIRMED,
            mitigation=RECORDED if named.header != "Contact" else "",
            start_ns=t.first_ns, end_ns=max([t.last_ns, *(f.last_ns for f in failed)]), alternatives=(
                Alternative("the requests get lost on the way for another reason", "it would look the same from here",
                            "ICMP says that the address is the reason" if errors else
                            f"nobody outside its own network has a way to {named.host}"),))
