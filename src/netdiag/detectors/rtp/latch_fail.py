"""A relay or peer sends its audio to another place than the one that the other side's audio comes from.

Behind an address translator nobody knows where audio really comes from until it arrives. Hosted telephony therefore
lets the relay learn the source of the packets and send there (latching, RFC 7362 §4; symmetric RTP, RFC 4961). Three
faults are visible where the relay is captured, as both directions of one relay port. It **obeys** the SDP: audio
arrives from one place, its own goes on to the address in the SDP. It **stays**: the source of the same stream moves,
because the mapping was lost or the user changed networks, and the relay keeps to the old place. It follows a
**stranger**: its audio turns to the source of other packets, a stray stream or an attack ("RTP bleed"), while the
real side talks on. Each is told when 50 packets or more go there later than 3 s after the audio has come from
elsewhere.

**What lifts the suspicion.** The address obeyed belongs to the inside of another realm, or the source moved, or a
stranger is followed: counted, not inferred (probable). RTCP of the deaf side without a reception block, or whose
highest sequence number stands still, an ICMP error about the packets, or a second capture point that they do not
reach (confirmed).

**What looks alike and is not it.** A relay that learns within a few packets. An endpoint that sends from one port or
address and receives at another, which SDP names, as RFC 3264 §5.1 allows: nothing is said without one of the proofs
above, and RTCP with a growing highest number speaks against it. An address from which packets come too. A new offer
that names the new place. ICE, whose checks choose the place. A transfer, where one source ends and another begins. A
new SSRC from the same place. A phone that does not learn at all does what SDP says: then the SDP is what to correct
(RTP-SDP-UNREACHABLE).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from netdiag.detectors.rtp._reception import Fact, Reception
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
from netdiag.tables import Tables, rtp_latches
from netdiag.tables.addresses import realm
from netdiag.tables.rtp import RtpStream
from netdiag.tables.schema import rows

PATTERN = Pattern(
    id="RTP-LATCH-FAIL",
    title="Audio does not follow the place that the other side's audio comes from",
    severity=Severity.HIGH,
    cases=("one-way-audio-behind-nat",),
    needs=("calls", "media", "rtp", "rtcp", "icmp"),
    references=(Reference("RFC 7362 §4"), Reference("RFC 4961"), Reference("RFC 3264 §5.1"),
                Reference("RFC 8866 §5.7")),
    filter="rtp || rtcp || sdp",
    mitigation="Turn on symmetric RTP for this side: let the relay learn the source of the audio, and learn again when "
               "it moves.",
    fix="Learn from the first packets after each offer, with ICE or SRTP so that strangers teach nothing; have senders "
        "name their outside address in SDP.",
    prevention="Place test calls through a NAT that keeps no port, and change the mapping in the middle of one.",
    next_capture="Capture at the deaf side, inside its network: do the relay's packets arrive?",
    settings=(Setting("settle", 3, "s", "practice: relays learn within a few packets"),
              Setting("min_packets", 50, "packets", "practice: one second of 20 ms packets")),
    explains=("RTP-ONEWAY", "RTP-SDP-UNREACHABLE", "SIP-EARLY-MEDIA-SILENT"),
)

DETAILED = 200
"""Streams whose frames are listed; the others of a flood are counted (practice)."""
HANG_UP_NS = 1_000_000_000
"""ICMP errors this shortly before the end say nothing (practice)."""
INSIDE = ("private", "cgn", "link-local", "loopback")
TITLES = {"obeys": "The relay obeys the SDP and does not follow the real source of the audio",
          "stays": "The source of the audio moved, and the relay did not follow",
          "stranger": "The relay's audio follows a stranger"}
DO_NOW = {"stranger": "Stop the sender that does not belong to the call, and let the relay keep to the source that it "
                      "learned first."}


class _Pair(NamedTuple):
    """What arrives at a relay port, and what goes from there to another place."""

    row: dict[str, Any]
    heard: RtpStream
    sent: RtpStream

    @property
    def kind(self) -> str:
        return str(self.row["kind"])


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Streams from a relay port to another place than the one that audio for that port comes from."""
    if not tables.rtp["call"].count():
        return not_applicable("no RTP that belongs to a call in this capture")
    pairs = rtp_latches.elsewhere(tables, int(settings["settle"] * 1e9), settings["min_packets"])
    occurrences = _occurrences(tables, pairs) if len(pairs) else []
    if not occurrences:
        calls = tables.rtp["call_id"].drop_nulls().n_unique()
        return clear(f"{number_of(calls, 'calls')} with audio: none is sent to another place than its counterpart "
                     "comes from")
    streams = tables.rtp.filter(pl.col("call").is_not_null())
    examined: dict[tuple[str, ...], int] = {
        (kind, str(source)): int(count) for kind in TITLES
        for source, count in streams.group_by("source").agg(pl.col("call_id").n_unique()).iter_rows()}
    return found(occurrences, population="calls", examined=examined)


def _occurrences(tables: Tables, pairs: pl.DataFrame) -> list[Occurrence]:
    work = [_Pair(row, heard, sent) for row, heard, sent in zip(
        pairs.iter_rows(named=True), rows(tables.rtp[pairs["heard"]], RtpStream),
        rows(tables.rtp[pairs["sent"]], RtpStream), strict=True)]
    reception = Reception(tables, pairs["call"].to_list())
    return [o for i, pair in enumerate(work) if (o := _occurrence(tables, reception, pair, i < DETAILED))]


def _facts(r: Reception, pair: _Pair) -> list[Fact] | None:
    """What shows that the packets do not arrive; None where the receiver reports that they do."""
    begin, end = pair.row["begin"], pair.row["end"]
    still = r.stands_still(pair.sent, pair.heard, begin, end)
    if still is None and r.hears_something([pair.heard], begin, end):
        return None
    # A phone that hangs up closes its port a moment before the last packets arrive.
    facts = (r.refused(pair.sent, begin, end - HANG_UP_NS), r.hears_nothing([pair.heard], begin, end), still,
             r.lost_before(pair.sent, [pair.heard]))
    return [fact for fact in facts if fact]


def _occurrence(tables: Tables, r: Reception, pair: _Pair, detailed: bool) -> Occurrence | None:
    facts = _facts(r, pair)
    if facts is None:
        return None
    row, heard, sent = pair.row, pair.heard, pair.sent
    here, there, to = (f"{sent.source}:{sent.source_port}", f"{heard.source}:{heard.source_port}",
                       f"{sent.destination}:{sent.destination_port}")
    inner = realm(sent.destination)
    outside = inner in INSIDE and inner not in (realm(sent.source), realm(row["site"] or heard.source))
    if pair.kind == "obeys" and not facts and not outside:
        return None
    side = heard.sender or ""
    seconds = (row["end"] - row["begin"]) / 1e9
    reasons = [f"audio of the {side} arrives at {here} from {there}",
               f"{row['packets']} packets go from there to {to} in {seconds:.1f} s, and none to {there}"]
    if pair.kind == "obeys":
        reasons.append(f"{to} is what the SDP of the {side} names" + (
            f", an inside address ({inner}); its signalling comes from {row['site']}" if outside else ""))
    elif pair.kind == "stays":
        moved = (heard.first_ns - row["moved"]) / 1e9
        reasons.append(f"SSRC 0x{heard.ssrc:08x} came from {to} before, last {moved:.1f} s before it came from {there}")
    else:
        reasons.append(f"another stream (SSRC 0x{row['other_ssrc']:08x}) came from {to}, which no SDP of it names")
    cited = [row["said"], heard.first_packet, heard.last_packet, sent.first_packet, sent.last_packet,
             row["teacher"], *(p for f in facts for p in f.packets)]
    return Occurrence(
        subject=sent.call_id or "", group=(pair.kind, sent.source), title=TITLES[pair.kind],
        summary=f"{here} gets the {side}'s audio from {there} and sends {row['packets']} packets to {to}.",
        confidence=Confidence.CONFIRMED if facts else Confidence.PROBABLE,
        reasons=(*reasons, *(f.text for f in facts)),
        evidence=tables.evidence([int(p) for p in cited if p is not None], {
            "sip.call_id": sent.call_id or "", "rtp.source": there, "rtp.destination": to,
            "rtp.ssrc": f"0x{sent.ssrc:08x}"}) if detailed else (),
        scope={"host.ip": sent.source, "rtp.latch": pair.kind, "destination.ip": sent.destination},
        mitigation=DO_NOW.get(pair.kind, ""), flows=tuple(sorted({heard.flow, sent.flow})),
        keys=frozenset({f"call:{sent.call_id}"}), absence=not facts,
        start_ns=row["begin"], end_ns=row["end"],
        alternatives=(Alternative(
            "the other side receives at another place than it sends from", "RFC 3264 §5.1 allows it",
            facts[0].short if facts else "nothing ever comes from the place that is sent to"),))
