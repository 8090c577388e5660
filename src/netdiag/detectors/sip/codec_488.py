"""A call is refused because the two sides have no codec, or no kind of media, in common.

488 Not Acceptable Here and 606 Not Acceptable answer an offer whose media the called side cannot or may not use (RFC
3261 §21.4.26, §21.6.4), 415 a body that it does not understand (§21.4.13). Some accept the call instead and refuse
every media line with port 0 (RFC 3264 §6), which leaves a call without media. The refusing side says more in a Warning
header (304 media type, 305 media format, RFC 3261 §20.43) or in the SDP of the refusal; where it does not, its other
offers and answers in the capture show what it can do. Codecs are compared by name, clock rate, channels and those
parameters that must agree (AMR octet-align, RFC 4867 §8.3.1), never by payload number.

**What lifts the suspicion.** What the other side offers or answers elsewhere, with no codec of this offer among it; or
the 200 that refuses all media (probable). A Warning between 301 and 307, SDP in the refusal, or the same call
accepted with another offer (confirmed).

A re-INVITE that is refused leaves the call as it was (RFC 3261 §14.1): less severe.

**What looks alike and is not it.** A fax or video that is refused inside a call whose audio goes on. One media line
of several refused with port 0. An offer of SRTP alone, or of RTP to somebody who speaks SRTP alone
(SIP-SRTP-OFFER). A call that is accepted elsewhere with the same offer: trunks are tried in turn. A side that has a
codec of this offer in its other calls, or earlier in this one, refused it for another reason, such as packet times or
bandwidth.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

import polars as pl

from netdiag.detectors.sip._abilities import Abilities, where
from netdiag.detectors.sip._keys import kinds
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
from netdiag.tables.offer_answer import Body, Exchange, exchanges
from netdiag.tables.sip import SipMessage
from netdiag.tables.sip_details import added
from netdiag.tables.sip_head import head

PATTERN = Pattern(
    id="SIP-CODEC-488",
    title="Call refused: no codec or media in common",
    severity=Severity.HIGH,
    cases=("codec-and-dtmf-mismatch",),
    needs=("transactions", "sip", "calls", "media"),
    references=(Reference("RFC 3261 §20.43, §21.4.13, §21.4.26, §21.6.4"), Reference("RFC 3264 §6"),
                Reference("RFC 3551 §6"), Reference("RFC 4867 §8.3.1")),
    filter="sip.Status-Code == 488 || sip.Status-Code == 606 || sip.Status-Code == 415 || sdp.media.port == 0",
    mitigation="Allow a codec that both sides have on this trunk; G.711 A-law or u-law as a rule.",
    fix="Align the codec lists and their parameters at both ends, or transcode at the border.",
    prevention="Test the offers of every kind of device against every trunk when a codec profile changes.",
    next_capture="Capture both legs of the element that refuses: the refusal may come from behind it.",
    settings=(Setting("retry", 10, "s", "practice: a caller tries another trunk at once"),),
)

REFUSED = (415, 488, 606)
CODEC_WARNINGS, WARNINGS = ("304", "305"), ("301", "302", "303", "306", "307")
"""Media type and format; network, transport, attribute and parameter (RFC 3261 §20.43)."""
DETAILED = 200
"""Calls whose frames are listed; the others of a flood are counted (practice)."""
_PASSED = "passes it on, at"
_WARNING = re.compile(r'(3\d\d) \S+ "([^"]{0,200})')


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Offers that were refused as a whole."""
    asked = tables.transactions.filter(pl.col("method").is_in(["INVITE", "UPDATE"]) & pl.col("status").is_not_null())
    if not len(asked):
        return not_applicable("no answered INVITE in this capture")
    refused = asked.filter(pl.col("status").is_in(REFUSED))
    calls = set(tables.calls.filter(pl.col("call_id").is_in(refused["call_id"].unique().implode()))["call"])
    closed = tables.media.filter((pl.col("port") == 0) & (pl.col("role") == "answer"))
    calls |= set(closed["call"])
    refusals: list[_Refusal] = []
    if calls:
        hosts = {*refused["server"], *closed["signalling_source"]}
        context = _Context(tables, settings, sorted(calls), Abilities(tables, hosts))
        refusals = _once([r for several in exchanges(tables, sorted(calls)).values() if (r := context.judge(several))])
    if not refusals:
        return clear(f"{number_of(len(asked), 'offers')} decided; {len(refused)} refused with 415, 488 or 606, none "
                     "for want of a codec as far as this capture shows")
    examined = Counter(server for server, _ in set(asked.select("server", "call_id").iter_rows()))
    return found([_occurrence(tables, r, i < DETAILED) for i, r in enumerate(refusals)], population="calls",
                 examined={(host,): n for host, n in examined.items()})


@dataclass(slots=True)
class _Refusal:
    exchange: Exchange
    response: SipMessage
    confidence: Confidence
    reasons: list[str]
    packets: list[int] = field(default_factory=list)
    supported: frozenset[str] = frozenset()
    """Codecs of the refusing side, where it has none of the offer's."""
    healed: bool = False


class _Context:
    def __init__(self, tables: Tables, settings: dict[str, float], calls: list[int], abilities: Abilities) -> None:
        self._tables, self._settings, self._abilities = tables, settings, abilities
        near = tables.calls.filter(pl.col("invite_message").is_not_null() & (
            pl.col("call").is_in(calls) | pl.col("answer_ns").is_not_null())).filter(
            pl.col("caller").is_in(tables.calls["caller"].gather(calls).implode()))
        named = added(tables, near, ("from_uri", "to_uri"), "invite_message")
        who = ["point", "caller", "from_uri", "to_uri"]
        self._who = {row[0]: row[1:] for row in named.select("call", *who).iter_rows()}
        self._answered: dict[tuple[str, ...], list[int]] = {}
        for at, *key in named.filter(pl.col("answer_ns").is_not_null()).select("invite_ns", *who).sort(
                "invite_ns").iter_rows():
            self._answered.setdefault(tuple(key), []).append(at)

    def judge(self, several: list[Exchange]) -> _Refusal | None:
        """The last refusal of one call, on the hop nearest to who refuses; None without, or for another reason."""
        for exchange in reversed(several):
            final, offer = exchange.final, exchange.offer
            if offer is None or exchange.delayed or final is None:
                continue
            other_media = any(s.line.type != "audio" and s.line.port for s in offer.description.sections)
            if exchange.request.to_tag is not None and other_media:
                continue  # fax or video in a call that goes on
            if final.status in REFUSED:
                return self._refused(exchange, offer, final, several)
            if exchange.without_media:
                answer = exchange.answers[-1].message
                return self._compared(offer, _Refusal(exchange, answer, Confidence.PROBABLE, [
                    f"the {answer.status} refuses every media line with port 0"]))
        return None

    def _refused(self, exchange: Exchange, offer: Body, final: SipMessage, several: list[Exchange]) -> _Refusal | None:
        values = head(self._tables, final.message).get("warning", [])
        warnings = sorted((m for value in values for m in _WARNING.finditer(value)),
                          key=lambda m: (m[1] not in CODEC_WARNINGS, m[1] not in WARNINGS))
        warning = next(iter(warnings), None)
        code = warning[1] if warning else ""
        reason = f"Warning {code}: {warning[2]}" if warning else "no Warning says why"
        refusal = _Refusal(exchange, final, Confidence.SUSPECTED, [reason])
        if code in CODEC_WARNINGS or (code in WARNINGS and False in offer.profiles):
            refusal.confidence = Confidence.CONFIRMED
        elif offer.profiles == {True} and not any(
                kinds(offer) & kinds(b) for b in self._abilities.of(final, offer.message)):
            return None
        same = [e for e in several if e is not exchange and e.offer and e.accepted
                and e.request.ts_ns >= exchange.request.ts_ns]
        if any(e.offer and e.offer.voices == offer.voices for e in same) or self._again(exchange):
            return None
        if same:
            changed = same[0].offer.voices if same[0].offer else frozenset()
            refusal.confidence, refusal.healed = Confidence.CONFIRMED, True
            refusal.reasons.append(f"accepted with another offer, of {_text(changed)}")
            refusal.packets.append(same[0].request.packet)
        return self._compared(offer, refusal)

    def _compared(self, offer: Body, refusal: _Refusal) -> _Refusal | None:
        """With what the refusing side can do; None when that has a codec of the offer, and nothing says otherwise."""
        own, response = refusal.exchange.refused, refusal.response
        bodies = own or self._abilities.of(response, offer.message)
        theirs = frozenset[str]().union(*(b.voices for b in bodies))
        if not theirs:
            return refusal
        profiles = frozenset[bool]().union(*(b.profiles for b in bodies))
        if theirs & offer.voices or profiles.isdisjoint(offer.profiles):
            return refusal if refusal.confidence == Confidence.CONFIRMED else None
        refusal.supported = theirs
        whence = "the refusal itself lists" if own else f"{where(bodies, response)} {response.source} has"
        refusal.reasons.append(f"{whence} {_text(theirs)}")
        refusal.confidence = max(refusal.confidence, Confidence.CONFIRMED if own else Confidence.PROBABLE)
        refusal.packets.append(bodies[0].message.packet)
        return refusal

    def _again(self, exchange: Exchange) -> bool:
        """Is a call of the same caller to the same number that begins right after it accepted?"""
        who, begin = self._who.get(exchange.call), exchange.request.ts_ns
        times = self._answered.get(who or (), [])
        at = bisect_right(times, begin)
        end = (exchange.final or exchange.request).ts_ns + int(self._settings["retry"] * 1e9)
        return at < len(times) and times[at] <= end


def _once(refusals: list[_Refusal]) -> list[_Refusal]:
    """A refusal that several points show belongs to who refused first; the others passed it on."""
    first: dict[tuple[str | None, int | None], _Refusal] = {}
    for r in sorted(refusals, key=lambda r: r.response.ts_ns):
        known = first.setdefault((r.exchange.request.call_id, r.exchange.request.cseq), r)
        if known is r:
            continue
        known.confidence, known.healed = max(known.confidence, r.confidence), known.healed or r.healed
        known.reasons.append(f"{r.response.source} {_PASSED} {r.response.point}")
        known.packets += [r.exchange.request.packet, r.response.packet]
    return list(first.values())


def _occurrence(tables: Tables, r: _Refusal, detailed: bool) -> Occurrence:
    request, final = r.exchange.request, r.response
    status, within = final.status or 0, request.to_tag is not None
    offered = _text(r.exchange.offer.voices if r.exchange.offer else frozenset()) or "media without codecs"
    what = f"refuses an offer of {offered} with {status}" if status >= 300 else \
        f"accepts a call and refuses all media of its offer of {offered}"
    facts: dict[str, str | int | float] = {
        "sip.call_id": request.call_id or "", "sip.status_code": status, "sdp.offered": offered,
        **({"sdp.supported": _text(r.supported)} if r.supported else {})}
    return Occurrence(
        subject=request.call_id or "", group=(final.source,),
        summary=f"{final.source} {what}" + (f"; it has {_text(r.supported)}." if r.supported else "."),
        title="Change of a running call refused: no codec in common" if within else "",
        severity=Severity.LOW if r.healed else Severity.MEDIUM if within else None,
        confidence=r.confidence, reasons=tuple(r.reasons),
        evidence=tables.evidence([request.packet, final.packet, *r.packets], facts) if detailed else (),
        scope={"source.ip": request.source, "destination.ip": final.source}, flows=(final.flow,),
        keys=frozenset({f"call:{request.call_id}", f"host:{final.source}"}),
        start_ns=request.ts_ns, end_ns=final.ts_ns, alternatives=(Alternative(
            "an element behind it refused, for another reason", "border elements turn other failures into 488",
            next(x for x in reversed(r.reasons) if _PASSED not in x) if r.confidence > Confidence.SUSPECTED else ""),))


def _text(codecs: frozenset[str]) -> str:
    return ", ".join(sorted(codecs))
