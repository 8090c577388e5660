"""New connections vanish: the SYN is repeated and nothing comes back.

A client repeats its SYN after one second and then more and more slowly (RFC 6298 §5; Linux since 6.5 repeats four
times at one second first, `tcp_syn_linear_timeouts`). A closed port would answer with a reset, a router without a
route with an ICMP error. Three or more SYNs and no word at all mean that something drops them silently, or that the
answers get lost: a packet filter, a security group, a wrong address, a host that is down.

**What lifts the suspicion.** Anything that the same host sends meanwhile, or before and after, shows that host and
path are alive, so the silence is about this port (probable). A filter that refuses the same port to others by ICMP
(many limit how often they say so), or a second capture behind the suspected device that shows other SYNs and not these,
names the device (confirmed). A translator in between changes address and port, but seldom the sequence number.

**What looks alike and is not it.** A client that then sends an ACK *was* answered: the capture shows one direction
only (CAP-ONEWAY). A SYN that is answered at the third try is loss. A reset or an ICMP error is an active refusal
(FW-REJECT). A client that tries more than twenty ports of one host is a scanner, and meets what scanners should meet.
Where the same port answers the same client in the meantime, no fixed rule drops the SYNs: ports of an address
translator that are used up (NAT-PORT-EXHAUST), a limit of connections, or one sick member behind a load balancer do
so.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl

from netdiag.detectors.fw._hosts import Heard, prohibitions, times_by
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
from netdiag.tables.destinations import by_destination, wide, without_sweeps
from netdiag.tables.schema import rows
from netdiag.tables.tcp import Connection
from netdiag.tables.vanished import Translated, Vanished

PATTERN = Pattern(
    id="FW-SYN-DROP",
    title="Silent drop of new connections",
    severity=Severity.HIGH,
    cases=(),
    needs=("tcp", "icmp", "crosspoint"),
    references=(Reference("RFC 6298 §5"), Reference("Linux ip-sysctl: tcp_syn_retries, tcp_syn_linear_timeouts")),
    filter="tcp.flags.syn == 1 && tcp.flags.ack == 0 && tcp.analysis.retransmission",
    mitigation="Compare the rule set of every device on the path with this address and port; allow it, or reject it so "
               "that clients fail fast.",
    fix="Add the missing rule (or correct the address) where the SYN is lost, in the configuration that is deployed.",
    prevention="Test the path after each rule change; prefer reject to drop for inside clients.",
    next_capture="Capture on the far side of the suspected device, filter `tcp port PORT and host SERVER`: "
                 "does the SYN leave it?",
    settings=(Setting("min_syns", 3, "SYNs", "practice: two tries may be a client that gave up"),),
)

DETAILED = 200
"""Connections that are looked at closely; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Connections whose SYN was sent at least ``min_syns`` times and never answered in any way."""
    started = tables.tcp.filter(~pl.col("midstream"))
    if not started.height:
        return not_applicable("no TCP connection starts in this capture")
    silent = started.filter(
        (pl.col("syn_packets").list.len() >= settings["min_syns"])
        & (pl.col("packets_server") == 0) & (pl.col("packets_client") == pl.col("syn_packets").list.len())
        & ~pl.col("flow").is_in(tables.icmp["quoted_flow"].drop_nulls().unique().implode()))
    silent = without_sweeps(tables, silent)
    if not silent.height:
        return clear(f"{number_of(started.height, 'connections')} started here; none sent {settings['min_syns']:.0f} "
                     "SYNs or more that found no answer of any kind")
    context = _Context(tables, silent, wide(silent, started))
    occurrences = [context.occurrence(c, i < DETAILED) for i, c in enumerate(rows(silent, Connection))]
    examined = by_destination(started)
    examined |= {(client, f"*:{port}"): tried for (client, port), (_, tried) in context.wide.items()}
    for server in context.dead:
        examined[server, ""] = sum(count for (host, _), count in examined.items() if host == server)
    return found(occurrences, population="connections", examined=examined)


class _Context:
    """What else the capture shows of the hosts, asked once for all occurrences."""

    def __init__(self, tables: Tables, silent: pl.DataFrame, wide: dict[tuple[str, int], tuple[int, int]]) -> None:
        self._tables, self.wide = tables, wide
        syns = silent["syn_packets"].explode().to_numpy()
        self._vanished, self._translated = Vanished(tables, syns), Translated(tables, syns)
        self._heard = Heard(tables, silent["syn_packets"].list.first().to_numpy())
        self._prohibited = prohibitions(tables)
        opened = tables.tcp.filter(pl.col("syn_ack_packet").is_not_null())
        key = ("point", "client", "server", "server_port")
        self._opened = times_by(opened.join(silent.select(key).unique(), on=key, how="semi"), *key)
        self._passed = opened.join(silent.select(key[:3]).unique(), on=key[:3], how="semi") \
            if len(tables.points) > 1 else opened.clear()
        first = silent.unique(["server", "server_port"], maintain_order=True)
        ports = Counter(c.server for c in rows(first, Connection) if not self._heard.ever(c))
        self.dead = {server: count for server, count in ports.items() if count > 1}
        """Hosts of which nothing at all is heard, and how many of their ports were tried."""

    def occurrence(self, c: Connection, detailed: bool) -> Occurrence:
        times = self._tables.packets.ts[list(c.syn_packets)].tolist()
        gaps = ", ".join(f"{(b - a) / 1e9:.1f}" for a, b in pairwise(times))
        hosts = self.wide.get((c.client, c.server_port), (0, 0))[0]
        dead = self.dead.get(c.server, 0) if not hosts else 0
        alive = "" if dead else self._heard.meanwhile(c)
        confidence, reasons = Confidence.SUSPECTED, [f"{len(c.syn_packets)} SYNs, no answer of any kind"]
        if alive:
            confidence = Confidence.PROBABLE
            reasons.append(f"the same host {alive}")
        alternatives = [Alternative(
            "the host is down or the address is wrong", f"none of its {dead} ports that were tried answers" if dead
            else "nothing answers", f"the host {alive}" if alive else "nothing here")]
        if hosts:
            alternatives.append(Alternative("a sweep over addresses, many of which nobody uses",
                                            f"{hosts} hosts were tried on this port", "nothing here"))
        meanwhile = self._answered_meanwhile(c)
        if meanwhile:
            confidence = Confidence.SUSPECTED
            reasons.append(f"{meanwhile}: no fixed rule")
            alternatives.append(Alternative("a limit of ports or connections, or one sick pool member", meanwhile,
                                            "the limit itself is not seen here"))
        prohibited = self._prohibited.get((c.point, c.server, c.server_port), "")
        lost_at = self._vanished.at(c.syn_packets) if detailed else ""
        beyond = self._never_left(c) if detailed and not lost_at else ""
        if prohibited:
            reasons.append(f"SYNs of others to this port are refused by {prohibited}")
        if lost_at:
            reasons.append(f"the SYNs are seen at {c.point} and not at {lost_at}, which shows other packets of these "
                           "hosts")
        if beyond:
            reasons.append(f"by their sequence numbers other SYNs of {c.client} to this host are seen at {beyond}, "
                           "before and after, and none of these")
        proven = bool(lost_at or beyond or prohibited)
        facts: dict[str, str | int | float] = {"source.ip": c.client, "destination.ip": c.server,
                                               "destination.port": c.server_port, "tcp.syns": len(c.syn_packets)}
        return Occurrence(
            subject=c.ends,
            group=(c.client, f"*:{c.server_port}") if hosts else (c.server, "" if dead else str(c.server_port)),
            title=f"Silent drop of new connections: port {c.server_port} of {hosts:,} hosts" if hosts else
            f"No answer from the host: {dead} ports are silent" if dead else "",
            summary=f"{c.client} sent {len(c.syn_packets)} SYNs to {c.server}:{c.server_port} ({gaps} s apart) "
                    "and got no answer.",
            confidence=Confidence.CONFIRMED if proven else confidence, reasons=tuple(reasons),
            evidence=self._tables.evidence(c.syn_packets, facts) if detailed else (),
            scope={"source.ip": c.client, "destination.port": c.server_port} if hosts else
            {"destination.ip": c.server} if dead else {"destination.ip": c.server, "destination.port": c.server_port},
            flows=(c.flow,), keys=frozenset({f"flow:{c.ends}", f"host:{c.server}"}), absence=not proven,
            clock=bool(lost_at), start_ns=c.first_ns, end_ns=c.last_ns,
            alternatives=() if proven else tuple(alternatives),
            next_capture=PATTERN.next_capture.replace("PORT", str(c.server_port)).replace("SERVER", c.server))

    def _never_left(self, c: Connection) -> str:
        """A point behind a translator that shows other SYNs of the client to the host, and none of these."""
        passed = self._passed.filter((pl.col("point") == c.point) & (pl.col("client") == c.client)
                                     & (pl.col("server") == c.server))["syn_packets"].explode()
        return self._translated.at(c.syn_packets, passed.to_numpy()) or "" if len(passed) else ""

    def _answered_meanwhile(self, c: Connection) -> str:
        """Other connections of the same client to the same port that succeeded meanwhile, or before and after."""
        began = self._opened.get((c.point, c.client, c.server, c.server_port))
        if began is None:
            return ""
        before, until = np.searchsorted(began, (c.first_ns, c.last_ns)).tolist()
        if until > before:
            return (f"in the meantime {number_of(until - before, 'other connections')} of {c.client} to this port got "
                    "an answer")
        return f"before and after, {c.client} got an answer from this port" if 0 < before < len(began) else ""
