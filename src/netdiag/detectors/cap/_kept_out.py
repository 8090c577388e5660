"""Signs that a capture filter kept packets out, where the file does not name its filter (CAP-FILTER)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from netdiag.model import Alternative, Confidence, number_of
from netdiag.tables import Tables
from netdiag.tables.capture_filters import Kind
from netdiag.tables.packets import FIRST_FRAGMENT, FRAGMENT, I64, IPV6, REASSEMBLED, Packets
from netdiag.tables.quality import beyond_ports
from netdiag.tables.sip_fragments import first_fragments

CITED = 5
"""First fragments, and later ones elsewhere, that are cited (practice)."""
REPEATED = 2
"""Requests sent again and never answered are errors, single ones may be late (practice)."""
COMPARED = 1000
"""First fragments whose later ones are looked for at other points (practice)."""


class Sign(NamedTuple):
    """What shows that a filter was at work at a point."""

    confidence: Confidence
    missing: str
    reasons: tuple[str, ...]
    rows: tuple[int, ...] = ()
    flows: tuple[int, ...] = ()
    """Only these are touched; without, all of the point."""
    alternatives: tuple[Alternative, ...] = ()


def fragments(tables: Tables, q: dict[str, int | str], settings: dict[str, float]) -> Sign | None:
    """First fragments, and not one later fragment of anybody."""
    if not q["first_fragments"] or q["later_fragments"]:
        return None
    answered = _answered(tables, str(q["point"]))
    if int(q["first_fragments"]) < settings["first_fragments"] and not answered:
        return None
    p = tables.packets
    rows = np.flatnonzero((p.flags & (FRAGMENT | REASSEMBLED)) != 0)
    point = p.points(rows)
    here = point == tables.points.index(str(q["point"]))
    first = rows[here & ((p.flags[rows] & FIRST_FRAGMENT) != 0)]
    if len(first) < here.sum():
        return None
    hosts = len(np.unique(p.src[first].astype(np.int64) << 1 | ((p.flags[first] & IPV6) != 0)))
    reasons = [f"{number_of(len(first), 'first fragments')} from {number_of(hosts, 'hosts')}, and no later fragment"]
    confidence = Confidence.PROBABLE if hosts > 1 or answered else Confidence.SUSPECTED
    if answered:
        reasons.append(f"{number_of(answered, 'messages')} that began so got a response: the receiver had all of it")
    passed = _passed(p, first[:COMPARED], rows[~here & ((p.flags[rows] & FIRST_FRAGMENT) == 0)])
    if not passed and beyond_ports(tables, str(q["point"])):
        return None
    if passed:
        confidence = Confidence.CONFIRMED
        reasons.append(f"{len(passed)} later fragments of them are at another point and passed this one, by their TTL")
    cited = (*first[:CITED].tolist(), *passed[:CITED])
    return Sign(confidence, Kind.LATER_FRAGMENT.value, tuple(reasons), cited, (), (
        Alternative("a device drops all fragments before they reach this point", "no later fragment is here",
                    "they are at the other point" if passed else
                    "the receiver had them; only another way, or a loss in the capture, would explain it"
                    if answered else f"those of {hosts} hosts are missing alike" if hosts > 1 else "nothing here"),))


def _answered(tables: Tables, name: str) -> int:
    """SIP requests with their first fragment alone here, and a response: a datagram reaches SIP whole or not at all."""
    said = tables.sip.filter((pl.col("point") == name) & pl.col("status").is_not_null())
    if not said.height:
        return 0
    torn = {(f.call_id, f.cseq, f.branch) for f in first_fragments(tables) if f.point == name and f.method}
    return len(torn & set(said.select("call_id", pl.format("{} {}", "cseq", "cseq_method"), "branch").iter_rows()))


def _passed(p: Packets, first: I64, later: I64) -> list[int]:
    """Later fragments elsewhere, of the same datagrams, that have fewer hops left: they went by here."""
    known = {(int(p.src[r]), int(p.dst[r]), int(p.ip_id[r])): int(p.ttl[r]) for r in first if not p.flags[r] & IPV6}
    return [int(r) for r in later if not p.flags[r] & IPV6
            and p.ttl[r] < known.get((int(p.src[r]), int(p.dst[r]), int(p.ip_id[r])), 0)]


def no_icmp(tables: Tables, q: dict[str, int | str], settings: dict[str, float]) -> Sign | None:
    """A long capture with unanswered packets to several hosts, in which only TCP and UDP are, so no ICMP either."""
    name = str(q["point"])
    if int(q["last_ns"]) - int(q["first_ns"]) < settings["without_icmp_s"] * 1e9:
        return None
    requests = list(_unanswered(tables, name))
    silent = dict(reversed(requests))
    if len(silent) < settings["unanswered_hosts"]:
        return None
    if q["icmp_packets"] or beyond_ports(tables, name):
        return None
    length = (int(q["last_ns"]) - int(q["first_ns"])) / 1e9
    return Sign(Confidence.SUSPECTED, Kind.ICMP.value, (
        f"no ICMP in {length:.0f} s, with {len(silent)} hosts that never answer",
        "nothing but TCP and UDP, not even ARP or neighbour discovery"), tuple(sorted(silent.values())),
        tuple(np.unique(tables.packets.flow[[packet for _, packet in requests]]).tolist()), (
        Alternative("all of these are dropped silently", "no host answers and no router complains",
                    "a capture without filter nearly always holds ARP, ICMP or other protocols"),))


def _unanswered(tables: Tables, name: str) -> Iterator[tuple[str, int]]:
    """Hosts that requests were repeated to in vain, and the first packet of each request."""
    here = pl.col("point") == name
    syns = tables.tcp.filter(here & (pl.col("packets_server") == 0) & (pl.col("syn_packets").list.len() >= REPEATED))
    yield from syns.select("server", pl.col("syn_packets").list.first()).iter_rows()
    queries = tables.lookups.filter(here & pl.col("answer_ns").is_null() & pl.col("query_packet").is_not_null())
    often = queries.group_by("server", maintain_order=True).agg("query_packet").filter(
        pl.col("query_packet").list.len() >= REPEATED)
    yield from often.explode("query_packet").iter_rows()
    asked = tables.transactions.filter(here & (pl.col("response_messages").list.len() == 0)
                                       & (pl.col("sends") >= REPEATED))
    message = asked.select("server", message=pl.col("request_messages").list.first())
    yield from message.join(tables.sip.select("message", "packet"), on="message", maintain_order="left").select(
        "server", "packet").iter_rows()


def media(tables: Tables, name: str, settings: dict[str, float]) -> Sign | None:
    """Answered calls with media on other ports, in a capture of which every packet has the port of SIP.

    Where ARP or another protocol without ports is there, no filter on ports was at work: media goes another way.
    """
    if beyond_ports(tables, name):
        return None
    here = pl.col("point") == name
    end = tables.quality.filter(here)["last_ns"][0]
    long = (pl.col("end_ns").fill_null(end) - pl.col("answer_ns")) / 1e9 >= settings["media_s"]
    calls = tables.calls.filter(here & pl.col("ack_ns").is_not_null() & long)
    if not calls.height:
        return None
    flows = tables.flows.filter(here & ((pl.col("a_port") > 0) | (pl.col("b_port") > 0)))
    for port in tables.sip.select("point", "destination_port", "source_port").filter(here).row(0)[1:]:
        if flows.select(((pl.col("a_port") == port) | (pl.col("b_port") == port)).all()).item():
            break
    else:
        return None
    lines = tables.media.filter(pl.col("call").is_in(calls["call"].implode()) & (pl.col("port") > 0)
                                & (pl.col("port") != port) & (pl.col("direction") != "inactive"))
    both = lines.group_by("call").agg(pl.col("side").n_unique()).filter(pl.col("side") == 2)["call"]
    lines = lines.filter(pl.col("call").is_in(both.implode()))
    if not lines.height:
        return None
    told = calls.filter(pl.col("call").is_in(both.implode()))["messages"].explode()
    touched = tables.sip["flow"].gather(told).unique().to_list()
    return Sign(Confidence.SUSPECTED, "media", (
        f"all packets are to or from port {port}; {number_of(len(both), 'answered calls')} of {settings['media_s']:g} "
        f"s or more announced media on other ports, such as {lines['address'][0]}:{lines['port'][0]}",),
        tuple(dict.fromkeys(lines["packet"].to_list())), tuple(touched), (
        Alternative("media takes another way than signalling, or none was sent", "signalling alone is here",
                    "nothing here"),))
