"""A request is repeated until its timer runs out, and nothing at all comes back.

Over UDP an INVITE is sent at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s and given up after 32 s (Timers A and B, RFC 3261
§17.1.1.2); other requests are sent eleven times in that time (Timers E and F, §17.1.2.2). Over TCP they are sent
once; where TCP acknowledges them, the host has them and its SIP process is silent. Servers may give up sooner; the
answer to their own caller, 408 as a rule (§16.8), then shows when. A 100 would have stopped the repetition, so neither
end nor anything between them has read the request, or its answers get lost.

**What lifts the suspicion.** The full series, while other requests at this point are answered (probable). An ICMP
error about the request, or a second capture point nearer to the server which sees other requests of that path and not
this one, or which sees its answer (confirmed).

**What looks alike and is not it.** A 100 Trying: the server has it, and its answer is slow. An answer to the last
repetition is loss. Another branch of a fork that answers within 32 s ends the others. A caller who cancels has not
waited. An ACK on the same hop shows that there was an answer which the capture missed. Requests inside a dialog go to a
Contact, and their failure is about that (SIP-CONTACT-PRIVATE, SIP-ROUTE-SET-LOST). OPTIONS probes of a peer that is
known to be down are meant to fail. A capture that ends before the timer does cannot tell.
"""

from __future__ import annotations

from collections import Counter

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
from netdiag.tables import Tables
from netdiag.tables.addresses import endpoint
from netdiag.tables.schema import rows
from netdiag.tables.sip import SipMessage, Transaction
from netdiag.tables.sip_details import detail
from netdiag.tables.sip_twins import SipTwins

PATTERN = Pattern(
    id="SIP-INVITE-TIMEOUT",
    title="No response to a request until its timer ran out",
    severity=Severity.HIGH,
    cases=("registration-outlives-nat-binding", "oversized-invite-over-udp", "trunk-flap-after-failover"),
    needs=("transactions", "sip", "icmp", "quality", "tcp"),
    references=(Reference("RFC 3261 §17.1.1.2, §17.1.2.2, §16.8"), Reference("RFC 4320 §4.2")),
    filter="sip.Request-Line && sip.Method != \"ACK\"",
    mitigation="Check that the server runs and that the path to this address and port is open; route around it.",
    fix="Correct the address, rule, transport or registration that leads requests to where nobody answers.",
    prevention="Watch peers with OPTIONS, and give callers a second destination (RFC 3263 §4.3).",
    next_capture="Capture at the server: does the request arrive, and does an answer leave?",
    settings=(Setting("min_sends", 4, "sends", "practice: 3.5 s of Timer A; fewer may be a client that gave up"),),
)

TIMER_B_NS = 32_000_000_000
"""64 times T1 (RFC 3261 §17.1.1.2, §17.1.2.2)."""
FULL = {"INVITE": 7}
"""Sends within Timer B; 11 for other methods (Timers E and F)."""
DETAILED = 200
"""Requests that are looked at closely; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Requests outside dialogs that were given up without any response."""
    asked = tables.transactions.filter(
        ~pl.col("midstream") & pl.col("to_tag").is_null() & ~pl.col("method").is_in(["OPTIONS", "ACK", "CANCEL"]))
    if not len(asked):
        return not_applicable("no SIP request that starts something in this capture")
    silent = asked.filter(
        (pl.col("response_messages").list.len() == 0) & ~pl.col("cancelled") & (pl.col("ack_messages").list.len() == 0)
        & ((pl.col("sends") >= settings["min_sends"]) | (pl.col("transport") != "udp")))
    silent = _given_up(tables, silent)
    if not len(silent):
        return clear(f"{number_of(len(asked), 'requests')}; each was answered, cancelled, or not followed until its "
                     "timer ran out")
    context = _Context(tables, silent)
    occurrences = [context.occurrence(t, status, i < DETAILED) for i, (t, status) in enumerate(
        zip(rows(silent, Transaction), silent["upstream"], strict=True))]
    examined = Counter(asked.select("client", "server", "call_id").unique().select("client", "server").iter_rows())
    return found(occurrences, population="requests", examined=dict(examined))


def _given_up(tables: Tables, silent: pl.DataFrame) -> pl.DataFrame:
    """Those that the capture follows for Timer B, or that were reported ``upstream`` as failed by their client."""
    if not len(silent):
        return silent
    key = ["point", "call_id", "cseq", "method"]
    told = tables.transactions.filter(
        (pl.col("status") >= 200) & pl.col("call_id").is_in(silent["call_id"].implode()))
    told = told.select(*key, client="server", upstream="status", told_ns="last_ns").unique(
        [*key, "client"], maintain_order=True)
    ends = tables.quality.select("point", "last_ns")
    silent = silent.join(_won(tables, silent), on=[*key, "client"], how="left", maintain_order="left").filter(
        (pl.col("won_ns") - pl.col("first_ns") >= TIMER_B_NS).fill_null(True))
    return silent.join(told, on=[*key, "client"], how="left", maintain_order="left").join(
        ends, on="point", how="left", suffix="_capture", maintain_order="left").filter(
        (pl.col("last_ns_capture") - pl.col("first_ns") >= TIMER_B_NS)
        | (pl.col("told_ns") > pl.col("last_request_ns")).fill_null(False))


def _won(tables: Tables, silent: pl.DataFrame) -> pl.DataFrame:
    """When the same request of a client was accepted by another branch: it then gives up on this one."""
    accepted = tables.transactions.filter(
        pl.col("status").is_between(200, 299) & pl.col("call_id").is_in(silent["call_id"].implode()))
    at = tables.sip["ts_ns"].gather(accepted["final_message"])
    return accepted.with_columns(won_ns=at).group_by("point", "call_id", "cseq", "method", "client").agg(
        pl.col("won_ns").min())


class _Context:
    """What else the capture shows, asked once for all occurrences."""

    def __init__(self, tables: Tables, silent: pl.DataFrame) -> None:
        self._tables = tables
        self._twins = SipTwins(tables)
        servers = silent["server"].unique().implode()
        self._heard = {(point, host): last for point, host, last in tables.sip.filter(
            pl.col("source").is_in(servers)).group_by("point", "source").agg(pl.col("ts_ns").max()).iter_rows()}
        self._answered: dict[str, int] = dict(tables.transactions.filter(
            pl.col("response_messages").list.len() > 0).group_by("point").agg(pl.len()).iter_rows())
        self._streams: dict[int, list[tuple[str, int, int, int, int]]] = {}
        if len(streams := silent.filter(pl.col("transport") != "udp")):
            flows = tables.sip["flow"].gather(streams["request_messages"].list.first()).unique().implode()
            for flow, *facts in tables.tcp.filter(pl.col("flow").is_in(flows)).select(
                    "flow", "client", "first_ns", "last_ns", "tail_client_unacked", "tail_server_unacked").iter_rows():
                self._streams.setdefault(flow, []).append((facts[0], facts[1], facts[2], facts[3], facts[4]))
        self._errors: dict[int, list[tuple[int, int, str, str]]] = {}
        for flow, *rest in tables.icmp.filter(pl.col("quoted_flow").is_not_null()).select(
                "quoted_flow", "ts_ns", "packet", "name", "source").iter_rows():
            self._errors.setdefault(flow, []).append((rest[0], rest[1], rest[2], rest[3]))

    def occurrence(self, t: Transaction, upstream: int | None, detailed: bool) -> Occurrence:
        sip = self._tables.sip[list(t.request_messages)]
        packets, flow = sip["packet"].to_list(), int(sip["flow"][0])
        full, udp = FULL.get(t.method, 11), t.transport == "udp"
        ladder = ", ".join(f"{(ts - t.first_ns) / 1e9:.1f}" for ts in sip["ts_ns"].to_list())
        confidence, reasons = Confidence.SUSPECTED, [
            (f"sent {t.sends} times ({ladder} s)" if t.sends > 1 else "sent once") + ", no response of any kind"]
        others = self._answered.get(t.point, 0)
        if (t.sends >= full or not udp) and others:
            confidence = Confidence.PROBABLE
            what = f"all {full} sends until Timer {'B' if t.method == 'INVITE' else 'F'}" if udp else (
                "no response until it gave up" if upstream is not None else "32 s without a response")
            reasons.append(f"{what}, while {number_of(others, 'other requests')} at this point got an answer")
        if upstream is not None:
            reasons.append(f"{t.client} gave up and answered {upstream} to its own client" if upstream >= 300 else
                           f"the call came about all the same: {t.client} answered {upstream} to its own client")
        heard = self._heard.get((t.point, t.server))
        seen = "no SIP message of it is in this capture"
        if heard is not None:
            gap = (heard - t.first_ns) / 1e9
            seen = f"its last message here is {abs(gap):.1f} s {'after' if gap > 0 else 'before'} the first send"
        unread = self._acknowledged(t, flow)
        if unread:
            reasons.append("its TCP acknowledges it: the host has the request")
        errors = [e for e in self._errors.get(flow, ()) if t.first_ns <= e[0] <= t.first_ns + TIMER_B_NS + 10**9]
        lost_at = self._twins.missing_at(t.request_messages) if detailed else ""
        if errors:
            reasons.append(f"ICMP {errors[0][2]} from {errors[0][3]} about it")
            packets += [e[1] for e in errors[:3]]
        elsewhere = self._elsewhere(t) if detailed else []
        answered = next((m for m in elsewhere if m.status is not None), None)
        if answered:
            reasons.append(f"at {answered.point} it is answered with {answered.status}, which is lost on the way back")
            packets += [m.packet for m in elsewhere if m.point == answered.point]
        elif elsewhere:
            reasons.append(f"it is seen at {elsewhere[0].point} as well, and no answer to it")
        if lost_at:
            reasons.append(f"none of it is seen at {lost_at}, where other requests of {t.client} to {t.server} are")
        sure = bool(errors or lost_at or answered)
        if sure:
            confidence = Confidence.CONFIRMED
        to_uri = detail(self._tables, t.request_messages[0]).to_uri if detailed else None
        aor = {f"aor:{to_uri}"} if to_uri else set()
        return Occurrence(
            subject=t.call_id, group=(t.client, t.server),
            title="" if t.method == "INVITE" else f"No response to {t.method} until its timer ran out",
            summary=f"{t.client} sent {t.method} {'once' if t.sends == 1 else f'{t.sends} times'} to "
                    f"{endpoint(t.server, t.server_port)} and got no response.",
            confidence=confidence, reasons=tuple(reasons),
            evidence=self._tables.evidence(packets, {"sip.call_id": t.call_id, "sip.method": t.method,
                                                     "destination.ip": t.server}) if detailed else (),
            scope={"source.ip": t.client, "destination.ip": t.server}, flows=(flow,),
            keys=frozenset({f"call:{t.call_id}", f"host:{t.server}", *aor}), absence=not sure,
            clock=sure and not errors, start_ns=t.first_ns, end_ns=t.last_ns, alternatives=() if answered else (
                Alternative("the server is down or the address is wrong",
                            f"ICMP {errors[0][2]} from {errors[0][3]}" if errors else seen,
                            "its TCP acknowledges the request" if unread else "" if heard is None else
                            "it does speak SIP in this capture"),
                *(() if errors or lost_at else (Alternative(
                    "its answers get lost on the way back", "" if unread else "the same picture from here",
                    "TCP would repeat them" if unread else "only its own side can tell"),))))

    def _elsewhere(self, t: Transaction) -> list[SipMessage]:
        """The request, and responses to it, at other points."""
        if len(self._tables.points) < 2:
            return []
        return list(rows(self._tables.sip.filter(
            (pl.col("call_id") == t.call_id) & (pl.col("branch") == t.branch) & (pl.col("point") != t.point)
            & (pl.col("cseq_method") == t.method)), SipMessage))

    def _acknowledged(self, t: Transaction, flow: int) -> bool:
        """Did the host acknowledge all that this client sent over the connection of the request?"""
        return any(first <= t.first_ns <= last and not (by_client if client == t.client else by_server)
                   for client, first, last, by_client, by_server in self._streams.get(flow, ()))
