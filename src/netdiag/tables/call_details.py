"""How calls went and ended, worked out for those that somebody asks about: delays, release, cause, forks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from netdiag.decode.reason import Reason, reasons
from netdiag.tables import sip_head
from netdiag.tables.calls import call_messages
from netdiag.tables.schema import U16, U32, empty, schema
from netdiag.tables.sip_details import details

if TYPE_CHECKING:
    from netdiag.tables import Tables


@dataclass(frozen=True, slots=True)
class CallDetails:
    """What ``Call`` leaves out; delays in seconds, None where one end of them was not captured."""

    call: U32
    """Row of ``Tables.calls``."""
    request_delay_s: float | None
    """Session Request Delay (RFC 6076 §4.3): INVITE to the first response that says how it goes on, 100 excluded."""
    request_successful: bool | None
    """That response was no failure (§4.3.1; the two kinds are not to be averaged together); None without one."""
    ring_s: float | None
    """First 18x to the answer, or to the end of a call that was not answered."""
    answer_s: float | None
    """INVITE to 2xx."""
    talk_s: float | None
    """2xx to BYE."""
    release: str
    """"BYE", "CANCEL", "response" (final failure), "no response" (Timer B), or "none seen"."""
    released_by: str | None
    """"caller", "callee", or "network": a response that did not come from the last host that the INVITE went to."""
    released_at: str | None
    """Address that sent what ended it, where it was first captured."""
    q850: U16 | None
    """Q.850 cause of the Reason header (RFC 3326) in what ended it."""
    sip_cause: U16 | None
    """SIP cause of that header, else the final status of a call that failed."""
    cause: str
    """The cause in words: of the Reason header, Q.850 first, else the final status with its phrase; "" without one."""
    early_dialogs: U16
    """Callees (To tags) that sent a provisional response beyond 100: more than one when it forked (§13.2.2.4)."""
    answered_branches: U16
    """Callees that sent a 2xx."""


def call_details(tables: Tables, calls: Sequence[int] | pl.Series | None = None) -> pl.DataFrame:
    """Details of these calls (rows of ``Tables.calls``), or of all, in their order; schema of ``CallDetails``.

    Some 20 µs a call: ask for the few that matter.
    """
    chosen = tables.calls if calls is None else tables.calls[pl.Series(calls, dtype=pl.UInt32)]
    if not len(chosen):
        return empty(CallDetails)
    data = _branches(tables, chosen)
    seconds = 1e9
    data = data.with_columns(
        request_delay_s=(pl.min_horizontal("told_ns", "answer_ns", "failed_ns") - pl.col("invite_ns")) / seconds,
        request_successful=pl.when(pl.coalesce("told_ns", "answer_ns").is_not_null()).then(
            pl.lit(True)).when(pl.col("failed_ns").is_not_null()).then(pl.lit(False)),
        ring_s=(pl.coalesce("answer_ns", "end_ns") - pl.col("ringing_ns")) / seconds,
        answer_s=(pl.col("answer_ns") - pl.col("invite_ns")) / seconds,
        talk_s="duration_s",
    ).with_columns(pl.when(~pl.col("midstream")).then(pl.col(n)) for n in ("request_delay_s", "answer_s"))
    ended = _release(tables, data)
    data = data.hstack(ended)
    return data.select(pl.col(name).cast(dtype) for name, dtype in schema(CallDetails).items())


def _branches(tables: Tables, chosen: pl.DataFrame) -> pl.DataFrame:
    """``chosen`` with what its responses to INVITE say, from the callee's side."""
    messages, _, _ = call_messages(tables)
    if len(chosen) < len(tables.calls):
        messages = messages.filter(pl.col("call").is_in(chosen["call"].unique().implode()))
    status = pl.col("status")
    replies = messages.filter(status.is_not_null() & (pl.col("cseq_method") == "INVITE") & (status > 100)).join(
        chosen.select("call", caller_tag="from_tag").unique("call"), on="call")
    replies = replies.filter(pl.col("from_tag").eq_missing(pl.col("caller_tag")))
    early, final = status < 200, status.is_between(200, 299)
    found = replies.group_by("call").agg(
        told_ns=pl.col("ts_ns").filter(early).min(),
        failed_ns=pl.col("ts_ns").filter(status >= 300).last(),
        early_dialogs=pl.col("to_tag").filter(early).drop_nulls().n_unique(),
        answered_branches=pl.col("to_tag").filter(final).drop_nulls().n_unique(),
    )
    return chosen.join(found, on="call", how="left", maintain_order="left").with_columns(
        pl.col("early_dialogs", "answered_branches").fill_null(0),
        failed_ns=pl.when(pl.col("status") >= 300).then(pl.col("failed_ns")))


def _release(tables: Tables, data: pl.DataFrame) -> pl.DataFrame:
    """``release``, ``released_by``, ``released_at``, ``q850``, ``sip_cause`` and ``cause`` of each row."""
    sent = _senders(tables, data)
    said = _reasons(tables, data["reason_message"])
    failed = data.filter(pl.col("status") >= 300)["call"]
    phrase = _phrases(tables, failed)
    rows = []
    for call, state, status, bye_by, callee, reason in data.select(
            "call", "state", "status", "bye_by", "callee", "reason_message").iter_rows():
        bye, cancel, final = (sent.get((call, what)) for what in ("BYE", "CANCEL", "final"))
        if bye_by is not None:
            release, by, at = "BYE", bye_by, bye
        elif state == "cancelled" and cancel:
            release, by, at = "CANCEL", "caller", cancel
        elif status is not None and status >= 300:
            release, at = "response", final
            by = "callee" if final == callee else "network"
        else:
            release, by, at = "no response" if state == "timeout" else "none seen", None, None
        headers = said.get(reason, [])
        q850 = next((r for r in headers if r.protocol == "Q.850" and r.cause is not None), None)
        sip = next((r for r in headers if r.protocol == "SIP" and r.cause is not None), None)
        own = status if release == "response" else None
        best = q850 or sip or (headers[0] if headers else None)
        words = best.words if best else f"{status} {phrase.get(call, '')}".strip() if own else ""
        rows.append((release, by, at, q850.cause if q850 else None, sip.cause if sip else own, words))
    names = ("release", "released_by", "released_at", "q850", "sip_cause", "cause")
    types = schema(CallDetails)
    return pl.DataFrame(rows, schema={n: types[n] for n in names}, orient="row")


def _senders(tables: Tables, data: pl.DataFrame) -> dict[tuple[int, str], str]:
    """Who sent the first BYE, the first CANCEL and the last final failure of each call."""
    messages, _, _ = call_messages(tables)
    ends = messages.filter(pl.col("method").is_in(["BYE", "CANCEL"]) | (
        (pl.col("cseq_method") == "INVITE") & (pl.col("status") >= 300))).join(
        data.select("call", final="status").unique("call"), on="call", maintain_order="left")
    what = pl.when(pl.col("method").is_not_null()).then(pl.col("method")).when(
        pl.col("status") == pl.col("final")).then(pl.lit("final"))
    ends = ends.select("call", "source", "cseq", what=what).drop_nulls("what")
    # of the rounds the last, of its hops the one that showed it first
    last = ends.filter((pl.col("what") != "final") | (pl.col("cseq") == pl.col("cseq").max().over("call", "what")))
    first = last.unique(["call", "what"], keep="first", maintain_order=True)
    return {(call, kind): source for call, source, _, kind in first.iter_rows()}


def _reasons(tables: Tables, messages: pl.Series) -> dict[int, list[Reason]]:
    """Reason values of each message; where the first header gives no Q.850 cause, those of further ones."""
    asked = messages.drop_nulls().unique()
    out: dict[int, list[Reason]] = {}
    for message, value in details(tables, asked, ("reason_header",)).iter_rows():
        found = reasons(value) if value else []
        if not any(r.protocol == "Q.850" for r in found):
            found = [r for line in sip_head.head(tables, message).get("reason", [])[:8] for r in reasons(line)]
        out[message] = found
    return out


def _phrases(tables: Tables, calls: pl.Series) -> dict[int, str]:
    """Reason phrase of the final failure of each call."""
    messages, _, _ = call_messages(tables)
    wanted = tables.calls.select("call", final="status")[calls]
    found = messages.select("call", "message", "status", "cseq_method").join(wanted, on="call").filter(
        (pl.col("cseq_method") == "INVITE") & (pl.col("status") == pl.col("final"))).unique("call", keep="last")
    said = details(tables, found["message"], ("reason",))["reason"]
    return {call: text or "" for call, text in zip(found["call"].to_list(), said.to_list(), strict=True)}
