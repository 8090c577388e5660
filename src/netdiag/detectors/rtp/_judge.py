"""Judges one leg of a call: which side is not reached, since when, and what shows it."""

from __future__ import annotations

from typing import NamedTuple

from netdiag.detectors.rtp._legs import SIDES, Leg, Legs, other
from netdiag.detectors.rtp._reception import SETTLED_NS, Fact, Reception
from netdiag.tables import Tables
from netdiag.tables.rtp import RtpStream

PAUSE_MS = 1_000
"""A stream with longer pauses suppresses silence; that it ends means nothing (practice)."""


class Deaf(NamedTuple):
    """One side of one leg that is not reached."""

    leg: Leg
    side: str
    since_ns: int
    heard: tuple[RtpStream, ...]
    """What the deaf side sends and the other side gets."""
    astray: tuple[RtpStream, ...]
    """What is sent to it and does not arrive."""
    last: tuple[RtpStream, ...]
    """What reached it until the audio stopped."""
    facts: tuple[Fact, ...]
    packets: int
    """Of ``heard``, in the window that begins at ``counted_ns``."""
    counted_ns: int


class Judge:
    def __init__(self, tables: Tables, settings: dict[str, float], calls: list[int]) -> None:
        self.legs = Legs(tables, calls)
        self._reception = Reception(tables, calls)
        """``calls`` are rows of ``Tables.calls``; ``settings`` those of RTP-ONEWAY."""
        self._window = int(settings["window"] * 1e9)
        self._least = settings["min_packets"]

    def deaf(self, leg: Leg) -> list[Deaf]:
        """Sides of the leg that get nothing for the length of the window while the other side is heard."""
        start = leg.begin_ns + SETTLED_NS
        if not leg.talking or leg.end_ns - start < self._window:
            return []
        toward = self.legs.toward(leg)
        out = []
        for side in SIDES:
            result = self._side(leg, side, toward, start)
            if result:
                out.append(result)
        return out

    def _side(self, leg: Leg, side: str, toward: dict[str, list[RtpStream]], start: int) -> Deaf | None:
        own, r = toward[other(side)], self._reception
        places = {(s.source, s.source_port) for s in own}
        astray: dict[int, Fact] = {}
        for s in toward[side]:
            fact = r.refused(s, start, leg.end_ns - 1_000_000_000)
            if not fact and places and (s.destination, s.destination_port) not in places:
                fact = r.hears_nothing(own, start, leg.end_ns) or r.lost_before(s, own)
            if fact:
                astray[s.stream] = fact
        arriving = [s for s in toward[side] if s.stream not in astray]
        last = self.legs.last(arriving, leg.end_ns)
        since = start if last is None or last < start else last + 1
        if leg.end_ns - since < self._window:
            return None
        packets = self.legs.count(own, since, since + self._window)
        if packets < self._least or _suppresses(arriving, since > start):
            return None
        if not arriving and r.hears_something(own, start, leg.end_ns):
            return None
        facts = list(astray.values())
        claim = r.claims(own, since, leg.end_ns)
        if claim and not astray:
            arrived = self.legs.count(arriving, leg.call.invite_ns, leg.end_ns)
            if claim[0] < arrived + self._least:
                return None  # its own RTCP counts no packets that are missing here: it is muted
            facts.append(claim[1])
        for fact in (r.hears_nothing(own, start, leg.end_ns) if not arriving else None,
                     r.lost_after(leg.call.call_id, other(side), leg.call.point, own, self._least),
                     next((f for s in toward[side] if s.stream in astray and (f := r.lost_before(s, own))), None)):
            if fact and fact not in facts:
                facts.append(fact)
        return Deaf(leg, side, since if since > start else leg.begin_ns, tuple(own),
                     tuple(s for s in toward[side] if s.stream in astray), tuple(arriving), tuple(facts), packets,
                    since)


def _suppresses(arriving: list[RtpStream], stopped: bool) -> bool:
    """Does the sender save packets in silence (comfort noise, or pauses before the stream ends)?"""
    return any(13 in s.payload_types or (stopped and s.max_delta_ms >= PAUSE_MS) for s in arriving)
