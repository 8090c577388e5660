"""One direction of a conversation is not in the capture: the side that is seen behaves as if it were answered.

A tap that misses one direction (one member of a bundle, one of two paths, receive-only mirroring) shows a monologue.
What tells it from silence is that the visible side goes on as only an answered side can: its TCP acknowledgment
numbers grow, which takes data from the other side (RFC 9293 §3.10.7.4); a SIP request carries the To tag that only a
response gives (RFC 3261 §12.1.2); an RTCP report counts the packets of a source that is not seen to send (RFC 3550
§6.4.2). What such flows do not show says nothing about the network, so this finding caps all findings that rest on
absence.

**What lifts the suspicion.** The signs above (probable). Another capture point that has both directions of the same
conversation (confirmed).

**What looks alike and is not it.** SYNs that are repeated and never acknowledged (FW-SYN-DROP). Telemetry, and media
in one direction only: nobody answers, and nothing claims so. An RTCP report whose highest sequence number stands
still. Servers that answer around a load balancer (direct server return) look the same at the balancer, by design.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from netdiag.detectors.cap._accounts import accounts
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
from netdiag.tables.packets import ACK
from netdiag.tables.tcp_segments import connection_segments

PATTERN = Pattern(
    id="CAP-ONEWAY",
    title="One direction is missing in the capture",
    severity=Severity.INFO,
    cases=(),
    needs=("tcp", "sip", "rtp", "rtcp", "flows"),
    references=(Reference("RFC 9293 §3.10.7.4"), Reference("RFC 3261 §12.1.2"), Reference("RFC 3550 §6.4.2")),
    filter="(tcp.flags.ack == 1 && tcp.flags.syn == 0) || sip || rtcp.pt == 200 || rtcp.pt == 201",
    mitigation="Capture both directions: mirror transmit and receive, all members of the bundle, and both paths.",
    fix="Tap where all traffic of these hosts passes, before it is spread over members or paths.",
    prevention="Write down for each tap what passes it, and check both directions before the test.",
    next_capture="The same hosts, captured on one of them or at a point that both directions pass.",
    settings=(Setting("min_packets", 5, "packets", "practice: fewer packets of a flow say little"),),
    caps=("absence",),
)


class _Sign(NamedTuple):
    """A flow of which one direction is seen, and what shows that the other one exists."""

    flow: int
    packets: tuple[int, ...]
    what: str


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Flows with packets one way only, whose sender was answered nevertheless; one group for each point."""
    least = settings["min_packets"]
    one_way = (pl.col("packets_ab") == 0) | (pl.col("packets_ba") == 0)
    enough = pl.col("packets_ab") + pl.col("packets_ba") >= least
    every = tables.flows.filter(one_way)
    alone = every.filter(enough)
    signs: dict[int, _Sign] = {}
    for sign in (*_tcp(tables, alone), *_sip(tables, alone, every), *_rtcp(tables, alone)):
        signs.setdefault(sign.flow, sign)
    signed = pl.col("flow").is_in(list(signs))
    flows, alone = tables.flows.filter(enough | signed), every.filter(signed)
    if not flows.height:
        return not_applicable(f"no flow has {least:.0f} packets")
    if not signs:
        return clear(f"{number_of(flows.height, 'flows')} with {least:.0f} packets or more; none goes one way only "
                     "while its sender is answered")
    both = _whole_elsewhere(tables, flows, alone)
    occurrences = []
    for f, meant in accounts(alone.sort(~pl.col("flow").is_in(list(both)), maintain_order=True)):
        sign, point = signs[f["flow"]], f["point"]
        count = f["packets_ab"] + f["packets_ba"]
        reasons = [f"{count} packets one way and none the other", sign.what]
        if f["flow"] in both:
            reasons.append(f"{both[f['flow']]} has both directions of it")
        occurrences.append(Occurrence(
            subject=f"{f['a']}:{f['a_port']} → {f['b']}:{f['b_port']}", group=(point,),
            summary=f"At {point} only packets from {f['a']} to {f['b']} are seen, {count} of them, but {sign.what}.",
            confidence=Confidence.CONFIRMED if f["flow"] in both else Confidence.PROBABLE, reasons=tuple(reasons),
            evidence=tables.evidence(sign.packets, {"source.ip": f["a"], "destination.ip": f["b"], "packets": count}),
            scope={"capture.point": point}, keys=frozenset({f"host:{f['b']}"}), **meant,
            alternatives=(Alternative("answers take another way by design (direct server return)",
                                      "it looks the same here", "nothing here"),)))
    examined: dict[tuple[str, ...], int] = {
        (point,): count for point, count in flows.group_by("point").len().iter_rows()}
    return found(occurrences, examined=examined)


def _tcp(tables: Tables, alone: pl.DataFrame) -> Iterator[_Sign]:
    connections = tables.tcp.filter(pl.col("flow").is_in(alone["flow"].implode()))
    for connection, flow in connections.select("connection", "flow").iter_rows():
        s = connection_segments(tables, connection)
        acks = np.flatnonzero((s.flags & ACK) != 0)
        grown = acks[s.ack[acks] > s.ack[acks[0]]] if len(acks) else acks
        if len(grown):
            more = int(s.ack[acks].max() - s.ack[acks[0]])
            yield _Sign(flow, (int(s.row[acks[0]]), int(s.row[grown[0]])),
                        f"its acknowledgment numbers grow by {more}")


def _sip(tables: Tables, alone: pl.DataFrame, every: pl.DataFrame) -> Iterator[_Sign]:
    """Dialogs that go on without a response, and responses without a request.

    Two packets are enough for the first. The second may begin before the capture, and is looked for among ``alone``.
    """
    messages = tables.sip.select(
        "point", "call_id", "flow", "packet", "method", "to_tag", request=pl.col("method").is_not_null())
    in_calls = messages["call_id"].is_not_null()
    if not in_calls.all():
        messages = messages.filter(in_calls)
    call = ["point", "call_id"]
    tagged = (pl.col("method") == "ACK") & pl.col("to_tag").is_not_null()
    asked = (pl.col("method") == "INVITE") & pl.col("to_tag").is_null()
    sides = messages.group_by(call).agg(
        pl.col("request").any().alias("requests"), (~pl.col("request")).any().alias("responses"),
        tagged.any().alias("tagged"), asked.any().alias("asked"))
    deaf = sides.filter(~pl.col("responses") & pl.col("tagged") & pl.col("asked"))
    mute = sides.filter(~pl.col("requests"))
    for flows, group, keep, what in (
            (every, deaf, tagged | asked, "its ACK has a To tag that only a response gives"),
            (alone, mute, ~pl.col("request"), "it answers SIP requests that are not seen")):
        hits = messages.filter(pl.col("flow").is_in(flows["flow"].implode())).join(
            group.select(call), on=call, how="semi", maintain_order="left").filter(keep)
        for flow, packets in hits.group_by("flow", maintain_order=True).agg("packet").iter_rows():
            yield _Sign(flow, tuple(packets[:4]), what)


def _rtcp(tables: Tables, alone: pl.DataFrame) -> Iterator[_Sign]:
    """Media whose sender reports to receive a source that is not seen, more and more of it."""
    source = ["point", "source", "destination", "about_ssrc"]
    heard = tables.rtcp.filter(pl.col("about_ssrc").is_not_null()).group_by(source, maintain_order=True).agg(
        "packet", pl.col("highest_sequence").n_unique().alias("steps")).filter(pl.col("steps") > 1)
    unseen = heard.join(tables.rtp.select("point", about_ssrc="ssrc"), on=["point", "about_ssrc"], how="anti",
                        maintain_order="left")
    media = tables.rtp.filter(pl.col("flow").is_in(alone["flow"].implode())).select(*source[:3], "flow").unique(
        maintain_order=True)
    for ssrc, packets, flow in unseen.join(media, on=source[:3], how="inner", maintain_order="left").select(
            "about_ssrc", "packet", "flow").iter_rows():
        yield _Sign(flow, (packets[0], packets[-1]),
                    f"its RTCP reports count packets of SSRC 0x{ssrc:08x}, which is not seen")


def _whole_elsewhere(tables: Tables, flows: pl.DataFrame, alone: pl.DataFrame) -> dict[int, str]:
    """Flow to the name of another point that has both directions of it."""
    if len(tables.points) < 2:
        return {}
    ends = ["proto", "a", "a_port", "b", "b_port"]
    both = flows.filter((pl.col("packets_ab") > 0) & (pl.col("packets_ba") > 0)).select("point", *ends)
    turned = both.select("point", "proto", a="b", a_port="b_port", b="a", b_port="a_port")
    joined = alone.select("flow", "point", *ends).join(pl.concat([both, turned]), on=ends, how="inner", suffix="_other")
    return dict(joined.filter(pl.col("point") != pl.col("point_other")).select("flow", "point_other").iter_rows())
