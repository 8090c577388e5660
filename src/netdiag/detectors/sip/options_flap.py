"""OPTIONS probes of a peer alternate between success and failure: its trunk is marked down and up again.

A proxy or PBX that asks a peer with OPTIONS at a steady period (RFC 3261 §11) takes it out of its routes when a probe
fails and back when one succeeds. What fails here is a probe without any response, although the prober went on to the
next one or 32 s passed (Timer F, §17.1.2.2; most products give up after 1 to 5 s), or one that ends in 408 or 503, or
whose answer comes after the prober has given up: over UDP it repeats the request until it does (Timer E), so that a
repetition which is due and is not sent tells. When success and failure change twice or more within half an hour, the
cause comes and goes: loss on the path, a NAT or TLS binding that dies between probes, a peer too busy to answer in
time. Calls in between tell whether the peer was down: if it goes on answering INVITEs, only its probes fail.

**What lifts the suspicion.** One failure between successes is suspected; a second one, with a success between them, is
alternation (probable). Calls that go to another peer while it counts as down and come back with the probes, or a
second capture point that has the answer, or lacks the request, that the other one shows (confirmed).

**What looks alike and is not it.** Any final response proves a living peer: 404, 405, 483 to a probe with
Max-Forwards 0, 501. A probe that is answered after a repetition is loss which its timers cured. A 503 with
Retry-After announces maintenance. A peer that fails once and for all, or comes up once, does not flap. OPTIONS at
no steady period are not probes; scanners ask each address once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from statistics import median

import polars as pl

from netdiag.detectors.sip._probes import FAILURES, LATE_S, PAIR, Probe, judged_series
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
from netdiag.tables.sip import Transaction
from netdiag.tables.sip_twins import SipTwins

PATTERN = Pattern(
    id="SIP-OPTIONS-FLAP",
    title="Trunk keep-alive flaps: OPTIONS probes of a peer fail and succeed in turn",
    severity=Severity.HIGH,
    cases=("trunk-flap-after-failover",),
    needs=("transactions", "sip", "quality", "tcp"),
    references=(Reference("RFC 3261 §11, §17.1.2.2"),),
    filter='sip.CSeq.method == "OPTIONS"',
    mitigation="Wait longer for the answer, and mark the peer down only after several failed probes in a row.",
    fix="Remove what loses the probes: a NAT, firewall or TLS idle time-out shorter than the period, a rate limit, an "
        "overloaded peer, a load balancer that keeps the prober on a node that is dead.",
    prevention="Probe more often than any idle time-out on the path; raise an alarm on the number of changes.",
    next_capture="Capture at the peer: do the failed probes arrive, and do their answers leave?",
    settings=(Setting("deviation", 10, "%", "practice: how far the waits of a steady prober differ from the usual one"),
              Setting("steady", 75, "%", "practice: share of the waits that are so close to the usual one"),
              Setting("slack", 25, "%", "practice: how late a repetition may be, as servers run coarse timers"),
              Setting("window", 1800, "s", "practice: two changes within half an hour"),
              Setting("min_transitions", 2, "changes", "practice: down and up again")),
    explains=("SIP-INVITE-TIMEOUT",),
)

UNHEARD = ("Send calls by another route while the peer is silent, and mark it down only after several failed probes in "
           "a row.")
"""What helps at once where no answer comes late: waiting longer would change nothing."""
DETAILED, SPELLS = 50, 50
"""Pairs of prober and peer that are looked at closely, and failures compared with calls and other points (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Prober and peer whose steady OPTIONS succeed and fail in turn."""
    asked = tables.transactions.filter(
        (pl.col("method") == "OPTIONS") & pl.col("to_tag").is_null() & ~pl.col("midstream"))
    if not len(asked):
        return not_applicable("no OPTIONS outside a dialog in this capture")
    silent = pl.col("response_messages").list.len() == 0
    failed = silent | pl.col("status").is_in(FAILURES)
    late = ((pl.col("sends") > 1) & (pl.col("response_s") > LATE_S)).fill_null(False)
    mixed = asked.group_by(PAIR, maintain_order=True).agg(bad=(failed | late).sum(), good=(~failed).sum()).filter(
        (pl.col("bad") > 0) & (pl.col("good") > 1))
    occurrences = _told_once([
        (_ttl(tables, one), o) for key in mixed.select(PAIR).head(DETAILED).iter_rows()
        for one in judged_series(tables, asked, key, settings["slack"] / 100)
        if (o := _occurrence(tables, settings, one))])
    if not occurrences:
        return clear(f"{len(asked)} OPTIONS; no steady series of them fails and succeeds in turn")
    return found(occurrences, population="probed peers", examined=dict.fromkeys((o.group for o in occurrences), 1))


def _ttl(tables: Tables, series: list[Probe]) -> int:
    return int(tables.packets.ttl[tables.sip["packet"][series[0].transaction.request_messages[0]]])


def _told_once(occurrences: list[tuple[int, Occurrence]]) -> list[Occurrence]:
    """Series with the same probes (Call-IDs) are one, seen at points with a NAT or balancer between.

    The surest account stays, of equal ones that of the point nearest to the peer, by the TTL that comes with each.
    """
    out: list[Occurrence] = []
    for _, o in sorted(occurrences, key=lambda pair: (-pair[1].confidence, pair[0])):
        probes = {key for key in o.keys if key.startswith("call:")}
        same = next((i for i, other in enumerate(out) if probes & other.keys), None)
        if same is None:
            out.append(o)
        else:
            lead = out[same]
            out[same] = replace(lead, evidence=lead.evidence + o.evidence, flows=lead.flows + o.flows,
                                keys=lead.keys | o.keys)
    return out


def _occurrence(tables: Tables, settings: dict[str, float], series: list[Probe]) -> Occurrence | None:
    # Many probers ask more often while the peer counts as down: only waits after a success are to be equal.
    waits = [(b.transaction.first_ns - a.transaction.first_ns) / 1e9 for a, b in pairwise(series) if a.up]
    if len(waits) < 3:
        return None
    # Not the standard deviation: one late timer of a busy prober would hide a period that is plain to see.
    usual = median(waits)
    alike = sum(abs(w - usual) <= usual * settings["deviation"] / 100 for w in waits)
    if alike < len(waits) * settings["steady"] / 100:
        return None
    changes = [b.transaction.first_ns for a, b in pairwise(series) if a.up != b.up]
    least = max(2, int(settings["min_transitions"]))
    if not any(changes[i + least - 1] - changes[i] <= settings["window"] * 1e9
               for i in range(len(changes) - least + 1)):
        return None
    spans = list(_down(series))
    down = [p.transaction for p in series if not p.up]
    first = series[0].transaction
    confidence, reasons = Confidence.SUSPECTED, [
        f"{len(down)} of {len(series)} probes fail, every {usual:.0f} s one is sent; "
        f"{len(changes)} changes between success and failure"]
    if sum(1 for a, b in pairwise(series) if a.up and not b.up) > 1:
        confidence = Confidence.PROBABLE
    codes = sorted({t.status for t in down if t.status in FAILURES})
    late = [t.response_s for t in down if t.response_s is not None and t.status not in FAILURES]
    silent = sum(1 for t in down if not t.response_messages)
    if silent:
        reasons.append(f"{silent} get no response of any kind")
    resets = _resets(tables, down)
    if resets:
        reasons.append(f"{first.server} resets {number_of(resets, 'connections')} of these probes")
    if late:
        reasons.append(f"{len(late)} are answered, after up to {max(late):.1f} s: the prober has stopped repeating "
                       "them and given up before")
    if codes:
        reasons.append("the peer or a proxy before it answers " + ", ".join(map(str, codes)))
    good, moved = _calls(tables, first, spans[:SPELLS])
    if good:
        reasons.append(f"while its probes fail, it answers {number_of(good, 'INVITEs')}: false alarms")
    if moved:
        confidence = Confidence.CONFIRMED
        reasons.append(f"while the probes fail, INVITEs go to {moved}, and afterwards to {first.server} again")
    elsewhere, frames = _other_point(tables, down[:SPELLS])
    if elsewhere:
        confidence = Confidence.CONFIRMED
        reasons.append(elsewhere)
    times = [s for p in series if p.up and (s := p.transaction.response_s) is not None]
    delays = list(dict.fromkeys(f"{s * 1000:.3g} ms" for s in (median(times), max(times)))) if times else []
    reasons.append(f"answers in time take {', the slowest '.join(delays)}" if delays else "no answer has a known delay")
    cited = [m for t in down for m in (*t.request_messages, *t.response_messages)]
    cited += [m for a, b in pairwise(series) if b.up and not a.up
              for m in (b.transaction.request_messages[0], b.transaction.response_messages[0])]
    packets = tables.sip["packet"][cited].to_list() + frames
    flows = tuple(tables.sip["flow"][[t.request_messages[0] for t in down]].unique().to_list())
    return Occurrence(
        subject=f"{first.client} → {endpoint(first.server, first.server_port)}", group=(first.client, first.server),
        summary=f"{len(down)} of {len(series)} OPTIONS probes of {first.client} to {first.server} fail, "
                f"in {number_of(len(spans), 'spells')}; in between it answers.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(packets, {"sip.method": "OPTIONS", "destination.ip": first.server}),
        scope={"source.ip": first.client, "destination.ip": first.server}, flows=flows,
        keys=frozenset({f"host:{first.server}"} | {f"call:{t.call_id}" for t in down[:20]}),
        mitigation="" if late or good else UNHEARD,
        absence=silent > resets and not codes and not elsewhere, clock=bool(elsewhere),
        start_ns=down[0].first_ns, end_ns=down[-1].last_ns, alternatives=(
            Alternative("the peer is too busy to answer in time", "its own 503 says so" if 503 in codes else
                        "its answers come late" if late else "probes without an answer fit",
                        "it answers INVITEs meanwhile" if good else ""),
            Alternative("the path loses probes or their answers", "some get no response" if silent > resets else "",
                        "" if silent > resets else "each probe is answered, or its connection reset")))


def _resets(tables: Tables, down: list[Transaction]) -> int:
    """Connections of failed probes that end with a reset of the probed side."""
    streams = {t.request_messages[0]: t.client for t in down if t.transport != "udp" and not t.response_messages}
    if not streams:
        return 0
    sent = pl.DataFrame({"flow": tables.sip["flow"].gather(list(streams)), "prober": list(streams.values())}).unique()
    by_peer = pl.when(pl.col("client") == pl.col("prober")).then("rst_by_server").otherwise("rst_by_client")
    return tables.tcp.join(sent, on="flow").filter(by_peer).height


def _down(series: list[Probe]) -> Iterator[tuple[int, int]]:
    """From each first failed probe to the next answered one, or to the last."""
    begin: int | None = None
    for probe in series:
        t = probe.transaction
        if not probe.up:
            begin = t.first_ns if begin is None else begin
        elif begin is not None:
            yield begin, t.last_ns
            begin = None
    if begin is not None:
        yield begin, series[-1].transaction.last_request_ns


def _calls(tables: Tables, first: Transaction, spans: list[tuple[int, int]]) -> tuple[int, str]:
    """INVITEs that the peer answered while its probes failed; the peer that had calls then, and only then."""
    calls = tables.transactions.filter(
        (pl.col("method") == "INVITE") & (pl.col("point") == first.point) & (pl.col("client") == first.client)
        & pl.col("to_tag").is_null() & ~pl.col("midstream"))
    during = pl.any_horizontal(pl.col("first_ns").is_between(a, b) for a, b in spans)
    mine = pl.col("server") == first.server
    alive = (pl.col("response_messages").list.len() > 0) & ~pl.col("status").is_in(FAILURES).fill_null(False)
    good = calls.filter(during & mine & alive).height
    others = set(calls.filter(during & ~mine)["server"].to_list()) - set(calls.filter(~during & ~mine)["server"])
    back = calls.filter(mine & (pl.col("first_ns") > spans[0][1])).height
    return good, min(others) if others and back and not good else ""


def _other_point(tables: Tables, down: list[Transaction]) -> tuple[str, list[int]]:
    """Whether the request or its answer died on the way to another point: a clause, and the packets there."""
    twins = SipTwins(tables)
    for t in down:
        if t.response_messages:
            continue
        there = twins.of(t.request_messages)
        if not len(there):
            lost = twins.missing_at(t.request_messages)
            if lost:
                return f"a failed probe is not seen at {lost}, where others of this way are", []
        answer = tables.transactions.filter(
            (pl.col("call_id") == t.call_id) & (pl.col("cseq") == t.cseq) & (pl.col("point") != t.point)
            & (pl.col("method") == "OPTIONS") & (pl.col("response_messages").list.len() > 0))
        if len(answer):
            point, message = answer.select("point", pl.col("response_messages").list.first()).row(0)
            return (f"at {point} the peer answers a probe whose answer is not seen at {t.point}",
                    [int(tables.sip["packet"][message])])
    return "", []
