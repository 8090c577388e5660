"""The capture lacks packets that were on the wire: the network is not to blame for what is missing in it.

A receiver acknowledges only bytes that it has (RFC 9293 §3.10.7.4). Bytes that are acknowledged and are nowhere in the
capture, neither before nor after, passed the capture point and were not written: an overloaded mirror port, a full
kernel buffer, a slow disk. The same holds for RTP whose receiver counts fewer lost packets than the capture lacks
(RFC 3550 §6.4.1), and for RTP that a point further on has. Findings that rest on something not seen are capped for
such flows.

**What lifts the suspicion.** Three flows or more that lack packets in the same tenth of a second (probable). Another
capture point that holds the bytes, or holds the RTP packets and comes later on the way, by TTL or by the addresses of a
relay; or the count of dropped packets that the capturing host wrote into the file (pcapng interface statistics,
`isb_ifdrop` and `isb_osdrop`): confirmed, and with that count every flow of the point is touched.

**What looks alike and is not it.** Real loss: the bytes come again, or RTCP counts them. The beginning of a connection
that began before the capture: acknowledged long ago (CAP-MIDSTREAM). One whole direction missing (CAP-ONEWAY), and
packets that take another path. Reordering. The acknowledgment number of a reset, which nobody checks once a connection
is up (RFC 9293 §3.5.3). Opposite RTP streams that miss packets at the same moments are no more than a suspicion: a link
that fails for a moment does the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

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
from netdiag.tables import Tables, rtp_crossing, rtp_gaps, unseen

PATTERN = Pattern(
    id="CAP-LOSS",
    title="The capture lacks packets that were on the wire",
    severity=Severity.INFO,
    cases=("choppy-audio",),
    needs=("packets", "tcp", "rtp", "rtcp", "flows"),
    references=(Reference("RFC 9293 §3.10.7.4"), Reference("RFC 9293 §3.5.3"), Reference("RFC 3550 §6.4.1"),
                Reference("draft-ietf-opsawg-pcapng §4.6 (Interface Statistics Block)")),
    filter="tcp.analysis.ack_lost_segment || (udp && !sip && !dns)",
    mitigation="Do not conclude from what is missing here; capture again with a larger buffer (tcpdump -B), a filter "
               "for the hosts in question, and a fast disk.",
    fix="Give the tap what the traffic needs: a mirror port that is not oversubscribed, ring files, a hardware tap.",
    prevention="Watch the drop counters of the sensor and of the mirror port while it captures.",
    next_capture="The same traffic at both sides of the path, as pcapng, so that drop counters are in the file.",
    settings=(
        Setting("max_share", 0.05, "% of the data segments", "practice: below it a capture is as good as whole"),
        Setting("min_flows", 3, "flows in 100 ms", "practice: one flow may have reasons of its own"),
        Setting("min_packets", 5, "RTP packets", "practice: duplicates and late packets make a count differ by a few"),
        Setting("min_moments", 3, "shared gaps", "practice: a link that failed once or twice does the same"),
    ),
    caps=("absence",),
)

MOMENT_NS = 100_000_000
"""What happens within 100 ms happens at the same moment (practice)."""
DETAILED = 30
"""Flows of one point whose frames are cited (practice)."""


@dataclass(slots=True)
class _Sign:
    """A flow that lacks packets."""

    flow: int
    at_ns: list[int]
    packets: list[int]
    what: str
    summary: str
    against: str
    proof: bool = True
    """The receiver had what is missing."""
    facts: dict[str, str | int | float] = field(default_factory=dict)


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Flows that lack what their receiver has, and points whose interface dropped packets; one group for each point."""
    carrying = tables.tcp.filter(pl.col("data_client") + pl.col("data_server") + pl.col("acked_unseen") > 0).height
    if not carrying and not tables.rtp.height and not tables.interface_drops:
        return not_applicable("no TCP data, no RTP and no drop counter is in this capture")
    signs = {s.flow: s for s in (*_shared(tables, settings), *_disputed(tables, settings),
                                 *_passed(tables, settings))}
    acks = unseen.unseen_acks(tables)
    together = _together(tables, acks, [s for s in signs.values() if s.proof], settings["min_flows"])
    signs |= {s.flow: s for s in _tcp(tables, acks, set(together), settings["max_share"])}
    occurrences = [_dropped(point, count) for point, count in tables.interface_drops.items() if count]
    cited: Counter[str] = Counter()
    for f in tables.flows.filter(pl.col("flow").is_in(list(signs))).iter_rows(named=True):
        cited[f["point"]] += 1
        occurrences.append(_occurrence(tables, f, signs[f["flow"]], together.get(f["flow"], 0),
                                       cited[f["point"]] <= DETAILED))
    if not occurrences:
        return clear(f"{number_of(carrying, 'TCP connections')} with data and "
                     f"{number_of(tables.rtp.height, 'RTP streams')}: none lacks what its receiver had")
    flows: dict[str, int] = dict(tables.flows.group_by("point").len().iter_rows())
    return found(occurrences, examined={(point,): count for point, count in flows.items()})


def _tcp(tables: Tables, acks: pl.DataFrame, together: set[int], share: float) -> Iterator[_Sign]:
    """Connections with enough acknowledged bytes that were not captured, or a few at the same moment as others."""
    each = acks.group_by("connection", "flow", maintain_order=True).agg("packet", "ts_ns")
    data = unseen.data_segments(tables, each["connection"].to_list())
    for (connection, flow, packets, times), segments in zip(each.iter_rows(), data, strict=True):
        if len(packets) * 100 <= share * (segments + len(packets)) and flow not in together:
            continue
        missing = unseen.hole(tables, connection, packets[0])
        size = missing.size if missing else 0
        facts: dict[str, str | int | float] = {"tcp.missing_bytes": size, "tcp.seq": missing.first if missing else 0}
        cited = packets[:3]
        elsewhere = unseen.held_elsewhere(tables, packets[0], missing) if missing and len(tables.points) > 1 else None
        if elsewhere is not None:
            facts["capture.point_with_them"] = tables.points[int(tables.packets.points([elsewhere])[0])]
            cited.append(elsewhere)
        yield _Sign(flow, times, cited,
                    f"{size} bytes from relative sequence number {facts['tcp.seq']} on are acknowledged, and not here"
                    + (f"; {len(packets)} ACKs in all are for such bytes" if len(packets) > 1 else "")
                    + f"; captured data segments: {segments}",
                    f"{size} bytes or more are acknowledged and nowhere in the capture",
                    "the other packets of both directions pass here", facts=facts)


def _disputed(tables: Tables, settings: dict[str, float]) -> Iterator[_Sign]:
    p = tables.packets
    for d in rtp_gaps.disputed(tables, settings["min_packets"]):
        yield _Sign(d.stream.flow, [int(p.ts[d.gap])], [d.gap, *d.reports],
                    f"between two reports the receiver of SSRC 0x{d.stream.ssrc:08x} counts {d.reported} lost packets, "
                    f"and {d.missing} are missing here",
                    f"{d.missing} RTP packets are missing here, and their receiver lost {d.reported}",
                    "the reports go to this very stream", facts={"rtp.missing": d.missing, "rtcp.lost": d.reported})


def _passed(tables: Tables, settings: dict[str, float]) -> Iterator[_Sign]:
    for stream, held in rtp_crossing.passed_here(tables, tables.rtp, settings["min_packets"]).items():
        yield _Sign(tables.rtp["flow"][stream], [], [tables.rtp["first_packet"][stream], *held.packets],
                    f"{held.point}, further on the way, has {held.count} RTP packets that are missing here",
                    f"{held.count} RTP packets are missing here, and {held.point} has them",
                    "the other packets of the stream pass here",
                    facts={"rtp.missing": held.count, "capture.point_with_them": held.point})


def _shared(tables: Tables, settings: dict[str, float]) -> Iterator[_Sign]:
    for s in rtp_gaps.shared(tables, settings["min_moments"]):
        yield _Sign(s.streams[0].flow, [], list(s.packets[:6]),
                    f"both directions of RTP miss packets at the same {s.moments} moments (of {s.gaps[0]} and "
                    f"{s.gaps[1]} gaps; chance would give {s.by_chance:.1f})",
                    f"both directions of RTP miss packets at the same {s.moments} moments",
                    "a link that fails for a moment loses both directions too", proof=False,
                    facts={"rtp.shared_gaps": s.moments})


def _together(tables: Tables, acks: pl.DataFrame, streams: list[_Sign], least: float) -> dict[int, int]:
    """Flows that lack packets at one moment with others of their point, and how many these are."""
    more = [(s.flow, at) for s in streams for at in s.at_ns]
    events = pl.concat([acks.select("flow", "ts_ns"), pl.DataFrame(
        more, schema={"flow": acks.schema["flow"], "ts_ns": pl.Int64}, orient="row")])
    if events["flow"].n_unique() < least:
        return {}
    p = tables.packets
    point = p.points(p.order[p.flow_start[events["flow"].to_numpy()]])
    events = events.with_columns(point=pl.Series(point))
    out: dict[int, int] = {}
    for shift in (0, MOMENT_NS // 2):
        moments = events.group_by("point", (pl.col("ts_ns") + shift) // MOMENT_NS).agg(pl.col("flow").unique())
        for flows in moments.filter(pl.col("flow").list.len() >= least)["flow"].to_list():
            for flow in flows:
                out[flow] = max(out.get(flow, 0), len(flows))
    return out


def _occurrence(tables: Tables, f: dict[str, object], sign: _Sign, together: int, cite: bool) -> Occurrence:
    point = str(f["point"])
    reasons, confidence = [sign.what], Confidence.SUSPECTED
    if together:
        reasons.append(f"{together} flows lack packets within the same 100 ms")
        confidence = Confidence.PROBABLE
    where = sign.facts.get("capture.point_with_them")
    drops = tables.interface_drops.get(point, 0)
    if where:
        reasons.append(f"{where} has them")
    if drops:
        reasons.append(f"the capturing interface counts {drops} dropped packets")
    if where or drops:
        confidence = Confidence.CONFIRMED
    return Occurrence(
        subject=f"{f['a']}:{f['a_port']} → {f['b']}:{f['b_port']}", group=(point,),
        summary=f"At {point} packets between {f['a']} and {f['b']} are missing: {sign.summary}.",
        confidence=confidence, reasons=tuple(reasons),
        evidence=tables.evidence(sign.packets, {"source.ip": str(f["a"]), "destination.ip": str(f["b"]), **sign.facts})
        if cite else (),
        scope={"capture.point": point}, flows=(sign.flow,), start_ns=int(str(f["first_ns"])),
        end_ns=int(str(f["last_ns"])), alternatives=(
            Alternative("the missing packets take another path" if sign.proof else "the link failed for a moment",
                        "the receiver has them, and this point does not" if sign.proof else sign.against,
                        sign.against if sign.proof else "it would have to fail again and again"),))


def _dropped(point: str, count: int) -> Occurrence:
    return Occurrence(
        subject=f"all of {point}", group=("interface", point), title="The capturing interface dropped packets",
        summary=f"The host that captured at {point} dropped {count} packets, and says so in the file.",
        confidence=Confidence.CONFIRMED,
        reasons=(f"isb_ifdrop and isb_osdrop of the interface statistics add up to {count}",), evidence=(),
        scope={"capture.point": point, "capture.dropped": count})
