"""The capture was made on a host whose network card cuts, joins or completes packets: sizes in it are not the wire's.

With segmentation offload (TSO, GSO) a host hands its card more TCP payload than one packet holds, and with receive
offload (LRO, GRO) it gets several packets as one; a capture on that host shows these giants, which no link carried.
No sender may put more into a segment than the MSS that the receiver offered (RFC 9293 §3.7.1), so that a larger one
was never on the wire like that. With checksum offload its packets show a checksum that is not computed yet: the sum of
the pseudo-header alone. Whatever rests on packet sizes (path MTU, a ClientHello in one or two packets, segment sizes)
is capped.

**What lifts the suspicion.** A segment above the receiver's MSS, a packet above all that switches carry, or an IPv4
total length of 0 (confirmed: all of this point is touched). Unset checksums alone (probable) show that the card helps,
not with what: they touch the TCP connections of that host. A sample of 20 000 packets is looked at for them.

**What looks alike and is not it.** Jumbo frames: both SYNs offer such an MSS. Loopback, with an MSS of 65495. Datagrams
that were fragmented. UDP over IPv4 without checksum (RFC 768). Corruption on the way: wrong checksums, not unset ones.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import polars as pl

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
)
from netdiag.tables import Tables, checksums, offload
from netdiag.tables.packets import TCP, UDP

PATTERN = Pattern(
    id="CAP-OFFLOAD",
    title="Packet sizes or checksums are not those on the wire",
    severity=Severity.INFO,
    cases=(),
    needs=("packets", "tcp", "flows"),
    references=(Reference("RFC 9293 §3.7.1"), Reference("RFC 9293 §3.1"), Reference("RFC 768"),
                Reference("Linux kernel, Segmentation Offloads",
                          "https://docs.kernel.org/networking/segmentation-offloads.html"),
                Reference("Linux kernel, Checksum Offloads",
                          "https://docs.kernel.org/networking/checksum-offloads.html")),
    filter="tcp || udp",
    mitigation="Do not judge packet sizes by this capture; switch the offloads off while capturing: "
               "ethtool -K DEVICE tso off gso off gro off lro off tx off.",
    fix="Capture beyond the card: on a tap, a mirror port or the next router.",
    prevention="Note with each capture whether it was made on one of the hosts in it.",
    next_capture="The same traffic on a tap or mirror port, or on the host with the offloads switched off.",
    settings=(
        Setting("max_payload", 9216, "bytes", "practice: the largest frame that common switches carry"),
        Setting("min_unset", 3, "packets", "practice: one packet in 65536 has such a checksum by chance"),
    ),
    caps=("size",),
)

UNSET_SHARE = 0.1
"""Of a host's packets: raw sockets and some protocols compute their own (practice)."""
DETAILED = 30
"""Hosts of one point whose frames are cited (practice)."""


@dataclass(slots=True)
class _Host:
    """What one sender shows at one point."""

    sizes: list[str] = field(default_factory=list)
    checksums: list[str] = field(default_factory=list)
    rows: set[int] = field(default_factory=set)
    facts: dict[str, str | int | float] = field(default_factory=dict)


def detect(tables: Tables, settings: dict[str, float]) -> Detection:
    """Hosts whose packets have sizes or checksums from before the card; one group for each point."""
    sent = tables.flows.filter(pl.col("proto").is_in([TCP, UDP]))
    if not sent.height:
        return not_applicable("no TCP or UDP is in this capture")
    hosts: defaultdict[tuple[str, str], _Host] = defaultdict(_Host)
    for point, host, count, largest, limit, rows in offload.oversize(tables).iter_rows():
        _note(hosts[point, host], f"TCP segments above the MSS of their receiver: {count}, the largest with "
                                  f"{largest} bytes where {limit} are allowed", largest, rows)
        hosts[point, host].facts["tcp.mss"] = limit
    for point, host, count, largest, limit, rows in offload.giants(tables, settings["max_payload"]).iter_rows():
        what = f"packets of more than {limit} bytes: {count}, the largest of {largest}"
        _note(hosts[point, host], what, largest, rows)
    for point, host, count, unset, lengthless, rows in checksums.unset(tables).iter_rows():
        h = hosts.get((point, host), _Host())
        if lengthless:
            _note(h, f"packets with an IPv4 total length of 0: {lengthless} of {count} looked at", 0, rows)
        if unset >= settings["min_unset"] and unset >= UNSET_SHARE * count:
            h.checksums.append(f"packets whose checksum nobody computed: {unset} of {count} looked at")
            h.facts["packets.checksum_unset"] = unset
            h.rows.update(rows if not h.sizes else ())
        if h.sizes or h.checksums:
            hosts[point, host] = h
    if not hosts:
        return clear(f"{sent.height} TCP and UDP flows: no segment is larger than its receiver allows, and no host "
                     "leaves checksums unset")
    cited: Counter[str] = Counter()
    occurrences = []
    speakers = pl.concat([sent.select("point", "flow", "proto", host=side) for side in ("a", "b")])
    mine = speakers.filter((pl.col("proto") == TCP) & pl.col("host").is_in([host for _, host in hosts]))
    flows = {(point, host): tuple(ids) for point, host, ids in
             mine.group_by("point", "host").agg("flow").iter_rows()}
    for (point, host), h in sorted(hosts.items()):
        cited[point] += 1
        occurrences.append(_occurrence(tables, point, host, h, flows.get((point, host), ()), cited[point] <= DETAILED))
    examined = speakers.group_by("point").agg(pl.col("host").n_unique())
    return found(occurrences, population="hosts", examined={(point,): count for point, count in examined.iter_rows()})


def _note(host: _Host, what: str, largest: int, rows: list[int]) -> None:
    host.sizes.append(what)
    host.rows.update(rows)
    if largest:
        host.facts["packets.largest"] = max(largest, int(host.facts.get("packets.largest", 0)))


def _occurrence(tables: Tables, point: str, host: str, h: _Host, flows: tuple[int, ...], cite: bool) -> Occurrence:
    reasons = (*h.sizes, *h.checksums)
    return Occurrence(
        subject=host, group=(point,),
        summary=f"At {point} packets of {host} are not as the wire carried them: {reasons[0]}.",
        confidence=Confidence.CONFIRMED if h.sizes else Confidence.PROBABLE, reasons=reasons,
        evidence=tables.evidence(h.rows, {"source.ip": host, **h.facts}) if cite else (),
        # Wrong sizes of one host speak of the whole point; checksums only of what that host may leave to its card.
        scope={"capture.point": point} if h.sizes else {"source.ip": host}, flows=() if h.sizes else flows,
        start_ns=min(int(tables.packets.ts[row]) for row in h.rows),
        end_ns=max(int(tables.packets.ts[row]) for row in h.rows))
