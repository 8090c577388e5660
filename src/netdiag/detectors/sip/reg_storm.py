"""Many clients register at once, the registrar cannot answer them all, and they all try again.

After an outage, a restart or a certificate that ran out, every client registers in the same seconds. What the
registrar does not answer, or answers with 5xx or 408, comes again; clients that retry after a fixed time come
together each time, and the storm feeds itself. RFC 5626 §4.5 therefore asks for a wait that doubles from 30 s (90 s
where another flow works) to 1800 s, and of which each client takes a random 50 to 100 %. Met where REGISTER
transactions exceed 20 in a second and ten times the median of the seconds without such a burst, come from 20 sources
or more, and fewer than 80 % of those that are decided succeed. Where every second has more than 20, the capture began
in the storm or the registrar is always as busy: then the registrar's own 5xx and 408, or retries without jitter, must
tell. Repetitions of a request (Timer E) do not count, nor do refusals of a user (4xx other than 408), which are
answers of a registrar that works.

**What lifts the suspicion.** More succeeded before, or the registrar says 5xx or 408 itself (probable). Clients whose
retries come after the same time, without jitter (confirmed).

**What looks alike and is not it.** The usual hump of refreshes, which all succeed. Guessing of passwords comes from
one or few sources and is refused with 401, 403 or 404. One source with many users is a proxy, a gateway or a test
tool. A tap next to one client shows that client only: capture at the registrar.
"""

from __future__ import annotations

from statistics import median
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

PATTERN = Pattern(
    id="SIP-REG-STORM",
    title="Registration avalanche: many clients register at once, and fail",
    severity=Severity.CRITICAL,
    cases=("overload-retry-storm",),
    needs=("transactions", "sip", "quality"),
    references=(Reference("RFC 5626 §4.5"), Reference("RFC 7339")),
    filter='sip.CSeq.method == "REGISTER"',
    mitigation="Let the edge admit as many registrations as the registrar can do, and answer the others with 503 and "
               "spread values of Retry-After.",
    fix="Give clients a back-off with jitter (RFC 5626 §4.5), and servers overload control (RFC 7339).",
    prevention="Rehearse a registration of all clients at once; renew certificates and restart nodes in steps.",
    next_capture="Capture at the registrar, from before the outage until registrations succeed again.",
    settings=(Setting("rate", 20, "transactions/s", "practice"),
              Setting("times_median", 10, "times", "practice: against the median of the other seconds of the capture"),
              Setting("sources", 20, "addresses", "practice"),
              Setting("success", 80, "%", "practice: registrations that still succeed"),
              Setting("equal", 10, "%", "practice: difference between retry intervals without jitter")),
    explains=("SIP-503-STORM", "SIP-INVITE-TIMEOUT"),
)

SECOND_NS = 1_000_000_000
RETRY_NS = 30 * SECOND_NS
"""Shortest base time of RFC 5626 §4.5: retries that come sooner, and bursts that close, are one storm."""
UNDECIDED_NS = 4 * SECOND_NS
"""T2 (RFC 3261 §17.1.2.2): a request that is this young when the capture ends may still be answered."""
ANSWERED, TOGETHER = 5, 0.8
"""Failures that the registrar says itself, and share of equal intervals, that are no chance (practice)."""
STORMS, READ = 50, 20_000
"""Storms that are looked at, the largest first, and requests of one whose To is read (practice)."""
CITED = 10
_KEY = ["point", "server"]


class _Storm(NamedTuple):
    point: str
    server: str
    start_ns: int
    end_ns: int
    peak: int
    usual: int | None
    """Median of the seconds without a burst; None where there are none."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Registrars with seconds of far more REGISTER transactions than usual, many of which fail."""
    asked = tables.transactions.filter((pl.col("method") == "REGISTER") & ~pl.col("midstream"))
    if not len(asked):
        return not_applicable("no REGISTER in this capture")
    if len(asked) <= settings["rate"]:
        return clear(f"{number_of(len(asked), 'REGISTER transactions')}: no storm")
    asked = asked.select(*_KEY, "client", "first_ns", "status", "request_messages", "final_message")
    spans = tables.quality.select("point", begin="first_ns", end="last_ns")
    asked = asked.join(spans, on="point", how="left", maintain_order="left").with_columns(
        good=pl.col("status").is_between(200, 299).fill_null(False),
        bad=pl.when(pl.col("status").is_null()).then(pl.col("end") - pl.col("first_ns") >= UNDECIDED_NS)
        .otherwise((pl.col("status") == 408) | (pl.col("status") >= 500)))
    storms = _storms(asked, settings)
    occurrences = [o for storm in storms if (o := _occurrence(tables, asked, settings, storm))]
    if not occurrences:
        return clear(f"{number_of(len(asked), 'REGISTER transactions')}; {number_of(len(storms), 'bursts')}, none of "
                     "many sources in which they fail")
    return found(occurrences, population="registrars")


def _storms(asked: pl.DataFrame, settings: dict[str, float]) -> list[_Storm]:
    """Times with more than the rate in the second that follows, bursts within RETRY_NS joined."""
    asked = asked.with_columns(second=(pl.col("first_ns") - pl.col("begin")) // SECOND_NS)
    seconds = asked.group_by(*_KEY, "second").agg(
        count=pl.len(), begin=pl.col("begin").first(), end=pl.col("end").first())
    # A second that holds more than the rate shares it with one or two of the clock's: one of them has half of it.
    half = seconds.filter(pl.col("count") * 2 > settings["rate"]).select(*_KEY, "second")
    if not len(half):
        return []
    # Any second, not those of the clock: a wave that falls on a boundary is one wave.
    around = pl.concat([half.with_columns(pl.col("second") + n) for n in (-1, 0, 1)])
    near = asked.join(around, on=[*_KEY, "second"], how="semi").sort("first_ns")
    counts = near.rolling("first_ns", period=f"{SECOND_NS}i", offset="0i", closed="left", group_by=_KEY).agg(
        count=pl.len(), begin=pl.col("begin").first())
    bursts = counts.filter(pl.col("count") > settings["rate"])
    usual = _usual(seconds, bursts)
    busy = bursts.join(usual, on=_KEY, how="left").filter(
        pl.col("count") > pl.col("usual").fill_null(0) * settings["times_median"]).sort(*_KEY, "first_ns")
    apart = (pl.col("first_ns").diff().over(_KEY) > RETRY_NS).fill_null(True)
    storms = busy.with_columns(run=apart.cum_sum()).group_by(*_KEY, "run", maintain_order=True).agg(
        start=pl.col("first_ns").min(), stop=pl.col("first_ns").max() + SECOND_NS, peak=pl.col("count").max(),
        usual=pl.col("usual").first())
    storms = storms.sort("peak", descending=True, maintain_order=True).head(STORMS)
    return [_Storm(*row) for row in storms.select(*_KEY, "start", "stop", "peak", "usual").iter_rows()]


def _usual(seconds: pl.DataFrame, bursts: pl.DataFrame) -> pl.DataFrame:
    """Median count of the clock's seconds that no burst touches, by registrar; none where bursts touch all.

    A storm that fills half of the capture must not be its own measure.
    """
    # A burst lasts for a second from its first request: it touches two of the clock's.
    second = (pl.col("first_ns") - pl.col("begin")) // SECOND_NS
    touched = pl.concat([bursts.select(*_KEY, second=second + n) for n in (0, 1)]).unique()
    quiet = seconds.join(touched, on=[*_KEY, "second"], how="anti").group_by(_KEY).agg(
        counts=pl.col("count").sort(), some=pl.len())
    spans = seconds.group_by(_KEY).agg(
        last=(pl.col("end").first() - pl.col("begin").first()) // SECOND_NS)
    # The second after the last burst may lie behind the end of the capture.
    spent = touched.join(spans, on=_KEY).filter(pl.col("second") <= pl.col("last")).group_by(_KEY).agg(spent=pl.len())
    both = spans.join(spent, on=_KEY, how="left").join(quiet, on=_KEY, how="left").with_columns(
        pl.col("spent", "some").fill_null(0)).with_columns(others=pl.col("last") + 1 - pl.col("spent"))
    # Seconds without any are not rows: they stand below the others.
    rank = pl.col("others") // 2 - (pl.col("others") - pl.col("some"))
    usual = pl.when(rank >= 0).then(pl.col("counts").list.get(rank.clip(0), null_on_oob=True)).otherwise(0)
    return both.filter(pl.col("others") > 0).select(*_KEY, usual=usual)


def _occurrence(tables: Tables, asked: pl.DataFrame, settings: dict[str, float], storm: _Storm) -> Occurrence | None:
    here = asked.filter((pl.col("point") == storm.point) & (pl.col("server") == storm.server))
    during = here.filter((pl.col("first_ns") >= storm.start_ns) & (pl.col("first_ns") < storm.end_ns))
    sources = during["client"].n_unique()
    now, before = _success(during), _success(here.filter(pl.col("first_ns") < storm.start_ns))
    if sources < settings["sources"] or now is None or now * 100 >= settings["success"]:
        return None
    failed = during.filter("bad")
    told = failed.drop_nulls("status")
    reasons = [f"up to {storm.peak} REGISTER transactions a second from {sources} sources",
               f"{now:.0%} of {len(failed) + during['good'].sum()} that are decided succeed"]
    confidence = Confidence.SUSPECTED
    if before is not None and before * 100 >= settings["success"]:
        confidence = Confidence.PROBABLE
        reasons.append(f"before, {before:.0%} did")
    if len(told) >= ANSWERED:
        confidence = Confidence.PROBABLE
        counts = told["status"].value_counts().sort("status").iter_rows()
        reasons.append("the registrar answers " + ", ".join(f"{n} times {code}" for code, n in counts))
    wait, share = _retries(tables, during, settings)
    if storm.usual is None and len(told) < ANSWERED and not wait:
        return None
    if wait:
        confidence = Confidence.CONFIRMED
        reasons.append(f"{share:.0%} of the retries come {wait:.1f} s after the attempt that failed: no jitter")
    firsts = during.unique("client", keep="first", maintain_order=True).head(CITED)
    cited = firsts["request_messages"].list.first().to_list() + told["final_message"].head(CITED).to_list()
    return Occurrence(
        subject=storm.server, group=(storm.server,),
        summary=f"{len(during)} REGISTER transactions of {sources} sources reach {storm.server} within "
                f"{(storm.end_ns - storm.start_ns) / 1e9:.0f} s, and {now:.0%} of them succeed.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(tables.sip["packet"][cited].to_list(), {
            "destination.ip": storm.server, "sip.method": "REGISTER"}),
        scope={"destination.ip": storm.server, "source.count": sources}, keys=frozenset({f"host:{storm.server}"}),
        absence=not len(told), constant=wait or None, start_ns=storm.start_ns, end_ns=storm.end_ns, alternatives=(
            Alternative("the answers are not in this capture", "" if during["good"].any() or len(told) else
                        "no answer of the registrar is seen", "it does answer some"
                        if during["good"].any() or len(told) else ""),
            Alternative("somebody guesses passwords", "", f"{sources} sources, and the failures are no refusals")))


def _success(part: pl.DataFrame) -> float | None:
    """Share of the decided transactions that succeed; None without any."""
    good, bad = int(part["good"].sum()), int(part["bad"].sum())
    return good / (good + bad) if good + bad else None


def _retries(tables: Tables, during: pl.DataFrame, settings: dict[str, float]) -> tuple[float, float]:
    """The time after which clients try again, and how many do then; 0 where they do not come together."""
    tries = during.head(READ).with_columns(request=pl.col("request_messages").list.first())
    tries = added(tables, tries, ("to_uri",), "request").sort("first_ns", maintain_order=True)
    waits = tries.with_columns(wait=pl.col("first_ns").diff().over("to_uri"), after=pl.col("bad").shift(1).over(
        "to_uri")).filter(pl.col("after") & (pl.col("wait") < RETRY_NS))["wait"].to_list()
    if len(waits) < settings["sources"]:
        return 0.0, 0.0
    middle = median(waits)
    share = sum(abs(w - middle) <= middle * settings["equal"] / 100 for w in waits) / len(waits)
    return (middle / 1e9, share) if share >= TOGETHER else (0.0, 0.0)
