"""New connections vanish: the SYN is repeated and nothing comes back.

A client repeats its SYN after one second and then more and more slowly (RFC 6298 §5; Linux since 6.5 repeats four
times at one second first, `tcp_syn_linear_timeouts`). A closed port would answer with a reset, a router without a
route with an ICMP error. Three or more SYNs and no word at all mean that something drops them silently, or that the
answers get lost: a packet filter, a security group, a wrong address, a host that is down.

**What lifts the suspicion.** Another connection to the same host that was answered shows that host and path are
alive, so the silence is about this port (probable). With a second capture behind the suspected device, SYNs that
enter and do not leave name the device (confirmed).

**What looks alike and is not it.** A client that then sends an ACK *was* answered: the capture shows one direction
only (CAP-ONEWAY). A SYN that is answered at the third try is loss. A reset or an ICMP error is an active refusal
(FW-REJECT). A client that tries more than twenty ports of one host is a scanner, and meets what scanners should meet.
Where the same port answers the same client in the meantime, no fixed rule drops the SYNs: ports of an address
translator that are used up (NAT-PORT-EXHAUST), a limit of connections, or one sick member behind a load balancer do
so.
"""

from __future__ import annotations

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
    not_applicable,
    number_of,
)
from netdiag.tables import Tables
from netdiag.tables.destinations import by_destination, without_sweeps
from netdiag.tables.schema import rows
from netdiag.tables.tcp import Connection
from netdiag.tables.vanished import Vanished

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
    context = _Context(tables, silent)
    occurrences = [context.occurrence(c, i < DETAILED) for i, c in enumerate(rows(silent, Connection))]
    return found(occurrences, population="connections", examined=by_destination(started))


class _Context:
    """What else the capture shows of the hosts, asked once for all occurrences."""

    def __init__(self, tables: Tables, silent: pl.DataFrame) -> None:
        self._tables = tables
        self._vanished = Vanished(tables, silent["syn_packets"].explode().to_numpy())
        answered = tables.tcp.filter(pl.col("packets_server") > 0)
        self._port = {(point, server): port for point, server, port in
                      answered.select("point", "server", "server_port").iter_rows()}
        opened = answered.filter(pl.col("syn_ack_packet").is_not_null())
        key = ("point", "client", "server", "server_port")
        opened = opened.join(silent.select(key).unique(), on=key, how="semi")
        self._opened = {k: np.sort(frame["first_ns"].to_numpy()) for k, frame in opened.group_by(key)}

    def occurrence(self, c: Connection, detailed: bool) -> Occurrence:
        times = self._tables.packets.ts[list(c.syn_packets)].tolist()
        gaps = ", ".join(f"{(b - a) / 1e9:.1f}" for a, b in pairwise(times))
        port = self._port.get((c.point, c.server))
        confidence, reasons = Confidence.SUSPECTED, [f"{len(c.syn_packets)} SYNs, no answer of any kind"]
        against = f"port {port} of the host answers" if port is not None else "no other traffic of that host is here"
        alternatives = [Alternative("the host is down or the address is wrong", "nothing answers", against)]
        if port is not None:
            confidence = Confidence.PROBABLE
            reasons.append(f"the same host answers on port {port}")
        meanwhile = self._answered_meanwhile(c)
        if meanwhile:
            text = (f"in the meantime {number_of(meanwhile, 'other connections')} of {c.client} to this port got an "
                    "answer")
            confidence = Confidence.SUSPECTED
            reasons.append(f"{text}: no fixed rule")
            alternatives.append(Alternative("a limit of ports or connections, or one sick pool member", text,
                                            "the limit itself is not seen here"))
        lost_at = self._vanished.at(c.syn_packets) if detailed else ""
        if lost_at:
            confidence = Confidence.CONFIRMED
            reasons.append(f"the SYNs are seen at {c.point} and not at {lost_at}, which shows other packets of these "
                           "hosts")
        facts: dict[str, str | int | float] = {"source.ip": c.client, "destination.ip": c.server,
                                               "destination.port": c.server_port, "tcp.syns": len(c.syn_packets)}
        return Occurrence(
            subject=f"{c.client}:{c.client_port} → {c.server}:{c.server_port}", group=(c.server, str(c.server_port)),
            summary=f"{c.client} sent {len(c.syn_packets)} SYNs to {c.server}:{c.server_port} ({gaps} s apart) "
                    "and got no answer.",
            confidence=confidence, reasons=tuple(reasons),
            evidence=self._tables.evidence(c.syn_packets, facts) if detailed else (),
            scope={"destination.ip": c.server, "destination.port": c.server_port},
            flows=(c.flow,), keys=frozenset({f"flow:{c.community_id}", f"host:{c.server}"}), absence=not lost_at,
            clock=bool(lost_at), start_ns=c.first_ns, end_ns=c.last_ns, alternatives=tuple(alternatives),
            next_capture=PATTERN.next_capture.replace("PORT", str(c.server_port)).replace("SERVER", c.server))

    def _answered_meanwhile(self, c: Connection) -> int:
        """Connections of the same client to the same port that began between its first and last SYN, with success."""
        began = self._opened.get((c.point, c.client, c.server, c.server_port))
        if began is None:
            return 0
        return int(np.searchsorted(began, c.last_ns, "right") - np.searchsorted(began, c.first_ns, "left"))
