"""Offers and what answered them (RFC 3264, RFC 6337 §2), whole and hop by hop, for chosen calls.

Most calls need no closer look than ``Tables.media`` allows; of the others the bodies are read again, whole, and put
together hop by hop: an element in the path may change them (a media relay, a gateway to SRTP), and then answers
differently to each side.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from netdiag.decode import sdp_sections
from netdiag.tables.schema import rows
from netdiag.tables.sip import SipMessage

if TYPE_CHECKING:
    from netdiag.tables import Tables

BODY_LIMIT = 65535
"""Bytes of a body that are read: what UDP could carry (RFC 768)."""
PER_CALL = 1024
"""Messages of a call that are looked at (practice): real calls have tens."""
Section = sdp_sections.Section
_METHODS = ("INVITE", "ACK", "UPDATE", "PRACK")
"""Methods whose transactions carry offers and answers (RFC 6337 §2.1)."""


class Body(NamedTuple):
    """A session description and the message that carries it, at its first sending."""

    message: SipMessage
    description: sdp_sections.Description

    @property
    def voices(self) -> frozenset[str]:
        """Comparable codecs of its audio lines."""
        return frozenset[str]().union(*(s.voices() for s in self.description.sections if s.line.type == "audio"))

    @property
    def profiles(self) -> frozenset[bool]:
        """Is SRTP (True), is plain RTP (False) described by its audio lines?"""
        return frozenset(s.secure for s in self.description.sections if s.line.type == "audio")


@dataclass(slots=True)
class Exchange:
    """One request that offers, or asks for an offer, on one hop at one capture point."""

    call: int
    request: SipMessage
    offer: Body | None = None
    """In the request, or in its first response with SDP (delayed offer); None when neither has one."""
    answers: list[Body] = field(default_factory=list)
    """In order, from all branches of a fork: those of 1xx and 2xx responses, or those of the ACK or PRACK."""
    refused: list[Body] = field(default_factory=list)
    """Bodies of final responses beyond 2xx: what the refusing side could do (RFC 3261 §21.4.26)."""
    responses: list[SipMessage] = field(default_factory=list)
    """Responses to the request on this hop, first sendings."""
    acknowledged: list[SipMessage] = field(default_factory=list)
    """ACKs and PRACKs that came back on this hop, for a delayed offer."""

    @property
    def delayed(self) -> bool:
        return self.offer is not None and self.offer.message.method is None

    @property
    def final(self) -> SipMessage | None:
        """The first final response."""
        return next((m for m in self.responses if (m.status or 0) >= 200), None)

    @property
    def accepted(self) -> bool:
        """Answered with 2xx, and not with port 0 in every media line of an offer that had others."""
        return any(200 <= (m.status or 0) < 300 for m in self.responses) and not self.without_media

    @property
    def without_media(self) -> bool:
        """Media were offered, and the answer refuses each line with port 0 (RFC 3264 §6)."""
        if self.offer is None or not self.answers or not any(s.line.port for s in self.offer.description.sections):
            return False
        last = self.answers[-1].description
        return last.whole and bool(last.sections) and not any(s.line.port for s in last.sections)


def exchanges(tables: Tables, calls: Iterable[int]) -> dict[int, list[Exchange]]:
    """For each of these calls (rows of ``Tables.calls``) its exchanges, in the order of their requests.

    Responses and ACKs whose request was not captured give none. Costs some 0.1 ms a call.
    """
    chosen = tables.calls.select("call", "messages").filter(pl.col("call").is_in(list(calls)))
    wanted = chosen.with_columns(pl.col("messages").list.head(PER_CALL)).explode("messages")
    sip = tables.sip[wanted["messages"]].with_columns(call=wanted["call"]).filter(
        pl.col("cseq_method").is_in(_METHODS) & ~pl.col("retransmission"))
    out: dict[int, list[Exchange]] = {call: [] for call in chosen["call"].to_list()}
    builders = {call: _Call(tables, call, found) for call, found in out.items()}
    for call, message in zip(sip["call"].to_list(), rows(sip, SipMessage), strict=True):
        builders[call].add(message)
    return out


class _Call:
    def __init__(self, tables: Tables, call: int, found: list[Exchange]) -> None:
        self._space, self._call, self._found = tables.packets.space, call, found
        self._open: dict[tuple[int | None, str | None, str | None], Exchange] = {}

    def add(self, m: SipMessage) -> None:
        if m.method is None:
            exchange = self._open.get((m.cseq, m.cseq_method, m.branch))
            if exchange is not None:
                self._respond(exchange, m)
            return
        asking = self._asking(m) if m.method in ("ACK", "PRACK") else None
        if asking is not None:
            self._acknowledge(asking, m)
        if m.method == "ACK":
            return
        exchange = Exchange(self._call, m)
        # The answer of a PRACK to a delayed offer is no offer of its own.
        if m.sdp_offset is not None and asking is None:
            exchange.offer = self._body(m)
        self._found.append(exchange)
        self._open.setdefault((m.cseq, m.method, m.branch), exchange)

    def _respond(self, exchange: Exchange, m: SipMessage) -> None:
        exchange.responses.append(m)
        if m.sdp_offset is None or m.status is None:
            return
        body = self._body(m)
        if m.status >= 300:
            exchange.refused.append(body)
        elif exchange.offer is None:
            if m.cseq_method != "PRACK":
                exchange.offer = body
        elif not exchange.delayed:
            exchange.answers.append(body)

    def _asking(self, m: SipMessage) -> Exchange | None:
        """The exchange with a delayed offer that an ACK or PRACK on the same hop belongs to."""
        for exchange in reversed(self._found):
            r = exchange.request
            if (exchange.delayed and r.method == "INVITE" and (r.source, r.destination) == (m.source, m.destination)
                    and r.from_tag == m.from_tag and (m.method == "PRACK" or r.cseq == m.cseq)):
                return exchange
        return None

    def _acknowledge(self, exchange: Exchange, m: SipMessage) -> None:
        if exchange.offer is not None and exchange.offer.message.to_tag == m.to_tag:
            exchange.acknowledged.append(m)
            if m.sdp_offset is not None and not (m.method == "PRACK" and exchange.answers):
                exchange.answers.append(self._body(m))

    def _body(self, m: SipMessage) -> Body:
        offset = m.sdp_offset or 0
        raw = self._space.read(m.raw_offset + offset, min(m.raw_length - offset, BODY_LIMIT))
        return Body(m, sdp_sections.parse(raw))
