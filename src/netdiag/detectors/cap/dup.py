"""Each packet is captured more than once: the copies come from where the capture was made, not from the sender.

A mirror of both ports that a packet passes, a capture on all interfaces of a host, or one on both sides of a router
holds each packet twice. A copy is what its sender wrote, bit by bit, with the same IP identification (RFC 6864 §4), a
few milliseconds later at most; behind a router its TTL is lower. Taken for packets of their own, copies would be
retransmissions, duplicate acknowledgments and lost audio frames that nobody ever sent. They are set aside before
anything is counted, so this finding caps no other one: it says why the file is twice as large, why other tools show
retransmissions in it, and that the mirror carries twice the load.

**What lifts the suspicion.** Copies with an identification, or with TCP numbers, that no sender writes twice within
milliseconds (probable); a delay between packet and copy that is the same within 1 ms from the beginning of the file
to its end (confirmed).

**What looks alike and is not it.** Retransmissions: they have another identification and come after a timeout, 200 ms
or more with TCP, 500 ms with SIP (RFC 3261 §17.1.1.2). Media that is sent twice on purpose (RFC 2198, RFC 7198): each
sending has an identification of its own. Advertisements sent again and again, such as VRRP's. Copies of which a NAT
changed the addresses are kept on purpose: they show both sides of it.
"""

from __future__ import annotations

import numpy as np

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
from netdiag.tables.packets import I64, TCP, Packets

PATTERN = Pattern(
    id="CAP-DUP",
    title="Packets are captured more than once",
    severity=Severity.INFO,
    cases=("sip-alg-rewrites-messages",),
    needs=("packets", "quality"),
    references=(Reference("RFC 6864 §4"), Reference("RFC 9293 §3.8.1"), Reference("RFC 6298 §2.4"),
                Reference("editcap(1), options -w and -I")),
    filter="frame.time_delta < 0.005 && (tcp.analysis.retransmission || tcp.analysis.duplicate_ack || udp || icmp)",
    mitigation="Nothing is counted twice here. For other tools remove the copies: `editcap -w 0.005 in.pcap out.pcap`; "
               "where a router lies between packet and copy, `editcap -I 26 -w 0.005 in.pcap out.pcap` (Ethernet "
               "without tags: passes over MAC addresses, identification, TTL and header checksum).",
    fix="Mirror each packet once: one direction of the ports (`monitor session 1 source vlan 10 rx`), or one port in "
        "both directions. On a router capture one interface instead of `-i any`.",
    prevention="Write down for each tap which interfaces and directions it copies, and look at one ping through it: "
               "one request, one reply.",
    next_capture="One interface, one copy: `tcpdump -ni eth0 -s 0 -w one.pcap`; with `-i any`, `-Q in` takes each "
                 "packet where it comes in.",
    settings=(Setting("share", 30, "%", "practice: packets of a point with a copy"),
              Setting("min_doubled", 10, "packets", "practice: fewer are chance"),
              Setting("steady_ms", 1, "ms", "practice: change of the delay between packet and copy")),
)

SHOWN = 3
"""Packets whose copies are cited (practice)."""
MOST = 0.9
"""Share of the copies from which on they are of one kind (practice)."""
_KINDS = {
    "same": ("the copies differ in nothing", "a mirror of both ports that a packet passes, two taps of one segment, or "
             "a bridge and its port, as with `-i any`"),
    "hop": ("the TTL of the copies is lower", "both sides of a router are captured, as with `-i any` on it"),
    "wrapped": ("packet and copy are wrapped differently (tag or tunnel)", "both sides of a tunnel or trunk end are "
                "captured"),
    "mixed": ("some copies are alike and some have a lower TTL", "several interfaces and mirrors are captured at once"),
}


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Points where a large share of the packets has a copy; one group for each."""
    p = tables.packets
    if not p.n:
        return not_applicable("no packet is in this capture")
    copies = p.duplicates
    if copies is None or not len(copies.row):
        return clear("no packet was captured twice")
    point = p.points(copies.row)
    total = dict(tables.quality.select("point", "packets").iter_rows())
    occurrences, fewer = [], []
    for number, name in enumerate(tables.points):
        mine = np.flatnonzero(point == number)
        doubled = len(np.unique(copies.of[mine]))
        packets = total.get(name, 0) - len(mine)
        if doubled < settings["min_doubled"] or doubled * 100 < settings["share"] * packets:
            fewer.append(f"{doubled} of {packets} packets at {name}")
        else:
            occurrences.append(_occurrence(tables, name, mine, doubled, packets, settings))
    if not occurrences:
        return clear(f"{', '.join(fewer)} were captured twice; the copies are set aside")
    return found(occurrences, population="capture points")


def _occurrence(tables: Tables, name: str, mine: I64, doubled: int, packets: int,
                settings: dict[str, float]) -> Occurrence:
    p, copies = tables.packets, tables.packets.duplicates
    assert copies is not None
    row, of = copies.row[mine].astype(np.int64), copies.of[mine].astype(np.int64)
    wait = (p.ts[row] - p.ts[of]) / 1e6
    low, middle, high = (float(v) for v in np.quantile(wait, (0.05, 0.5, 0.95)))
    share, delay = 100 * doubled / packets, f"{middle:.3f} ms" if middle < 1 else f"{middle:.1f} ms"
    differs, why = _KINDS[_kind(p, row, of, copies.kind[mine])]
    reasons = [f"{doubled} of {packets} packets have a copy, {delay} behind them (median)", differs]
    told = float(((p.ip_id[of] != 0) | (p.proto[of] == TCP)).mean())
    confidence = Confidence.SUSPECTED
    if told >= 0.5:
        confidence = Confidence.PROBABLE
        reasons.append(f"{told:.0%} have an identification or TCP numbers, which no sender writes twice so soon")
        if high - low < settings["steady_ms"] and _throughout(p, name, tables, row, of, settings):
            confidence = Confidence.CONFIRMED
            reasons.append(f"the delay is the same from beginning to end: {low:.3f} to {high:.3f} ms")
    else:
        reasons.append("most have no identification: a packet that was sent twice looks the same")
    most = int(np.unique(of, return_counts=True)[1].max())
    often = "twice" if most == 1 else f"up to {most + 1} times"
    shown = np.unique(of, return_index=True)[1][:SHOWN]
    return Occurrence(
        subject=name, group=(name,), confidence=confidence, reasons=tuple(reasons),
        summary=f"{share:.0f} % of the packets at {name} are captured {often}: {why}.",
        evidence=tables.evidence([*of[shown].tolist(), *row[shown].tolist()], {
            "copy.delay_ms": round(middle, 3), "copy.differs": differs, "copy.packets": len(mine)}),
        scope={"observer.name": name, "copy.packets": len(mine)},
        start_ns=int(p.ts[of].min()), end_ns=int(p.ts[row].max()),
        alternatives=(Alternative(
            "the network delivers packets twice (a switching loop, flooding, a sender that repeats all it sends)",
            "the packets are there twice" if most == 1 else f"some are there {most + 1} times",
            f"each has one copy, {delay} behind it" if most == 1 else differs),))


def _kind(p: Packets, row: I64, of: I64, kind: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> str:
    if p.encap is not None and (p.encap[row] != p.encap[of]).mean() >= MOST:
        return "wrapped"
    hops = float((kind == 1).mean())
    return "hop" if hops >= MOST else "mixed" if hops > 1 - MOST else "same"


def _throughout(p: Packets, name: str, tables: Tables, row: I64, of: I64, settings: dict[str, float]) -> bool:
    """Both halves of the file have their share of copies, and the delay is the same in both."""
    mine = np.flatnonzero(p.files.all_points() == tables.points.index(name))
    middle = int(mine[len(mine) // 2])
    wait, late = p.ts[row] - p.ts[of], of >= middle
    for half, packets in ((~late, middle - mine[0]), (late, mine[-1] + 1 - middle)):
        if half.sum() * 100 < settings["share"] * (packets - half.sum()):
            return False
    return bool(abs(np.median(wait[late]) - np.median(wait[~late])) < settings["steady_ms"] * 1e6)
