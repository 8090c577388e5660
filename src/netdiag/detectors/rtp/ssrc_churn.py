"""Streams of several sources meet at one port, or the source identifier changes again and again.

A receiver knows a stream by its SSRC (RFC 3550 §5.1) and begins its play-out buffer, and for SRTP its cryptographic
context, anew with each. Three faults show in the headers alone. Two SSRCs of one payload type reach the same address
and port in turns, packet by packet: the listener hears both, or neither; the second one may come from a forked call,
or from a call that ended and whose sender did not stop. One sender takes a new SSRC three times a minute or more,
without a new offer in the signalling: each time a click, a pause, or silence until the next key. The same SSRC is
used in both directions of one flow with unrelated sequence numbers: a collision (RFC 3550 §8.2), by which receivers
drop packets as loops.

**What lifts the suspicion.** Packets in turns, repeated changes and collisions are counted, not inferred: probable.
Signalling that shows that one of the two belongs to another call, which has ended (confirmed).

**What looks alike and is not it.** One change, by answer, hold, music, announcement or transfer, and changes that
come with an offer of their own. Streams that follow each other, even in turns of seconds. Several SSRCs that SDP
announces (`a=ssrc`, RFC 5576); where no signalling was captured, several of one host may be announced too. Several
media on one port (BUNDLE, RFC 9143). Retransmission and video streams, and events with another payload type. An echo
test, which returns the same numbers. Multicast, where many send to one port.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl

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
from netdiag.tables import Tables, rtp_sources
from netdiag.tables.addresses import realm

PATTERN = Pattern(
    id="RTP-SSRC-CHURN",
    title="RTP sources are mixed up at one port",
    severity=Severity.MEDIUM,
    cases=("srtp-keys-disagree",),
    needs=("rtp", "calls", "media", "sip"),
    references=(Reference("RFC 3550 §5.1, §8.2"), Reference("RFC 7362 §4"), Reference("RFC 5576")),
    filter="rtp || sip.Method == \"INVITE\"",
    mitigation="Stop the sender that does not belong there; let the receiver keep to the source that it has latched.",
    fix="Quarantine media ports after a call, send a new offer when the source changes, end early media of lost forks.",
    prevention="Watch for RTP that reaches ports without a call, and for SSRC changes per call.",
    next_capture="Signalling and media of both calls at the receiver, from before the first of them.",
    explains=("RTP-LATCH-FAIL",),
    settings=(Setting("max_changes", 3, "new SSRCs a minute", "practice: hold and transfer give one or two"),
              Setting("turn", 200, "ms", "practice: ten 20 ms packets; longer turns are streams one behind the other"),
              Setting("min_turns", 10, "changes of the source", "practice: streams that relieve each other overlap a "
                                                                "little")),
)

PAIRS = 200
"""Pairs of streams that are looked at packet by packet (practice)."""
BUDGET = 2_000_000
"""Packets of their flows that are read for it in all (practice: half a second)."""
MINUTE_NS = 60_000_000_000


class _Sign(NamedTuple):
    kind: str
    streams: tuple[dict[str, Any], ...]
    summary: str
    reasons: tuple[str, ...]
    packets: tuple[int, ...]
    confidence: Confidence = Confidence.PROBABLE


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Ports with streams in turns, flows with new SSRCs again and again, and SSRCs used both ways."""
    streams = tables.rtp
    if not streams.height:
        return not_applicable("no RTP stream in this capture")
    audio = streams.filter((pl.col("clock_rate") < 90_000) & (pl.col("codec").str.to_lowercase() != "rtx"))
    signs = [*_in_turns(tables, audio, settings), *_changes(tables, audio, settings), *_both_ways(tables, audio)]
    if not signs:
        return clear(f"{number_of(streams.height, 'RTP streams')}: none shares a port with another in turns, and no "
                     "source changes often")
    return found([_occurrence(tables, sign) for sign in signs], population="receiving ports")


def _in_turns(tables: Tables, audio: pl.DataFrame, settings: dict[str, float]) -> Iterator[_Sign]:
    """Pairs of streams of one payload type whose packets come to one address and port in turns."""
    place = ["point", "destination", "destination_port", "payload_type"]
    crowded = audio.filter((pl.len().over(place) > 1) & (pl.col("packets") >= settings["min_turns"] / 2))
    pairs, read = 0, 0
    size = tables.packets.flow_size
    # Places by their rows alone: hundreds of thousands of frames would be large.
    places = crowded.select(*place, "first_ns").with_row_index("row").sort("first_ns").group_by(
        place, maintain_order=True).agg("row")["row"]
    for rows in places:
        group = crowded[rows]
        if realm(group["destination"][0]) == "multicast":
            continue
        lines: list[dict[str, Any]] = list(group.iter_rows(named=True))
        for one, two in pairwise(lines):
            if two["first_ns"] >= one["last_ns"] or pairs == PAIRS or one["ssrc"] == two["ssrc"]:
                continue
            if one["source"] == two["source"] and one["call"] is None and two["call"] is None:
                continue  # without signalling nobody knows how many sources its sender has announced
            read += int(size[one["flow"]]) + int(size[two["flow"]])
            if read > BUDGET and pairs:
                return
            pairs += 1
            turns = rtp_sources.turns(tables, audio.filter(pl.col("stream").is_in([one["stream"], two["stream"]])),
                                      int(settings["turn"] * 1e6))
            if turns < settings["min_turns"] or rtp_sources.announced(tables, (one, two)):
                continue
            ended = _ended(tables, one, two)
            reasons = [f"the source changes {turns} times within {settings['turn']:g} ms between SSRC "
                       f"0x{one['ssrc']:08x} and 0x{two['ssrc']:08x}"]
            if ended:
                reasons.append(ended)
            where = "one host" if one["source"] == two["source"] else f"{one['source']} and {two['source']}"
            yield _Sign("in turns", (one, two), f"Two streams of {where} reach {two['destination']}:"
                        f"{two['destination_port']} at once and in turns.", tuple(reasons),
                        (one["first_packet"], one["last_packet"], two["first_packet"], two["last_packet"]),
                        Confidence.CONFIRMED if ended else Confidence.PROBABLE)


def _ended(tables: Tables, one: dict[str, Any], two: dict[str, Any]) -> str:
    """Says that the older stream belongs to a call that had ended when the younger one was heard."""
    if one["call"] is None or two["call"] is None or one["call_id"] == two["call_id"]:
        return ""
    end = tables.calls["end_ns"][int(str(one["call"]))]
    if end is None or end >= int(str(one["last_ns"])) - 1_000_000_000:
        return ""
    late = (int(str(one["last_ns"])) - end) / 1e9
    return (f"0x{one['ssrc']:08x} belongs to call {one['call_id']}, which ended {late:.1f} s before its last packet; "
            f"the port is that of call {two['call_id']} now")


def _changes(tables: Tables, audio: pl.DataFrame, settings: dict[str, float]) -> Iterator[_Sign]:
    """Flows in which one sender begins new SSRCs more often than the signalling has new offers."""
    way = ["flow", "source", "source_port"]
    many = audio.filter(pl.len().over(way) > settings["max_changes"])
    for group in many.sort("first_ns").partition_by(way, maintain_order=True):
        begins = group["first_ns"].to_numpy()[1:]
        inside = np.searchsorted(begins, begins + MINUTE_NS) - np.arange(len(begins))
        at = int(inside.argmax())
        mine = group[at : at + int(inside[at]) + 1]
        call = mine["call"].drop_nulls()
        offers = tables.media.filter(
            (pl.col("call") == (call[0] if len(call) else -1)) & (pl.col("role") == "offer")
            & pl.col("ts_ns").is_between(int(begins[at]) - MINUTE_NS // 30, int(begins[at]) + MINUTE_NS))["message"]
        if inside[at] - offers.n_unique() < settings["max_changes"]:
            continue
        lines = tuple(mine.iter_rows(named=True))
        yield _Sign("changes", lines, f"{lines[0]['source']} takes {inside[at]} new SSRCs in a minute on one port.",
                    (f"{inside[at]} new SSRCs in 60 s, and {offers.n_unique()} offers in that time",),
                    tuple(line["first_packet"] for line in lines[:10]))


def _both_ways(tables: Tables, audio: pl.DataFrame) -> Iterator[_Sign]:
    """Opposite streams of a flow with one SSRC and unrelated numbers."""
    opposite = audio.join(audio.select("flow", "ssrc", "source", "source_port", other="stream"), on=["flow", "ssrc"])
    pairs = opposite.filter(((pl.col("source") != pl.col("source_right"))
                             | (pl.col("source_port") != pl.col("source_port_right")))
                            & (pl.col("stream") < pl.col("other")))
    read = 0
    for line in pairs.head(PAIRS).iter_rows(named=True):
        read += int(tables.packets.flow_size[line["flow"]])
        if read > BUDGET:
            return
        two = audio.row(by_predicate=pl.col("stream") == line["other"], named=True)
        if rtp_sources.echoed(tables, audio.filter(pl.col("stream").is_in([line["stream"], line["other"]]))):
            continue
        yield _Sign("both ways", (line, two), f"{line['source']} and {two['source']} send to each other with the same "
                    f"SSRC 0x{line['ssrc']:08x}.", ("one SSRC in both directions, and numbers that are not an echo",),
                    (line["first_packet"], line["last_packet"], two["first_packet"], two["last_packet"]))


def _occurrence(tables: Tables, sign: _Sign) -> Occurrence:
    first = sign.streams[0]
    calls = sorted({str(s["call_id"]) for s in sign.streams if s["call_id"]})
    return Occurrence(
        subject=f"{first['destination']}:{first['destination_port']}", group=(sign.kind, str(first["destination"])),
        summary=sign.summary, confidence=sign.confidence, reasons=sign.reasons,
        evidence=tables.evidence(sign.packets, {
            "rtp.ssrc": ", ".join(f"0x{s['ssrc']:08x}" for s in sign.streams[:10]), "rtp.streams": len(sign.streams)}),
        scope={"destination.ip": str(first["destination"]), "destination.port": int(str(first["destination_port"])),
               "source.ip": str(first["source"])},
        flows=tuple(sorted({int(str(s["flow"])) for s in sign.streams})),
        keys=frozenset(f"call:{call}" for call in calls),
        start_ns=min(int(str(s["first_ns"])) for s in sign.streams),
        end_ns=max(int(str(s["last_ns"])) for s in sign.streams),
        title={"in turns": "Two RTP streams reach one port in turns", "changes": "The RTP source changes again and "
               "again", "both ways": "One SSRC is used in both directions"}[sign.kind],
        alternatives=(Alternative("the receiver expects several sources", "a mixer or recorder tells them apart",
                                  "no signalling here announces them"),))
