"""A call was put on hold and taken back, and audio still goes one way only.

One side offers `sendonly` or `inactive` (or the address 0.0.0.0, RFC 3264 §8.4) and the other accepts: hold. Later the
same side offers `sendrecv` again. If the answer to *that* says `recvonly`, `sendonly` or `inactive`, the direction of
the hold lives on in the answering element, although nobody asked for it; if the offer is refused (491, 488) and never
made again, the call stays on hold. Ten seconds of call after that show that the users wait for something.

**What lifts the suspicion.** The pair of directions itself does not allow audio both ways: probable. RTP that goes one
way only from that moment on (confirmed).

**What looks alike and is not it.** The other party is on hold of its own: both must resume (double hold). An offer of
`sendrecv` by the side that is held, such as a session refresh, which the holder rightly answers `sendonly` (RFC 6337
§5.3). Calls that begin one way: announcements, music, recorders. A refused offer that is made again within the ten
seconds (491 asks for that, RFC 3261 §14.1).
"""

from __future__ import annotations

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
from netdiag.tables import Tables, sdp_holds
from netdiag.tables.calls import Call
from netdiag.tables.schema import rows
from netdiag.tables.sdp_holds import Exchange

PATTERN = Pattern(
    id="RTP-HOLD-STUCK",
    title="A call stays on hold after it was taken back",
    severity=Severity.MEDIUM,
    cases=("session-timer-call-drop",),
    needs=("calls", "media", "sip", "transactions", "rtp", "quality"),
    references=(Reference("RFC 3264 §6.1, §8.4"), Reference("RFC 6337 §5.3"), Reference("RFC 3261 §14.1")),
    filter="sdp || sip.Status-Code == 491 || sip.Status-Code == 488",
    mitigation="Hold and resume once more, or let the other side send a new offer with sendrecv.",
    fix="Correct the element that answers with a remembered direction, or that does not repeat an offer after 491.",
    prevention="Test hold, resume and transfer through every trunk and B2BUA, with audio checked both ways.",
    next_capture="Signalling and media of all legs of the call from before the hold.",
    explains=("RTP-ONEWAY", "RTP-TIMEOUT-BYE"),
    settings=(Setting("min_time", 10, "s", "practice: users repeat or hang up only after some seconds"),),
)

HOLD = ("sendonly", "inactive")
CALLS = 2000
"""Calls with hold that are looked at (practice)."""
AUDIO_NS = 2_000_000_000
"""After the resume, audio has this long to begin (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Calls whose last exchange after a hold leaves one direction closed, against the offer of the holder."""
    answered = tables.calls.filter(pl.col("answer_ns").is_not_null())
    if not answered.height:
        return not_applicable("no answered call in this capture")
    audio = tables.media.filter((pl.col("type") == "audio") & (pl.col("role") == "offer"))
    oneway = audio.filter(pl.col("direction").is_in(HOLD) | pl.col("address").is_in(["0.0.0.0", "::"]))["call"]
    held = answered.filter(pl.col("call").is_in(oneway.unique().implode())).head(CALLS)
    by_call = sdp_holds.of_calls(tables, held["call"].to_list())
    ends: dict[str, int] = dict(tables.quality.select("point", "last_ns").iter_rows())
    found_in: dict[tuple[str, int], list[tuple[Call, Exchange, Exchange, int]]] = {}
    for call in rows(held, Call):
        end = call.end_ns or ends[call.point]
        lines = by_call.get(call.call, [])
        for index in sorted({x.index for x in lines}):
            stuck = _stuck([x for x in lines if x.index == index], call, end, int(settings["min_time"] * 1e9))
            if stuck:
                found_in.setdefault((call.call_id, index), []).append((call, *stuck))
    # A call that several points show is one; who answered first is nearest to where the answer comes from.
    occurrences = [_occurrence(tables, *sorted(seen, key=lambda s: s[2].ts_ns)) for seen in found_in.values()]
    if not occurrences:
        count, one_way = answered["call_id"].n_unique(), held["call_id"].n_unique()
        return clear(f"{number_of(count, 'answered calls')}, {one_way} with an offer of one direction: none stays on "
                     "hold after it was taken back")
    return found(occurrences, population="calls", examined={o.group: held["call_id"].n_unique() for o in occurrences})


def _stuck(lines: list[Exchange], call: Call, end: int, least: int) -> tuple[Exchange, Exchange, int] | None:
    """The hold, the failed resume, and until when it lasts."""
    holds: dict[str, Exchange] = {}
    failed: Exchange | None = None
    for x in lines:
        if failed and x.ts_ns - failed.ts_ns > least:
            break
        if x.answer is None:
            refused = x.status is not None and x.status >= 300 and x.status not in (401, 407)
            if refused and x.offered == "sendrecv" and x.offerer in holds and len(holds) == 1:
                failed = x
            continue
        failed = None
        if x.offered in HOLD:
            if x.ts_ns > (call.answer_ns or 0):
                holds[x.offerer] = x
        elif x.offered == "sendrecv" and x.offerer in holds:
            if x.answered != "sendrecv" and len(holds) == 1:
                failed = x
            else:
                del holds[x.offerer]
    if failed is None:
        return None
    until = min([end, *(x.ts_ns for x in lines if x.ts_ns > failed.ts_ns and x.answer is not None)])
    return (holds[failed.offerer], failed, until) if until - failed.ts_ns > least else None


def _occurrence(tables: Tables, first: tuple[Call, Exchange, Exchange, int],
                *others: tuple[Call, Exchange, Exchange, int]) -> Occurrence:
    call, hold, failed, until = first
    holder, other = failed.offerer, "callee" if failed.offerer == "caller" else "caller"
    what = f"answers {failed.answered}" if failed.answer else f"refuses with {failed.status}"
    seconds = (until - failed.ts_ns) / 1e9
    reasons = [f"the {holder} offers {hold.offered} (hold), later sendrecv; the {other} {what}, and the call goes on "
               f"for {seconds:.0f} s"]
    confidence = Confidence.PROBABLE
    cited = [hold.offer.packet, failed.offer.packet, *([failed.answer.packet] if failed.answer else [])]
    silent, heard = _silent(tables, call, failed.ts_ns + AUDIO_NS, until)
    if silent:
        confidence = Confidence.CONFIRMED
        reasons.append(f"from then on RTP comes from the {'callee' if silent == 'caller' else 'caller'} only")
        cited.append(heard)
    if others:
        reasons.append(f"the same at {', '.join(sorted({other.point for other, *_ in others}))}")
        cited += [x.packet for _, _, again, _ in others for x in (again.offer, again.answer) if x]
    host = failed.answer.signalling_source if failed.answer else call.callee if other == "callee" else call.caller
    return Occurrence(
        subject=call.call_id, group=(host, what),
        summary=f"The {holder} takes the call back from hold, and the {other} {what}: audio stays one-way or off for "
                f"{seconds:.0f} s.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(cited, {"sip.call_id": call.call_id, "sdp.offered": failed.offered,
                                         "sdp.answered": failed.answered or str(failed.status)}),
        scope={"host.ip": host}, flows=(int(tables.sip["flow"][failed.offer.message]),),
        keys=frozenset({f"call:{call.call_id}"}), start_ns=failed.ts_ns, end_ns=until,
        alternatives=(Alternative(f"the {other} holds the call itself", "its element may hold without telling",
                                  "it made no offer of its own that says so"),))


def _silent(tables: Tables, call: Call, begin: int, end: int) -> tuple[str, int]:
    """The side whose RTP is missing after ``begin`` while the other's goes on, and a packet of that one."""
    late = tables.rtp.filter((pl.col("call") == call.call) & (pl.col("last_ns") > begin) & (pl.col("first_ns") < end))
    senders = late["sender"].unique().to_list()
    if len(senders) != 1:
        return "", 0
    return ("callee" if senders[0] == "caller" else "caller"), int(late["last_packet"][0])
