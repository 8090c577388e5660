"""The roll-over counter of SRTP got lost: the audio dies where the RTP sequence number wraps, or after a re-INVITE.

The tag of an SRTP packet covers a number that no packet carries: how often its 16-bit sequence number has wrapped since
the stream began (RFC 3711 §3.2.1, §3.3.1). Sender and receiver each count, from 0 for each new SSRC (RFC 4568 §6.4),
and must go on counting when the key or the description changes. An element that begins anew (at a re-INVITE, a hold, a
change of its peer's address) or does not count the wrap makes tags that fit another count than the receiver's: it
drops all of them. With the keys each sampled packet is tried with counters from 0 to 15, and each count compared with
the one that a receiver has. At 20 ms a packet the first wrap comes after 21 min 50 s at most, and at another time in
each call, as the first number is random: no timer does that.

**What lifts the suspicion.** Two calls that are released within 20 s of their own wrap are a coincidence (suspected),
three are more (probable). RTCP in which the receiver stops counting at a wrap while the packets go on (probable, and
confirmed where the sender is known to count rightly). The search for the counter itself (confirmed).

**What looks alike and is not it.** Calls that end after the same time: a timer (SIP-SESSION-TIMER). A new SSRC, a new
key, or an address and port of the sender with a new key begin at 0 rightly (RFC 4568 §6.4, §7.1). A first packet that
was not captured right before a wrap. A pause of the capture in which wraps may have been missed. Keys that never fit
(RTP-SRTP-AUTH). A receiver that lost its counter alone leaves tags that go on fitting: then only RTCP and the end of
calls tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import polars as pl

from netdiag.detectors.rtp import _share
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
)
from netdiag.tables import Tables, rtp_reports
from netdiag.tables.srtp import agreed

PATTERN = Pattern(
    id="RTP-SRTP-ROC",
    title="The SRTP roll-over counter got lost",
    severity=Severity.HIGH,
    cases=("srtp-keys-disagree",),
    needs=("srtp", "rtp", "rtcp", "calls", "media", "sip", "packets"),
    references=(Reference("RFC 3711 §3.2.1, §3.3.1"), Reference("RFC 4568 §6.4, §7.1"), Reference("RFC 4771")),
    filter="rtp.seq > 65500 || rtp.seq < 35 || sip.Method == \"INVITE\" || sip.Method == \"BYE\" || rtcp",
    mitigation="Have the calls re-keyed by a re-INVITE with new keys, or keep them below the time to the first wrap.",
    fix="Keep the cryptographic context of a stream over re-INVITE, hold and change of address; update the stack.",
    prevention="Test calls of 30 minutes with hold and resume, or senders whose first sequence number is near 65000.",
    next_capture="Signalling with keys and all media of one call from its first packet to its end, past a wrap.",
    settings=(Setting("min_packets", 5, "packets", "practice: what must verify with the other count"),
              Setting("near", 20, "s", "practice: how long people wait in silence before they hang up"),
              Setting("min_share", 50, "%", "practice: of the calls that wrap, those released soon after it"),
              Setting("min_sent", 200, "packets", "practice: 4 s of 20 ms packets that the receiver does not count")),
    explains=("RTP-RTCP-REMOTE-LOSS", "RTP-TIMEOUT-BYE"),
)

MISSED = 3000
"""Numbers behind a wrap at the start of a capture: MAX_DROPOUT of RFC 3550 A.1."""
DETAILED = 200
"""Occurrences whose offer is looked up (practice)."""
_TITLES = {"wrap": "The SRTP sender does not count the wrap", "reset": "The SRTP sender lost its roll-over counter",
           "late": "A stream begins with a roll-over counter that its receiver does not know",
           "receiver": "The receiver stops authenticating where the sequence number wraps",
           "released": "SRTP calls are released soon after their sequence number wraps"}


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Stretches with another count than the receiver's, receivers that stop at a wrap, and calls that end there."""
    checked = tables.srtp
    if not checked.height:
        if agreed(tables):
            return inconclusive("SRTP was agreed, and none of its packets was captured", PATTERN.next_capture)
        return not_applicable("no SRTP was agreed in this capture")
    ends = tables.rtp.select("stream", "flow", "ssrc", "source", "destination", "destination_port").join(
        _share.senders(tables), on="stream", maintain_order="left")
    senders = checked.rename({"source": "keys"}).join(ends, on="stream", maintain_order="left")
    told = list(_counted(tables, senders, settings))
    known = {o.subject for o in told}
    told += [o for o in _receivers(tables, senders, settings) if o.subject not in known]
    known = {o.subject for o in told}
    told += [o for o in _released(tables, senders, settings) if o.subject not in known]
    if told:
        of = senders.unique(["call_id", "ssrc", "host"]).group_by("host").len()
        counts = dict(of.iter_rows())
        return found(told, population="SRTP senders", examined=Counter({o.group: counts[o.group[1]] for o in told
                                                                        if o.group[1] in counts}))
    wraps = int(checked["wrap_packets"].list.len().sum())
    judged = checked.filter((pl.col("sampled") > 0) & pl.col("roc").is_not_null())["chain"].n_unique()
    chains = checked["chain"].n_unique()
    number = f"{chains} SRTP sender{'s'[: chains - 1]}"
    if not judged and wraps:
        return inconclusive(f"{number} with wraps of the sequence number, {wraps} in all, whose count cannot be "
                            "verified: no sign of silence behind them", PATTERN.next_capture)
    return clear(f"{number}, wraps of the sequence number: {wraps}; the count of {judged} was verified and goes on as "
                 "it must")


def _counted(tables: Tables, senders: pl.DataFrame, settings: dict[str, float]) -> Iterator[Occurrence]:
    """Senders whose tags fit another count than the one before it, or begin with one."""
    before = senders.with_columns(
        **{f"before_{c}": pl.col(c).shift().over("chain") for c in ("last_roc", "last_packet", "last_ns")})
    enough = before.filter((pl.col("sampled") >= settings["min_packets"]) & pl.col("roc").is_not_null())
    lost = enough.filter(pl.col("expected_roc").is_not_null() & (pl.col("roc") != pl.col("expected_roc")))
    late = enough.filter(pl.col("from_start") & (pl.col("roc") > 0) & ~(
        (pl.col("roc") == 1) & (pl.col("first_sequence") < MISSED)))
    for i, row in enumerate(pl.concat([lost, late]).iter_rows(named=True)):
        cited = [row["first_packet"], row["key_packet"]]
        if row["expected_roc"] is None:
            kind, reasons = "late", [f"the first packet of the call fits the count {row['roc']}; a receiver begins "
                                     "with 0 (RFC 4568 §6.4)"]
        else:
            cited.append(row["before_last_packet"])
            kind = "wrap" if row["roc"] == row["before_last_roc"] else "reset"
            reasons = [f"tags fit the count {row['before_last_roc']} before and {row['roc']} from "
                       f"{_frame(tables, row['first_packet'])} on, where a receiver counts {row['expected_roc']}",
                       f"{row['matched']} of {row['sampled']} tags computed there fit"]
            offer = _offer(tables, row) if kind == "reset" and i < DETAILED else None
            if offer is not None:
                cited.append(offer)
                reasons.append(f"a new description came right before ({_frame(tables, offer)}), with the same key")
        at = "at the wrap of its sequence number" if kind == "wrap" else "in the middle of the call"
        yield _occurrence(
            tables, row, kind, f"{row['source']} counts {row['roc']} wraps of SSRC 0x{row['ssrc']:08x} where "
            f"{row['destination']} counts {row['expected_roc'] or 0}, {at if kind != 'late' else 'from the start'}.",
            reasons, cited, Confidence.CONFIRMED)


def _offer(tables: Tables, row: dict[str, Any]) -> int | None:
    """The last description of the call before the change, and not long before it."""
    media = tables.media.filter((pl.col("call") == row["call"]) & (pl.col("ts_ns") <= row["first_ns"])
                                & (pl.col("ts_ns") >= row["before_last_ns"] - 2_000_000_000))
    return int(media["packet"][-1]) if media.height else None


def _receivers(tables: Tables, senders: pl.DataFrame, settings: dict[str, float]) -> Iterator[Occurrence]:
    """Streams whose receiver reports the numbers before a wrap long after it, and had counted on until then."""
    wrapped = senders.filter(pl.col("wrap_packets").list.len() > 0)
    if not wrapped.height:
        return
    reports = rtp_reports.about(tables).filter(pl.col("stream").is_in(wrapped["stream"].implode()))
    p = tables.packets
    for row in wrapped.iter_rows(named=True):
        said = reports.filter(pl.col("stream") == row["stream"])
        for packet in row["wrap_packets"]:
            at = int(p.ts[packet])
            earlier = said.filter(pl.col("ts_ns") < at)["highest_sequence"].n_unique()
            later = said.filter(pl.col("ts_ns") > at)
            stuck = later["highest_sequence"].n_unique() == 1 and later["highest_sequence"][0] & 0xFFFF >= 0x8000
            if not stuck or earlier < 2 or later.height < 2:
                continue
            rows = p.flow_rows(row["flow"])
            ts = p.ts[rows]
            sent = int(((ts > at) & (ts < later["ts_ns"][-1]) & (p.src[rows] == p.src[packet])).sum())
            if sent < settings["min_sent"]:
                continue
            sure = row["roc"] is not None and row["relation"] == "agreed"
            reasons = [f"{later.height} reports behind the wrap name one highest number, while {sent} packets pass",
                       "its reports before the wrap go up"]
            if sure:
                reasons.append("the tags fit the right count on both sides of the wrap: the receiver lost it")
            yield _occurrence(
                tables, row, "receiver", f"{row['destination']} has counted none of {sent} packets of SSRC "
                f"0x{row['ssrc']:08x} since its sequence number wrapped.", reasons,
                [packet, int(later["packet"][0]), int(later["packet"][-1])],
                Confidence.CONFIRMED if sure else Confidence.PROBABLE)
            break


def _released(tables: Tables, senders: pl.DataFrame, settings: dict[str, float]) -> Iterator[Occurrence]:
    """Calls that are released soon after the last wrap of one of their streams, each after another time."""
    wrapped = senders.filter((pl.col("wrap_packets").list.len() > 0) & pl.col("call").is_not_null())
    if not wrapped.height:
        return
    last = wrapped.with_columns(packet=pl.col("wrap_packets").list.last())
    last = last.with_columns(wrap_ns=pl.Series(tables.packets.ts[last["packet"].to_numpy()]))
    calls = tables.calls.select("call", "answer_ns", "end_ns", "bye_message").drop_nulls()
    last = last.sort("wrap_ns").unique("call", keep="last", maintain_order=True).join(calls, on="call")
    waited = (pl.col("end_ns") - pl.col("wrap_ns")) / 1e9
    talked = (pl.col("wrap_ns") - pl.col("answer_ns")) / 1e9
    # A wait that is long beside the time before it proves nothing: the call might have ended just as well.
    soon = last.with_columns(waited=waited, talked=talked).filter(
        (pl.col("waited") >= 0) & (pl.col("waited") <= settings["near"]) & (pl.col("waited") * 10 <= pl.col("talked")))
    if not soon.height or soon.height * 100 < settings["min_share"] * last.height:
        return
    spread = float(str(soon["talked"].max())) - float(str(soon["talked"].min()))
    if spread <= settings["near"]:
        return  # one call is chance, and the same time in each is a timer
    many = soon.height >= 3
    for row in soon.iter_rows(named=True):
        bye = int(tables.sip["packet"][row["bye_message"]])
        yield _occurrence(
            tables, row, "released", f"The call is released {row['waited']:.1f} s after the sequence number of "
            f"{row['source']} wrapped, {row['talked']:.0f} s after its answer.",
            [f"{soon.height} of {last.height} calls with a wrap are released within {settings['near']:g} s of it",
             f"the wraps come at other times in each call, {spread:.0f} s apart"], [row["packet"], bye],
            Confidence.PROBABLE if many else Confidence.SUSPECTED)


def _frame(tables: Tables, packet: int) -> str:
    capture, frame = tables.packets.locate([packet])
    point = f" at {tables.captures[int(capture[0])].point}" if len(tables.points) > 1 else ""
    return f"frame {int(frame[0])}{point}"


def _occurrence(tables: Tables, row: dict[str, Any], kind: str, summary: str, reasons: list[str],
                packets: list[int | None], confidence: Confidence) -> Occurrence:
    call = row["call_id"] or ""
    return Occurrence(
        subject=f"{call} SSRC 0x{row['ssrc']:08x}".strip(), group=(kind, row["host"]), summary=summary,
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence([p for p in packets if p is not None], {
            "rtp.ssrc": f"0x{row['ssrc']:08x}", "sip.call_id": call, "srtp.suite": row["suite"],
            "srtp.roc": -1 if row["roc"] is None else row["roc"]}),
        scope={"source.ip": row["source"], "destination.ip": row["destination"],
               "destination.port": row["destination_port"]},
        flows=(row["flow"],), keys=frozenset({f"call:{call}"} if call else ()), start_ns=row["first_ns"],
        end_ns=row["last_ns"], title=_TITLES[kind],
        alternatives=(Alternative("somebody hung up, or the far network failed", "calls end for many reasons",
                                  "the time is that of the wrap, which is another in each call"),)
        if kind in ("released", "receiver") else ())
