"""Where offer and answer of a call disagree about SRTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from netdiag.detectors.sip._abilities import Abilities, where
from netdiag.model import Confidence
from netdiag.tables import Tables
from netdiag.tables.addresses import endpoint
from netdiag.tables.offer_answer import Body, Exchange, Section
from netdiag.tables.packets import KIND_DTLS
from netdiag.tables.sip import SipMessage
from netdiag.tables.sip_head import head

REFUSED = (415, 488, 606)
_FORMATS = re.compile(r'\b30[45] [^\s"]+ "')
"""Warning of a media type or format (RFC 3261 §20.43), anywhere in a list."""
HELLO_WIDTH, HANDSHAKE, CLIENT_HELLO = 14, 22, 1
"""DTLS record header and first byte of the handshake; content type and message type (RFC 6347 §4.1, §4.2.2)."""
HELLOS = 1 << 16
"""DTLS packets that are looked at (practice)."""
_hellos: WeakKeyDictionary[Tables, dict[tuple[str, int], list[int]]] = WeakKeyDictionary()


class Mismatch(NamedTuple):
    """One call whose sides do not agree."""

    kind: str
    """What the occurrences of one finding have in common; completes its title."""
    text: str
    before: SipMessage
    """The offer."""
    at: SipMessage
    """The refusal or the answer that does not fit."""
    reasons: tuple[str, ...]
    confidence: Confidence = Confidence.CONFIRMED
    packets: tuple[int, ...] = ()
    healed: bool = False
    """The call came about with another profile."""
    goes_on: bool = False
    """The refusal leaves a session as it was (RFC 3261 §14.1)."""

    @property
    def party(self) -> str:
        return self.at.source


def mismatches(tables: Tables, several: list[Exchange], abilities: Abilities) -> Iterator[Mismatch]:
    """All of one call at one capture point; ``several`` are its exchanges."""
    for exchange in several:
        if exchange.offer is None:
            continue
        final = exchange.final
        if final is not None and final.status in REFUSED and not exchange.delayed:
            yield from _refused(tables, exchange.offer, final, several, abilities)
        for answer in exchange.answers:
            for i, (a, b) in enumerate(zip(exchange.offer.description.sections, answer.description.sections,
                                           strict=False), 1):
                if a.line.port and b.line.port and a.line.type == b.line.type:
                    for kind, text, rule in _unlike(a, b):
                        yield Mismatch(kind, text, exchange.offer.message, answer.message,
                                       (f"media line {i}: {text} ({rule})",))
                    yield from _handshake(tables, exchange.offer, answer, a, b)


def _refused(tables: Tables, offer: Body, final: SipMessage, several: list[Exchange],
             abilities: Abilities) -> Iterator[Mismatch]:
    """An offer of one kind alone, refused by somebody who is not known to speak it."""
    if len(offer.profiles) != 1:
        return
    (secure,) = offer.profiles
    warnings = head(tables, final.message).get("warning", [])
    if any(_FORMATS.search(w) for w in warnings):
        return
    later = [e for e in several if e.offer and e.accepted and e.request.ts_ns > final.ts_ns]
    if any(e.offer and kinds(e.offer) & kinds(offer) for e in later):
        return
    theirs = abilities.of(final, offer.message)
    known = frozenset[str]().union(*map(kinds, theirs))
    if known & kinds(offer) or (not secure and not known):
        return
    mine, other = (", ".join(sorted(k)) for k in (kinds(offer), known))
    reasons = [f"{final.status} to an offer of {mine} alone"]
    if warnings:
        reasons.append(f"Warning {warnings[0][:80]}")
    packets = []
    if known:
        reasons.append(f"{where(theirs, final)} {final.source} has {other}")
        packets.append(theirs[0].message.packet)
    if later:
        changed = later[0].offer
        reasons.append(f"the call is accepted with {', '.join(sorted(kinds(changed)))}" if changed else "")
        packets.append(later[0].request.packet)
    confidence = Confidence.CONFIRMED if later else Confidence.PROBABLE
    if offer.message.to_tag and not known:
        confidence = Confidence.SUSPECTED
        reasons.append("what the call had agreed on before is not in the capture")
    yield Mismatch(
        "a change in a running call is refused" if offer.message.to_tag else "the offer is refused",
        f"{final.status} to an offer of {mine} alone" + (f"; it has {other}" if known else ""),
        offer.message, final, tuple(reasons), confidence, tuple(packets), healed=bool(later),
        goes_on=offer.message.to_tag is not None)


def kinds(body: Body) -> frozenset[str]:
    """How the audio of a description is protected."""
    audio = [s for s in body.description.sections if s.line.type == "audio"]
    return frozenset(kind for s in audio for kind in _protection(s)) or frozenset({"no audio"})


def _protection(section: Section) -> list[str]:
    if not section.secure:
        return ["plain RTP"]
    return (["SRTP by SDES"] if section.crypto else []) + (["SRTP by DTLS"] if section.fingerprint else []) or ["SRTP"]


def _unlike(offer: Section, answer: Section) -> Iterator[tuple[str, str, str]]:
    """Kind, text and rule of what an accepted line breaks."""
    if offer.secure != answer.secure:
        yield ("the answer has another profile", f"{offer.line.protocol} is answered with {answer.line.protocol}",
               "RFC 3264 §6")
        return
    if not offer.secure:
        return
    keyed = bool(answer.crypto or answer.fingerprint)
    if not keyed and (offer.crypto or offer.fingerprint):
        how = " or ".join(n for n, there in (("a=crypto", offer.crypto), ("a=fingerprint", offer.fingerprint)) if there)
        yield "the answer has no key", f"the offer has {how}, the answer has none", "RFC 4568 §5.1.2, RFC 5763 §5"
    elif keyed and (offer.crypto or offer.fingerprint) and not (
            (answer.crypto and offer.crypto) or (answer.fingerprint and offer.fingerprint)):
        names = [_protection(s)[0] for s in (offer, answer)]
        yield "the answer has keys of another kind", f"{names[0]} is answered with {names[1]}", "RFC 5763 §5"
    elif answer.crypto and offer.crypto and not (answer.fingerprint and offer.fingerprint):
        taken = answer.crypto[0]
        if not any(c.tag == taken.tag and c.suite.upper() == taken.suite.upper() for c in offer.crypto):
            offered = ", ".join(f"{c.tag} {c.suite}" for c in offer.crypto[:6])
            yield ("the answer takes a suite that was not offered",
                   f"offered are {offered}; answered is {taken.tag} {taken.suite}", "RFC 4568 §5.1.2")
    if answer.fingerprint and offer.fingerprint:
        if answer.setup == "actpass":
            yield "the answer leaves the DTLS role open", "a=setup:actpass in the answer", "RFC 5763 §5"
        elif offer.setup == answer.setup and answer.setup in ("active", "passive"):
            yield ("both sides take the same DTLS role", f"a=setup:{offer.setup} is answered with a=setup:"
                   f"{answer.setup}", "RFC 4145 §4.1")


def _handshake(tables: Tables, offer: Body, answer: Body, a: Section, b: Section) -> Iterator[Mismatch]:
    """A DTLS ClientHello to a port of a line that SDES was agreed for."""
    if not (a.secure and b.secure and a.crypto and b.crypto) or (a.fingerprint and b.fingerprint):
        return
    hellos = _client_hellos(tables)
    for side in (a, b):
        rows = hellos.get((side.line.address or "", side.line.port), [])
        rows = [r for r in rows if tables.packets.ts[r] >= offer.message.ts_ns]
        if rows:
            place = endpoint(side.line.address or "", side.line.port)
            text = f"{tables.packets.source(rows[0])} begins DTLS to {place}"
            yield Mismatch("DTLS begins where SDES was agreed", f"{text}, though SDES keys were exchanged",
                           offer.message, answer.message, (f"{text}, which agreed to keys by SDES",),
                           packets=tuple(rows[:3]))


def _client_hellos(tables: Tables) -> dict[tuple[str, int], list[int]]:
    """Destination address and port to the packets with a DTLS ClientHello."""
    if tables not in _hellos:
        p = tables.packets
        rows = np.flatnonzero(p.kind == KIND_DTLS)[:HELLOS]
        first = p.head(rows, HELLO_WIDTH)
        out: dict[tuple[str, int], list[int]] = {}
        for row in rows[(first[:, 0] == HANDSHAKE) & (first[:, 13] == CLIENT_HELLO)].tolist():
            out.setdefault((p.destination(row), int(p.dport[row])), []).append(row)
        _hellos[tables] = out
    return _hellos[tables]
