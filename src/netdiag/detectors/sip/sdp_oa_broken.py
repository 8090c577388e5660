"""An answer does not fit its offer, or is missing: both ends then hold different ideas of the session.

The rules that are broken in plain sight: an answer has exactly as many media lines as the offer, in the same order
(RFC 3264 §6); a line that is accepted has a codec of the offered one (§6.1); a dynamic payload type keeps its codec
for the life of the session (§8.3.2); an INVITE with an offer gets its answer with the 2xx at the latest, and the offer
of a 2xx gets it with the ACK (RFC 3261 §13.2.1); one exchange has one answer, so what a reliable response or the
provisional one of the same branch said stands (RFC 6337 §2.1, §3.1.1); and a changed description comes with a higher
version in o=, since whoever sees the old number may ignore it (RFC 3264 §8).

**What lifts the suspicion.** Both messages are in the capture, so the breach itself is certain (confirmed). A 200 that
differs from the unreliable 183 before it is common and mostly survived; it counts only when the caller's audio keeps
going to the old address and none goes to the new one (probable).

**What looks alike and is not it.** Other payload numbers, additional or fewer formats in the answer, a refused line
(all allowed, RFC 3264 §6.1). The same description again in 180, 183 and 200. Different answers with different To tags:
the call forked. A changed description under another o= identity: another device took over. A version that jumps ahead.
An answer that refuses every line leaves no media, and is legal: SIP-CODEC-488.
"""

from __future__ import annotations

from collections import Counter

from netdiag.detectors.sip._agreed import doubtful
from netdiag.detectors.sip._breaches import Breach, breaches_of
from netdiag.model import (
    Detection,
    Occurrence,
    Pattern,
    Reference,
    Severity,
    clear,
    found,
    not_applicable,
    number_of,
)
from netdiag.tables import Tables
from netdiag.tables.offer_answer import exchanges

PATTERN = Pattern(
    id="SIP-SDP-OA-BROKEN",
    title="Offer and answer do not fit",
    severity=Severity.HIGH,
    cases=("sip-alg-rewrites-messages", "codec-and-dtmf-mismatch"),
    needs=("media", "sip", "transactions", "calls", "rtp"),
    references=(Reference("RFC 3264 §6, §6.1, §8, §8.3.2"), Reference("RFC 3261 §13.2.1"),
                Reference("RFC 6337 §2.1, §3.1.1"), Reference("RFC 8866 §5.2")),
    filter="sdp",
    mitigation="Route the calls past the element that writes the wrong description, or switch its rewriting off.",
    fix="Have the maker of that element correct it: it must answer line by line, once, and count its versions up.",
    prevention="Run the call flows of RFC 6337 between all kinds of devices before a release goes in.",
    next_capture="Capture both sides of the element that sent the description: who wrote the wrong line?",
    explains=("RTP-FORMAT-MISMATCH", "RTP-ONEWAY"),
)

DETAILED = 200
"""Calls whose frames are listed; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Exchanges that break a rule of RFC 3264."""
    if not len(tables.media):
        return not_applicable("no SDP in this capture")
    calls = doubtful(tables)
    breaches: list[Breach] = []
    for several in exchanges(tables, calls).values():
        kinds: set[tuple[str, str]] = set()
        for breach in breaches_of(tables, several):
            if (breach.party, breach.kind) not in kinds:
                kinds.add((breach.party, breach.kind))
                breaches.append(breach)
    if not breaches:
        return clear(f"{number_of(tables.media['message'].n_unique(), 'descriptions')}; "
                     f"{number_of(len(calls), 'calls')} compared line by line, and each answer fits its offer")
    sent = tables.media.select("signalling_source", "call_id").unique()
    examined = Counter(sent["signalling_source"].to_list())
    return found([_occurrence(tables, b, i < DETAILED) for i, b in enumerate(breaches)], population="calls",
                 examined={(host, kind): n for host, n in examined.items() for kind in {b.kind for b in breaches}})


def _occurrence(tables: Tables, b: Breach, detailed: bool) -> Occurrence:
    return Occurrence(
        subject=b.at.call_id or "", group=(b.party, b.kind), title=f"Offer and answer do not fit: {b.kind}",
        summary=f"{b.party}: {b.text}.", severity=b.severity, confidence=b.confidence, absence=b.absence,
        reasons=(f"{b.text} ({b.rule})",),
        evidence=tables.evidence([b.before.packet, b.at.packet], {
            "sip.call_id": b.at.call_id or "", "source.ip": b.party}) if detailed else (),
        scope={"source.ip": b.party}, flows=(b.at.flow,),
        keys=frozenset({f"call:{b.at.call_id}", f"host:{b.party}"}), start_ns=b.before.ts_ns, end_ns=b.at.ts_ns)
