"""An answered call has audio in one direction only, or in none.

Both sides agreed to send and receive (`sendrecv`, RFC 3264 §5.1), three seconds later one of them is heard, at 50
packets or more in five seconds, and not one packet goes to the side that it talks to. Packets are counted for each
receiver: to the address in its SDP, or to the one that it sends from. RTP to *another* place does not count when the
receiver's RTCP says that nothing arrives, when ICMP refuses it, or when a second capture point does not see it. Each
leg of a relayed call, and each stretch between two changes of its SDP, is judged by itself, so that an onset in the
middle of a call has its time. Silence that a relay passes on from one leg to the next is told once, where it begins.

**What lifts the suspicion.** Other calls of the same hosts that are heard both ways at this point: the capture would
have shown the missing direction (probable). RTCP of the deaf side without a reception block, RTCP of the silent side
that counts packets nobody sees (RFC 3550 §6.4), an ICMP error about the packets, or a second point where the missing
stream is sent (confirmed). `none`, silence both ways, is said only where nearly all other calls of one of the two
hosts have audio at this very point.

**What looks alike and is not it.** Hold and announcements (`sendonly`, `recvonly`, `inactive`, `c=0.0.0.0`), also by
a later re-INVITE. Media before the answer. A muted phone that stops RTP: its RTCP goes on, and counts no packets.
Silence suppression: comfort noise (payload type 13, RFC 3389) or a stream full of pauses before it ends. A deaf side
that reports reception in RTCP hears something: its audio takes a way past this tap. T.38 and ICE (`c=` is not where
the audio goes) are not judged, nor are calls shorter than eight seconds. Where only signalling was captured nothing
is said.
"""

from __future__ import annotations

from collections import Counter

import polars as pl

from netdiag.detectors.rtp import _relayed
from netdiag.detectors.rtp._candidates import flows, judged, two_way_hosts
from netdiag.detectors.rtp._judge import Deaf, Judge
from netdiag.detectors.rtp._legs import other
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
from netdiag.tables.addresses import realm

PATTERN = Pattern(
    id="RTP-ONEWAY",
    title="One-way or no audio in an answered call",
    severity=Severity.HIGH,
    cases=("one-way-audio-behind-nat",),
    needs=("calls", "media", "sip", "rtp", "rtcp", "icmp", "quality"),
    references=(Reference("RFC 3264 §5.1, §6.1, §8.4"), Reference("RFC 3550 §6.4"), Reference("RFC 4961"),
                Reference("RFC 7362")),
    filter="rtp || rtcp || sdp",
    mitigation="Let a media relay that learns addresses anchor these calls, or open the media ports for the deaf side.",
    fix="Correct what keeps the packets away: the address in SDP, the relay's learning, the rule or the route.",
    prevention="Place a test call through every access network, with a tone that is checked at both ends.",
    next_capture="Capture next to the deaf side as well: do the packets that leave the other side reach it?",
    explains=("RTP-TIMEOUT-BYE",),
    settings=(Setting("min_packets", 50, "packets", "practice: in 5 s; 20 ms packets would be 250"),
              Setting("window", 5, "s", "practice: longer than any pause of speech codecs without silence suppression"),
              Setting("usual_share", 90, "%", "practice: calls of a host with audio, before silence is odd")),
)

DETAILED = 200
"""Calls whose frames are listed; the others of a flood are counted (practice)."""
USUAL_CALLS = 3
"""Other calls of a host with audio at this point before a call without any is odd (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Legs of answered calls in which one side, or both, gets no packets for ``window`` seconds."""
    calls = judged(tables)
    if not len(calls):
        answered = tables.calls["answer_ns"].drop_nulls().len()
        if not answered:
            return not_applicable("no answered call in this capture")
        return clear(f"{number_of(answered, 'answered calls')}, none with audio that lasts 8 s here")
    seen = flows(tables)
    if not seen["heard"].any():
        some = tables.rtp["call"].is_in(calls["call"].implode()).any()
        lacking = "too little RTP" if some else "no RTP"
        return inconclusive(f"{number_of(calls['call_id'].n_unique(), 'answered calls')}, and {lacking} was captured",
                            "Capture RTP too: no port filter, at a point that the media passes.")
    odd = seen.filter(~pl.col("healthy") & pl.col("heard"))["call"]
    odd = calls.filter(pl.col("call").is_in(odd.implode()))["call"]
    work = Judge(tables, settings, odd.to_list())
    deaf = [d for call in work.legs.calls for leg in work.legs.of(call) for d in work.deaf(leg)]
    silent = _silent(calls, seen, settings["usual_share"])
    if not deaf and not len(silent):
        audible = calls.filter(pl.col("call").is_in(seen["call"].implode()))["call_id"].n_unique()
        return clear(f"{audible} of {number_of(calls['call_id'].n_unique(), 'answered calls')} of 8 s or more with "
                     "audio here; none is heard in one direction only")
    begins = _relayed.first(deaf)
    groups = _groups([deaf[i] for i in begins])
    proved = two_way_hosts(tables, seen)
    occurrences = [_occurrence(tables, deaf[i], behind, groups[deaf[i].leg.call.call_id, deaf[i].side], proved,
                               settings["window"], n < DETAILED)
                   for n, (i, behind) in enumerate(begins.items())]
    occurrences += [_none(tables, row) for row in silent.iter_rows(named=True)]
    examined = {group: calls.filter(pl.col(column) == address)["call_id"].n_unique()
                for group in set(groups.values()) for column, address in [_column(group)]}
    for host in silent["host"].unique().to_list():
        mine = (pl.col("caller_media") == host) | (pl.col("callee_media") == host)
        examined["no audio", host] = calls.filter(mine)["call_id"].n_unique()
    return found(occurrences, population="calls", examined=examined)


def _groups(deaf: list[Deaf]) -> dict[tuple[str, str], tuple[str, ...]]:
    """What most of the deaf sides share: where their audio should come from, or where they are."""
    names: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for d in deaf:
        source, here = d.leg.side(other(d.side)), d.leg.side(d.side)
        names.setdefault((d.leg.call.call_id, d.side), set()).update(
            {("from", str(source.address), d.side), ("to", here.signalling_source, d.side)})
    tally = Counter(name for options in names.values() for name in options)
    return {who: max(options, key=lambda n: (tally[n], n[0] == "from", n)) for who, options in names.items()}


def _column(group: tuple[str, ...]) -> tuple[str, str]:
    kind, address, side = group
    return (other(side) + "_media" if kind == "from" else side + "_site"), address


def _occurrence(tables: Tables, d: Deaf, behind: list[Deaf], group: tuple[str, ...], proved: set[tuple[str, str]],
                window: float, detailed: bool) -> Occurrence:
    call, leg = d.leg.call, d.leg
    deaf, source = leg.side(d.side), leg.side(other(d.side))
    begin = (d.counted_ns - (call.answer_ns or 0)) / 1e9
    confidence, reasons = Confidence.SUSPECTED, [
        f"{d.packets} packets from the {d.side} in {window:g} s, from {begin:.1f} s after the answer on, and none "
        "arrives at it"]
    hosts = {str(deaf.address), str(source.address), deaf.signalling_source, source.signalling_source}
    against = "nothing here speaks against it"
    known = sorted(host for host in hosts if (call.point, host) in proved)
    if known:
        confidence = Confidence.PROBABLE
        reasons.append(f"other calls with {known[0]} are heard both ways at {call.point}")
        against = "it shows both directions of other calls of these hosts"
    elif all(realm(host) == "loopback" for host in hosts):
        confidence = Confidence.PROBABLE
        reasons.append("both ends are on the captured host itself (loopback)")
        against = "a capture on the loopback interface shows both directions"
    if d.facts:
        confidence = Confidence.CONFIRMED
        reasons += [fact.text for fact in d.facts]
    reasons += [f"so the {d.side} of the leg behind it ({b.leg.side(d.side).signalling_source}, call "
                f"{b.leg.call.call_id}) hears nothing" for b in behind]
    stopped = d.since_ns > leg.begin_ns
    after = (d.since_ns - (call.answer_ns or 0)) / 1e9
    when = f"from {after:.1f} s after the answer on" if after >= 1 else "from the answer on"
    cited = [deaf.packet, source.packet, *(p for fact in d.facts for p in fact.packets)]
    for s in (*d.heard, *d.astray, *(d.last if stopped else ()), *(s for b in behind for s in b.heard)):
        cited += [s.first_packet, s.last_packet]
    astray = "; ".join(f"{s.packets} packets go to {s.destination}:{s.destination_port}" for s in d.astray)
    return Occurrence(
        subject=call.call_id, group=group,
        summary=f"The {d.side} ({deaf.signalling_source}) hears nothing {when}, while "
                f"{sum(s.packets for s in d.heard)} packets of its own are on their way in all"
                + (f"; {astray}, where it is not reached." if astray else "."),
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(cited, {"sip.call_id": call.call_id, "rtp.deaf": d.side,
                                         "sdp.address": f"{deaf.address}:{deaf.port}"}) if detailed else (),
        scope={"rtp.deaf": d.side, "source.ip": str(source.address), "network.direction": f"to the {d.side}"},
        flows=tuple(sorted({s.flow for s in (*d.heard, *d.astray)})),
        keys=frozenset(f"call:{x.leg.call.call_id}" for x in (d, *behind)), absence=not d.facts,
        start_ns=d.since_ns, end_ns=leg.end_ns, title="One-way audio in an answered call",
        alternatives=(Alternative(
            "the direction exists and this capture misses it", "what is missing is missing at one point",
            next((fact.short for fact in d.facts if fact.short), against)),))


def _silent(calls: pl.DataFrame, seen: pl.DataFrame, share: float) -> pl.DataFrame:
    """Calls without any RTP of a ``host`` whose other calls (nearly all, both ways) have it at this point."""
    audible = seen.filter(pl.col("healthy") & pl.col("heard"))["call"].unique().implode()
    any_rtp = seen["call"].unique().implode()
    ends = calls.select("call", "point", pl.concat_list("caller_media", "callee_media").list.unique().alias("host"))
    tally = ends.with_columns(good=pl.col("call").is_in(audible)).explode("host").group_by("point", "host").agg(
        pl.col("good").sum(), total=pl.len())
    usual = tally.filter((pl.col("good") >= USUAL_CALLS) & (pl.col("good") * 100 >= (pl.col("total") - 1) * share)
                         ).select("point", "host", "good", "total")
    mute = calls.filter(pl.col("plain") & ~pl.col("call").is_in(any_rtp)).join(
        ends.explode("host"), on=["call", "point"]).join(usual, on=["point", "host"])
    return mute.unique("call", keep="first", maintain_order=True)


def _none(tables: Tables, row: dict[str, object]) -> Occurrence:
    host, call_id = str(row["host"]), str(row["call_id"])
    messages = [row["invite_message"], row["answer_message"], row["bye_message"]]
    packets = tables.sip["packet"].gather([int(m) for m in messages if isinstance(m, int)]).to_list()
    flow = tables.sip["flow"].gather([m for m in messages if isinstance(m, int)][:1]).to_list()
    return Occurrence(
        subject=call_id, group=("no audio", host), title="No audio in either direction of an answered call",
        summary=f"An answered call of {row['duration_s'] or 0:.1f} s has no RTP in either direction at {row['point']}.",
        confidence=Confidence.PROBABLE,
        reasons=("no RTP packet to or from either side",
                 f"{row['good']} of the {int(str(row['total'])) - 1} other calls of {host} have audio both ways here"),
        evidence=tables.evidence(packets, {"sip.call_id": call_id, "rtp.deaf": "both"}), scope={"host.ip": host},
        flows=tuple(flow), keys=frozenset({f"call:{call_id}"}), absence=True,
        start_ns=int(str(row["answer_ns"])), end_ns=int(str(row["end_ns"] or row["answer_ns"])))
