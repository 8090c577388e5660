"""Rules of offer and answer that the exchanges of one call break."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from netdiag.model import Confidence, Severity, number_of
from netdiag.tables import Tables
from netdiag.tables.addresses import endpoint
from netdiag.tables.offer_answer import Body, Exchange
from netdiag.tables.sip import SipMessage
from netdiag.tables.sip_head import has_option, head

DYNAMIC = range(96, 128)
"""Payload types without a meaning of their own (RFC 3551 §3)."""
SETTLED_NS = 1_000_000_000
"""Senders may take this long to follow a new description (practice)."""


class Breach(NamedTuple):
    """One broken rule."""

    kind: str
    """What the occurrences of one finding have in common; completes its title."""
    text: str
    before: SipMessage
    """What it has to fit."""
    at: SipMessage
    """The message that breaks the rule."""
    rule: str
    severity: Severity = Severity.HIGH
    confidence: Confidence = Confidence.CONFIRMED
    absence: bool = False

    @property
    def party(self) -> str:
        return self.at.source


def breaches_of(tables: Tables, several: list[Exchange]) -> Iterator[Breach]:
    """All breaches of one call at one capture point; ``several`` are its exchanges."""
    for exchange in several:
        if exchange.offer is not None:
            for answer in exchange.answers:
                yield from _unfitting(exchange.offer, answer)
            yield from _missing(tables, exchange, exchange.offer)
            yield from _differing(tables, exchange, several)
    yield from _changes(tables, several)


def _unfitting(offer: Body, answer: Body) -> Iterator[Breach]:
    """An answer that does not fit its offer line by line."""
    asked, said = offer.description, answer.description
    if not (asked.whole and said.whole) or offer.message.cut or answer.message.cut:
        return
    if len(asked.sections) != len(said.sections):
        yield Breach("the answer has another number of media lines", f"{number_of(len(asked.sections), 'media lines')} "
                     f"offered, {len(said.sections)} answered", offer.message, answer.message, "RFC 3264 §6")
        return
    for i, (a, b) in enumerate(zip(asked.sections, said.sections, strict=True), 1):
        if not a.line.port or not b.line.port:
            continue
        if a.line.type != b.line.type:
            yield Breach("the answer has its media lines in another order", f"line {i} is {a.line.type} in the offer "
                         f"and {b.line.type} in the answer", offer.message, answer.message, "RFC 3264 §6")
            continue
        mine, theirs = (frozenset(s.mapping().values()) for s in (a, b))
        known = all(s.formats and len(s.mapping()) == len(s.formats) for s in (a, b))
        if known and mine.isdisjoint(theirs):
            yield Breach("an accepted line has no codec of the offer", f"line {i} offers {', '.join(sorted(mine))}, "
                         f"the answer has {', '.join(sorted(theirs))}", offer.message, answer.message,
                         "RFC 3264 §6.1")


def _missing(tables: Tables, exchange: Exchange, offer: Body) -> Iterator[Breach]:
    """No answer where it is due at the latest."""
    if exchange.delayed:
        due = [m for m in exchange.acknowledged if m.method == "ACK"] if (offer.message.status or 0) >= 200 else []
        kind, text = "the ACK lacks the answer", f"the {offer.message.status} offers, and the ACK has no SDP"
        answered = False
    else:
        due = [m for m in exchange.responses if 200 <= (m.status or 0) < 300 and exchange.request.method == "INVITE"]
        kind, text = "the 2xx lacks the answer", "the INVITE offers; neither the 2xx nor a response before it has SDP"
        answered = any(a.message.to_tag == m.to_tag for a in exchange.answers for m in due)
    for m in due if not answered else ():
        if m.sdp_offset is None and not m.cut and "content-type" not in head(tables, m.message):
            yield Breach(kind, text, offer.message, m, "RFC 3261 §13.2.1", absence=True)


def _differing(tables: Tables, exchange: Exchange, several: list[Exchange]) -> Iterator[Breach]:
    """A second answer of the same branch that says something else than the first."""
    first: dict[str | None, Body] = {}
    for answer in exchange.answers if not exchange.delayed else ():
        known = first.setdefault(answer.message.to_tag, answer)
        before, now = known.message, answer.message
        renewed = any(before.ts_ns < e.request.ts_ns < now.ts_ns for e in several if e.offer)
        if renewed or _media(known) == _media(answer):
            continue
        text = f"the {before.status} answers {_place(known)}, the {now.status} with the same To tag {_place(answer)}"
        reliable = (before.status or 0) >= 200 or has_option(
            head(tables, before.message).get("require", []), "100rel")
        if reliable:
            yield Breach("a second answer differs from the first", text, before, now, "RFC 6337 §2.1")
        elif _stays(tables, known, answer):
            yield Breach("a second answer differs from the first", f"{text}; the audio keeps going to the first",
                         before, now, "RFC 6337 §3.1.1", confidence=Confidence.PROBABLE)


def _stays(tables: Tables, first: Body, second: Body) -> bool:
    """Does audio go to the address of the first answer after the second, and none to that of the second?"""
    streams = tables.rtp.filter((pl.col("point") == second.message.point)
                                & (pl.col("last_ns") > second.message.ts_ns + SETTLED_NS))
    aims = set(streams.select("destination", "destination_port").iter_rows())
    old, new = ({(s.line.address, s.line.port) for s in b.description.sections if s.line.port} for b in (first, second))
    return bool(aims & (old - new)) and not aims & new


def _changes(tables: Tables, several: list[Exchange]) -> Iterator[Breach]:
    """What one side says later, against what it said before, on the same hop; refused offers do not count."""
    bodies = [(b, e) for e in several if e.answers for b in (e.offer, *e.answers) if b is not None]
    last: dict[tuple[str | None, ...], Body] = {}
    codecs: dict[tuple[object, ...], str] = {}
    ended: Counter[tuple[object, ...]] = Counter()
    for body, exchange in sorted(bodies, key=lambda pair: pair[0].message.message):
        m, said = body.message, body.description
        side = m.source, m.destination, m.from_tag if m.method else m.to_tag, said.identity
        before = last.get(side)
        last[side] = body
        for i, section in enumerate(said.sections):
            ended[side, i] += not section.line.port  # the line may come back as another stream (RFC 3264 §8.1)
            for number, codec in section.mapping().items() if section.line.port else ():
                old = codecs.setdefault((side, i, ended[side, i], number), codec)
                if number in DYNAMIC and before is not None and old != codec:
                    yield Breach("a payload type changes its codec", f"payload type {number} is {old} first, {codec} "
                                 "later", before.message, m, "RFC 3264 §8.3.2", Severity.MEDIUM)
        if before is None or body is not exchange.offer or None in (said.version, before.description.version):
            continue
        if (said.version or 0) <= (before.description.version or 0) and _media(before) != _media(body):
            ignored = _stays(tables, before, body)
            yield Breach("a changed description without a higher version", f"o= goes from version "
                         f"{before.description.version} to {said.version}, and the media from {_place(before)} to "
                         f"{_place(body)}" + ("; audio keeps going to the first" if ignored else ""), before.message,
                         m, "RFC 3264 §8", Severity.HIGH if ignored else Severity.MEDIUM)


def _media(body: Body) -> list[tuple[object, ...]]:
    """All of a description that another exchange may change."""
    return [(s.line.type, s.line.address, s.line.port, s.line.protocol.upper(), s.formats, s.mapping(),
             s.line.direction, [c.suite for c in s.crypto]) for s in body.description.sections]


def _place(body: Body) -> str:
    lines = [s.line for s in body.description.sections]
    return ", ".join(f"{x.type} {endpoint(x.address or '', x.port)} {x.direction}" for x in lines[:4]) or "no media"
