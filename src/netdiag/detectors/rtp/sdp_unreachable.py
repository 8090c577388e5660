"""SDP names an address that the other side cannot reach, and the other side sends its audio there.

A phone behind an address translator knows only its private address (RFC 1918, RFC 6598) and writes it into `c=` (RFC
8866 §5.7). Its signalling arrives from somewhere else. A peer that takes the SDP at its word sends RTP to an address
to which it has no route; hosted telephony works because relays learn the real source of the audio instead (RFC 7362).
So the address alone is no fault. It is one when 50 packets or more go there from an address of another realm, no
packet ever comes *from* there, and the sender never changes to another destination.

Where the receiver's own audio reaches the sender from another place, the sender could have learned that place:
RTP-LATCH-FAIL says so, and this finding is then what follows from it.

**What lifts the suspicion.** Audio sent there without any return is probable already. RTCP of the receiver without a
reception block, an ICMP error about the packets, or a second capture point at the receiver where they do not arrive
(confirmed).

**What looks alike and is not it.** A peer that learns the real source within a few packets. ICE, where `c=` is only a
default (RFC 8839 §4.2.1). Both ends in one private network or VPN: the sender's own address is private too, or the
signalling comes from the same realm. A receiver whose RTCP reports reception. On the private side of the translator
the address is right. An address that belongs to nobody at all (a dead route between public addresses) is not this
pattern.
"""

from __future__ import annotations

import polars as pl

from netdiag.detectors.rtp._reception import SETTLED_NS, Reception
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
from netdiag.tables import Tables
from netdiag.tables.addresses import realm
from netdiag.tables.rtp import RtpStream
from netdiag.tables.schema import rows

PATTERN = Pattern(
    id="RTP-SDP-UNREACHABLE",
    title="SDP advertises an address the peer cannot reach",
    severity=Severity.HIGH,
    cases=("one-way-audio-behind-nat",),
    needs=("calls", "media", "rtp", "rtcp", "icmp"),
    references=(Reference("RFC 8866 §5.7"), Reference("RFC 1918 §3"), Reference("RFC 6598 §7"), Reference("RFC 7362")),
    filter="sdp || rtp || rtcp",
    mitigation="Let the media relay learn the source of the first packets on the access side.",
    fix="Give the sender of the SDP its outside address for media, or use ICE, or let a learning relay carry it.",
    prevention="Check SDP where it leaves the network: no private address in c= towards a public peer without ICE.",
    next_capture="Capture at the receiver, inside its network: do the packets sent to the private address arrive?",
    settings=(Setting("min_packets", 50, "packets", "practice: learning takes a few packets, this is one second"),),
    explains=("RTP-ONEWAY", "SIP-EARLY-MEDIA-SILENT"),
)

DETAILED = 200
"""Streams whose frames are listed; the others of a flood are counted (practice)."""
INSIDE = ("private", "cgn", "link-local", "loopback")


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """RTP that goes to an inside address of SDP from another realm, without return."""
    lines = tables.media.filter((pl.col("port") > 0) & pl.col("address").is_not_null())
    if not len(lines):
        return not_applicable("no SDP in this capture")
    other = lines.filter((pl.col("address") != pl.col("signalling_source")) & ~pl.col("ice"))
    other = other.with_columns(at=_realms(other["address"]), site=_realms(other["signalling_source"]))
    odd = other.filter(pl.col("at").is_in(INSIDE) & (pl.col("at") != pl.col("site")))
    if not len(odd):
        return clear(f"{number_of(len(lines), 'media descriptions')}; none names an inside address of another realm "
                     "than its signalling")
    streams = tables.rtp.filter(pl.col("call").is_not_null())
    odd = odd.select("call", "packet", "signalling_source", "at", destination="address", destination_port="port")
    sent = streams.filter(pl.col("packets") >= settings["min_packets"]).join(
        odd.unique(["call", "destination", "destination_port"], keep="first", maintain_order=True),
        on=["call", "destination", "destination_port"], suffix="_said")
    sent = sent.filter(_realms(sent["source"]) != sent["at"])
    here = ["point", "source", "source_port"]
    back = streams.select("point", destination="source", destination_port="source_port").unique()
    sent = sent.join(back, on=["point", "destination", "destination_port"], how="anti", maintain_order="left")
    turned = sent.select("stream", *here, "destination", "destination_port", "last_ns").join(
        streams.select(*here, "destination", "destination_port", "last_ns"), on=here, suffix="_new").filter(
        (pl.struct("destination", "destination_port") != pl.struct(
            destination="destination_new", destination_port="destination_port_new"))
        & (pl.col("last_ns_new") >= pl.col("last_ns")))
    sent = sent.join(turned, on="stream", how="anti", maintain_order="left")
    context = _Context(tables, sent)
    occurrences = [o for i, (stream, packet, site) in enumerate(zip(
        rows(sent, RtpStream), sent["packet"], sent["signalling_source"], strict=True))
        if (o := context.occurrence(stream, packet, site, i < DETAILED))]
    if not occurrences:
        return clear(f"{number_of(len(odd), 'media descriptions')} with an inside address; no audio is sent there in "
                     "vain")
    examined: dict[tuple[str, ...], int] = {(str(source), str(sender)): int(count) for source, sender, count in
                streams.group_by("source", "sender").agg(pl.col("call_id").n_unique()).iter_rows()}
    return found(occurrences, population="calls", examined=examined)


def _realms(addresses: pl.Series) -> pl.Series:
    known = {a: realm(a) for a in addresses.unique().to_list()}
    return addresses.replace_strict(known, return_dtype=pl.String)


class _Context:
    def __init__(self, tables: Tables, sent: pl.DataFrame) -> None:
        self._tables = tables
        self._reception = Reception(tables, sent["call"].to_list())
        self._own: dict[tuple[str, str, int], list[RtpStream]] = {}
        calls = tables.rtp.filter(pl.col("call").is_in(sent["call"].implode()))
        for s in rows(calls, RtpStream):
            self._own.setdefault((s.point, s.destination, s.destination_port), []).append(s)

    def occurrence(self, s: RtpStream, said: int, site: str, detailed: bool) -> Occurrence | None:
        own, r = self._own.get((s.point, s.source, s.source_port), []), self._reception
        start = s.first_ns + SETTLED_NS
        if r.hears_something(own, start, s.last_ns):
            return None
        facts = [f for f in (r.refused(s, s.first_ns, s.last_ns), r.hears_nothing(own, start, s.last_ns),
                             r.lost_before(s, own)) if f]
        to = f"{s.destination}:{s.destination_port}"
        reasons = [f"SDP names {to}, its signalling comes from {site}",
                   f"{s.packets} packets are sent there from {s.source}, and none comes back from there"]
        origins = sorted({f"{o.source}:{o.source_port}" for o in own})
        if origins:
            reasons.append(f"the audio of that side comes from {origins[0]}, and the sender does not follow it")
        cited = [said, s.first_packet, s.last_packet, *(o.first_packet for o in own[:1]),
                 *(p for f in facts for p in f.packets)]
        side = "caller" if s.sender == "callee" else "callee"
        return Occurrence(
            subject=s.call_id or "", group=(s.source, s.sender or ""),
            summary=f"{s.source} sends {s.packets} packets to {to}, the address in the {side}'s SDP, whose signalling "
                    f"comes from {site}.",
            confidence=Confidence.CONFIRMED if facts else Confidence.PROBABLE,
            reasons=(*reasons, *(f.text for f in facts)),
            evidence=self._tables.evidence(cited, {"sip.call_id": s.call_id or "", "sdp.address": to,
                                                   "source.ip": site}) if detailed else (),
            scope={"source.ip": s.source, "destination.ip": s.destination}, flows=(s.flow,),
            keys=frozenset({f"call:{s.call_id}"}), absence=not facts, start_ns=s.first_ns, end_ns=s.last_ns,
            alternatives=(Alternative(
                "a route to the private network exists (VPN)", "this capture shows only the sender's side",
                facts[0].short if facts else "nothing comes back from that address"),))
