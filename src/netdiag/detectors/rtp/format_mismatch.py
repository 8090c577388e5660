"""RTP carries a payload type that the receiver never asked for, or time stamps at another clock than the codec's.

In SDP each side lists the payload types that it wants to *receive*, with its own numbers for dynamic ones (RFC 3264
§5.1); a sender must use the numbers of the other side. Packets with a number that is not in the receiver's list are
thrown away, or decoded as something else: silence or noise in one direction. Ten packets or more over more than a
second are told, counted against the description that is valid when they come, and for half a second the one before. So
is audio with a number that its receiver gave to telephone-event: that one may hear digits that nobody pressed. A media
clock that runs at twice, half or a sixth of the rate that SDP names (G.722 is 8000 Hz in RTP, RFC 3551 §4.5.2; Opus
always 48000, RFC 7587 §4.1) makes play-out run too fast or too slow.

**What lifts the suspicion.** Packets and the receiver's description are both here: probable; with the sender's own
description too, which shows what the number means to it, confirmed.

**What looks alike and is not it.** Different codecs in the two directions, both agreed. Comfort noise (13), events
(RTP-DTMF-MISMATCH; they are four bytes long), RTCP on the same port, which reads as payload types 64 to 95 (RFC 5761
§4). Packets under way while a new offer is answered; an offer that is refused changes nothing. Packets after the end of
the call: the next one may use the same ports and the same SSRC. Silence suppression with a clock that stands still,
whose rate is no simple multiple.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from netdiag.detectors.rtp._share import keys, numbering, subject
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
from netdiag.tables import Tables, rtp_formats, rtp_packets

PATTERN = Pattern(
    id="RTP-FORMAT-MISMATCH",
    title="RTP is not what the receiver's SDP asks for",
    severity=Severity.HIGH,
    cases=("codec-and-dtmf-mismatch",),
    needs=("rtp", "media", "calls"),
    references=(Reference("RFC 3264 §5.1, §6.1, §8.3"), Reference("RFC 3551 §4.5, §6"), Reference("RFC 5761 §4"),
                Reference("RFC 7587 §4.1")),
    filter="rtp || sdp",
    mitigation="Offer one codec with a static payload type (PCMA or PCMU) on this trunk until the mapping is right.",
    fix="Make the element that joins the two legs translate payload types, or pass each side's numbers on unchanged.",
    prevention="Compare SDP with RTP in acceptance tests: numbers, codec, clock and packet length, both ways.",
    next_capture="Signalling and media of both legs, so that each stream can be held against its receiver's SDP.",
    explains=("RTP-DTMF-MISMATCH",),
    settings=(Setting("min_packets", 10, "packets", "practice: fewer are on their way while codecs change"),
              Setting("min_time", 1, "s", "practice: a changeover takes less"),
              Setting("grace", 0.5, "s", "practice: packets of the old kind may follow a new description so long"),
              Setting("clock_error", 3, "%", "practice: how near to a multiple the clock must be")),
)

HARMLESS = (13, 19)
"""Comfort noise, and its number of old (RFC 3389, RFC 3551 table 4): ignored by those who do not know it."""
DETAILED = 200
"""Streams that are held against SDP packet by packet (practice)."""
RATIOS = (2.0, 0.5, 6.0, 1 / 6, 3.0, 1 / 3)
"""Clocks that are mistaken for each other: 8, 16, 24 and 48 kHz."""
CLOCK_NS = 5_000_000_000
"""Streams that are long enough to tell their clock (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Streams of calls with payload types outside the receiver's list, or with another clock."""
    bound = tables.rtp.filter(pl.col("call").is_not_null())
    if not bound.height:
        if not tables.rtp.height:
            return not_applicable("no RTP stream in this capture")
        return clear(f"{number_of(tables.rtp.height, 'RTP streams')}, none of a call whose SDP was captured")
    items = [*_formats(tables, bound, settings), *_as_events(tables, bound, settings),
             *_clocks(tables, bound, settings)]
    if not items:
        return clear(f"{number_of(bound.height, 'RTP streams')} of calls: all use what their receivers asked for")
    examined = {item.group: bound.filter(pl.col("destination") == item.group[1]).height for item in items}
    return found(items, population="streams", examined=examined)


def _formats(tables: Tables, bound: pl.DataFrame, settings: dict[str, float]) -> Iterator[Occurrence]:
    suspects = rtp_formats.outside(tables, bound).head(DETAILED)
    if not suspects.height:
        return
    s = rtp_packets.read(tables, suspects)
    for i, row in enumerate(suspects.iter_rows(named=True)):
        said = rtp_formats.receiver(tables, row)
        if not said:
            continue
        part = s.part(i)
        ts, kinds = s.ts_ns[part], s.payload_type[part]
        wrong = (ts >= said[0][0]) & (ts <= rtp_formats.ended(tables, row))
        for begin, end, allowed, _ in said:
            valid = (ts >= begin) & (ts <= end + int(settings["grace"] * 1e9))
            wrong &= ~(valid & np.isin(kinds, allowed))
        skipped = rtp_formats.event_types(tables, row)
        wrong &= ~np.isin(kinds, [*HARMLESS, *skipped]) & ~((kinds >= 64) & (kinds < 96))
        for number in np.unique(kinds[wrong]).tolist():
            at = np.flatnonzero(wrong & (kinds == number))
            seconds = (ts[at[-1]] - ts[at[0]]) / 1e9
            if len(at) >= settings["min_packets"] and seconds > settings["min_time"]:
                yield _format(tables, row, number, s.packet[part][at], seconds, said)


def _format(tables: Tables, row: dict[str, Any], number: int, packets: np.ndarray[Any, np.dtype[np.uint32]],
            seconds: float, said: list[tuple[int, int, list[int], int]], event: bool = False) -> Occurrence:
    ts = tables.packets.ts
    first, last = int(packets[0]), int(packets[-1])
    line = next((line for line in reversed(said) if line[0] <= ts[first]), said[0])
    own = rtp_formats.own_meaning(tables, row, number)
    asked = "gave that number to telephone-event, whose packets have four bytes" if event else \
        f"asked for {', '.join(map(str, line[2]))}"
    reasons = [f"{len(packets)} packets in {seconds:.1f} s with payload type {number}; the {_other(row)} {asked}"]
    confidence = Confidence.PROBABLE
    if own is not None:
        confidence = Confidence.CONFIRMED
        reasons.append(f"in the sender's own SDP {number} means {own}: it uses its own number" if own else
                       f"the sender's own SDP does not name {number} either")
    return Occurrence(
        subject=subject(row), group=("format", str(row["destination"]), str(number)),
        summary=f"{row['source']} sends audio as payload type {number} to {row['destination']}, which takes that for "
                "telephone events." if event else
                f"{row['source']} sends payload type {number} to {row['destination']}, which asked for "
                f"{', '.join(map(str, line[2]))} only.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence([line[3], first, last], {
            "sip.call_id": str(row["call_id"]), "rtp.payload_type": number,
            "sdp.formats": " ".join(map(str, line[2]))}),
        scope={"source.ip": str(row["source"]), "destination.ip": str(row["destination"]),
               "rtp.payload_type": number},
        flows=(int(row["flow"]),), keys=numbering(row), start_ns=int(ts[first]),
        end_ns=int(ts[last]), title="Audio with the payload type that the receiver gave to events" if event else
        "RTP with a payload type that the receiver did not ask for",
        alternatives=(Alternative("another description is valid", "SDP on a leg that is not here may ask for it",
                                  f"the packets go to the {_other(row)} of this very call"),))


def _as_events(tables: Tables, bound: pl.DataFrame, settings: dict[str, float]) -> Iterator[Occurrence]:
    """Audio with the number that the receiver gave to events."""
    suspects = rtp_formats.as_events(tables, bound).head(DETAILED)
    if not suspects.height:
        return
    s = rtp_packets.read(tables, suspects)
    for i, row in enumerate(suspects.iter_rows(named=True)):
        part = s.part(i)
        packets = s.packet[part][(s.payload_type[part] == row["number"]) & (
            s.ts_ns[part] <= rtp_formats.ended(tables, row))]
        packets = packets[rtp_formats.too_long(tables, packets)]
        said = rtp_formats.receiver(tables, row)
        if len(packets) < settings["min_packets"] or not said:
            continue
        seconds = float(tables.packets.ts[packets[-1]] - tables.packets.ts[packets[0]]) / 1e9
        if seconds > settings["min_time"]:
            yield _format(tables, row, row["number"], packets, seconds, said, event=True)


def _clocks(tables: Tables, bound: pl.DataFrame, settings: dict[str, float]) -> Iterator[Occurrence]:
    long = bound.filter((pl.col("last_ns") - pl.col("first_ns") >= CLOCK_NS) & ~pl.col("clock_guessed")
                        & (pl.col("restarts") == 0) & (pl.col("clock_rate") < 90_000)
                        & (pl.col("codec").str.to_lowercase() != "telephone-event"))  # _as_events tells those
    for row in rtp_formats.clocks(tables, long, RATIOS, settings["clock_error"] / 100).iter_rows(named=True):
        yield Occurrence(
            subject=subject(row), group=("clock", str(row["destination"]), str(row["codec"])),
            summary=f"Time stamps from {row['source']} run at {row['measured']:.0f} Hz; {row['codec']} was agreed with "
                    f"{row['clock_rate']} Hz.",
            confidence=Confidence.PROBABLE,
            reasons=(f"{row['ratio']:.2f} times the agreed rate, over the whole stream and from packet to packet",),
            evidence=tables.evidence([row["first_packet"], row["last_packet"]], {
                "sip.call_id": str(row["call_id"]), "rtp.clock_rate": int(row["clock_rate"]),
                "rtp.measured_rate": round(row["measured"])}),
            scope={"source.ip": str(row["source"]), "destination.ip": str(row["destination"]),
                   "rtp.codec": str(row["codec"])},
            flows=(int(row["flow"]),), keys=keys(row), start_ns=int(row["first_ns"]),
            end_ns=int(row["last_ns"]), title="RTP time stamps run at another clock than agreed")


def _other(row: dict[str, Any]) -> str:
    return "callee" if row["sender"] == "caller" else "caller"
