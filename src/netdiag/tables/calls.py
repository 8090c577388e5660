"""Calls: INVITE dialogs with their offer/answer, from all capture points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables.call_ids import INVITE_METHODS, TIMER_B_NS
from netdiag.tables.outside import laid
from netdiag.tables.schema import U16, U32, empty, schema
from netdiag.tables.sip_details import added
from netdiag.tables.sip_groups import first_of, group_codes, last_of, lists, taken
from netdiag.tables.sip_hops import hop_messages
from netdiag.tables.sip_sources import log

if TYPE_CHECKING:
    from netdiag.tables import Tables


@dataclass(frozen=True, slots=True)
class Call:
    """One call at one capture point: an INVITE with its challenge rounds and all dialogs that it made (its forks).

    A proxy that is captured on both sides shows the same messages twice; the call is one row and ``hops`` says so.
    """

    call: U32
    point: str
    call_id: str
    from_tag: str | None
    to_tag: str | None
    """Tag of the answering side; None before an answer."""
    caller: str
    """Address that sent the first INVITE at this point (first hop)."""
    callee: str
    """Address that the INVITE was finally sent to (last hop)."""
    hops: U16
    """How many hops of the path were captured at this point."""
    transport: str
    state: str
    """trying, ringing, answered, completed (BYE answered or seen), cancelled, redirected (3xx), failed, timeout,
    midstream."""
    invite_ns: int
    """First INVITE (or first message of a midstream call)."""
    ringing_ns: int | None
    answer_ns: int | None
    """First 2xx to INVITE."""
    ack_ns: int | None
    end_ns: int | None
    """BYE, CANCEL or final failure."""
    status: U16 | None
    """Final status of the INVITE."""
    bye_by: str | None
    """"caller" or "callee"."""
    reason_message: U32 | None
    """The first BYE, CANCEL or failure with a Reason header (``sip_details`` has its text); of an answered call a BYE,
    since a CANCEL and its 487 are those of another branch (RFC 3261 §16.7)."""
    invite_message: U32 | None
    answer_message: U32 | None
    bye_message: U32 | None
    messages: tuple[U32, ...]
    """All message rows of the call, in order."""
    post_dial_delay_s: float | None
    """INVITE to first 18x or final response."""
    duration_s: float | None
    """Answer to end."""
    midstream: bool
    cut: bool
    """An SDP body or header of it was cut by the snap length."""


@dataclass(frozen=True, slots=True)
class Media:
    """One media line as offered or answered by one side of a call (RFC 8866, RFC 3264), one row per change."""

    call: U32
    call_id: str
    point: str
    message: U32
    packet: U32
    ts_ns: int
    side: str
    """Who advertises it: "caller" or "callee"."""
    role: str
    """"offer" or "answer"."""
    index: U16
    """Position of the m= line."""
    type: str
    """audio, video, image…"""
    address: str | None
    """Connection address that the side wants to receive on (media level wins over session level)."""
    port: U16
    """0: rejected or disabled."""
    protocol: str
    """For example RTP/AVP, RTP/SAVP, UDP/TLS/RTP/SAVPF."""
    payload_types: tuple[U16, ...]
    codecs: tuple[str, ...]
    """"PCMU/8000" for each payload type, "" when unknown."""
    direction: str
    """sendrecv, sendonly, recvonly, inactive: as this side states it."""
    rtcp_port: U16 | None
    """a=rtcp (RFC 3605), else port + 1; equal to port with rtcp-mux."""
    ptime_ms: U16 | None
    ice: bool
    """a=candidate or a=ice-ufrag present."""
    candidates: tuple[str, ...]
    """Connection addresses of a=candidate lines."""
    origin_address: str | None
    """Address in o=."""
    signalling_source: str
    """Source address of the packet at this point."""


MIDSTREAM = "call whose INVITE was not captured"

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def call_messages(tables: Tables) -> tuple[pl.DataFrame, I64, int]:
    """Messages of INVITE dialogs with ``call`` (the row in ``Tables.calls``), those numbers, and how many calls."""
    data = hop_messages(tables)
    codes = data["dialog"].to_numpy()
    count = int(codes.max()) + 1 if len(codes) else 0
    ours = np.zeros(count, np.bool_)
    ours[codes[data["cseq_method"].is_in(INVITE_METHODS).to_numpy()]] = True
    if not ours.all():
        keep = ours[codes]
        data, codes = data.filter(keep), (np.cumsum(ours) - 1)[codes[keep]]
    return data.with_columns(call=pl.Series(codes, dtype=pl.UInt32)), codes.astype(np.int64), int(ours.sum())


def build(tables: Tables) -> pl.DataFrame:
    """All calls in the order of their first message; schema of ``Call``.

    The initial INVITEs are those without To tag, and challenge rounds are among them. A call
    without one is ``midstream``; its first INVITE response, if any, then stands for the attempt.
    """
    data, call, count = call_messages(tables)
    if not count:
        return empty(Call)
    is_invite = (data["cseq_method"] == "INVITE").to_numpy()
    request = data["method"].is_not_null().to_numpy()
    status = data["status"].fill_null(0).to_numpy()
    bare = data["to_tag"].is_null().to_numpy()
    whole = np.ones(len(data), np.bool_)
    start = first_of(call, count, whole)
    setup = _setup(data, call, count, is_invite, request, bare)
    asked_mask = setup & request
    asked = first_of(call, count, asked_mask)
    replies = setup & ~request
    lead = np.where(asked >= 0, asked, start)

    answered = first_of(call, count, replies & (status >= 200) & (status < 300))
    ringing = first_of(call, count, replies & (status >= 180) & (status < 190))
    progress = first_of(call, count, replies & (status > 100) & (status < 200))
    replied = first_of(call, count, replies)
    ended = _final(data, call, count, replies & (status >= 300), lead)
    final = np.where(answered >= 0, answered, ended)
    final_status = np.where(final >= 0, status[final], 0)
    method = {m: (data["method"] == m).fill_null(False).to_numpy() for m in ("BYE", "CANCEL", "ACK")}
    bye, cancel = first_of(call, count, method["BYE"]), first_of(call, count, method["CANCEL"])

    ns = data["ts_ns"].to_numpy()
    cseq = data["cseq"].to_numpy()
    at = answered[call]
    acked = first_of(call, count, method["ACK"] & (at >= 0) & (cseq == cseq[at]) & (np.arange(len(data)) > at))
    gone = np.where(answered >= 0, bye, np.where(bye >= 0, bye, np.where(cancel >= 0, cancel, ended)))
    last_seen = _last_seen(tables, data["point"].gather(pl.Series(lead)))
    state = np.full(count, "trying", "<U10")
    state[progress >= 0] = "ringing"
    waited = (asked >= 0) & (replied < 0) & (last_seen - ns[lead] >= TIMER_B_NS)
    state[waited | (final_status == 408)] = "timeout"
    state[(final_status >= 300) & (final_status != 408)] = "failed"
    state[(final_status >= 300) & (final_status < 400)] = "redirected"  # no failure: it goes on elsewhere (§8.1.3.4)
    state[(answered < 0) & ((final_status == 487) | (cancel >= 0))] = "cancelled"
    state[answered >= 0] = "answered"
    state[(asked < 0) & (replied < 0)] = "midstream"
    state[(bye >= 0) & ((answered >= 0) | (asked < 0))] = "completed"

    log(tables, MIDSTREAM, data["packet"].to_numpy()[np.sort(start[asked < 0])].astype(np.int64), "calls")
    callee, hops = _path(data, call, count, asked_mask, lead, answered)
    caller_tag = taken(data["from_tag"], lead)
    first_reply = _least(ringing, final)
    reason = first_of(call, count, data["has_reason"].to_numpy() & (
        method["BYE"] | (answered[call] < 0) & (method["CANCEL"] | setup & (status >= 300))))
    cut = np.zeros(count, np.bool_)
    cut[call[data["cut"].to_numpy()]] = True
    message = data["message"]
    bye_tag = taken(data["from_tag"], bye)
    return laid(pl.DataFrame({
        "call": np.arange(count), "point": taken(data["point"], lead), "call_id": taken(data["call_id"], lead),
        "from_tag": caller_tag, "to_tag": taken(data["to_tag"], answered),
        "caller": taken(data["client"], lead), "callee": callee, "hops": hops,
        "transport": taken(data["transport"], lead), "state": pl.Series(state.tolist(), dtype=pl.String),
        "invite_ns": ns[lead], "ringing_ns": _at(ns, ringing), "answer_ns": _at(ns, answered),
        "ack_ns": _at(ns, acked), "end_ns": _at(ns, gone), "status": pl.Series(final_status).replace(0, None),
        "reason_message": taken(data["message"], reason),
        "invite_message": taken(message, asked), "answer_message": taken(message, answered),
        "bye_message": taken(message, bye), "messages": lists(call, count, message),
        "post_dial_delay_s": _seconds(ns, asked, first_reply), "duration_s": _seconds(ns, answered, gone),
        "midstream": asked < 0, "cut": cut, "bye_tag": bye_tag, "bye": bye >= 0,
    }).with_columns(
        bye_by=pl.when(pl.col("bye")).then(
            pl.when(pl.col("bye_tag").eq_missing(pl.col("from_tag"))).then(pl.lit("caller")).otherwise(pl.lit("callee"))),
    ).select(pl.col(name).cast(dtype) for name, dtype in schema(Call).items()), tables.packets.space)


def named(tables: Tables) -> pl.DataFrame:
    """``Tables.calls`` with ``from_uri``, ``to_uri`` and ``reason_header`` as the messages have them."""
    calls = tables.calls.with_columns(first_message=pl.col("messages").list.first())
    calls = added(tables, calls, ("from_uri", "to_uri"), "first_message").drop("first_message")
    return added(tables, calls, ("reason_header",), "reason_message").drop("reason_message")


def _setup(data: pl.DataFrame, call: I64, count: int, is_invite: Mask, request: Mask, bare: Mask) -> Mask:
    """INVITE requests and responses that belong to the attempt, not to a re-INVITE (RFC 3261 §14).

    They have the CSeq number and From tag of an INVITE without To tag, or, where no INVITE was
    captured before it, of the first response to one.
    """
    initial = is_invite & request & bare
    asked = first_of(call, count, initial)
    again = first_of(call, count, is_invite & request & ~bare)
    reply = first_of(call, count, is_invite & ~request)
    alone = (asked < 0) & (reply >= 0) & ((again < 0) | (reply < again))
    seed = initial.copy()
    seed[reply[alone]] = True
    codes, groups = group_codes(data, ["call", "cseq", "from_tag"])
    found = np.zeros(groups, np.bool_)
    found[codes[seed]] = True
    result: Mask = found[codes] & is_invite & (~request | bare)
    return result


def _final(data: pl.DataFrame, call: I64, count: int, failed: Mask, lead: I64) -> I64:
    """Final failure of the last round at the caller's hop, else at any hop; -1 where the last INVITE has none."""
    cseq = data["cseq"].to_numpy().astype(np.int64)
    setup_last = np.full(count, -1, np.int64)
    invites = np.flatnonzero((data["cseq_method"] == "INVITE").to_numpy() & data["to_tag"].is_null().to_numpy()
                             & data["method"].is_not_null().to_numpy())
    np.maximum.at(setup_last, call[invites], cseq[invites])
    current = failed & (cseq >= setup_last[call])
    client = data["client"]
    near = (client == client.gather(pl.Series(lead[call]))).to_numpy() if len(call) else current
    own = first_of(call, count, current & near)
    return np.where(own >= 0, own, last_of(call, count, current))


def _path(data: pl.DataFrame, call: I64, count: int, asked: Mask, lead: I64, answered: I64) -> tuple[pl.Series, I64]:
    """Callee (source of the first 2xx, else where the last new INVITE went) and the number of hops."""
    fresh = data.select("call", "client", "client_port", "server", "server_port").filter(asked).unique()
    hops = np.maximum(np.bincount(fresh["call"].to_numpy(), minlength=count), 1)
    new = asked & ~data["retransmission"].to_numpy()
    last = last_of(call, count, new)
    rows = np.where(answered >= 0, answered, np.where(last >= 0, last, lead))
    return taken(data["server"], rows), hops


def _last_seen(tables: Tables, points: pl.Series) -> I64:
    """Time of the last packet of each call's point."""
    p = tables.packets
    ends = np.append(p.files.start[1:], p.files.total)
    last: dict[str, int] = {}
    for code, start, end in zip(p.files.point.tolist(), p.files.start.tolist(), ends.tolist(), strict=True):
        if end > start:
            name = tables.points[code]
            last[name] = max(last.get(name, 0), int(p.ts[start:end].max()))
    return points.replace_strict(last, default=0, return_dtype=pl.Int64).to_numpy()


def _least(a: I64, b: I64) -> I64:
    """The earlier of two rows where -1 means none."""
    return np.where(a < 0, b, np.where(b < 0, a, np.minimum(a, b)))


def _at(ns: I64, rows: I64) -> pl.Series:
    return taken(pl.Series(ns), rows)


def _seconds(ns: I64, begin: I64, end: I64) -> pl.Series:
    return (_at(ns, end) - _at(ns, begin)) / 1e9
