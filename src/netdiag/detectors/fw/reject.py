"""New connections are refused: a reset or an ICMP error answers the SYN, and its TTL or its source says who refused.

A host without a listener answers a SYN with a reset whose acknowledgment number is the SYN's number plus one (RFC
9293 §3.10.7.1). A packet filter that rejects does the same in the host's name, or sends an ICMP error: network, host
or communication administratively prohibited (RFC 1812 §5.2.7.1; RFC 4443 §3.1), or port or protocol unreachable, which
a host itself never sends about TCP because it speaks TCP and TCP has its reset (RFC 1122 §3.2.2.1). A reset in the
host's name comes from where the filter stands: its TTL has passed another number of routers than the host's genuine
packets.

**What lifts the suspicion.** Genuine packets of the same host in the capture: at the same distance, the host itself
refused and the port is closed (probable); two or more hops nearer or farther, a device on the way did (confirmed).
One hop does not tell a filter right before the host from another way (suspected). An ICMP error names its sender; the
prohibited codes, and port or protocol unreachable about TCP, are the word of a filter (confirmed). Network or host
unreachable is the word of a router that found no way or no neighbour (probable).

**What looks alike and is not it.** TTLs start at 64, 128 or 255: resets of a host may start elsewhere than its data,
at the same distance. A reset whose acknowledgment number is another one belongs to an old connection, a reset after
the handshake to the application or the path. Port unreachable about UDP
is a closed port. One or two refusals followed by success are a restart. A client that tries more than twenty ports of
one host is a scanner; refusals at one port of more than twenty hosts, and success nowhere, are told as one. A load
balancer without a healthy member refuses too: then the address is its own.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import polars as pl

from netdiag.detectors.fw._refuser import speaker_of
from netdiag.model import (
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
from netdiag.tables.destinations import by_destination, port_sweeps, wide, without_sweeps
from netdiag.tables.packets import TCP, UDP
from netdiag.tables.schema import rows
from netdiag.tables.speakers import genuine_ttls
from netdiag.tables.tcp import Connection

PATTERN = Pattern(
    id="FW-REJECT",
    title="New connections are refused",
    severity=Severity.MEDIUM,
    cases=(),
    needs=("tcp", "icmp", "packets"),
    references=(Reference("RFC 9293 §3.10.7.1"), Reference("RFC 1812 §5.2.7.1"), Reference("RFC 1122 §3.2.2.1"),
                Reference("RFC 4443 §3.1"), Reference("RFC 792")),
    filter="(tcp.flags.reset == 1 && tcp.seq == 1 && tcp.ack == 1) || "
           "(icmp.type == 3 && icmp.code in {0, 1, 2, 3, 6, 7, 9, 10, 11, 12, 13}) || icmpv6.type == 1",
    mitigation="Closed port: start the service, or correct the address or port that clients use. Filter: permit this "
               "flow on the device that the ICMP source address or the TTL points to.",
    fix="Bring the service and the rule set into one description that is deployed together.",
    prevention="Check each dependency (address, port, from where) after deployments and rule changes.",
    next_capture="Capture beside the server: did the SYN reach it, and did it send the reset? "
                 "Keep one working exchange with that host in the capture, for its TTL.",
    settings=(Setting("min_refused", 3, "refusals", "practice: one or two before success are a restart or a probe"),),
)

FILTERED4, UNREACHED4 = (2, 3, 9, 10, 13), (0, 1, 6, 7, 11, 12)
"""Codes of ICMP type 3: protocol and port unreachable, and the prohibited ones; network and host unreachable or
unknown, also for a type of service (RFC 792, RFC 1812 §5.2.7.1)."""
FILTERED6, UNREACHED6 = (1, 4, 5, 6), (0, 3)
"""Codes of ICMPv6 type 1: prohibited, port, policy, reject route; no route and address unreachable (RFC 4443 §3.1)."""
PORT4, PORT6 = (2, 3), (4,)
"""The host's own words about others than TCP, a filter's about TCP."""
_ENDS = ("client", "server", "server_port")
Wide = dict[tuple[str, int], tuple[int, int]]
"""As ``destinations.wide`` gives it."""
NO_WAY = "Correct the address that clients use, or the route on DEVICE; or bring the host or its network back."
"""What to do where a router finds no way."""
TELLING_S = 0.001
"""Round trips below it differ by what the hosts themselves take (practice)."""
DETAILED = 200
"""Refusals of one kind that are described closely; the others of a flood are counted (practice)."""


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """SYNs answered by a reset or ICMP error, and UDP flows that a filter prohibits."""
    started = tables.tcp.filter(~pl.col("midstream"))
    errors = _errors(tables)
    if not started.height and not errors.height:
        return not_applicable("no TCP connection starts in this capture, and no ICMP error about a flow is in it")
    refused = without_sweeps(tables, started.filter("refused"))
    many = wide(pl.concat([refused.select(*_ENDS), errors.filter(pl.col("quoted_proto") == TCP).select(
        client="quoted_source", server="quoted_destination", server_port="quoted_destination_port")]), started)
    found_here = _by_reset(tables, refused, many) + _by_icmp(tables, errors, many)
    # One that was captured at two points is one.
    count = Counter(group for group, _ in {(o.group, o.subject) for o in found_here})
    last: dict[tuple[str, ...], int] = {}
    for o in found_here:
        last[o.group] = max(last.get(o.group, 0), o.end_ns)
    worked = started.filter("established").group_by("server", "server_port").agg(pl.col("first_ns").max())
    success: dict[tuple[str, ...], int] = {(s, str(p)): ns for s, p, ns in worked.iter_rows()}
    kept = [o for o in found_here
            if count[o.group] >= settings["min_refused"] or success.get(o.group[:2], 0) < last[o.group]]
    if not kept:
        return clear(f"{number_of(started.height, 'connections')} started here; none was refused by a reset or an "
                     "ICMP error, or only until it worked")
    examined = by_destination(started) | {(client, f"*:{port}"): tried for (client, port), (_, tried) in many.items()}
    return found(kept, population="connections", examined=examined)


def _errors(tables: Tables) -> pl.DataFrame:
    """ICMP errors that refuse a flow: the prohibited and unreachable codes about TCP, the prohibited ones about UDP.

    Not about TCP connections that had begun: those errors tell of another fault.
    """
    v4, code = pl.col("version") == 4, pl.col("code")
    kinds = tables.icmp.filter(pl.col("type") == pl.when(v4).then(3).otherwise(1)).filter(
        pl.when(v4).then(code.is_in((*FILTERED4, *UNREACHED4))).otherwise(code.is_in((*FILTERED6, *UNREACHED6))))
    filtered = pl.when(v4).then(code.is_in(FILTERED4)).otherwise(code.is_in(FILTERED6))
    port = pl.when(v4).then(code.is_in(PORT4)).otherwise(code.is_in(PORT6))
    kinds = kinds.with_columns(filtered=filtered, port=port)
    begun = tables.tcp.filter((pl.col("packets_server") > 0) | pl.col("midstream"))["flow"].unique()
    known = pl.col("quoted_flow").is_not_null()
    tcp = (pl.col("quoted_proto") == TCP) & ~(known & pl.col("quoted_flow").is_in(begun.implode())) \
        & (known | (pl.col("filtered") & ~pl.col("port")))
    udp = (pl.col("quoted_proto") == UDP) & pl.col("filtered") & ~pl.col("port")
    sweeps = port_sweeps(tables)
    return kinds.filter((tcp | udp) & pl.col("quoted_destination_port").is_not_null()).join(
        sweeps, left_on=["point", "quoted_source", "quoted_destination"], right_on=["point", "client", "server"],
        how="anti", maintain_order="left")


def _by_reset(tables: Tables, refused: pl.DataFrame, many: Wide) -> list[Occurrence]:
    genuine = genuine_ttls(tables, refused["rst_packets"].list.first().to_numpy())
    fastest = {(p, s): rtt for p, s, rtt in tables.tcp.group_by("point", "server").agg(
        pl.col("handshake_rtt_s").min()).iter_rows()}
    out = []
    for i, c in enumerate(rows(refused, Connection)):
        speaker = speaker_of(c, genuine[i])
        reset = c.rst_packets[0]
        delay = (int(tables.packets.ts[reset]) - int(tables.packets.ts[c.syn_packets[0]])) / 1e9
        rtt = fastest.get((c.point, c.server))
        reasons = speaker.reasons
        if rtt is not None and rtt >= TELLING_S and delay < rtt / 2:
            reasons += (f"the reset came after {delay * 1000:.1f} ms; the host's handshakes take {rtt * 1000:.1f} ms "
                        "or more",)
        facts: dict[str, str | int | float] = {
            "source.ip": c.client, "destination.ip": c.server, "destination.port": c.server_port,
            "tcp.reset.ttl": c.rst_ttl or 0, "host.ttl": ", ".join(map(str, genuine[i])) or "unknown"}
        place = _place(c.client, c.server, c.server_port, speaker.title, many)
        out.append(Occurrence(
            subject=c.ends, group=place.group, scope=place.scope,
            title=place.title, confidence=speaker.confidence, reasons=reasons, alternatives=speaker.alternatives,
            summary=f"A reset refused the connection of {c.client} to {c.server}:{c.server_port}, {speaker.clause}.",
            evidence=tables.evidence((*c.syn_packets, reset), facts) if i < DETAILED else (),
            flows=(c.flow,), keys=frozenset({f"flow:{c.ends}", f"host:{c.server}"}),
            start_ns=c.first_ns, end_ns=c.last_ns))
    return out


class _Place(NamedTuple):
    group: tuple[str, ...]
    scope: dict[str, str | int | float]
    title: str


def _place(client: str, server: str, port: int, title: str, many: Wide) -> _Place:
    """What is refused: a port of one host, or of as many hosts as the client tried."""
    if (client, port) not in many:
        return _Place((server, str(port)), {"destination.ip": server, "destination.port": port}, title)
    return _Place((client, f"*:{port}"), {"source.ip": client, "destination.port": port},
                  f"{title} (port {port} of {many[client, port][0]:,} hosts)")


def _by_icmp(tables: Tables, errors: pl.DataFrame, many: Wide) -> list[Occurrence]:
    key = ["point", "quoted_source", "quoted_source_port", "quoted_destination", "quoted_destination_port",
           "quoted_proto"]
    syns = dict(tables.tcp.filter(pl.col("flow").is_in(errors["quoted_flow"].drop_nulls().unique().implode())).select(
        "flow", "syn_packets").iter_rows())
    each = errors.group_by(key, maintain_order=True).agg(
        "packet", "ts_ns", "quoted_flow", pl.col("source", "name", "type", "code", "filtered").first())
    out = []
    for i, e in enumerate(each.iter_rows(named=True)):
        udp, server, port = e["quoted_proto"] == UDP, e["quoted_destination"], e["quoted_destination_port"]
        flow = next((f for f in e["quoted_flow"] if f is not None), None)
        subject = f"{endpoint(e['quoted_source'], e['quoted_source_port'])} → {endpoint(server, port)}"
        who = "the host's own filter" if e["source"] == server else f"the device {e['source']}"
        facts: dict[str, str | int | float] = {
            "source.ip": e["quoted_source"], "destination.ip": server, "destination.port": port,
            "icmp.source": e["source"], "icmp.type": e["type"], "icmp.code": e["code"]}
        keys = {f"host:{server}"} | ({f"flow:{subject}"} if flow in syns else set())
        if e["filtered"]:
            title, confidence = f"New flows are refused by {who}", Confidence.CONFIRMED
            wanted = f"The rules of {who}, with their counters: which of them meets this flow?"
        else:
            title, confidence = f"The device {e['source']} finds no way to the host", Confidence.PROBABLE
            wanted = (f"On {e['source']}: `ip route get {server}` and `ip neigh show {server}`: is there a route, and "
                      "does the host answer there?")
        place = _place(e["quoted_source"], server, port, title, {} if udp else many)
        out.append(Occurrence(
            subject=subject + ("/udp" if udp else ""), group=(*place.group, "udp") if udp else place.group,
            title=place.title, confidence=confidence, scope=place.scope,
            summary=f"{e['source']} answered {e['quoted_source']}'s {'datagrams' if udp else 'SYN'} to {server}:{port} "
                    f"with ICMP \"{e['name']}\".",
            reasons=(f"ICMP type {e['type']} code {e['code']} from {e['source']} quotes the packet",),
            evidence=tables.evidence([*syns.get(flow, ()), *e["packet"]], facts) if i < DETAILED else (),
            flows=() if flow is None else (flow,), keys=frozenset(keys),
            start_ns=min(e["ts_ns"]), end_ns=max(e["ts_ns"]), next_capture=wanted,
            mitigation="" if e["filtered"] else NO_WAY.replace("DEVICE", e["source"])))
    return out
