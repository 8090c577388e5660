"""The caller is told to listen to the called side before the answer, and hears nothing: no ringback, no announcement.

A 183 with SDP says that audio comes from the other side; the caller's phone then stops making its own ringing tone
(RFC 3960 §3.2). Where that audio is not sent, or not let through before the answer, callers hear silence and hang up,
and announcements behind 486 or 404 are lost. Firewalls and media relays that open only with the 200, and relays that
wait for the caller's first packet while the caller waits for theirs, do this.

**What lifts the suspicion.** Audio begins right after the answer, so that this tap does show that direction; or it is
seen on the far leg of a relay, or on its way to a port that the caller did not offer (probable). An ICMP error about
it, or the audio at another capture point (confirmed).

**What looks alike and is not it.** Audio of one direction before the answer is what early media are. After a 180 the
phone rings by itself, with or without audio. P-Early-Media: inactive or gated (RFC 5009), preconditions that are not
met yet (RFC 3312), a direction that sends nothing. A capture that shows no media of these hosts at all cannot tell,
such as one at a proxy that media never pass, whatever another point shows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

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
    inconclusive,
    not_applicable,
    number_of,
)
from netdiag.tables import Tables
from netdiag.tables.addresses import endpoint
from netdiag.tables.rtp import RtpStream
from netdiag.tables.schema import rows
from netdiag.tables.sip_head import has_option, head

PATTERN = Pattern(
    id="SIP-EARLY-MEDIA-SILENT",
    title="Early media announced, but nothing is heard before the answer",
    severity=Severity.MEDIUM,
    cases=("one-way-audio-behind-nat",),
    needs=("sip", "calls", "media", "rtp", "icmp", "quality"),
    references=(Reference("RFC 3960 §3.2"), Reference("RFC 3264 §5.1"), Reference("RFC 5009 §8"),
                Reference("RFC 3312 §3")),
    filter="sip.Status-Code == 183 || (sip.Status-Code == 180 && sdp)",
    mitigation="Let the gateway send 180 without SDP where it has no announcement, so that phones ring by themselves.",
    fix="Open the media path with the 18x, and let relays send to the offered address before they have heard from it.",
    prevention="Call an announcement (a number that does not exist) through every trunk, and listen.",
    next_capture="Capture media at the called side's relay: does the audio leave before the 200?",
    settings=(Setting("silence", 4, "s", "practice: a caller notices by then"),),
)

ANSWERED_NS = 2_000_000_000
"""Audio that begins so soon after the answer was waiting for it (practice)."""
DETAILED = 200
"""Calls whose frames are listed; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Calls with a 183 that promises audio, and none until the answer or the end."""
    early = tables.sip.select("message", "status", "sdp_offset", "retransmission").filter(
        (pl.col("status") == 183) & pl.col("sdp_offset").is_not_null() & ~pl.col("retransmission"))
    if not len(early):
        return not_applicable("no 183 with SDP in this capture")
    promised = _promised(tables, early["message"], settings["silence"])
    judged: list[_Silence] = []
    if len(promised):
        context = _Context(tables, promised)
        judged = [j for row in promised.iter_rows(named=True) if (j := context.judge(row))]
    faults = [j for j in judged if j.seen]
    if not faults and judged:
        return inconclusive(f"{number_of(len(judged), 'calls')} with early media announced and none seen, at a point "
                            "that shows no media of these hosts", PATTERN.next_capture)
    if not faults:
        return clear(f"{number_of(len(early), 'responses')} 183 with SDP; {len(promised)} of them "
                     f"{settings['silence']:.0f} s before the answer without ringing, and audio comes or none is due")
    examined = Counter(promised.select("address", "call_id").unique()["address"].to_list())
    return found([context.occurrence(j, i < DETAILED) for i, j in enumerate(faults)], population="calls",
                 examined={(address,): n for address, n in examined.items()})


def _promised(tables: Tables, messages: pl.Series, silence: float) -> pl.DataFrame:
    """The first 183 of each branch with what it promises, where no 180 came and there was time to hear it."""
    branch = ["point", "call_id", "to_tag"]
    said = tables.sip[messages].select(*branch, "message", "packet", "ts_ns", "flow", "source", "sdp_offset",
                                      "raw_offset", "raw_length").unique(
        branch, keep="first", maintain_order=True)
    ringing = tables.sip.select("status", *branch).filter(pl.col("status") == 180)
    said = said.join(ringing, on=branch, how="anti", nulls_equal=True, maintain_order="left")
    ends = tables.quality.select("point", point_ns="last_ns")
    calls = tables.calls.select("point", "call_id", "call", "answer_ns", "end_ns", "hops").join(ends, on="point")
    said = said.join(calls, on=["point", "call_id"], maintain_order="left").with_columns(
        until=pl.min_horizontal(pl.coalesce("answer_ns", "end_ns", "point_ns"), pl.coalesce("end_ns", "point_ns")))
    said = said.filter(pl.col("until") - pl.col("ts_ns") >= silence * 1e9)
    audio = tables.media.filter((pl.col("type") == "audio") & (pl.col("port") > 0)).select(
        "call", "message", "side", "address", "port", "direction", "ice")
    answer = audio.filter((pl.col("side") == "callee") & pl.col("direction").is_in(["sendrecv", "sendonly"])
                          & ~pl.col("ice")).unique(["call", "message"], keep="first", maintain_order=True)
    offer = audio.filter(pl.col("side") == "caller").unique("call", keep="first", maintain_order=True)
    return said.join(answer.drop("call"), on="message", maintain_order="left").join(
        offer.select("call", to="address", to_port="port"), on="call", maintain_order="left")


@dataclass(slots=True)
class _Silence:
    row: dict[str, Any]
    confidence: Confidence
    reasons: list[str]
    packets: list[int]
    seen: bool
    absence: bool = True


class _Context:
    def __init__(self, tables: Tables, promised: pl.DataFrame) -> None:
        self._tables = tables
        self._streams: dict[int, list[RtpStream]] = {}
        chosen = promised["call"].unique().implode()
        for s in rows(tables.rtp.filter(pl.col("call").is_in(chosen)), RtpStream):
            self._streams.setdefault(s.call or 0, []).append(s)
        self._hosts = set(tables.rtp.select("point", "source").unique().iter_rows()) | set(
            tables.rtp.select("point", "destination").unique().iter_rows())
        self._errors: dict[tuple[str, str, int], list[tuple[int, int, str, str]]] = {}
        for point, host, port, *rest in tables.icmp.select("point", "quoted_destination", "quoted_destination_port",
                                                           "ts_ns", "packet", "name", "source").iter_rows():
            self._errors.setdefault((point, host, port), []).append((rest[0], rest[1], rest[2], rest[3]))
        self._elsewhere: dict[str, list[tuple[str, RtpStream]]] = {}
        if len(tables.points) > 1:
            for row in promised.iter_rows(named=True):
                for s in self._during(row):
                    self._elsewhere.setdefault(row["call_id"], []).append((row["point"], s))

    def _during(self, row: dict[str, Any]) -> list[RtpStream]:
        """Audio of the called side before the answer."""
        return [s for s in self._streams.get(row["call"], ())
                if s.sender == "callee" and s.first_ns < row["until"] and s.last_ns >= row["ts_ns"]]

    def judge(self, row: dict[str, Any]) -> _Silence | None:
        """None when something is heard, or nothing was to be."""
        streams, during = self._streams.get(row["call"], []), self._during(row)
        own = {(s.source, s.source_port) for s in streams if s.sender == "caller"}
        target = row["to"], row["to_port"]
        far = [s for s in during if row["hops"] > 1 and s.destination not in (row["to"], row["address"])]
        astray = [s for s in during if s.destination == row["to"] and s.destination_port != row["to_port"]
                  and (s.destination, s.destination_port) not in own]
        errors = [e for e in self._errors.get((row["point"], *target), ()) if row["ts_ns"] <= e[0] <= row["until"]]
        if (len(far) + len(astray) < len(during) and not errors) or not self._due(row):
            return None
        waited = (row["until"] - row["ts_ns"]) / 1e9
        out = _Silence(row, Confidence.SUSPECTED, [f"183 with SDP, no 180, and {waited:.1f} s until "
                                                   f"{'the answer' if row['answer_ns'] else 'the end'} without audio"],
                       [row["packet"]], bool(streams) or bool(
                           {(row["point"], row["to"]), (row["point"], row["address"])} & self._hosts))
        later = [s for s in streams if s.sender == "callee" and row["answer_ns"]
                 and 0 <= s.first_ns - row["answer_ns"] <= ANSWERED_NS]
        if later:
            out.confidence = Confidence.PROBABLE
            out.reasons.append(f"audio from {later[0].source} begins "
                               f"{(later[0].first_ns - row['answer_ns']) / 1e9:.2f} s after the answer")
            out.packets.append(later[0].first_packet)
        for s, what in [(s, "goes to a port that the caller did not offer") for s in astray] + [
                (s, "is seen on the far leg alone") for s in far]:
            out.confidence, out.absence, out.seen = Confidence.PROBABLE, False, True
            out.reasons.append(f"audio from {s.source} to {endpoint(s.destination, s.destination_port)} {what}")
            out.packets.append(s.first_packet)
        there = [(p, s) for p, s in self._elsewhere.get(row["call_id"], []) if p != row["point"] and out.seen]
        if errors:
            _, packet, name, source = errors[0]
            out.reasons.append(f"ICMP {name} from {source} about packets to {endpoint(*target)}")
            out.packets += [packet, *(s.first_packet for s in during[:1])]
        if there:
            point, s = there[0]
            out.reasons.append(f"at {point} audio from {s.source} goes to "
                               f"{endpoint(s.destination, s.destination_port)} before the answer")
            out.packets.append(s.first_packet)
        if errors or there:
            out.confidence, out.absence, out.seen = Confidence.CONFIRMED, False, True
        return out

    def _due(self, row: dict[str, Any]) -> bool:
        """Is audio to be expected: no gate, no precondition?"""
        fields = head(self._tables, row["message"])
        gates = " ".join(fields.get("p-early-media", [])).lower()
        if "inactive" in gates or "gated" in gates or has_option(fields.get("require", []), "precondition"):
            return False
        body = self._tables.packets.space.read(row["raw_offset"] + row["sdp_offset"],
                                               row["raw_length"] - row["sdp_offset"])
        return b"\na=curr:" not in body and b"\na=des:" not in body

    def occurrence(self, f: _Silence, detailed: bool) -> Occurrence:
        row = f.row
        place, to = endpoint(row["address"], row["port"]), endpoint(row["to"], row["to_port"])
        waits = not any(s.sender == "caller" and s.first_ns < row["until"] for s in self._streams.get(row["call"], ()))
        end = "the answer" if row["answer_ns"] else "the end"
        return Occurrence(
            subject=row["call_id"], group=(row["address"],),
            title="" if row["answer_ns"] else "Early media announced, but nothing is heard before the call fails",
            summary=f"{row['source']} announces audio from {place} with 183; none reaches {to} in "
                    f"{(row['until'] - row['ts_ns']) / 1e9:.1f} s before the "
                    f"{'answer' if row['answer_ns'] else 'end of the call'}.",
            confidence=f.confidence, reasons=tuple(f.reasons),
            evidence=self._tables.evidence(f.packets, {"sip.call_id": row["call_id"], "sdp.address": place})
            if detailed else (),
            scope={"source.ip": row["address"], "destination.ip": row["to"]}, flows=(row["flow"],),
            keys=frozenset({f"call:{row['call_id']}", f"host:{row['address']}"}), absence=f.absence,
            start_ns=row["ts_ns"], end_ns=row["until"], alternatives=(
                Alternative("the relay waits for the caller's first packet",
                            f"the caller sends none either before {end}" if waits else "",
                            "" if waits else f"the caller does send audio before {end}"),
                Alternative("the called side has no announcement and should send 180", "nothing leaves it, as far as "
                            "this point shows" if f.absence else "", "" if f.absence else "its audio is seen")))
