"""A registration outlives the NAT mapping that it was made through: calls out work, calls in do not.

The registrar stores the address and port that a REGISTER came from, for as long as it granted (RFC 3261 §10.2.4), an
hour as a rule. A NAT keeps its UDP mapping for much less when nothing passes (RFC 4787 REQ-5 asks for 120 s; 30 to 60
s are common defaults). After that, requests to the stored port are dropped without a word. The next packet of the
client repairs it. So: a request to where a valid registration came from is repeated without answer after a silence of
the client, and then the same client (AoR, instance or Call-ID) registers from the same address and another port, or
from the same port and answers again.

**What lifts the suspicion.** The changed port (probable). A second capture point inside that lacks the request, or
three clients that fail after the same silence (confirmed).

**What looks alike and is not it.** A registration that had expired by then. A client that comes back with a new
Call-ID and no instance in common was restarted; from another address, it moved. Keep-alives (CRLF, STUN, answered
OPTIONS) end the silence; if this client bore a silence as long before, the mapping was there. TCP and TLS have no UDP
mapping (SIP-FLOW-LOST). A request that fails where the client has just spoken is some other fault.

**What stays open.** On the phone's side nothing can be seen but that no call comes. A capture from there, with a phone
that says nothing for most of the time between two REGISTERs to a public registrar, and into which nothing came after
such a silence, neither shows the fault nor clears it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

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
    inconclusive,
    not_applicable,
    number_of,
    seconds,
)
from netdiag.tables import Tables
from netdiag.tables.addresses import endpoint, realm
from netdiag.tables.mappings import DEFAULT_EXPIRES, Flows, clients, inbound
from netdiag.tables.sip_twins import SipTwins

PATTERN = Pattern(
    id="SIP-REG-NAT-EXPIRY",
    title="Registration outlives the NAT mapping: the phone cannot be called",
    severity=Severity.HIGH,
    cases=("registration-outlives-nat-binding",),
    needs=("registrations", "transactions", "sip", "quality"),
    references=(Reference("RFC 3261 §10.2.4"), Reference("RFC 4787 REQ-5"), Reference("RFC 5626 §4.4.2")),
    filter='sip.CSeq.method == "REGISTER" || sip.CSeq.method == "INVITE" || sip.CSeq.method == "OPTIONS"',
    mitigation="Ping contacts behind NAT with OPTIONS from the registrar, or grant them 60 to 90 s only.",
    fix="Keep-alives by the phone (RFC 5626 §4.4.2: every 24 to 29 s over UDP), or TCP or TLS with keep-alives.",
    prevention="Watch the time since the last packet of each contact, not whether it is registered.",
    next_capture="Capture inside the NAT as well: does the request that fails outside arrive there?",
    settings=(Setting("min_silence", 5, "s", "practice: device defaults begin at 30 s, laboratories use less"),
              Setting("min_sends", 3, "sends", "practice: two lost in a row may be loss")),
    explains=("SIP-INVITE-TIMEOUT",),
)

ALIKE = 3
"""Clients that fail after the same silence, for certainty (pattern's own rule; practice)."""
MOST = 0.5
"""Of the time between two REGISTERs: a longer silence means that no keep-alive is in use (practice)."""
SHORT_S = 1.0
"""A shorter silence is one exchange, and shows nothing of a mapping (practice)."""
DETAILED = 200
"""Requests whose frames are listed; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Requests to a registered client that fail after a silence, and a client that then comes back."""
    every = clients(tables)
    if not every["status"].is_between(200, 299).any():
        return not_applicable("no client registers over UDP in this capture")
    asked = inbound(tables)
    failed = asked.filter(
        ~pl.col("answered") & ~pl.col("cancelled") & (pl.col("sends") >= settings["min_sends"])
        & (pl.col("next_source") == pl.col("source")))
    flows = Flows(tables)
    asked = asked.filter(pl.col("identity").is_in(failed["identity"].unique().implode()))
    history: dict[tuple[str, str], list[dict[str, object]]] = defaultdict(list)
    for row in asked.iter_rows(named=True):
        history[row["point"], row["identity"]].append(row)
    met = []
    for row in failed.iter_rows(named=True):
        bracket = _bracket(flows, row, history[row["point"], row["identity"]])
        if bracket and bracket[0] >= settings["min_silence"] and bracket[0] > bracket[2]:
            met.append((row, *bracket))
    if not met:
        unseen = _seen_from_inside(every, flows, settings["min_silence"])
        if unseen:
            return inconclusive(unseen, "Capture outside the NAT as well, best at the registrar: are requests to the "
                                        "registered address and port sent there in these silences?")
        return clear(f"{number_of(every['identity'].n_unique(), 'clients')} registered over UDP; to those that missed "
                     f"some: {number_of(len(asked), 'requests')}, none lost to a silence that a new REGISTER ended")
    gaps = {(str(row["source"]), str(row["aor"])): silence for row, silence, *_ in met}
    twins = SipTwins(tables)
    occurrences = [_occurrence(tables, twins if i < DETAILED else None, row, silence, last, bore, gaps)
                   for i, (row, silence, last, bore) in enumerate(met)]
    examined = Counter((source,) for source, _ in every.select("source", "aor").unique().iter_rows())
    return found(occurrences, population="clients", examined={(source,): n for (source,), n in examined.items()})


def _seen_from_inside(every: pl.DataFrame, flows: Flows, least: float) -> str:
    """What cannot be judged at the phone's side of a NAT; "" when nothing of that kind is there.

    A private client that stays registered with a public registrar and says nothing for most of the time between two
    REGISTERs. Nothing is left open where the other side of the NAT was captured too, or where packets came in after
    such a silence.
    """
    ends = {a: realm(a) for a in {*every["source"].to_list(), *every["registrar"].to_list()}}
    near = pl.col("source").replace_strict(ends, return_dtype=pl.String)
    far = pl.col("registrar").replace_strict(ends, return_dtype=pl.String)
    held = every.filter(pl.col("status").is_between(200, 299))
    # A client with a public address has no NAT, or was captured outside of it, perhaps as a second point.
    inside = held.filter(far == "public").join(
        every.filter(near == "public"), on=["aor", "call_id"], how="anti", maintain_order="left")
    lifetime = pl.col("expires_granted").fill_null(DEFAULT_EXPIRES).cast(pl.Int64) * 10**9
    inside = inside.with_columns(
        next_ns=pl.col("ts_ns").shift(-1).over("point", "identity", "flow"),
        stays=~pl.col("removes").shift(-1).over("point", "identity", "flow")).filter(
        ~pl.col("removes") & pl.col("stays") & (pl.col("next_ns") - pl.col("ts_ns") <= lifetime))
    silent: dict[str, float] = {}
    for flow, packet, aor, begin, end in inside.select("flow", "request_packet", "aor", "ts_ns", "next_ns").iter_rows():
        traffic = flows.of(flow, packet)
        spoke = traffic.out_ns[(traffic.out_ns >= begin) & (traffic.out_ns <= end)]
        longest = int(np.diff(spoke).max(initial=0))
        if longest < max(least * 1e9, (end - begin) * MOST) or traffic.came_after(least):
            continue
        silent[aor] = max(silent.get(aor, 0.0), longest / 1e9)
    if not silent:
        return ""
    aor, longest_s = max(silent.items(), key=lambda item: (item[1], item[0]))
    return (f"seen from inside the NAT: {aor} stays registered through a silence of {seconds(longest_s)}"
            + (f" ({len(silent)} such clients)" if len(silent) > 1 else "")
            + "; whether requests to it were lost outside does not show here")


def _bracket(flows: Flows, row: dict[str, object], history: list[dict[str, object]]) -> tuple[float, int, float] | None:
    """Silence before the failed request, the client's last packet, and the longest silence that this client bore.

    A silence was borne when a request after it was answered, or, where the NAT gave another port now, when the
    client's own next packet came from the same one. None when the port is unchanged and no later request proves that
    the client is alive.
    """
    traffic = flows.of(int(str(row["flow"])), int(str(row["request_packet"])))
    quiet = traffic.silence(int(str(row["first_ns"])))
    if quiet is None:
        return None
    answered = [int(str(h["first_ns"])) for h in history if h["answered"]]
    bore = [s[0] for h in history if h["answered"] and (s := flows.of(
        int(str(h["flow"])), int(str(h["request_packet"]))).silence(int(str(h["first_ns"]))))]
    if row["next_port"] != row["source_port"]:
        bore += [(b - a) / 1e9 for a, b in pairwise(traffic.out_ns.tolist())]
    elif not any(at > int(str(row["next_ns"])) for at in answered):
        return None
    return quiet[0], quiet[1], max(bore, default=0.0)


def _alike(a: float, b: float) -> bool:
    """Equal within 1 s below 60 s, within 2 % above (practice)."""
    return abs(a - b) <= (1.0 if max(a, b) < 60 else 0.02 * max(a, b))


def _occurrence(tables: Tables, twins: SipTwins | None, row: dict[str, object], silence: float, last: int, bore: float,
                gaps: dict[tuple[str, str], float]) -> Occurrence:
    place = endpoint(str(row["source"]), int(str(row["source_port"])))
    messages = [int(m) for m in row["request_messages"]]  # type: ignore[attr-defined]
    registered = (int(str(row["first_ns"])) - int(str(row["registered_ns"]))) / 1e9
    confidence = Confidence.SUSPECTED
    reasons = [f"{row['method']} sent {row['sends']} times to {place} without answer, {seconds(silence)} after the "
               f"client's last packet and {seconds(registered)} into a registration of "
               f"{row['expires_granted'] or '?'} s"]
    if bore >= SHORT_S:
        reasons.append(f"the longest silence of this client that did no harm is {seconds(bore)}")
    if row["next_port"] != row["source_port"]:
        confidence = Confidence.PROBABLE
        reasons.append(f"its next REGISTER comes from port {row['next_port']} of the same address")
    else:
        reasons.append("after its next REGISTER, from the same port, it answers again")
    same = {aor for (source, aor), gap in gaps.items() if source == row["source"] and _alike(gap, silence)}
    if len(same) >= ALIKE and confidence is Confidence.PROBABLE:
        confidence = Confidence.CONFIRMED
        reasons.append(f"{len(same)} clients fail after the same silence")
    lost_at = twins.missing_at(messages) if twins else ""
    cited = [int(str(row["request_packet"])), last, *tables.sip["packet"].gather(messages).to_list(),
             int(str(row["next_packet"]))]
    if lost_at and twins:
        confidence = Confidence.CONFIRMED
        reasons.append(f"none of it is seen at {lost_at}, where other requests to this address are")
        later = tables.transactions["request_messages"][int(str(row["next_transaction"]))].to_list()
        cited += twins.of(later)["packet"].to_list()
    return Occurrence(
        subject=str(row["aor"]), group=(str(row["source"]),),
        summary=f"{row['aor']} could not be reached at {place} after {seconds(silence)} of silence, and came back from "
                f"port {row['next_port']}.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(cited, {"sip.aor": str(row["aor"]), "sip.call_id": str(row["call_id"]),
                                         "nat.silence_s": round(silence, 3)}) if twins else (),
        scope={"source.ip": str(row["source"])}, flows=(int(str(row["flow"])),),
        keys=frozenset({f"aor:{row['aor']}", f"call:{row['call_id']}", f"host:{row['source']}"}), absence=not lost_at,
        clock=bool(lost_at) and len(same) < ALIKE, start_ns=int(str(row["first_ns"])),
        end_ns=int(str(row["next_ns"])), alternatives=(
            Alternative("the phone was off or its line was down", "it did not answer",
                        f"{lost_at} saw other requests, and not this one" if lost_at else
                        "its registration goes on with the same identity"),))
