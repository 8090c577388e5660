"""A call is released because no media came for a fixed time, not because somebody hung up.

Media servers, session border controllers and proxies clear calls whose RTP stays away for a time that is set: 30, 60,
120 or 300 s. Two ways to know it: the BYE gives the reason itself (RFC 3326), such as "RTP timeout", or the BYE comes
from the side that has heard nothing, and the silence before it is the same in several calls, half of those that end in
silence. The silence counts from
the last RTP or RTCP that went to the releasing side. The reason behind it is another one: hold or mute without RTP,
silence suppression, one-way audio, or a path that failed.

**What lifts the suspicion.** The same silence before the BYE in three calls or more (probable). A Reason that speaks
of media or RTP (confirmed).

**What looks alike and is not it.** Somebody hangs up in a pause: the time is any time, in one call only, and below 15
seconds it is not counted at all. A session timer (RFC 4028), whose BYE keeps to the interval since the last refresh:
a call with Session-Expires that ends at that interval is left out. Calls on hold whose RTCP goes on. Calls whose media
is not in the capture.
"""

from __future__ import annotations

from typing import Any

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
from netdiag.tables import Tables, media_activity
from netdiag.tables.sip_details import details

PATTERN = Pattern(
    id="RTP-TIMEOUT-BYE",
    title="A call is released by a media timer",
    severity=Severity.MEDIUM,
    cases=("session-timer-call-drop",),
    needs=("calls", "sip", "rtp", "rtcp"),
    references=(Reference("RFC 3326"), Reference("RFC 6263"), Reference("RFC 4028 §10")),
    filter="sip.Method == \"BYE\" || rtp",
    mitigation="Raise the media timer of the releasing element, or switch it off for calls on hold.",
    fix="Find why no media came: hold or mute without RTP, silence suppression, one-way audio; let RTCP count as life.",
    prevention="Hold and mute a test call for ten minutes; send keep-alives in RTP (RFC 6263) while silent.",
    next_capture="Signalling, RTP and RTCP at the releasing element, from before the media stops.",
    settings=(Setting("min_silence", 15, "s", "practice: shorter media timers are not in use"),
              Setting("same_calls", 3, "calls", "practice: so many with one silence are no chance"),
              Setting("min_share", 50, "% of its calls that end in silence", "practice: pauses of people spread wide"),
              Setting("tolerance", 1.5, "s", "practice: timers are checked once a second or so")),
)

WORDS = ("rtp timeout", "media timeout", "rtp inactivity", "media inactivity", "no rtp", "no media", "media time",
         "rtp broken", "session timeout by media", "inactivity")
"""Texts of Reason headers that name a media timer, lower case (practice: what products write)."""
USUAL = (20, 30, 45, 60, 90, 120, 180, 300, 600)
"""Media timers in s that products come with or that people set (practice)."""
REFRESH_NS = 2_000_000_000
"""How near to the session interval a BYE is the session timer's (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Calls whose BYE names a media timer, and groups of calls with the same silence before their BYE."""
    ended = tables.calls.filter(pl.col("bye_message").is_not_null() & pl.col("answer_ns").is_not_null())
    if not ended.height:
        return not_applicable("no answered call that ends with a BYE")
    told = _reasons(tables, ended)
    silent = _silent(tables, ended, settings)
    calls = silent.filter(pl.col("same") >= settings["same_calls"])
    by_reason = ended.join(told, on="call", how="inner", maintain_order="left").join(
        silent.select("call", "silence", "packet"), on="call", how="left", maintain_order="left")
    rest = calls.join(by_reason, on="call", how="anti", maintain_order="left")
    occurrences = [_occurrence(tables, row, row["text"]) for row in by_reason.iter_rows(named=True)]
    occurrences += [_occurrence(tables, row, "") for row in rest.iter_rows(named=True)]
    if not occurrences:
        count = ended["call_id"].n_unique()
        return clear(f"{number_of(count, 'answered calls')} ended with a BYE: none names a media timer, and no "
                     f"{settings['same_calls']:g} of them have the same silence before it")
    releasers = ended.select(pl.when(pl.col("bye_by") == "caller").then("caller").otherwise("callee").alias("by"))
    tally = dict(releasers.group_by("by").len().iter_rows())
    return found(occurrences, population="calls", examined={o.group: tally.get(o.group[0], 0) for o in occurrences})


def _reasons(tables: Tables, ended: pl.DataFrame) -> pl.DataFrame:
    """``call`` and ``text`` of calls whose BYE has a Reason that names a media timer."""
    byes = ended.filter(tables.sip["has_reason"].gather(ended["bye_message"]))
    if not byes.height:
        return pl.DataFrame(schema={"call": pl.UInt32, "text": pl.String})
    texts = details(tables, byes["bye_message"], ["reason_header"])["reason_header"]
    return byes.select("call", text=texts).filter(
        pl.col("text").str.to_lowercase().str.contains_any(list(WORDS)).fill_null(False))


def _silent(tables: Tables, ended: pl.DataFrame, settings: dict[str, float]) -> pl.DataFrame:
    """Ended calls with ``silence`` (s) before the BYE toward its sender, and ``same``: how many have that silence."""
    heard = ended.join(media_activity.last_heard(tables), on="call", how="inner", maintain_order="left")
    toward = pl.when(pl.col("bye_by") == "caller").then("callee_ns").otherwise("caller_ns")
    packet = pl.when(pl.col("bye_by") == "caller").then("callee_packet").otherwise("caller_packet")
    last = pl.max_horizontal(toward, "rtcp_ns", "answer_ns")
    heard = heard.with_columns(silence=(pl.col("end_ns") - last) / 1e9, packet=packet).filter(
        pl.col("silence") >= settings["min_silence"])
    heard = heard.filter(~pl.Series(_session_timer(tables, heard), dtype=pl.Boolean))
    heard = heard.with_columns(releaser=pl.when(pl.col("bye_by") == "caller").then("caller").otherwise("callee"))
    once = heard.unique("call_id", keep="first", maintain_order=True)  # a call may be seen at several points
    same = np.zeros(heard.height, np.int64)
    for (who,), group in once.group_by("releaser"):
        line = np.sort(group["silence"].to_numpy())
        at = np.flatnonzero((heard["releaser"] == who).to_numpy())
        mine = heard["silence"].to_numpy()[at]
        near = (np.searchsorted(line, mine + settings["tolerance"], "right")
                - np.searchsorted(line, mine - settings["tolerance"]))
        same[at] = np.where(near * 100 >= settings["min_share"] * len(line), near, 0)
    return heard.with_columns(same=pl.Series(same))


def _session_timer(tables: Tables, heard: pl.DataFrame) -> list[bool]:
    """Does the call end at a session interval, or a third before it, after its answer (RFC 4028 §10)?"""
    out = [False] * heard.height
    answers = heard.with_row_index("at").filter(pl.col("answer_message").is_not_null())
    if not answers.height:
        return out
    given = details(tables, answers["answer_message"], ["session_expires"])["session_expires"].to_list()
    for (at, start, end), text in zip(answers.select("at", "answer_ns", "end_ns").iter_rows(), given, strict=True):
        number = (text or "").partition(";")[0].strip()
        if number.isascii() and number.isdigit() and len(number) < 7:
            interval = int(number)
            out[at] = any(abs(end - start - whole * 1e9) <= REFRESH_NS for whole in (
                interval, interval - min(32, interval / 3)))
    return out


def _occurrence(tables: Tables, row: dict[str, Any], text: str) -> Occurrence:
    releaser = row["caller"] if row["bye_by"] == "caller" else row["callee"]
    silence = row["silence"]
    reasons, confidence = [], Confidence.CONFIRMED if text else Confidence.PROBABLE
    if text:
        reasons.append(f"the BYE says: {text[:100]}")
    if silence is not None:
        near = next((t for t in USUAL if abs(t - silence) <= 2), None)
        reasons.append(f"nothing went to {releaser} for {silence:.1f} s before its BYE"
                       + (f", near {near} s, a usual media timer" if near else ""))
    if not text:
        reasons.append(f"the same silence in {row['same']} calls that {releaser} releases")
    bye = int(tables.sip["packet"][row["bye_message"]])
    cited = [p for p in (row["packet"], bye) if p is not None]
    spoken = f" after {silence:.0f} s without media" if silence is not None else ""
    return Occurrence(
        subject=row["call_id"], group=(releaser,),
        summary=f"{releaser} releases the call{spoken}" + (f" ({text[:60]})." if text else "."),
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(cited, {"sip.call_id": row["call_id"], "sip.reason": text[:100],
                                         "rtp.silence_s": round(silence or 0, 1)}),
        scope={"host.ip": releaser}, flows=(int(tables.sip["flow"][row["bye_message"]]),),
        keys=frozenset({f"call:{row['call_id']}"}), absence=not text, constant=silence,
        start_ns=int(row["end_ns"] - (silence or 0) * 1e9), end_ns=int(row["end_ns"]),
        alternatives=(Alternative("people hung up", "a silent line makes people hang up",
                                  "the BYE names the timer" if text else "the silence is the same in each call"),))
