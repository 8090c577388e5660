"""Digits are sent in a way that the receiver does not understand.

Digits travel as telephone events (RFC 4733), packets with a dynamic payload type that the *receiver* chooses in its
SDP (RFC 3264 §5.1), or in INFO requests. Three things go wrong. Events come with a number that the receiver did not
give to telephone-event, or although it did not name telephone-event at all: it throws them away. An event never gets
its end: no packet with the end bit comes, or the same key goes on under new time stamps, which a receiver counts as
several digits. An INFO with a digit is refused, or nobody answers it.

**What lifts the suspicion.** Events and both descriptions are here: probable. The receiver's own refusal of the INFO:
confirmed.

**What looks alike and is not it.** The end packet three times, and the same event every 20 to 50 ms: that is how it is
sent (RFC 4733 §2.5.1). A key held so long that its duration is full and goes on with a new time stamp (§2.5.1.3). An
end that was lost: sequence numbers are missing behind it (RTP-LOSS). A stream that ends within an event. An INFO with
another body, one that is challenged (401, 407), or whose dialog is gone (481). A proxy that passes a refusal on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import polars as pl

from netdiag.detectors.rtp._share import numbering, subject
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
from netdiag.tables import Tables, rtp_events, rtp_formats, sip_bodies
from netdiag.tables.rtp_events import Event

PATTERN = Pattern(
    id="RTP-DTMF-MISMATCH",
    title="DTMF digits are sent in a way that the receiver does not understand",
    severity=Severity.MEDIUM,
    cases=("codec-and-dtmf-mismatch",),
    needs=("rtp", "media", "calls", "transactions", "sip"),
    references=(Reference("RFC 4733 §2.5.1"), Reference("RFC 3264 §5.1"), Reference("RFC 6086")),
    filter="rtp || sdp || sip.Method == \"INFO\" || sip.CSeq.method == \"INFO\"",
    mitigation="Fix one payload type (101) and one method for this trunk on both sides.",
    fix="Make the element between the legs translate event payload types, or pass both descriptions on unchanged.",
    prevention="Dial into a test announcement that reads the digits back, through every trunk.",
    next_capture="Signalling and media of both legs while digits are pressed.",
    settings=(Setting("split_gap", 100, "ms", "practice: fingers leave longer pauses between two presses"),
              Setting("min_sends", 3, "sends", "practice: an INFO sent so often without an answer is not answered")),
)

STREAMS = 500
"""Streams with events that are read packet by packet (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Events with wrong numbers, events without an end, and INFO requests with digits that are refused."""
    info = tables.transactions.filter(pl.col("method") == "INFO")
    bound = tables.rtp.filter(pl.col("call").is_not_null())
    if not bound.height and not info.height:
        return not_applicable("no RTP of a call, and no INFO request")
    several = bound.filter(pl.col("payload_types").list.max() >= 96).head(STREAMS)
    types = {row["stream"]: set(rtp_formats.event_types(tables, row)) for row in several.iter_rows(named=True)}
    keyed = several.filter(pl.col("stream").is_in([s for s, kinds in types.items() if kinds]))
    events: dict[int, list[Event]] = {}
    for event in rtp_events.events(tables, keyed, types):
        events.setdefault(event.stream, []).append(event)
    occurrences = list(_refused(tables, info, settings["min_sends"]))
    for row in keyed.iter_rows(named=True):
        mine = events.get(row["stream"], [])
        occurrences += [*_numbers(tables, row, mine), *_ends(tables, row, mine, settings["split_gap"])]
    if not occurrences:
        digits = sum(map(len, events.values()))
        return clear(f"{number_of(digits, 'digits')} in {number_of(len(events), 'RTP streams')} and "
                     f"{number_of(info.height, 'INFO requests')}: all as agreed")
    return found(occurrences, population="calls")


def _numbers(tables: Tables, row: dict[str, Any], events: list[Event]) -> Iterator[Occurrence]:
    """Events with payload types that the receiver did not give to telephone-event."""
    said = rtp_formats.receiver(tables, row)
    wanted = rtp_formats.event_types(tables, row, receiver_only=True)
    wrong = [e for e in events if e.payload_type not in wanted]
    if not wrong or not said:
        return
    number = wrong[0].payload_type
    asked = f"gave {', '.join(map(str, wanted))} to telephone-event" if wanted else "did not name telephone-event"
    yield _occurrence(tables, row, wrong, "number", f"payload type {number}, and the receiver {asked}",
                      [f"{number_of(len(wrong), 'digits')} ({_text(wrong)}) with payload type {number}; the receiver "
                       f"{asked}"],
                      [said[-1][3], wrong[0].first_packet, wrong[-1].last_packet])


def _ends(tables: Tables, row: dict[str, Any], events: list[Event], gap_ms: float) -> Iterator[Occurrence]:
    """Events without an end although nothing behind them is missing."""
    open_ = []
    for event, after in pairwise([*events, None]):
        if event is None or event.ends or not event.followed:
            continue
        soon = (after is not None and after.code == event.code
                and after.begin_ns - event.end_ns <= gap_ms * 1e6)
        if soon and event.duration >= rtp_events.LONGEST - 8000:
            continue  # the next segment of a long press
        open_.append((event, soon))
    if not open_:
        return
    split = sum(soon for _, soon in open_)
    bad = [event for event, _ in open_]
    what = "no end, and the same key goes on under a new time stamp" if split else "no end"
    yield _occurrence(tables, row, bad, "end", what, [
        f"{number_of(len(bad), 'events')} ({_text(bad)}) without a packet with the end bit, and no packet behind is "
        "missing"
        + (f"; {split} of them continued at once as the same "
           "key" if split else "")], [bad[0].first_packet, bad[-1].last_packet])


def _occurrence(tables: Tables, row: dict[str, Any], events: list[Event], kind: str, what: str, reasons: list[str],
                packets: list[int]) -> Occurrence:
    return Occurrence(
        subject=f"{row['call_id']} {row['sender']}" if row["call_id"] else subject(row),
        group=(kind, str(row["destination"] if kind == "number" else row["source"])),
        summary=f"{number_of(len(events), 'digits')} from {row['source']} to {row['destination']}: {what}.",
        confidence=Confidence.PROBABLE, reasons=tuple(reasons),
        evidence=tables.evidence(packets, {
            "sip.call_id": str(row["call_id"]), "rtp.payload_type": events[0].payload_type,
            "rtp.digits": _text(events)}),
        scope={"source.ip": str(row["source"]), "destination.ip": str(row["destination"])}, flows=(int(row["flow"]),),
        keys=numbering(row) if kind == "number" else frozenset({f"call:{row['call_id']}"}),
        start_ns=events[0].begin_ns, end_ns=events[-1].end_ns,
        title="DTMF events with a payload type that the receiver did not choose" if kind == "number" else
        "DTMF events without an end",
        alternatives=(Alternative("the receiver is lenient", "some take any number, and end digits by a timer",
                                  "nothing in RTP can show that it does"),))


def _text(events: list[Event]) -> str:
    return "".join(e.digit for e in events[:20])


def _refused(tables: Tables, info: pl.DataFrame, least: float) -> Iterator[Occurrence]:
    """INFO requests with digits that got an error, or nothing however often they were sent."""
    bad = info.filter((pl.col("status").is_null() & (pl.col("sends") >= least))
                      | (pl.col("status") >= 400) & ~pl.col("status").is_in([401, 407, 408, 481, 491]))
    hops = bad.filter(~pl.col("midstream")).head(STREAMS).rows(named=True)
    onward = {_at(row, "client"): row for row in hops}
    for row in hops:
        after = onward.get(_at(row, "server"))
        if after and after["server"] not in (row["client"], row["server"]):
            continue  # a proxy passed it on, and the refusal back
        request = row["request_messages"][0]
        if "dtmf" not in sip_bodies.content_type(tables, request):
            continue
        cited = [request, *([row["final_message"]] if row["final_message"] is not None else row["request_messages"])]
        said = f"answers {row['status']}" if row["status"] else f"does not answer ({row['sends']} sends)"
        yield Occurrence(
            subject=row["call_id"], group=("info", row["server"]),
            summary=f"An INFO with a digit from {row['client']}: {row['server']} {said}.",
            confidence=Confidence.CONFIRMED if row["status"] else Confidence.SUSPECTED,
            reasons=(f"the INFO with a digit: {row['server']} {said}",),
            evidence=tables.evidence(tables.sip["packet"].gather(sorted(set(cited))).to_list(), {
                "sip.call_id": row["call_id"], "sip.status": row["status"] or 0}),
            scope={"source.ip": row["client"], "destination.ip": row["server"]},
            flows=(int(tables.sip["flow"][request]),), keys=frozenset({f"call:{row['call_id']}"}),
            absence=not row["status"], start_ns=row["first_ns"], end_ns=row["last_ns"],
            title="DTMF by INFO is refused" if row["status"] else "DTMF by INFO is not answered")


def _at(row: dict[str, Any], end: str) -> tuple[object, ...]:
    return row["point"], row["call_id"], row["cseq"], row[end]
