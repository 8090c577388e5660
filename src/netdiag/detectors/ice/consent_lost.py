"""Media stops half a minute after a path broke: the other side no longer answers the checks for consent.

An agent that sends media asks its peer every 4 to 6 s for leave to go on, with a new Binding transaction that is sent
once (RFC 7675 §5.1). After 30 s without a valid response consent has expired, and the agent must stop sending. In the
capture: a pair that had answered, five or more checks without any response, media of the same agent that goes on
after the last response and ends when the 30 s are over, or, with agents that count six checks in their place, by 39 s.
What follows is an ICE restart (new fragments in a new
offer), a BYE, or nothing. What broke the path came half a minute *earlier*: another network under the client, a NAT
that forgot the mapping, a firewall that ended the session, a peer that died.

**What lifts the suspicion.** Five unanswered checks and the stop of the media together are probable. An ICMP error
about the pair, a response that now comes from another address than was asked, or a second capture that shows where
checks or responses get lost make it certain.

**What looks alike and is not it.** After a hang-up (BYE, close_notify of DTLS) nobody answers, and nobody should. A
pair that was given up for a better one is silent while media goes on there. An outage that ends within 30 s leaves
consent alone. Where a TURN permission ran out at that time the relay stopped forwarding (ICE-TURN-FAIL). Checks that
never had an answer never gave consent (ICE-CHECKS-FAIL).
"""

from __future__ import annotations

from collections import defaultdict

import polars as pl

from netdiag.detectors.ice._surroundings import Crossing, Descriptions, Relays
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
    inconclusive,
    not_applicable,
    number_of,
)
from netdiag.tables import Tables
from netdiag.tables.ice import Check
from netdiag.tables.schema import rows

PATTERN = Pattern(
    id="ICE-CONSENT-LOST",
    title="Media stops because consent expired on a broken path",
    severity=Severity.HIGH,
    cases=("webrtc-through-turn",),
    needs=("checks", "stun", "allocations", "turn_peers", "dtls", "ice_descriptions", "calls", "icmp", "quality"),
    references=(Reference("RFC 7675 §5.1"), Reference("RFC 8445 §9")),
    filter="stun.type.method in {0x0001, 0x0006, 0x0007} || stun.channel",
    mitigation="Restart ICE (new offer with new fragments) when checks stay unanswered, before the 30 s are over.",
    fix="Find what broke the path 30 s before the media stopped: NAT and firewall session timers, roaming, the peer.",
    prevention="Keep a relayed candidate warm as a second path; record round-trip time and loss of consent checks.",
    next_capture="Capture at the other agent too, filter `udp`: do the checks arrive there, and are they answered?",
    settings=(Setting("min_checks", 5, "checks", "RFC 7675 §5.1: five to six checks fall into 30 s"),
              Setting("settle", 5, "s", "practice: between expiry and the last packet of a sender's queue")),
)
EXPIRY_NS = 30_000_000_000
"""RFC 7675 §5.1: from the last valid response."""
COUNTED_NS = 39_000_000_000
"""Six checks up to 6 s apart (RFC 7675 §5.1), each given up after an RTO of 0.5 s (RFC 8489 §6.2.1): the latest end for
agents that count checks, as aioice does."""
LAST_ASKED_NS = 20_000_000_000
"""The last check before expiry is sent at least so long after the last response: 30 s less 6 s, and 4 s of slack for
agents that count from their own timers (practice)."""
SECOND = 1_000_000_000
PERMISSION_NS = 300 * SECOND
"""RFC 8656 §9."""
YOUNG = 3
"""Unanswered checks that are worth a word when the capture ends before consent can expire (practice)."""
DETAILED = 200
"""Pairs whose frames are listed; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Pairs with a response, then unanswered checks for 30 s, and media that ends when consent does."""
    valid = tables.checks.filter(pl.col("successes") > 0)
    if not valid.height:
        return not_applicable("no ICE check is answered in this capture")
    settle = int(settings["settle"] * 1e9)
    ends = tables.quality.select("point", end="last_ns")
    silent = valid.filter(pl.col("recovered_ns").is_null() & (
        pl.col("media_sent_last_ns") > pl.col("lapse_ns") + SECOND)).join(ends, on="point", maintain_order="left")
    over = pl.max_horizontal(pl.col("lapse_ns") + EXPIRY_NS, pl.col("media_sent_last_ns")) + settle
    lost = silent.filter(
        (pl.col("lapse_checks") >= settings["min_checks"])
        & (pl.col("lapse_last_ns") - pl.col("lapse_ns") >= LAST_ASKED_NS)
        & (pl.col("media_sent_last_ns") <= pl.col("lapse_ns") + COUNTED_NS + settle)
        & (pl.col("end") >= over))
    context = _Context(tables) if lost.height else None
    every = [c for c in rows(lost, Check) if context and not context.excused(c)]
    if context and every:
        pairs = valid.select("session", host=pl.min_horizontal("local", "remote"), other=pl.max_horizontal(
            "local", "remote")).unique().group_by("host", "other").len()
        examined: dict[tuple[str, ...], int] = {(a, b): n for a, b, n in pairs.iter_rows()}
        return found([context.occurrence(c, i < DETAILED) for i, c in enumerate(every)], population="sessions",
                     examined=examined)
    open_ = silent.filter((pl.col("lapse_checks") >= YOUNG) & (pl.col("end") < over) & (
        pl.col("end") < pl.col("lapse_ns") + COUNTED_NS + 2 * settle))
    if open_.height:
        return inconclusive(f"checks of {number_of(open_.height, 'pairs')} stay unanswered, and the capture ends "
                            "before the media is seen to stop", "Capture until the media stops, or goes on.")
    return clear(f"checks on {number_of(valid.height, 'pairs')} are answered; no media stops 30 s later, after "
                 f"{settings['min_checks']:.0f} or more checks without answer")


class _Context:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._said, self._relays = Descriptions(tables), Relays(tables)
        self._crossing = Crossing(tables)
        self._call_ends = dict(tables.calls.select("call_id", "end_ns").drop_nulls().iter_rows())
        self._closed = dict(tables.dtls.select("path", "closed_ns").drop_nulls().iter_rows())
        self._permitted = dict(tables.turn_peers.filter(pl.col("permitted_ns").list.len() > 0).select(
            "path", pl.col("permitted_ns").list.last()).iter_rows())
        self._sessions: dict[tuple[str, str], list[Check]] = defaultdict(list)
        self._between: dict[tuple[str, str, str], list[Check]] = defaultdict(list)
        for c in rows(tables.checks, Check):
            self._sessions[c.point, c.session].append(c)
            self._between[c.point, c.local, c.remote].append(c)

    def excused(self, c: Check) -> bool:
        """Is there another reason for the silence?"""
        return self._hung_up(c) or self._switched(c) or self._unrelayed(c)

    def _ends(self, c: Check) -> list[int]:
        """When signalling or DTLS said that it is over."""
        ends = [self._call_ends.get(call_id) for call_id in self._said.call_ids(c.session)]
        return [ns for ns in (*ends, self._closed.get(c.path)) if ns is not None]

    def _hung_up(self, c: Check) -> bool:
        return any(ns < (c.lapse_last_ns or 0) - SECOND for ns in self._ends(c))

    def _switched(self, c: Check) -> bool:
        """Did the agent's media go on over another pair of the session?"""
        return any(other.local_ufrag == c.local_ufrag and (other.media_sent_last_ns or 0) > (c.media_sent_last_ns or 0)
                   for other in self._sessions[c.point, c.session])

    def _unrelayed(self, c: Check) -> bool:
        """Did the permission for this peer lapse, so that the relay stopped?"""
        permitted = self._permitted.get(c.path)
        return c.relayed and permitted is not None and permitted + PERMISSION_NS < (c.lapse_last_ns or 0)

    def occurrence(self, c: Check, detailed: bool) -> Occurrence:
        assert c.lapse_ns is not None
        assert c.lapse_last_ns is not None
        assert c.media_sent_last_ns is not None
        lapse = c.lapse_ns
        stopped = (c.media_sent_last_ns - lapse) / 1e9
        reasons = [f"{c.lapse_checks} checks without answer over {(c.lapse_last_ns - lapse) / 1e9:.1f} s",
                   f"media of {c.local}:{c.local_port} ends {stopped:.1f} s after the last response; consent lasts 30 "
                   f"s{', and agents that count six checks go on for up to 39 s' if stopped > 35 else ''}"]
        cited = [c.lapse_packet, *c.lapse_packets[:8], c.media_sent_last_packet, c.media_received_last_packet]
        confidence, absence, clock = Confidence.PROBABLE, True, False
        icmp = self._tables.icmp.filter((pl.col("quoted_flow") == c.flow) & (pl.col("ts_ns") > lapse))
        if icmp.height and not c.relayed:
            confidence, absence = Confidence.CONFIRMED, False
            reasons.append(f"{icmp['source'][0]} reports {icmp['name'][0]} about it")
            cited += icmp["packet"].head(3).to_list()
        mine = ((pl.col("path") == c.path) & (pl.col("client") == c.local) & (pl.col("client_port") == c.local_port)
                & (pl.col("first_ns") > lapse))
        astray = self._tables.stun.filter(mine & pl.col("astray").is_not_null())
        if astray.height:
            confidence, absence = Confidence.CONFIRMED, False
            reasons.append(f"{number_of(astray.height, 'responses')} from {astray['astray'][0]} now: its mapping "
                           "changed")
            lone = self._tables.stun.filter((pl.col("sends") == 0) & pl.col("id").is_in(astray["id"].implode()))
            cited += lone["response_packets"].list.first().head(2).to_list()
        if detailed:
            for other in self._crossing.of(c.point, mine, (lapse, c.lapse_last_ns)):
                confidence, absence, clock = Confidence.CONFIRMED, False, True
                reasons.append(f"none of these checks arrives at {other.point}" if not other.asked else
                               f"{other.asked} of these checks arrive at {other.point}, and {other.answered} are "
                               "answered there")
                cited += other.packets
        if c.heard_last_ns is not None and c.heard_last_ns > lapse + SECOND:
            reasons.append(f"packets of the other side still come {(c.heard_last_ns - lapse) / 1e9:.1f} s after the "
                           "last response")
        unknown: tuple[Alternative, ...] = ()
        if c.relayed and c.path not in self._permitted and confidence is Confidence.PROBABLE:
            confidence = Confidence.SUSPECTED
            unknown = (Alternative("the relay's permission for this peer ran out (ICE-TURN-FAIL)",
                                   "its grants lie before the capture", "nothing here"),)
        reasons += self._reaction(c, lapse)
        facts: dict[str, str | int | float] = {
            "source.ip": c.local, "destination.ip": c.remote, "stun.username": f"{c.remote_ufrag}:{c.local_ufrag}",
            "ice.unanswered": c.lapse_checks, "ice.stopped_after_s": round(stopped, 3)}
        return Occurrence(
            subject=c.session, group=(min(c.local, c.remote), max(c.local, c.remote)),
            summary=f"{self._relays.named(c.local, c.local_port)} stops sending to "
                    f"{self._relays.named(c.remote, c.remote_port)} {stopped:.1f} s after the last answer: "
                    f"{c.lapse_checks} checks for consent got none.",
            confidence=confidence, reasons=tuple(reasons),
            evidence=self._tables.evidence([p for p in cited if p is not None], facts) if detailed else (),
            scope={"source.ip": c.local, "destination.ip": c.remote}, flows=(c.flow,),
            keys=self._said.keys(c.session) | {f"host:{c.local}", f"host:{c.remote}"}, absence=absence, clock=clock,
            start_ns=lapse, end_ns=c.media_sent_last_ns,
            alternatives=(*unknown, Alternative(
                "the other agent died", "it sends nothing any more" if (c.heard_last_ns or 0) <= lapse + SECOND else
                "it answers nothing", "a host that is up would refuse with ICMP, and none is here" if not icmp.height
                else f"{icmp['source'][0]} speaks for its network"),))

    def _reaction(self, c: Check, lapse: int) -> list[str]:
        """What the agents did about it."""
        later = [o.first_ns for o in self._between[c.point, c.local, c.remote]
                 if o.session != c.session and o.first_ns > lapse]
        out = [f"ICE is restarted with new fragments {(min(later) - lapse) / 1e9:.1f} s after it"] if later else []
        return out + [f"the call ends {(ns - lapse) / 1e9:.1f} s after it" for ns in self._ends(c)[:1] if ns > lapse]
