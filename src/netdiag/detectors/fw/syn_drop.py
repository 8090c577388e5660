"""New connections vanish: the SYN is repeated and nothing comes back.

A client repeats its SYN after one second and then more and more slowly (RFC 6298 §5; Linux since 6.5 repeats four
times at one second first, `tcp_syn_linear_timeouts`). A closed port would answer with a reset, a router without a
route with an ICMP error. Three or more SYNs and no word at all mean that something drops them silently, or that the
answers get lost: a packet filter, a security group, a wrong address, a host that is down.

**What lifts the suspicion.** Anything that the same host sends meanwhile, or before and after, shows that host and
path are alive, so the silence is about this port (probable). A filter that refuses the same port to others by ICMP
(many limit how often they say so), or a second capture behind the suspected device that shows other SYNs and not these,
names the device (confirmed). A translator in between changes address and port, but seldom the sequence number. A
capture nearer to the server that shows these SYNs answered tells that the answers get lost (confirmed).

**What looks alike and is not it.** A client that then sends an ACK *was* answered: the capture shows one direction
only (CAP-ONEWAY). A SYN that is answered at the third try is loss. A client that gives up sooner each time must try as
often in all, and hear nothing from this port ever. A reset or an ICMP error is an active refusal (FW-REJECT). A client
that tries more than twenty ports of one host is a scanner, and meets what scanners should meet.
Where the same port answers the same client in the meantime, no fixed rule drops the SYNs: ports of an address
translator that are used up (NAT-PORT-EXHAUST), a limit of connections, or one sick member behind a load balancer do
so.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import polars as pl

from netdiag.detectors.fw._hosts import Beyond, Heard, beyond, given_up, only_syns, prohibitions, times_by
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
from netdiag.tables.icmp import complained
from netdiag.tables.schema import rows
from netdiag.tables.tcp import Connection
from netdiag.tables.vanished import Translated, Vanished

PATTERN = Pattern(
    id="FW-SYN-DROP",
    title="Silent drop of new connections",
    severity=Severity.HIGH,
    cases=(),
    needs=("tcp", "icmp", "packets", "quality", "crosspoint"),
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

ANSWER_LOST = (
    "Compare the way of the answers with that of the SYNs: routes back on the server and on each router, and stateful "
    "devices that see one direction only (`ip route get CLIENT` on the server; drops as invalid on the way).",
    "Capture on the way back, filter `tcp port PORT and host CLIENT`: how far does the SYN-ACK get?")
LIMITED = ("Look for what is used up: ports of a translator, entries of a state table (`conntrack -C`, `conntrack "
           "-S`), a limit of connections or of their rate, the accept queue of the server (`ss -ltn`, `nstat -az "
           "TcpExtListenDrops`), or a sick pool member.")
FARTHER = ("On the server, `ss -ltn`, `nstat -az TcpExtListenDrops` and its own packet filter; and a capture there, "
           "filter `tcp port PORT and host CLIENT`, if THERE is not the server: does it answer?")
"""What to do about one kind of it."""
DETAILED = 200
"""Connections that are looked at closely; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Connections whose SYN was sent at least ``min_syns`` times and never answered in any way."""
    started = tables.tcp.filter(~pl.col("midstream"))
    if not started.height:
        return not_applicable("no TCP connection starts in this capture")
    unheard = started.filter(~pl.col("flow").is_in(complained(tables).implode()))
    silent = unheard.filter((pl.col("syn_packets").list.len() >= settings["min_syns"]) & only_syns())
    silent = pl.concat([silent, given_up(tables, unheard, settings["min_syns"])]).sort("connection")
    silent = without_sweeps(tables, silent)
    if not silent.height:
        return clear(f"{number_of(started.height, 'connections')} started here; none sent {settings['min_syns']:.0f} "
                     "SYNs or more, alone or with others to the same port, that had time for an answer and found none")
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
        self._prohibited, self._beyond = prohibitions(tables), beyond(tables, silent)
        self._tries: Counter[tuple[str, str, str, int]] = Counter()
        opened = tables.tcp.filter(pl.col("syn_ack_packet").is_not_null())
        key = ("point", "client", "server", "server_port")
        for *port, tries in silent.group_by(key).agg(pl.col("syn_packets").list.len().sum()).iter_rows():
            self._tries[tuple(port)] = tries
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
        answered, farther = self._beyond.get(c.connection, Beyond("", ""))
        confidence, reasons = Confidence.SUSPECTED, [f"{number_of(len(c.syn_packets), 'SYNs')}, no answer of any kind"]
        tries = self._tries[c.point, c.client, c.server, c.server_port]
        if tries > len(c.syn_packets):
            reasons.append(f"{c.client} sent {tries} SYNs to this port in all that found no answer")
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
        limit: tuple[Alternative, ...] = ()
        if meanwhile:
            confidence = Confidence.SUSPECTED
            reasons.append(f"{meanwhile}: no fixed rule")
            limit = (Alternative("a limit of ports or connections, or one sick pool member", meanwhile,
                                 "the limit itself is not seen here"),)
            alternatives += limit
        prohibited = self._prohibited.get((c.point, c.server, c.server_port), "")
        lost_at = self._vanished.at(c.syn_packets) if detailed else ""
        outside = self._never_left(c) if detailed and not lost_at else ""
        if prohibited:
            reasons.append(f"SYNs of others to this port are refused by {prohibited}")
        if lost_at:
            reasons.append(f"the SYNs are seen at {c.point} and not at {lost_at}, which shows other packets of these "
                           "hosts")
        if outside:
            reasons.append(f"by their sequence numbers other SYNs of {c.client} to this host are seen at {outside}, "
                           "before and after, and none of these")
        if answered:
            reasons.append(f"the same SYNs are answered at {answered}, and {c.client} never takes an answer up: they "
                           "get lost on the way back")
        elif farther:
            reasons.append(f"the same SYNs are seen at {farther}, farther on by their TTL: they are lost behind it, or "
                           "the answers are")
            alternatives.append(Alternative("the host itself drops them: a full accept queue, its own packet filter",
                                            f"they get as far as {farther}", "nothing here"))
        proven = bool(lost_at or outside or prohibited or answered)
        facts: dict[str, str | int | float] = {"source.ip": c.client, "destination.ip": c.server,
                                               "destination.port": c.server_port, "tcp.syns": len(c.syn_packets)}
        return Occurrence(
            subject=c.ends,
            group=(c.client, f"*:{c.server_port}") if hosts else (c.server, "" if dead else str(c.server_port)),
            title=f"Silent drop of new connections: port {c.server_port} of {hosts:,} hosts" if hosts else
            f"No answer from the host: {dead} ports are silent" if dead else
            "Answers to new connections get lost" if answered else "",
            summary=f"{c.client} sent {number_of(len(c.syn_packets), 'SYNs')} to {c.server}:{c.server_port}"
                    f"{f' ({gaps} s apart)' if gaps else ''} and got no answer.",
            confidence=Confidence.CONFIRMED if proven else confidence, reasons=tuple(reasons),
            evidence=self._tables.evidence(c.syn_packets, facts) if detailed else (),
            scope={"source.ip": c.client, "destination.port": c.server_port} if hosts else
            {"destination.ip": c.server} if dead else {"destination.ip": c.server, "destination.port": c.server_port},
            flows=(c.flow,), keys=frozenset({f"flow:{c.ends}", f"host:{c.server}"}), absence=not proven,
            clock=bool(lost_at), start_ns=c.first_ns, end_ns=c.last_ns,
            alternatives=(limit if meanwhile else ()) if proven else tuple(alternatives),
            mitigation=(ANSWER_LOST[0] if answered else LIMITED if meanwhile else "").replace("CLIENT", c.client),
            next_capture=(ANSWER_LOST[1] if answered else FARTHER if farther else PATTERN.next_capture).replace(
                "PORT", str(c.server_port)).replace("SERVER", c.server).replace("CLIENT", c.client).replace(
                "THERE", farther))

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
