"""Offer and answer do not agree whether, or how, the media are encrypted.

Encryption is a matter of the profile in the media line: RTP/AVP is plain, RTP/SAVP is SRTP, and a profile cannot be
answered with another (RFC 3264 §6, RFC 4568 §5.1.2). The keys come from a=crypto (SDES), where the answer takes one
suite of the offer under its tag (RFC 4568 §5.1.2, §6.1), or from a DTLS handshake with the certificate of
a=fingerprint, where a=setup says who begins it: the offer leaves that open with actpass, the answer decides (RFC 5763
§5, RFC 4145 §4.1). A side that must encrypt and one that cannot leave a 488; a device that writes the wrong answer
leaves a call that is silent.

**What lifts the suspicion.** An offer of one kind alone is refused (probable; suspected in a running call whose
beginning was not captured). The same call is accepted with another
profile, the answer breaks one of these rules, or a DTLS handshake arrives where SDES was agreed (confirmed).

**What looks alike and is not it.** Two lines of which one is refused with port 0: the choice between SRTP and RTP that
many devices offer. RTP/AVP with a=crypto that is answered with RTP/AVP (RFC 8643). An offer refused with Warning 304
or 305, or by somebody who speaks the same kind of encryption in other calls or earlier in this one, was refused for
its codecs (SIP-CODEC-488) or for another reason; a refused re-INVITE leaves the session as it was (RFC 3261 §14.1).
Keys in signalling that is not encrypted itself are a risk and not this fault. Keys by MIKEY or ZRTP are not judged.
"""

from __future__ import annotations

from collections import Counter

import polars as pl

from netdiag.detectors.sip._abilities import Abilities
from netdiag.detectors.sip._keys import Mismatch, mismatches
from netdiag.model import (
    Confidence,
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
    id="SIP-SRTP-OFFER",
    title="No agreement on media encryption",
    severity=Severity.HIGH,
    cases=("srtp-keys-disagree",),
    needs=("media", "sip", "calls", "transactions", "packets"),
    references=(Reference("RFC 3264 §6"), Reference("RFC 4568 §5.1.2, §6.1"), Reference("RFC 5763 §5"),
                Reference("RFC 4145 §4.1"), Reference("RFC 8643")),
    filter="sdp.media.proto contains \"SAVP\" || sip.Status-Code == 488 || sip.Status-Code == 606 || "
           "dtls.handshake.type == 1",
    mitigation="Set the profile of this trunk or device to what the other side takes: SRTP by SDES, by DTLS, or none.",
    fix="Agree on one profile for each kind of peer, and let a media relay translate between them.",
    prevention="Check the encryption profile when a device or trunk is provisioned.",
    next_capture="Where signalling is under TLS, capture with the keys of the session, or behind the border element.",
    explains=("ICE-DTLS-STALL",),
)

PER_PAIR = 100
"""Calls with SRTP on both sides that are read for each caller and callee (practice): devices err every time."""
DETAILED = 200
"""Calls whose frames are listed; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Exchanges with SRTP on at least one side that were refused, or whose answers do not fit."""
    media = tables.media
    secure = [p for p in media["protocol"].unique().to_list() if "/SAVP" in f"/{p.upper()}"]
    if not secure:
        return not_applicable("no SRTP is offered or answered in this capture")
    some = media.filter(pl.col("protocol").is_in(secure))
    plain = media.filter(~pl.col("protocol").is_in(secure) & (pl.col("type") == "audio"))
    calls = tables.calls.select("call", "caller", "callee", "call_id")
    refused = tables.transactions.select("status", "call_id", "server").filter(pl.col("status").is_in([415, 488, 606]))
    certain = set(plain["call"]) & set(some["call"]) | set(
        calls.filter(pl.col("call_id").is_in(refused["call_id"].unique().implode()))["call"])
    rest = calls.filter(pl.col("call").is_in(some["call"].unique().implode())).group_by(
        "caller", "callee", maintain_order=True).head(PER_PAIR)
    chosen = sorted(certain | set(rest["call"]))
    abilities = Abilities(tables, refused["server"].unique())
    faults: list[Mismatch] = []
    for several in exchanges(tables, chosen).values():
        found_ = mismatches(tables, several, abilities)
        faults += {(m.party, m.kind): m for m in reversed(list(found_))}.values()
    total = some["call"].n_unique()
    if not faults:
        return clear(f"{number_of(total, 'calls')} with SRTP in their SDP; {len(chosen)} of them read, all agree on "
                     "profile, keys and roles or were refused for another reason")
    examined = Counter(media.select("signalling_source", "call_id").unique()["signalling_source"].to_list())
    return found([_occurrence(tables, m, i < DETAILED) for i, m in enumerate(faults)], population="calls",
                 examined={(host, kind): n for host, n in examined.items() for kind in {m.kind for m in faults}})


def _occurrence(tables: Tables, m: Mismatch, detailed: bool) -> Occurrence:
    return Occurrence(
        subject=m.at.call_id or "", group=(m.party, m.kind), title=f"No agreement on media encryption: {m.kind}",
        summary=f"{m.party}: {m.text}.", confidence=m.confidence,
        severity=Severity.LOW if m.healed else Severity.MEDIUM if m.goes_on else None, reasons=m.reasons,
        evidence=tables.evidence([m.before.packet, m.at.packet, *m.packets], {
            "sip.call_id": m.at.call_id or "", "source.ip": m.party}) if detailed else (),
        scope={"source.ip": m.before.source, "destination.ip": m.party}, flows=(m.at.flow,),
        keys=frozenset({f"call:{m.at.call_id}", f"host:{m.party}"}), start_ns=m.before.ts_ns, end_ns=m.at.ts_ns,
        limitations=() if m.confidence == Confidence.CONFIRMED else (
            "the refusal does not say why; its maker's log would",))
