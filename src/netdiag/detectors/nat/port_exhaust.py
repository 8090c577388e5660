"""New connections to one destination fail whenever a certain number is open: the translator has no port left.

A port translator (RFC 3022 §2.2) needs a port of its own for each connection to the same address and port, and holds
it until some time after the end. When all are taken, the next SYN is dropped. What is open goes on, other
destinations work (the same ports serve them again), and as soon as a connection ends, one new SYN passes. So the fate
of a SYN follows from how many connections to that destination are open at its moment: the SYNs below the limit are
answered, those at the limit are not. A filter, a dead host or random loss do not count connections.

**What lifts the suspicion.** The clean limit itself, with success again after others closed (probable). A second
capture outside: translators change address and port but seldom the sequence number, so the SYN with the same number
to the same destination must appear there; those below the limit do, those at it do not (confirmed).

**What looks alike and is not it.** A server that refuses more connections counts too, but outside its SYNs are seen
to arrive: then the translator is not to blame. When new connections to other destinations fail as well, the state
table is full or the path is down; when the open connections stall too, the path or the host is
down. A client without free ports of its own sends no SYN at all. SYNs that fail with as many or fewer connections
open than others that succeeded are dropped for another reason (FW-SYN-DROP, loss).
"""

from __future__ import annotations

import polars as pl

from netdiag.detectors.nat._ports import Fate, measure, others_work
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
from netdiag.tables.destinations import by_destination
from netdiag.tables.icmp import complained
from netdiag.tables.schema import rows
from netdiag.tables.tcp import Connection
from netdiag.tables.vanished import Translated

PATTERN = Pattern(
    id="NAT-PORT-EXHAUST",
    title="Translated ports to one destination are used up",
    severity=Severity.CRITICAL,
    cases=(),
    needs=("tcp", "icmp", "packets"),
    references=(Reference("RFC 3022 §2.2"), Reference("RFC 6888 REQ-4"), Reference("RFC 5382 REQ-5"),
                Reference("AWS NAT gateway: 55 000 connections to each destination")),
    filter="(tcp.flags.syn == 1 && tcp.flags.ack == 0) || tcp.analysis.reused_ports",
    mitigation="Add addresses or ports to the translator's pool, or spread the load over more destination addresses.",
    fix="Reuse connections (pool, keep-alive) instead of opening one for each request; reach the destination without "
        "translation where that is possible.",
    prevention="Watch the ports in use for each destination, warn at 70 %, and load-test at the planned peak.",
    next_capture="Capture outside the translator, filter `tcp[tcpflags] & tcp-syn != 0 and host SERVER`: do the SYNs "
                 "that fail leave it?",
    settings=(Setting("min_failed", 3, "connections", "practice: fewer may be chance"),
              Setting("min_open", 8, "connections", "practice: fewer are no load; the smallest blocks in use have 64")),
    explains=("FW-SYN-DROP",),
)

LIMITS = ((64, "Google Cloud NAT, ports of one VM"), (1024, "Azure, ports of one instance in small pools"),
          (28232, "Linux ip_local_port_range"), (55000, "AWS NAT gateway, each destination"),
          (64512, "Azure, ports of one address"))
FIT = 0.02
"""How near the limit must come to a known one to name it (practice)."""
DETAILED = 200
"""Connections that are looked at closely; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Destinations where SYNs fail when, and only when, a certain number of connections is open."""
    tcp = tables.tcp
    started = tcp.filter(~pl.col("midstream"))
    if not started.height:
        return not_applicable("no TCP connection starts in this capture")
    key = ["point", "server", "server_port"]
    failed = _failed(tables)
    enough = failed.group_by(key).len().filter(pl.col("len") >= settings["min_failed"])
    occurrences: list[Occurrence] = []
    for point, server, port, _ in enough.iter_rows():
        here = (pl.col("point") == point) & (pl.col("server") == server) & (pl.col("server_port") == port)
        mine = failed.filter(here)
        fate = measure(tables, tcp.filter(here), frozenset(mine["connection"].to_list()), settings["min_open"])
        if fate and others_work(tables, fate, point, server, port):
            seen_at = Translated(tables, fate.lost).at(fate.lost, fate.passed)
            if seen_at is not None:
                occurrences += _occurrences(tables, mine, fate, seen_at)
    if not occurrences:
        return clear(f"{number_of(started.height, 'connections')} started here; at no destination do SYNs fail "
                     "exactly from a number of open connections on")
    points = {e.point for o in occurrences for e in o.evidence}
    return found(occurrences, population="connections",
                 examined=by_destination(started.filter(pl.col("point").is_in(points))))


def _all_but(strays: int) -> str:
    return f"all but {strays}" if strays else "all"


def _failed(tables: Tables) -> pl.DataFrame:
    """Connections of which two SYNs or more found no answer in time: never, or before a later one was answered."""
    return tables.tcp.filter(
        ~pl.col("midstream") & ~pl.col("refused") & (pl.col("syn_packets").list.len() >= 2)
        & ((pl.col("packets_server") == 0) | (
            pl.col("syn_ack_packet").is_not_null() & (pl.col("syn_packets").list.get(2, null_on_oob=True)
                                                      < pl.col("syn_ack_packet"))))
        & ~pl.col("flow").is_in(complained(tables).implode()))


def _occurrences(tables: Tables, failed: pl.DataFrame, fate: Fate, seen_at: str) -> list[Occurrence]:
    confidence = Confidence.CONFIRMED if seen_at else Confidence.PROBABLE
    near = next((f" ({name}: {n})" for n, name in LIMITS if abs(fate.limit - n) <= FIT * n), "")
    linger = f", counted until {fate.linger_s} s after their end" if fate.linger_s else ""
    reasons = [f"{len(fate.lost)} SYNs failed, {_all_but(fate.below)} with {fate.limit} or more connections "
               f"open{linger}; {len(fate.passed)} were answered, {_all_but(fate.above)} with fewer" + near,
               "open connections and other destinations worked, and new ones succeeded after others had closed"]
    if seen_at:
        reasons.append(f"by their sequence numbers the answered SYNs are seen at {seen_at}, and none of the "
                       "failed ones")
    out = []
    lost = set(fate.lost.tolist())
    for i, c in enumerate(rows(failed, Connection)):
        syns = [s for s in c.syn_packets if s in lost]
        facts: dict[str, str | int | float] = {
            "source.ip": c.client, "destination.ip": c.server, "destination.port": c.server_port,
            "nat.open_connections": fate.limit, "tcp.syns": len(syns)}
        out.append(Occurrence(
            subject=c.ends, group=(c.server, str(c.server_port)),
            summary=f"{len(syns)} SYNs of {c.client} to {c.server}:{c.server_port} were lost while {fate.limit} or "
                    f"more connections to it were open; with fewer {_all_but(fate.below)} worked.",
            confidence=confidence, reasons=tuple(reasons),
            evidence=tables.evidence(syns, facts) if i < DETAILED else (),
            scope={"destination.ip": c.server, "destination.port": c.server_port, "nat.open_connections": fate.limit},
            flows=(c.flow,), keys=frozenset({f"flow:{c.ends}", f"host:{c.server}"}), absence=not seen_at,
            start_ns=c.first_ns, end_ns=c.last_ns,
            alternatives=() if seen_at else (Alternative(
                "the destination itself allows no more connections", "it would count them too",
                "nothing here; a capture outside the translator decides"),)))
    return out
