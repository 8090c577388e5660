"""A TCP connection that rests too long is dead when it speaks again: a device on the path has forgotten it.

Translators and firewalls keep a timer for each connection. RFC 5382 (REQ-5) asks for 2 h 4 min, many keep only
minutes, and most say nothing when the timer ends. The hosts still believe in the connection. The next data is resent
with doubling waits (RFC 6298 §5.5) and no answer comes, while other connections between the same hosts work.
Keep-alives of the hosts do not help: they start after two hours (RFC 9293 §3.8.4; `tcp_keepalive_time`), if at all.

**What lifts the suspicion.** Three or more connections that died after the same rest (probable). A second capture
behind the device: the data enters and does not leave it, whatever the length of the rest (probable), while it kept
another connection all that time, so that it has not lost its whole table (confirmed). A reset in the
peer's name that has passed another number of routers than the peer's packets: the device itself spoke (confirmed).
The longest rest that was survived and the shortest that was not enclose the timer.

**What looks alike and is not it.** A host that crashed or a path that broke answers nobody: new connections between
the same hosts fail too, or a router says so by ICMP. A rest that another connection survived, longer or hardly
shorter, refutes the timer: what lost its table (a restart, a new rule set) forgets busy connections as well. A
receiver that closed its window is full, not forgotten. Keep-alives that were answered are no rest. A reset from the
peer's own distance is the peer's, or of a load balancer that owns the address.
Copies of a segment without growing waits between them are duplicates of the capture (CAP-DUP).
"""

from __future__ import annotations

import polars as pl

from netdiag.detectors.nat._idle import Death, Neighbours, foreign_reset, silence
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
from netdiag.tables.destinations import by_destination
from netdiag.tables.icmp import complained
from netdiag.tables.schema import rows
from netdiag.tables.tcp import Connection
from netdiag.tables.vanished import Vanished

PATTERN = Pattern(
    id="NAT-TCP-IDLE-DROP",
    title="A device on the path forgets idle TCP connections",
    severity=Severity.HIGH,
    cases=("idle-timeout-350-seconds",),
    needs=("tcp", "icmp", "crosspoint"),
    references=(Reference("RFC 5382 REQ-5"), Reference("RFC 6298 §5.5"), Reference("RFC 9293 §3.8.4"),
                Reference("Linux tcp(7): tcp_keepalive_time")),
    filter="tcp.analysis.retransmission || tcp.flags.reset == 1",
    mitigation="Let the hosts send TCP keep-alives (or the application a heartbeat) at less than half of the device's "
               "timer, or close connections that rest before it ends.",
    fix="Raise the idle timer for this service on the device, and set TCP_USER_TIMEOUT so that a dead connection "
        "fails in seconds.",
    prevention="Keep one table of all idle timers on the path, and check pools and trunks against the shortest.",
    next_capture="Capture on both sides of the suspected device over one rest: does the first data after it leave "
                 "the device?",
    settings=(Setting("min_idle_s", 240, "s", "Azure load balancer and outbound NAT, 4 min: the shortest default of "
                                              "those that forget without a word"),
              Setting("min_sends", 4, "sends", "practice: three losses in a row may be chance")),
    explains=("SIP-FLOW-LOST",),
)

DEFAULTS = ((240, "Azure load balancer and outbound NAT"), (300, "F5 fastL4"),
            (350, "AWS NAT gateway, Network Load Balancer and Network Firewall"), (600, "Google Cloud VPC firewall"),
            (1200, "Google Cloud NAT"), (1800, "Juniper SRX"), (3600, "Cisco ASA, FortiGate and PAN-OS"),
            (86400, "pf"), (432000, "Linux conntrack"))
"""Idle timers of established TCP in seconds, as the vendors document them."""
FIT = 0.02
"""How near a rest must come to a default to name it (practice)."""
SHORTEST_S = 1.0
"""Shorter pauses are no rest: a lost segment alone can take as long (RFC 6298 §2.1)."""
EVER = 1 << 62
DETAILED = 200
"""Deaths that are compared with other points and cited; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Established connections that die with their first data after a rest."""
    running = tables.tcp.filter(pl.col("established") & (pl.col("data_client") + pl.col("data_server") > 0))
    if not running.height:
        return not_applicable("no TCP connection carries data in this capture")
    deaths = _deaths(tables, running, settings)
    quiet = [d for d in deaths if d.reset is None]
    vanished = Vanished(tables, [row for d in quiet for row in d.sends])
    suspects = {d.connection.connection: d.idle_s for d in quiet}
    pairs: dict[tuple[str, str, str], Neighbours] = {}
    accepted: list[tuple[Death, Confidence, tuple[str, ...], str]] = []
    short: list[Death] = []
    for number, d in enumerate(deaths):
        c, other = d.connection, not d.by_client
        pair = (c.point, c.client, c.server)
        near = pairs[pair] = pairs.get(pair) or Neighbours(tables, c, suspects)
        if d.reset is not None:
            accepted.append((d, Confidence.CONFIRMED, ("the only answer was a reset from another distance (TTL "
                                                       f"{c.rst_ttl}) than the peer's packets",), ""))
            continue
        alive = near.heard(other, d.start_ns, d.end_ns)
        later = alive or near.heard(other, d.end_ns, EVER)
        if d.idle_s <= near.usual_s or (
                not alive and near.tried(d.by_client, d.start_ns, d.end_ns if later else EVER)):
            continue
        lost_at = vanished.at(d.sends) if later and number < DETAILED else ""
        sent = f"the same data was sent {len(d.sends)} times with growing waits, without ACK or reset"
        works = "other connections of the same hosts work " + ("meanwhile" if alive else "afterwards")
        if lost_at:
            kept = near.kept(d.start_ns - int(d.idle_s * 1e9), d.start_ns)
            reasons = [sent, works, f"the data is seen at {c.point} and not at {lost_at}, which shows other packets of "
                                    "these hosts"]
            if kept:
                reasons.append("another connection of these hosts began before that rest and outlived it")
            accepted.append((d, Confidence.CONFIRMED if kept else Confidence.PROBABLE, tuple(reasons), lost_at))
        elif d.idle_s >= settings["min_idle_s"]:
            accepted.append((d, Confidence.SUSPECTED, (sent, *((works,) if later else ())), ""))
        elif later:
            short.append(d)
    if accepted:
        return found(_occurrences(tables, accepted, pairs), population="connections", examined=by_destination(running))
    if short:
        return inconclusive(
            f"{number_of(len(short), 'connections')} died after a rest of {seconds(min(d.idle_s for d in short))} or "
            "more while others work; no device forgets that soon by default (setting min_idle_s)",
            PATTERN.next_capture)
    met = f"{number_of(running.height, 'connections')} with data"
    if quiet:
        return clear(f"{met}; {number_of(len(quiet), 'connections')} fell silent for good after a rest, but no timer "
                     "shows: these hosts had borne such a rest, or nothing of them answers any more, or nothing else "
                     "of them is here")
    return clear(f"{met}; none fell silent for good with its first data after a rest")


def _deaths(tables: Tables, running: pl.DataFrame, settings: dict[str, float]) -> list[Death]:
    tried, rested = settings["min_sends"], pl.col("max_idle_s") >= SHORTEST_S
    silent = running.filter(rested & ~pl.col("flow").is_in(complained(tables).implode()) & (
        (pl.col("tail_client_unacked") >= tried) | (pl.col("tail_server_unacked") >= tried)))
    out = [d for c in rows(silent, Connection)
           for by_client, sends in ((True, c.tail_client_unacked), (False, c.tail_server_unacked))
           if sends >= tried and (d := silence(tables, c, by_client, tried)) and d.idle_s >= SHORTEST_S]
    reset = running.filter((pl.col("rst_packets").list.len() > 0) & (pl.col("max_idle_s") >= settings["min_idle_s"]))
    return out + [d for c in rows(reset, Connection)
                  if (d := foreign_reset(tables, c, settings["min_idle_s"]))]


def _occurrences(tables: Tables, accepted: list[tuple[Death, Confidence, tuple[str, ...], str]],
                 pairs: dict[tuple[str, str, str], Neighbours]) -> list[Occurrence]:
    survived: dict[tuple[str, str], float] = {}
    failed: dict[tuple[str, str], float] = {}
    for d, *_ in accepted:
        c, group = d.connection, (d.connection.server, str(d.connection.server_port))
        survived[group] = max(survived.get(group, 0.0), pairs[c.point, c.client, c.server].survived_s)
        failed[group] = min(failed.get(group, d.idle_s), d.idle_s)
    out = []
    for number, (d, confidence, reasons, lost_at) in enumerate(accepted):
        c, group = d.connection, (d.connection.server, str(d.connection.server_port))
        low, high = survived[group], failed[group]
        bracket = f"the longest rest that was survived is {seconds(low)}, the shortest that was not {seconds(high)}"
        near = next((f" ({name}: {s} s)" for s, name in DEFAULTS if abs(high - s) <= FIT * s), "")
        speaker = c.client if d.by_client else c.server
        facts: dict[str, str | int | float] = {
            "source.ip": speaker, "server.ip": c.server, "server.port": c.server_port,
            "tcp.idle_s": round(d.idle_s, 3), "tcp.survived_s": round(low, 3), "tcp.sends": len(d.sends)}
        end = "drew a reset from a device on the path" if d.reset is not None else \
            f"was sent {len(d.sends)} times and never acknowledged"
        end += f"; it does not reach {lost_at}" if lost_at else ""
        later = any("other connections" in r for r in reasons)
        out.append(Occurrence(
            subject=c.ends, group=group, confidence=confidence,
            summary=f"After {seconds(d.idle_s)} of rest, data of {speaker} {end}.",
            reasons=(*reasons, bracket + near),
            evidence=tables.evidence([*d.rest, *d.sends, *([] if d.reset is None else [d.reset])], facts)
            if number < DETAILED else (),
            scope={"server.ip": c.server, "server.port": c.server_port, "tcp.idle_s": round(high, 3)},
            flows=(c.flow,), keys=frozenset({f"flow:{c.ends}", f"host:{c.server}"}),
            absence=confidence is Confidence.SUSPECTED, clock=bool(lost_at), constant=round(d.idle_s, 3),
            start_ns=d.start_ns, end_ns=d.end_ns, limitations=() if later or d.reset is not None else
            ("no other connection of these hosts shows that the path was alive",),
            alternatives=() if confidence is Confidence.CONFIRMED else (*(() if lost_at else (Alternative(
                "the peer crashed or lost its network", "nothing answers",
                "other connections of the same hosts work" if later else "nothing here"),)), Alternative(
                "the device lost its whole table meanwhile: a restart, a failover, a new rule set",
                "it forgets all connections then, whatever their rest", "nothing here; its log tells"))))
    return out
