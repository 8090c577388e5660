"""New connections vanish: the SYN is repeated and nothing comes back.

A client repeats its SYN after one second and then more and more slowly (RFC 6298 §5; Linux since 6.5 repeats
four times at one second first, `tcp_syn_linear_timeouts`). A closed port would answer with a reset, a router without
a route with an ICMP error. Three or more SYNs and no word at all mean that something drops them silently, or that
the answers get lost: a packet filter, a security group, a wrong address, a host that is down.

**What lifts the suspicion.** Another connection to the same host that was answered shows that host and path are alive,
so the silence is about this port (probable). With a second capture behind the suspected device, SYNs that enter and do
not leave name the device (confirmed).

**What looks alike and is not it.** A client that then sends an ACK *was* answered: the capture shows one direction
only (CAP-ONEWAY). A SYN that is answered at the third try is loss. A reset or an ICMP error is an active
refusal (FW-REJECT). Many destinations failing at once under load point to the address translator (NAT-PORT-EXHAUST).
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

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
)
from netdiag.tables import Tables
from netdiag.tables.schema import rows
from netdiag.tables.tcp import Connection

PATTERN = Pattern(
    id="FW-SYN-DROP",
    title="Silent drop of new connections",
    severity=Severity.HIGH,
    cases=(),
    needs=("tcp", "icmp"),
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


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Connections whose SYN was sent at least ``min_syns`` times and never answered in any way."""
    tcp = tables.tcp
    started = tcp.filter(~pl.col("midstream"))
    if not started.height:
        return not_applicable("no TCP connection starts in this capture")
    silent = started.filter(
        (pl.col("state") == "syn-sent") & (pl.col("syn_packets").list.len() >= settings["min_syns"])
        & (pl.col("packets_server") == 0) & (pl.col("packets_client") == pl.col("syn_packets").list.len()))
    complained = set(tables.icmp["quoted_flow"].drop_nulls().to_list())
    occurrences = [_occurrence(tables, c, tcp) for c in rows(silent, Connection) if c.flow not in complained]
    if not occurrences:
        return clear(f"{started.height} connections start here; every SYN that was sent "
                     f"{settings['min_syns']:.0f} times or more was answered")
    examined = Counter((server, str(port)) for server, port in started.select("server", "server_port").iter_rows())
    return found(occurrences, population="connections", examined=dict(examined))


def _occurrence(tables: Tables, c: Connection, tcp: pl.DataFrame) -> Occurrence:
    packets = tables.packets
    times = [int(packets.ts[p]) for p in c.syn_packets]
    gaps = ", ".join(f"{(b - a) / 1e9:.1f}" for a, b in pairwise(times))
    alive = tcp.filter((pl.col("server") == c.server) & (pl.col("point") == c.point) & (pl.col("packets_server") > 0))
    confidence, reasons = Confidence.SUSPECTED, [f"{len(c.syn_packets)} SYNs, no answer of any kind"]
    against = "another port of the host answers" if alive.height else "nothing: no other traffic of that host here"
    alternatives = [Alternative("the host is down or the address is wrong", "nothing answers", against)]
    if alive.height:
        confidence = Confidence.PROBABLE
        reasons.append(f"the same host answers on port {alive['server_port'][0]}")
    lost_at = _lost_between(tables, c)
    if lost_at:
        confidence = Confidence.CONFIRMED
        reasons.append(f"the SYNs are seen at {c.point} and not at {lost_at}, which shows other packets of these hosts")
    return Occurrence(
        subject=f"{c.client}:{c.client_port} → {c.server}:{c.server_port}", group=(c.server, str(c.server_port)),
        summary=f"{c.client} sent {len(c.syn_packets)} SYNs to {c.server}:{c.server_port} ({gaps} s apart) "
                "and got no answer.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(c.syn_packets, {"source.ip": c.client, "destination.ip": c.server,
                                                 "destination.port": c.server_port, "tcp.syns": len(c.syn_packets)}),
        scope={"destination.ip": c.server, "destination.port": c.server_port},
        flows=(c.flow,), keys=frozenset({f"flow:{c.community_id}", f"host:{c.server}"}), absence=not lost_at,
        start_ns=c.first_ns, end_ns=c.last_ns, alternatives=tuple(alternatives))


def _lost_between(tables: Tables, c: Connection) -> str:
    """Name of another point that should show these SYNs and does not, or ""."""
    for other in tables.points:
        if other != c.point and tables.crosspoint.covers(other, c.syn_packets).all() \
                and tables.crosspoint.missing_at(c.syn_packets, other).all():
            return other
    return ""
