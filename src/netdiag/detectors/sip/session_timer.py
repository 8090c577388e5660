"""Calls are cut at a fixed time because their session timer is not refreshed.

A 2xx with Session-Expires obliges one side, the refresher, to send a re-INVITE or UPDATE before that time is over; each
2xx to one of these starts it anew (RFC 4028 §7.2). If nothing comes, the other side sends BYE min(32 s, a third) before
the end, or either side at the end (§10): at 60 s for 90, at 1768 s for 1800. If the refresh itself gets 408, 481 or no
response, BYE follows at once (§10), as a rule at half the time. An INVITE with a timer that is too short gets 422 with
Min-SE and must be repeated with that (§6); clients that repeat their own value never get through.

**What lifts the suspicion.** The 2xx names the refresher, and it stays silent; or the refresh is seen and fails
(probable). Three calls with a known, silent refresher that end at the same constant, or a refresh that one capture
point shows and another lacks (confirmed).

**What looks alike and is not it.** Somebody hangs up: at any time, with cause 16, or as the refresher itself before the
end. A 2xx without Session-Expires: there is no timer. A call that was refreshed dies of something else. A re-INVITE
without Session-Expires that is refused (hold, codec) is no refresh. A limit of the provider is named in the Reason. One
422 that is repaired is how the timer is agreed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

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
    times,
)
from netdiag.tables import Tables
from netdiag.tables.schema import rows
from netdiag.tables.sip_details import details
from netdiag.tables.sip_head import lines
from netdiag.tables.sip_session import (
    REFRESHING,
    Attempt,
    TimedCall,
    attempts,
    deadlines,
    refresher,
    seconds,
    timed_calls,
)

PATTERN = Pattern(
    id="SIP-SESSION-TIMER",
    title="Call cut at a fixed time: its session timer is not refreshed",
    severity=Severity.HIGH,
    cases=("session-timer-call-drop",),
    needs=("calls", "transactions", "sip"),
    references=(Reference("RFC 4028 §4–7, §9, §10"),),
    filter="sip.Session-Expires || sip.Method == \"BYE\" || sip.Status-Code == 422",
    mitigation="Switch the session timer off on one side, or make the other side the refresher.",
    fix="Let re-INVITE or UPDATE reach the other side: routing inside dialogs, keep-alives, methods allowed.",
    prevention="Place a test call that lasts longer than the session interval (35 minutes for 1800 s).",
    next_capture="Capture at the refresher: does it send a refresh, and where to?",
    settings=(Setting("tolerance", 2, "s", "practice: timers and clocks of phones"),),
)

SHORTEST_S = 43.0
"""Half of the least interval, 90 s (RFC 4028 §5), and the tolerance."""
AT_ONCE_S = 34.0
"""BYE follows a refresh without response after Timer B or F, 32 s (RFC 3261 §17), and the tolerance."""
ENDING = (None, 408, 481)
"""What ends the session at once (RFC 4028 §10)."""
CLUSTER = 3
"""Calls with the same constant (practice)."""
DETAILED = 200
"""Calls that are looked at closely; the others of a flood are counted (practice)."""
SILENT, FAILED, INTERVAL = "no refresh", "refresh failed", "interval too small"


class _Death(NamedTuple):
    """A call that a session timer may have ended."""

    call: TimedCall
    interval: int
    kind: str
    tried: Attempt | None
    on_time: bool
    reason: str = ""
    """Reason header of the BYE."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Calls whose BYE comes when their session timer says, and calls that are refused with 422 again."""
    small = _refused(tables)
    timed = timed_calls(tables, SHORTEST_S)
    if not len(timed) and not small:
        if not tables.calls["answer_ns"].count():
            return not_applicable("no answered call in this capture")
        return clear(f"no call of {SHORTEST_S:.0f} s or more has a session timer and a BYE")
    calls = list(rows(timed, TimedCall))
    tried: dict[tuple[str, str], Attempt] = {}
    for a in rows(attempts(tables, timed), Attempt) if len(timed) else ():
        if a.with_timer:
            tried[a.point, a.call_id] = a  # the last one counts
    deaths = [d for c in calls if (d := _death(c, tried.get((c.point, c.call_id)), settings["tolerance"]))]
    said = details(tables, [d.call.bye_message for d in deaths], ("reason_header",))["reason_header"].to_list()
    deaths = [d._replace(reason=reason or "") for d, reason in zip(deaths, said, strict=True)]
    deaths = [d for d in deaths if d.kind == FAILED or not any(w in d.reason.lower() for w in ("duration", "limit"))]
    same = Counter((d.call.point, d.interval, round(d.call.gap_s)) for d in deaths if d.kind == SILENT)
    unseen: defaultdict[str, list[_Death]] = defaultdict(list)
    failed = {d.call.call_id: d for d in deaths if d.kind == FAILED}
    for d in deaths:
        if d.kind == SILENT and d.call.call_id in failed:
            unseen[d.call.call_id].append(d)
    deaths = [d for d in deaths if d.kind == FAILED or d.call.call_id not in failed]
    near = {(d.call.call_id, d.call.point): sum(same[d.call.point, d.interval, round(d.call.gap_s) + i]
                                                for i in (-1, 0, 1)) for d in deaths}
    deaths = [d for d in deaths if d.kind != SILENT or "cause=16" not in d.reason.replace(" ", "")
              or near[d.call.call_id, d.call.point] >= CLUSTER]
    occurrences = [_occurrence(tables, d, near[d.call.call_id, d.call.point], i < DETAILED, unseen[d.call.call_id])
                   for i, d in enumerate(deaths)] + small
    if not occurrences:
        return clear(f"{number_of(len(calls), 'calls')} with a session timer; none ends when it says, and none fails "
                     "to refresh it")
    examined = max(len({c.call_id for c in calls}), 1)
    return found(occurrences, population="calls with a session timer",
                 examined={o.group: examined for o in occurrences if o.group[0] != INTERVAL})


def _death(call: TimedCall, tried: Attempt | None, tolerance: float) -> _Death | None:
    interval = seconds(call.session_expires)
    if interval is None:
        return None
    early, end = (abs(call.gap_s - d) <= tolerance for d in deadlines(interval))
    if tried is not None:
        at_once = tried.status in ENDING and -1 <= (call.end_ns - tried.last_ns) / 1e9 <= AT_ONCE_S
        if not (at_once or early or end):
            return None
    elif not end and not (early and call.bye_source != refresher(call)):
        return None
    return _Death(call, interval, SILENT if tried is None else FAILED, tried, early or end)


def _occurrence(tables: Tables, d: _Death, alike: int, detailed: bool, unseen: list[_Death]) -> Occurrence:
    """``unseen``: the same call at points where its refresh is not seen."""
    call, tried, known = d.call, d.tried, refresher(d.call)
    sip = tables.sip
    cited = [call.reset_message, call.bye_message]
    other_hops = {(u.call.bye_source, u.call.point) for u in unseen if u.call.bye_source != call.bye_source}
    others = "".join(f" ({source} at {point})" for source, point in sorted(other_hops))
    reasons = [f"the last 2xx sets Session-Expires {call.session_expires}; BYE {call.gap_s:.1f} s later"
               f" by {call.bye_source}{others}" + (f", Reason {d.reason}" if d.reason else "")]
    confidence, elsewhere = Confidence.SUSPECTED, []
    if tried is not None:
        confidence = Confidence.PROBABLE
        answer = "no response" if tried.status is None else f"answered {tried.status}"
        reasons.append(f"{tried.client} sends {tried.method} {times(tried.sends)}, "
                       f"{(tried.first_ns - call.reset_ns) / 1e9:.1f} s after that 2xx: {answer}")
        cited += [*tried.request_messages, *tried.response_messages]
        if unseen:
            confidence = Confidence.CONFIRMED
            reasons.append(f"it is not seen at {', '.join(sorted({u.call.point for u in unseen}))}")
            cited += [m for u in unseen for m in (u.call.reset_message, u.call.bye_message)]
    else:
        if known:
            confidence = Confidence.PROBABLE if alike < CLUSTER else Confidence.CONFIRMED
            reasons.append(f"the side of {known} is the refresher, and no re-INVITE or UPDATE of it is seen")
        if alike >= CLUSTER:
            reasons.append(f"{alike} calls end like that")
        elsewhere = _seen_elsewhere(tables, call) if detailed else []
    if elsewhere:
        confidence = Confidence.CONFIRMED
        reasons.append(f"a refresh is seen at {sip['point'][elsewhere[0]]}, and not at {call.point}")
    blamed = tried.server if tried is not None else known or call.uas
    return Occurrence(
        subject=call.call_id, group=(d.kind, blamed), title=f"Call cut by its session timer: {d.kind}",
        summary=f"The call ends {call.gap_s:.1f} s after the last 2xx, which set a session timer of {d.interval} s.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(sip["packet"].gather([*cited, *elsewhere]).to_list(), {
            "sip.call_id": call.call_id, "sip.session_expires": call.session_expires}) if detailed else (),
        scope={"source.ip": call.caller, "sip.session_expires": d.interval},
        flows=(int(sip["flow"][call.bye_message]),), keys=frozenset({f"call:{call.call_id}", f"host:{blamed}"}),
        absence=(tried is None or tried.status is None) and not elsewhere and not unseen, clock=bool(unseen),
        constant=round(call.gap_s, 1) if d.on_time else None, start_ns=call.reset_ns, end_ns=call.end_ns,
        alternatives=(Alternative("somebody hangs up at that moment", "" if alike >= CLUSTER else
                                  "one call alone may end at any time", f"{alike} calls end at the same time"
                                  if alike >= CLUSTER else "the refresh has failed before" if tried else ""),
                      *(() if tried or elsewhere else (Alternative(
                          "the refresh takes another path, past this capture", "no refresh is seen", ""),))))


def _seen_elsewhere(tables: Tables, call: TimedCall) -> list[int]:
    """Refreshes of a call that another point shows and this one lacks, as rows of ``Tables.sip``."""
    if len(tables.points) < 2:
        return []
    asked = tables.sip.filter((pl.col("call_id") == call.call_id) & pl.col("method").is_in(REFRESHING)
                              & pl.col("to_tag").is_not_null())
    here = asked.filter(pl.col("point") == call.point).select("cseq", "from_tag")
    there = asked.filter(pl.col("point") != call.point).join(here, on=["cseq", "from_tag"], how="anti",
                                                             maintain_order="left")
    return there["message"].to_list()


def _refused(tables: Tables) -> list[Occurrence]:
    """INVITEs that come again after 422 with less than the Min-SE that it asked for."""
    asked = tables.transactions.filter((pl.col("method") == "INVITE") & (pl.col("status") == 422))
    calls: defaultdict[tuple[str, str, str, str], list[tuple[int, int]]] = defaultdict(list)
    asked = asked.filter(~pl.col("midstream") & asked["call_id"].is_duplicated())
    for *key, request, final in asked.select("point", "call_id", "client", "server", pl.col(
            "request_messages").list.first(), "final_message").iter_rows():
        calls[key[0], key[1], key[2], key[3]].append((request, final))
    out = []
    for (_, call_id, client, server), rounds in calls.items():
        offers = [seconds(v) or 0 for v in details(tables, [r for r, _ in rounds], ("session_expires",))[
            "session_expires"].to_list()]
        least = [seconds(dict(lines(tables, final)).get("min-se")) or 0 for _, final in rounds]
        again = [i for i in range(1, len(rounds)) if offers[i] < least[i - 1]]
        if not again:
            continue
        sip, cited = tables.sip, [m for pair in rounds for m in pair]
        out.append(Occurrence(
            subject=call_id, group=(INTERVAL, server), title="Session interval too small, and offered again",
            summary=f"{server} asks {client} for a session interval of {least[again[0] - 1]} s, and is offered "
                    f"{offers[again[0]]} s again.",
            confidence=Confidence.PROBABLE, reasons=(
                f"{len(rounds)} INVITEs get 422; {len(again)} of them offer less than the Min-SE of the one before",),
            evidence=tables.evidence(sip["packet"].gather(cited).to_list(), {"sip.call_id": call_id}),
            scope={"source.ip": client, "destination.ip": server}, flows=(int(sip["flow"][rounds[0][0]]),),
            keys=frozenset({f"call:{call_id}", f"host:{server}"}), start_ns=int(sip["ts_ns"][cited[0]]),
            end_ns=int(sip["ts_ns"][cited[-1]])))
    return out
