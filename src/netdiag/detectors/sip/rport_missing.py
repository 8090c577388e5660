"""Responses go to the port in the Via, not to the port that the request came from, and the client never hears them.

Without ``rport`` a response over UDP goes to the source address of the request, but to the port in the sent-by of its
Via, 5060 where it names none (RFC 3261 §18.2.2). A NAT has given the request another source port; at the Via's port it
has no mapping, and drops the response. The client repeats its request by Timer A or E as if there were no server. With
``rport`` in the Via the server answers to the source port (RFC 3581 §4); some servers ignore it.

**What lifts the suspicion.** The Via has no ``rport``, so that the server does what it was told (probable). An ICMP
error about the response, or a second capture point nearer to the client which does not see it (confirmed).

**What looks alike and is not it.** Clients that send from one port and listen on another, the one in their Via: their
transactions complete, without repetition after the response, and their ACK shows that they have the answer. One
repetition crosses the response or is loss. TCP and TLS answer on the connection of the request.
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
    times,
)
from netdiag.tables import Tables
from netdiag.tables.addresses import endpoint
from netdiag.tables.schema import rows
from netdiag.tables.sip import Transaction
from netdiag.tables.sip_details import details
from netdiag.tables.sip_twins import SipTwins
from netdiag.tables.sip_via import SentBy, sent_by

PATTERN = Pattern(
    id="SIP-RPORT-MISSING",
    title="Responses go to the Via's port instead of the request's source port",
    severity=Severity.HIGH,
    cases=("sip-alg-rewrites-messages",),
    needs=("transactions", "sip", "icmp", "quality"),
    references=(Reference("RFC 3581 §3–4"), Reference("RFC 3261 §18.2.2")),
    filter="udp && sip.Via",
    mitigation="Make the server answer to the source port of every request (force_rport(), nat=force_rport).",
    fix="Let the client put rport into its Via (RFC 3581 §3), or have the server honour it.",
    prevention="Test a client of each model from behind a NAT that changes source ports.",
    next_capture="Capture on the client's side of the NAT: do the responses arrive there?",
    explains=("SIP-ACK-LOST",),
    settings=(Setting("min_repeats", 2, "sends", "practice: one repetition may cross the response or be loss"),),
)

DETAILED = 200
"""Transactions that are looked at closely; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """UDP requests that are repeated although they are answered, to another port than theirs."""
    answered = tables.transactions.filter(
        (pl.col("transport") == "udp") & ~pl.col("midstream") & (pl.col("response_messages").list.len() > 0))
    if not len(answered):
        return not_applicable("no SIP request over UDP with a response in this capture")
    astray = _repeated(tables, _astray(tables, answered), settings["min_repeats"])
    twins = SipTwins(tables)
    vias = details(tables, astray["request_messages"].list.first(), ("via",))["via"].to_list()
    occurrences = [o for i, (t, via) in enumerate(zip(rows(astray, Transaction), vias, strict=True))
                   if (o := _occurrence(tables, twins, t, sent_by(via), i < DETAILED))]
    if not occurrences:
        return clear(f"{number_of(len(answered), 'UDP requests')} with a response; none is answered to the port of "
                     "its Via, which differs from its source port, and repeated")
    examined = Counter(server for server, _ in answered.select("server", "call_id").unique().iter_rows())
    return found(occurrences, population="Call-IDs",
                 examined={o.group: examined[o.group[0]] for o in occurrences})


def _astray(tables: Tables, answered: pl.DataFrame) -> pl.DataFrame:
    """Those whose responses go to the client's address, and to another port than the request came from."""
    decisive = pl.when(pl.col("method") == "INVITE").then(pl.col("response_messages").list.first()).otherwise(
        pl.col("final_message"))  # a provisional does not stop Timer E (RFC 3261 §17.1.2.2)
    told = answered.select(decisive.alias("told"))["told"]
    where = tables.sip.select("destination_port", "destination", "ts_ns")
    return answered.with_columns(
        told_port=where["destination_port"].gather(told), told_to=where["destination"].gather(told),
        told_ns=where["ts_ns"].gather(told),
    ).filter((pl.col("told_port") != pl.col("client_port")) & (pl.col("told_to") == pl.col("client"))
             & (pl.col("ack_messages").list.len() == 0))


def _repeated(tables: Tables, astray: pl.DataFrame, least: float) -> pl.DataFrame:
    """Those that are sent again, ``least`` times, after the response passed."""
    sends = astray.select("transaction", "told_ns", message="request_messages").explode("message").drop_nulls()
    sent_ns = tables.sip["ts_ns"].gather(sends["message"])
    late = sends.with_columns(sent_ns=sent_ns).filter(pl.col("sent_ns") > pl.col("told_ns"))
    late = late.group_by("transaction").agg(pl.len()).filter(pl.col("len") >= least)
    return astray.join(late, on="transaction", how="semi", maintain_order="left")


def _occurrence(tables: Tables, twins: SipTwins, t: Transaction, via: SentBy | None, detailed: bool
                ) -> Occurrence | None:
    """None where the responses do not go where the Via says."""
    replies = list(t.response_messages)
    if via is None or via.port not in tables.sip["destination_port"].gather(replies).to_list():
        return None
    confidence = Confidence.SUSPECTED if via.rport else Confidence.PROBABLE
    reasons = [f"sent {times(t.sends)} from port {t.client_port}; {number_of(len(replies), 'responses')} to port "
               f"{via.port}, the one in the Via",
               "the Via asks for the source port with rport, which the server ignores" if via.rport
               else "the Via has no rport"]
    if via.host != t.client:
        reasons.append(f"the Via names {via.host}, the request comes from {t.client}: a NAT is between")
    cited = tables.sip["packet"].gather([*t.request_messages, *t.response_messages]).to_list()
    flows = set(tables.sip["flow"].gather(replies).to_list())
    errors = tables.icmp.filter(pl.col("quoted_flow").is_in(flows) & (pl.col("quoted_destination") == t.client)
                                & (pl.col("quoted_destination_port") == via.port))
    lost_at = twins.missing_at(t.response_messages) if detailed else ""
    if len(errors):
        reasons.append(f"ICMP {errors['name'][0]} from {errors['source'][0]} about a response")
        cited += errors["packet"].head(3).to_list()
    if lost_at:
        reasons.append(f"no response is seen at {lost_at}, where others of {t.server} to {t.client} are")
    if len(errors) or lost_at:
        confidence = Confidence.CONFIRMED
    return Occurrence(
        subject=t.call_id, group=(t.server, "rport ignored" if via.rport else "no rport"),
        title="Server ignores rport: responses go to the Via's port" if via.rport else "",
        summary=f"{t.server} answers {t.method} from {endpoint(t.client, t.client_port)} to port {via.port}, and the "
                f"client repeats it {times(t.sends - 1)}.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(cited, {"sip.call_id": t.call_id, "source.port": t.client_port, "sip.via.port":
                                         via.port, "sip.via.host": via.host}) if detailed else (),
        scope={"source.ip": t.client, "destination.ip": t.server},
        flows=(int(tables.sip["flow"][t.request_messages[0]]), *sorted(flows)),
        keys=frozenset({f"call:{t.call_id}"}), clock=bool(lost_at) and not len(errors),
        start_ns=t.first_ns, end_ns=t.last_ns, alternatives=_alternatives(via, t))


def _alternatives(via: SentBy, t: Transaction) -> tuple[Alternative, ...]:
    return (Alternative("the client listens on the Via's port, and its firewall drops what arrives there",
                        "" if via.host != t.client else f"the Via names {t.client} itself: no NAT is between",
                        f"the Via names {via.host}, not {t.client}" if via.host != t.client else ""),)
