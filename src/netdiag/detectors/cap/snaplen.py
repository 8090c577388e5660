"""Packets were cut by the snap length: what they said beyond it is not in the capture.

A capture file has two lengths for each frame, on the wire and in the file; where the second is smaller the rest was
thrown away by the capturing program (its snap length, `-s`). Headers are mostly there and all that rests on them holds.
Certificates, SDP, long SIP headers and DNS answers may not be: "not seen" then means unknown, and findings that rest on
something not seen are capped for the flows with such packets.

**What lifts the suspicion.** Nothing is needed: the file itself says so (confirmed). Where not even the IP header
of a packet is whole, nobody knows to which flow it belongs, and all of that capture point is touched.

**What looks alike and is not it.** Padding of short Ethernet frames, and frames of which only padding or the link's
own checksum was cut: their IP packet is whole. Frames of the full snap length that are not cut. Other protocols than
IP, of which no finding speaks. A TCP segment that was never captured is CAP-LOSS.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl

from netdiag.model import (
    Confidence,
    Detection,
    Occurrence,
    Pattern,
    Reference,
    Severity,
    clear,
    found,
    not_applicable,
    number_of,
)
from netdiag.tables import Tables, quality
from netdiag.tables import packets as columns

PATTERN = Pattern(
    id="CAP-SNAPLEN",
    title="Packets were cut by the snap length",
    severity=Severity.INFO,
    cases=(),
    needs=("packets", "flows", "quality"),
    references=(Reference("draft-ietf-opsawg-pcap §5 (Packet Record)"),
                Reference("draft-ietf-opsawg-pcapng §4.3 (Enhanced Packet Block)"), Reference("tcpdump(1), -s")),
    filter="frame.cap_len < frame.len",
    mitigation="Judge headers by this capture, and nothing that payload would have to show.",
    fix="Capture whole packets: tcpdump -s 0, or no snap length at all.",
    prevention="Where privacy or space asks for cut packets, keep whole ones for signalling: SIP, TLS, DNS.",
    next_capture="The same traffic without a snap length (tcpdump -s 0).",
    caps=("absence",),
)

DETAILED = 30
"""Flows of one point whose frames are cited (practice)."""
CITED = 3
"""Packets cited of each flow (practice)."""
_KINDS = {columns.KIND_SIP: "SIP", columns.KIND_RTP: "RTP", columns.KIND_TLS: "TLS", columns.KIND_STUN: "STUN",
          columns.KIND_DNS: "DNS", columns.KIND_DTLS: "DTLS"}
_PROTOCOLS = {columns.TCP: "TCP", columns.UDP: "UDP", columns.ICMP: "ICMP", columns.ICMPV6: "ICMPv6"}


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Flows with packets that were cut; one group for each point."""
    p = tables.packets
    if not p.n:
        return not_applicable("no packet is in this capture")
    cut = quality.cut_packets(tables)
    if not len(cut):
        return clear(f"{number_of(p.n, 'packets')}: none has lost anything of its IP packet")
    lost = p.wire[cut].astype(np.int64) - p.length[cut]
    each = pl.DataFrame({"flow": p.flow[cut], "row": cut.astype(np.uint32), "kept": p.length[cut], "lost": lost}
                        ).group_by("flow").agg(pl.col("row").head(CITED), pl.len(), pl.col("kept", "lost").max())
    occurrences = _headless(tables, cut)
    cited: Counter[str] = Counter()
    for f in tables.flows.join(each, on="flow", maintain_order="left").iter_rows(named=True):
        point, first = f["point"], f["row"][0]
        cited[point] += 1
        what = _KINDS.get(int(p.kind[first])) or _PROTOCOLS.get(f["proto"], "IP")
        total = f["packets_ab"] + f["packets_ba"]
        told = f"{f['len']} of {total} packets are cut, the first carries {what}"
        occurrences.append(Occurrence(
            subject=f"{f['a']}:{f['a_port']} → {f['b']}:{f['b_port']}", group=(point,),
            summary=f"At {point} packets between {f['a']} and {f['b']} were cut: {told}, and up to {f['lost']} bytes "
                    "of one are missing.",
            confidence=Confidence.CONFIRMED, reasons=(told,),
            evidence=tables.evidence(f["row"], {"network.protocol": what, "packets.cut": f["len"],
                                                "payload.kept": f["kept"], "payload.lost": f["lost"]})
            if cited[point] <= DETAILED else (),
            scope={"capture.point": point}, flows=(f["flow"],), start_ns=f["first_ns"], end_ns=f["last_ns"]))
    if not occurrences:
        return clear(f"{number_of(len(cut), 'packets')} cut, none of them IP")
    flows: dict[str, int] = dict(tables.flows.group_by("point").len().iter_rows())
    return found(occurrences, examined={(point,): count for point, count in flows.items()})


def _headless(tables: Tables, cut: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[Occurrence]:
    """One for each point with packets that were cut before the end of the IP header: they belong to no flow."""
    p = tables.packets
    alone = cut[p.flow[cut] >= len(p.flow_start)]
    point = p.points(alone)
    out = []
    for number in np.unique(point).tolist():
        mine, name = alone[point == number], tables.points[number]
        out.append(Occurrence(
            subject=f"all of {name}", group=("headers", name), title="Packets were cut before the end of their headers",
            summary=f"At {name} {len(mine)} packets were cut so short that nobody knows to which flow they belong.",
            confidence=Confidence.CONFIRMED, reasons=(f"the IP header of {len(mine)} packets is not whole",),
            evidence=tables.evidence(mine[:CITED].tolist(), {"packets.cut": len(mine)}),
            scope={"capture.point": name}, start_ns=int(p.ts[mine].min()), end_ns=int(p.ts[mine].max())))
    return out
