"""What tshark sees in a capture: one run gives counts, classes of frames, datagrams, addresses and RTP streams."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

CLASSES = ("retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order", "keep_alive",
           "keep_alive_ack", "zero_window", "zero_window_probe", "zero_window_probe_ack", "window_full",
           "window_update", "duplicate_ack", "lost_segment", "ack_lost_segment", "reused_ports")
"""Fields ``tcp.analysis.*`` ("TCP Analysis" in the Wireshark User's Guide)."""
FIELDS = ("frame.number", "frame.protocols", "sip.Method", "sip.Status-Code", "sip.Call-ID", "tls.handshake.type",
          "tls.handshake.certificate", "tls.alert_message.desc", "tcp.flags.reset", "dns.flags.response", "icmp.type",
          "icmpv6.type", "mdns", "llmnr", "nbns", "tcp.stream", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst",
          "tcp.srcport", "tcp.dstport", "udp.srcport", "udp.dstport", "ip.fragment", "ipv6.fragment",
          "ip.fragment.error", "ipv6.fragment.error", "ip.fragment.overlap", "ipv6.fragment.overlap",
          "ip.fragment.overlap.conflict", "ipv6.fragment.overlap.conflict", "rtcp.ssrc.fraction", "rtcp.xr.bt",
          *(f"tcp.analysis.{name}" for name in CLASSES))
_AGGREGATOR = "\x1f"
_STREAM = re.compile(r"\s*[\d.]+\s+[\d.]+\s+(\S+)\s+(\d+)\s+(\S+)\s+(\d+)\s+0x([0-9A-F]{8})\s+.*?\s(\d+)\s+(-?\d+) "
                     r"\([-\d.]+%\)((?:\s+[-\d.]+){6})")

Endpoints = tuple[str, str]
Row = dict[str, list[str]]


@dataclass
class Stream:
    """A line of ``-z rtp,streams``; times in ms."""

    packets: int
    lost: int
    max_delta: float
    mean_jitter: float
    max_jitter: float


@dataclass
class View:
    counts: Counter[str] = field(default_factory=Counter)
    call_ids: set[str] = field(default_factory=set)
    classes: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in CLASSES})
    streams: dict[int, int] = field(default_factory=dict)
    """TCP frame to ``tcp.stream``."""
    addresses: dict[int, Endpoints] = field(default_factory=dict)
    """Frame to the addresses of its innermost IP packet."""
    ports: dict[int, Endpoints] = field(default_factory=dict)
    datagrams: dict[int, frozenset[int]] = field(default_factory=dict)
    """Frame that completed a datagram to the frames of all its pieces."""
    overlaps: set[int] = field(default_factory=set)
    """Those of them with overlapping pieces."""
    conflicts: set[int] = field(default_factory=set)
    rtp: dict[str, Stream] = field(default_factory=dict)
    """"source:port>destination:port SSRC" to what tshark counts."""


def view(path: Path) -> View:
    """Frames that quote a packet inside ICMP count as frames only."""
    argv = ["tshark", "-n", "-r", str(path), "--enable-heuristic", "rtp_udp", "-z", "rtp,streams", "-T", "fields",
            "-E", "occurrence=a", "-E", f"aggregator={_AGGREGATOR}"]
    for name in FIELDS:
        argv += ["-e", name]
    done = subprocess.run(argv, capture_output=True, check=False)  # a cut file ends in a non-zero status
    out = View()
    for line in done.stdout.decode("utf-8", "replace").split("\n"):
        values = line.split("\t")
        if len(values) == len(FIELDS):
            split = [[v for v in value.split(_AGGREGATOR) if v] for value in values]
            _frame(out, dict(zip(FIELDS, split, strict=True)))
        elif match := _STREAM.match(line):
            source, sport, destination, dport, ssrc, packets, lost, numbers = match.groups()
            delta, jitter = [float(v) for v in numbers.split()][2], [float(v) for v in numbers.split()][4:]
            key = f"{source}:{sport}>{destination}:{dport} {ssrc}"
            out.rtp[key] = Stream(int(packets), int(lost), delta, *jitter)
    return out


def _frame(out: View, row: Row) -> None:
    out.counts["frames"] += 1
    if row["icmp.type"] or row["icmpv6.type"]:
        return
    frame = int(row["frame.number"][0])
    out.counts["sip requests"] += len(row["sip.Method"])
    out.counts["sip responses"] += len(row["sip.Status-Code"])
    out.call_ids.update(row["sip.Call-ID"])
    out.counts["client hellos"] += row["tls.handshake.type"].count("1")
    out.counts["server hellos"] += row["tls.handshake.type"].count("2")
    out.counts["certificates"] += len(row["tls.handshake.certificate"])
    out.counts["alerts"] += len(row["tls.alert_message.desc"])
    out.counts["resets"] += sum(v in ("1", "True") for v in row["tcp.flags.reset"])
    if not (row["mdns"] or row["llmnr"] or row["nbns"]):
        out.counts["dns queries"] += sum(v in ("0", "False") for v in row["dns.flags.response"])
    out.counts["rtcp report blocks"] += len(row["rtcp.ssrc.fraction"])
    # of the types of RFC 3611; a DLRR block has a line for each source
    out.counts["rtcp xr blocks"] += sum(int(kind) in (1, 2, 3, 4, 6, 7) for kind in row["rtcp.xr.bt"])
    for name in CLASSES:
        if row[f"tcp.analysis.{name}"]:
            out.classes[name].add(frame)
    if row["tcp.stream"]:
        out.streams[frame] = int(row["tcp.stream"][-1])
    layers = row["frame.protocols"][0].split(":")
    network = next((p for p in reversed(layers) if p in ("ip", "ipv6")), "")
    if network and row[f"{network}.src"]:
        out.addresses[frame] = (row[f"{network}.src"][-1], row[f"{network}.dst"][-1])
    transport = next((p for p in reversed(layers) if p in ("tcp", "udp")), "")
    if transport and row[f"{transport}.srcport"]:
        out.ports[frame] = (row[f"{transport}.srcport"][-1], row[f"{transport}.dstport"][-1])
    pieces = row["ip.fragment"] + row["ipv6.fragment"]
    if pieces:  # one that contradicts the others stands under "error" alone
        pieces += row["ip.fragment.error"] + row["ipv6.fragment.error"]
        out.datagrams[frame] = frozenset(map(int, pieces))
        if row["ip.fragment.overlap"] or row["ipv6.fragment.overlap"]:
            out.overlaps.add(frame)
        if row["ip.fragment.overlap.conflict"] or row["ipv6.fragment.overlap.conflict"]:
            out.conflicts.add(frame)
