"""Keys of SRTP streams as signalling tells them (SDES, RFC 4568), and how long each is in force.

Each side says in its own description which key its packets have (RFC 4568 §6.1): the offer in some a=crypto lines, of
which the answer takes one by its tag. What a receiver can check is the key that *it* was told. A proxy shows a
description once on each hop; where both name the receiver, the copy nearest to it counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from netdiag.decode import srtp
from netdiag.tables.offer_answer import Body, Exchange, Section, exchanges

if TYPE_CHECKING:
    from netdiag.tables import Tables

GRACE_NS = 2_000_000_000
"""Around a change of keys both are in force (practice: packets and signalling take different paths)."""
POOL = 2000
"""Keys of all calls that are remembered to find out which one a sender uses (practice)."""
PER_CALL = 32
"""Keys of one sender of one call that are read (practice)."""
ALWAYS = 1 << 62
Endpoint = tuple[str, int]
NO_KEY = srtp.Line("", "", (), "no key in the signalling")
BY_DTLS = srtp.Line("", "", (), "keys by DTLS without a key log of it")


class Told(NamedTuple):
    """What one message says about the packets of one sender."""

    ns: int
    """When the answer was captured that makes it hold."""
    packet: int
    """Packet row of the message with the key."""
    line: srtp.Line
    sender: str
    """"caller" or "callee"."""
    offered: bool
    """The key stands in the offer."""
    hop: int
    """Number of the exchange among those of its call."""
    change: tuple[object, ...]
    """The same for all hops of one offer."""
    lane: frozenset[Endpoint]
    """The two ends of the signalling hop."""
    source: Endpoint
    """Where the sender itself wants to receive, often where it sends from (RFC 4961)."""
    target: Endpoint
    """Where its packets have to go."""


class Candidate(NamedTuple):
    """A key that packets may have, and when it is in force."""

    key: srtp.Key
    packet: int
    """Packet row of the message, or of the handshake, that it comes from."""
    suite: str
    begin_ns: int
    end_ns: int
    relation: str = "agreed"
    """Other than "agreed": a key that nobody told this receiver, see ``SrtpStretch.relation``."""


@dataclass(slots=True)
class CallKeys:
    """All keys of one call."""

    point: str = ""
    call_id: str | None = None
    told: list[Told] = field(default_factory=list)
    lines: list[tuple[srtp.Line, int, str]] = field(default_factory=list)
    """Every a=crypto line with the packet row of its message and the side that says it, whether it was taken or not."""


def read(tables: Tables, calls: Iterable[int]) -> dict[int, CallKeys]:
    """Keys of these calls. Costs some 0.2 ms a call."""
    calls = list(calls)
    chosen = tables.calls.filter(pl.col("call").is_in(calls))
    tags = dict(chosen.select("call", "from_tag").iter_rows())
    names = {call: (point, name) for call, point, name in chosen.select("call", "point", "call_id").iter_rows()}
    out = {}
    for call, found in exchanges(tables, calls).items():
        keys = CallKeys(*names[call])
        seen: set[tuple[str, str, str, str]] = set()
        for number, exchange in enumerate(found):
            if exchange.offer is None:
                continue
            by_caller = (exchange.request.from_tag == tags[call]) is not exchange.delayed
            side, other = ("caller", "callee") if by_caller else ("callee", "caller")
            keys.told += islice(_agreed(exchange, exchange.offer, number, side, other), PER_CALL)
            for body, who in ((exchange.offer, side), *((answer, other) for answer in exchange.answers)):
                for crypto in (c for s in body.description.sections for c in s.crypto):
                    if (who, *crypto) not in seen and len(seen) < PER_CALL:
                        seen.add((who, *crypto))
                        keys.lines.append((srtp.crypto(*crypto), body.message.packet, who))
        out[call] = keys
    return out


def _agreed(exchange: Exchange, offer: Body, number: int, side: str, other: str) -> Iterator[Told]:
    """What holds in both directions of each accepted media line, answer by answer."""
    lane = frozenset(((exchange.request.source, exchange.request.source_port),
                      (exchange.request.destination, exchange.request.destination_port)))
    for answer in exchange.answers:
        for a, b in zip(offer.description.sections, answer.description.sections, strict=False):
            if not (a.line.port and b.line.port) or not (a.secure or b.secure or b.crypto):
                continue
            mine, theirs = _pair(a, b)
            ends = ((a.line.address or "", a.line.port), (b.line.address or "", b.line.port))
            change = (exchange.request.cseq, exchange.request.from_tag, exchange.request.method)
            ns = answer.message.ts_ns
            yield Told(ns, offer.message.packet, mine, side, True, number, change, lane, *ends)
            yield Told(ns, answer.message.packet, theirs, other, False, number, change, lane, ends[1], ends[0])


def _pair(offer: Section, answer: Section) -> tuple[srtp.Line, srtp.Line]:
    """The a=crypto line of the offer that the answer takes by its tag, and that of the answer (RFC 4568 §5.1.2)."""
    if offer.fingerprint and answer.fingerprint:
        return BY_DTLS, BY_DTLS
    if not answer.crypto:
        return NO_KEY, NO_KEY
    taken = answer.crypto[0]
    mine = next((c for c in offer.crypto if c.tag == taken.tag), None)
    return NO_KEY if mine is None else srtp.crypto(*mine), srtp.crypto(*taken)


def chosen(keys: CallKeys, sender: str, source: Endpoint, target: Endpoint) -> list[list[Told]]:
    """What the receiver of a stream was told: one list in order of time, or one for each hop where none names it."""
    mine = [t for t in keys.told if t.sender == sender]
    exact = [t for t in mine if t.target == target]
    exact = [t for t in exact if t.source == source] or [t for t in exact if t.source[0] == source[0]] or exact
    if not exact:
        return [[t for t in mine if t.lane == lane] for lane in dict.fromkeys(t.lane for t in mine)]
    hops: dict[tuple[object, ...], list[int]] = {}
    for t in exact:
        hops.setdefault(t.change, []).append(t.hop)
    # Offers run towards the answering side: their last copy is nearest to it, of answers it is the first.
    return [[t for t in exact if t.hop == (max if t.offered else min)(hops[t.change])]]


def candidates(lanes: list[list[Told]], midstream: bool) -> tuple[list[Candidate], str]:
    """Keys with the time that they are in force, and why some time has none, in our words.

    The first key holds from the beginning, as media may overtake the answer; in a call whose beginning was not
    captured only when the key before it, which nobody saw, is over.
    """
    out: list[Candidate] = []
    unknown = ""
    for lane in lanes:
        line = sorted(lane, key=lambda t: t.ns)
        changes = [t for i, t in enumerate(line) if i == 0 or t.line.keys != line[i - 1].line.keys]
        for i, t in enumerate(changes):
            begin = t.ns - GRACE_NS if i else t.ns + GRACE_NS if midstream else -ALWAYS
            end = changes[i + 1].ns + GRACE_NS if i + 1 < len(changes) else ALWAYS
            unknown = unknown or t.line.unknown
            out += [Candidate(key, t.packet, t.line.suite, begin, end) for key in t.line.keys]
    return out, unknown


def strangers(keys: dict[int, CallKeys], call: int, sender: str, target: Endpoint,
              agreed: list[Candidate]) -> Iterator[Candidate]:
    """Keys that this receiver was not told in this call, the nearest first.

    Other shapes of its own, then those of the call, then of other calls. What another call agreed on for the very same
    ``target`` is in force too: one call may take the media of another over (RFC 3891).
    """
    known = {c.key for c in agreed}

    def candidate(key: srtp.Key, packet: int, suite: str, relation: str) -> Iterator[Candidate]:
        if key not in known:
            known.add(key)
            ever = ALWAYS if relation == "agreed" else -ALWAYS
            yield Candidate(key, packet, suite, -ever, ever, relation)

    for c in list(agreed):
        if not c.key.suite.gcm:
            for tag in (10, 4):
                yield from candidate(c.key.shaped(tag, c.key.mki), c.packet, c.suite, "tag length")
        if c.key.mki:
            yield from candidate(c.key.shaped(c.key.suite.tag, b""), c.packet, c.suite, "key identifier")
    own = keys.get(call, CallKeys())
    for other, found in keys.items():
        if other != call and found.point == own.point and found.call_id != own.call_id:
            for told in found.told:
                for key in told.line.keys if told.target == target else ():
                    yield from candidate(key, told.packet, told.line.suite, "agreed")
    for line, packet, side in own.lines:
        for key in line.keys:
            yield from candidate(key, packet, line.suite, "same call" if side == sender else "other side")
    rest = ((line, packet) for other, found in keys.items() if other != call for line, packet, _ in found.lines)
    for line, packet in islice(rest, POOL):
        for key in line.keys:
            yield from candidate(key, packet, line.suite, "other call")
