"""A server refuses with 503, 500 or 408, and its clients' retries multiply the load that it refuses.

An overloaded element sheds requests with 503 (RFC 3261 §21.5.4). Without Retry-After, or where clients ignore it
(§20.33), each refused call comes again at once, or is tried at the next node of the set (RFC 3263 §4.3), which is
as busy: the load grows because it is refused (RFC 5390). A storm is met where, for ten seconds or more and in fifty
transactions or more, over a fifth end in these codes, and one sign of feedback is there: more than two attempts for
the same call, each after the one before it failed and within ten seconds; attempts that come before Retry-After is
over; offered load that rises while answered calls become few; or calls that are refused by three nodes in turn.

**What lifts the suspicion.** More than two attempts for each call (probable); and answered calls that fall to half of
what they were while the offered load rises (confirmed).

**What looks alike and is not it.** A node that refuses once, after which another takes the call, is failover as it
should be. 486, 480 and 603 are users, not servers. Refusals at a steady offered rate, without retries, are a limit
somebody set, or maintenance. One caller who calls the same number many times, and gets through in between, does not
retry. Challenges (401, 407) are no attempts of their own.
"""

from __future__ import annotations

from dataclasses import replace
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
)
from netdiag.tables import Tables
from netdiag.tables.sip_details import added
from netdiag.tables.sip_routing import routing

PATTERN = Pattern(
    id="SIP-503-STORM",
    title="Overload: refused calls are retried at once, and the retries multiply the load",
    severity=Severity.CRITICAL,
    cases=("overload-retry-storm",),
    needs=("transactions", "sip", "quality"),
    references=(Reference("RFC 3261 §20.33, §21.5.4"), Reference("RFC 3263 §4.3"), Reference("RFC 5390"),
                Reference("RFC 7339")),
    filter="sip.Status-Code == 503 || sip.Status-Code == 500 || sip.Status-Code == 408",
    mitigation="Shed load at the edge with a code that is not retried (480, 603), and stop the retries of your own "
               "proxies.",
    fix="Give clients back-off with jitter and Retry-After; use overload control (RFC 7339) between servers.",
    prevention="Test with more load than the servers carry, and watch attempts for each answered call.",
    next_capture="Capture in front of the refusing server from before the overload until it ends.",
    settings=(Setting("share", 20, "%", "practice: refused transactions"),
              Setting("min_transactions", 50, "transactions", "practice"),
              Setting("min_duration", 10, "s", "practice"),
              Setting("amplification", 2, "attempts per call", "practice: a first try and one failover"),
              Setting("patience", 10, "s", "practice: attempts closer than that are for the same call"),
              Setting("collapse", 50, "%", "practice: answered calls that are left")),
)

REFUSED = (408, 500, 503)
CHALLENGED = (401, 407)
BUCKET_NS = 5_000_000_000
"""Shares are taken over such times (practice: half of the shortest storm)."""
BEFORE_NS = 30_000_000_000
"""How much of the time before is compared (practice)."""
READ = 20_000
"""Requests of one storm whose From and To are read: what they show, more would show again (practice)."""
STORMS = 50
"""Storms that are looked at, the largest first (practice)."""
NODES, CALLS, EARLY = 3, 3, 3
"""Nodes that refuse a call in turn, and calls or early retries that are no chance (practice)."""
CITED = 10


class _Storm(NamedTuple):
    point: str
    server: str
    start_ns: int
    end_ns: int
    total: int
    refused: int


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Servers that refuse much for a while, with signs that refusals cause load."""
    asked = tables.transactions.filter(
        ~pl.col("midstream") & ~pl.col("method").is_in(["ACK", "CANCEL", "OPTIONS"]) & pl.col("status").is_not_null())
    if not len(asked):
        return not_applicable("no SIP transaction with a final response in this capture")
    asked = asked.select("point", "client", "server", "call_id", "method", "to_tag", "status", "first_ns", "last_ns",
                         "request_messages", "final_message", refused=pl.col("status").is_in(REFUSED))
    if not asked["refused"].sum() * 100 > settings["share"] * settings["min_transactions"]:
        return clear(f"{number_of(len(asked), 'transactions')}, {asked['refused'].sum()} of them ended in 503, 500 or "
                     "408")
    storms = _storms(asked, settings)
    told = [(storm, o) for storm in storms if (o := _occurrence(tables, asked, settings, storm))]
    if not told:
        return clear(f"{number_of(len(storms), 'servers')} refused much for a while, and nothing shows that clients "
                     "multiply it")
    return found(_joined(asked, told), population="servers")


def _joined(asked: pl.DataFrame, told: list[tuple[_Storm, Occurrence]]) -> list[Occurrence]:
    """Servers that refuse the same calls, one behind the other or in turn, are in one storm: one group."""
    calls = [set(asked.filter(
        pl.col("refused") & (pl.col("point") == storm.point) & (pl.col("server") == storm.server)
        & pl.col("first_ns").is_between(storm.start_ns, storm.end_ns))["call_id"].to_list()) for storm, _ in told]
    lead = list(range(len(told)))
    for i, mine in enumerate(calls):
        for j in range(i):
            if 2 * len(mine & calls[j]) >= min(len(mine), len(calls[j])):
                lead = [lead[j] if k == lead[i] else k for k in lead]
    groups: dict[int, set[str]] = {}
    for k, (_, o) in zip(lead, told, strict=True):
        groups.setdefault(k, set()).update(o.group)
    return [replace(o, group=tuple(sorted(groups[k]))) for k, (_, o) in zip(lead, told, strict=True)]


def _storms(asked: pl.DataFrame, settings: dict[str, float]) -> list[_Storm]:
    """Times of one server in which it refuses more than the share."""
    start = asked["first_ns"].min()
    key = ["point", "server"]
    when = pl.col("first_ns").filter(pl.col("refused"))
    buckets = asked.with_columns(bucket=(pl.col("first_ns") - start) // BUCKET_NS).group_by(*key, "bucket").agg(
        total=pl.len(), bad=pl.col("refused").sum(), first=when.min(), last=when.max(),
    ).filter(pl.col("bad") * 100 > pl.col("total") * settings["share"]).sort(*key, "bucket")
    runs = buckets.with_columns(run=pl.col("bucket") - pl.int_range(pl.len()).over(key)).group_by(
        *key, "run", maintain_order=True).agg(pl.col("first").min(), pl.col("last").max(), pl.col("total").sum(),
                                              pl.col("bad").sum())
    lasting = (pl.col("last") - pl.col("first")) / 1e9 >= settings["min_duration"]
    chosen = runs.filter(lasting & (pl.col("total") >= settings["min_transactions"]))
    worst = chosen.sort("bad", descending=True, maintain_order=True).head(STORMS)
    return [_Storm(*row) for row in worst.select(*key, "first", "last", "total", "bad").iter_rows()]


def _occurrence(tables: Tables, asked: pl.DataFrame, settings: dict[str, float], storm: _Storm) -> Occurrence | None:
    here = asked.filter((pl.col("point") == storm.point) & (pl.col("server") == storm.server))
    during = here.filter(pl.col("first_ns").is_between(storm.start_ns, storm.end_ns))
    servers, turns = _in_turn(asked, storm)
    chains = _chains(tables, during.filter(pl.col("to_tag").is_null()).head(READ), settings["patience"])
    early = _early(tables, chains)
    if servers:
        tried = asked.filter(pl.col("server").is_in(servers) & (pl.col("point") == storm.point)
                             & pl.col("first_ns").is_between(storm.start_ns, storm.end_ns))
        chains = _chains(tables, tried.filter(pl.col("to_tag").is_null()).head(READ), settings["patience"])
    attempts, calls = int(chains["attempts"].sum()), len(chains)
    factor = attempts / calls if calls else 0.0
    before, now = _rates(tables, here, storm)
    collapsed = before is not None and now[0] > before[0] and now[1] * 100 <= before[1] * settings["collapse"]
    retried = calls >= CALLS and factor > settings["amplification"]
    if not (retried or early >= EARLY or servers or collapsed):
        return None
    seconds = (storm.end_ns - storm.start_ns) / 1e9
    confidence = (Confidence.SUSPECTED, Confidence.PROBABLE, Confidence.CONFIRMED)[retried + (retried and collapsed)]
    reasons = [f"{storm.refused} of {storm.total} transactions within {seconds:.0f} s end in 503, 500 or 408"]
    if retried:
        reasons.append(f"{attempts} attempts for {calls} calls, {factor:.1f} for each"
                       + (", all nodes together" if servers else ""))
    if early >= EARLY:
        reasons.append(f"{early} retries come before Retry-After is over")
    if servers:
        reasons.append(f"calls are refused by {len(servers)} nodes in turn: {', '.join(servers)}")
    if before is not None and collapsed:
        reasons.append(f"offered load rises from {before[0]:.1f} to {now[0]:.1f}/s, while answered requests fall from "
                       f"{before[1]:.1f} to {now[1]:.1f}/s")
    worst = chains.sort("attempts", descending=True, maintain_order=True).head(1)
    cited = worst["requests"].explode().to_list()[:CITED] if retried or early >= EARLY else []
    cited += turns + during.filter(pl.col("refused"))["final_message"].head(CITED).to_list()
    tail = "while more and more come"
    if retried:
        tail = f"and each call is tried {factor:.1f} times"
    elif early >= EARLY or servers:
        tail = "and its clients try again too early" if early >= EARLY else "as do the other nodes that are tried"
    codes = during.filter(pl.col("refused"))["status"].value_counts().sort("status").iter_rows()
    answer = ", ".join(f"{n} times {code}" for code, n in codes)
    return Occurrence(
        subject=storm.server, group=tuple(servers) or (storm.server,),
        summary=f"{storm.server} refuses {storm.refused} of {storm.total} requests within {seconds:.0f} s ({answer}), "
                f"{tail}.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(tables.sip["packet"][cited].to_list(), {"destination.ip": storm.server}),
        scope={"destination.ip": storm.server, "sip.refused": storm.refused},
        keys=frozenset({f"host:{storm.server}"}), start_ns=storm.start_ns, end_ns=storm.end_ns, alternatives=(
            Alternative("a limit that somebody set refuses the calls", "a policy looks the same to one client",
                        "what is refused comes again, and the load grows" if retried or collapsed else ""),
            Alternative("what lies behind the server fails", "500 and 408 speak of that" if storm.refused
                        > during.filter(pl.col("status") == 503).height else "", "")))


def _chains(tables: Tables, asked: pl.DataFrame, patience: float) -> pl.DataFrame:
    """Attempts for the same call, each made after the one before it failed: count, requests, and times to judge them.

    The same From and To by the same client make a call. Where an attempt follows an answered one at once, several
    people share them (a test tool, an anonymous caller), and nothing is said.
    """
    tries = asked.filter(~pl.col("status").is_in(CHALLENGED)).with_columns(
        request=pl.col("request_messages").list.first())
    tries = added(tables, tries, ("from_uri", "to_uri"), "request").drop_nulls(["from_uri", "to_uri"])
    tries = tries.filter(~pl.col("from_uri").str.contains("anonymous"))
    intent = ["client", "method", "from_uri", "to_uri"]
    tries = tries.sort("first_ns", maintain_order=True).with_columns(
        gap=(pl.col("first_ns") - pl.col("last_ns").shift(1).over(intent)) / 1e9,
        after=pl.col("refused").shift(1).over(intent))
    near = pl.col("gap").is_between(0, patience)
    shared = (near & ~pl.col("after")).any().over(intent)
    tries = tries.filter(~shared.fill_null(False)).with_columns(
        chain=(~near).fill_null(True).cum_sum().over(intent))
    return tries.filter(pl.col("refused").any().over(*intent, "chain")).group_by(
        *intent, "chain", maintain_order=True).agg(
        attempts=pl.len(), requests="request", finals="final_message", times="first_ns", ends="last_ns")


def _early(tables: Tables, chains: pl.DataFrame) -> int:
    """Retries that come before the Retry-After of the refusal is over, among the first calls."""
    count = 0
    for finals, times, ends in chains.filter(pl.col("attempts") > 1).select("finals", "times", "ends").head(
            READ // 100).iter_rows():
        for final, end, again in zip(finals[:-1], ends[:-1], times[1:], strict=True):
            wait = routing(tables, final).retry_after
            count += wait is not None and (again - end) / 1e9 < wait
    return count


def _in_turn(asked: pl.DataFrame, storm: _Storm) -> tuple[list[str], list[int]]:
    """The nodes, this server among them, that refuse some calls one after the other; what they answer to the first."""
    calls = asked.filter(
        pl.col("refused") & (pl.col("point") == storm.point)
        & pl.col("first_ns").is_between(storm.start_ns, storm.end_ns)).group_by("client", "call_id").agg(
        pl.col("server").unique().sort(), finals="final_message", first=pl.col("first_ns").min()).filter(
        (pl.col("server").list.len() >= NODES) & pl.col("server").list.contains(storm.server)).sort("first")
    if len(calls) < CALLS:
        return [], []
    return sorted(set(calls["server"].explode().to_list())), calls["finals"][0].to_list()[:CITED]


def _rates(tables: Tables, here: pl.DataFrame,
           storm: _Storm) -> tuple[tuple[float, float] | None, tuple[float, float]]:
    """Offered and answered requests for each second, before the storm (or in its first third) and after that."""
    begin = tables.quality.filter(pl.col("point") == storm.point)["first_ns"].max()
    low = max(begin if isinstance(begin, int) else 0, storm.start_ns - BEFORE_NS)
    turn = storm.start_ns
    if turn - low < BUCKET_NS:
        low, turn = storm.start_ns, storm.start_ns + (storm.end_ns - storm.start_ns) // 3
    rates = []
    for a, b in ((low, turn), (turn, storm.end_ns)):
        part = here.filter((pl.col("first_ns") >= a) & (pl.col("first_ns") < b))
        seconds = max(b - a, 1) / 1e9
        rates.append((len(part) / seconds, part.filter(pl.col("status").is_between(200, 299)).height / seconds))
    return (rates[0] if rates[0][1] else None), rates[1]
