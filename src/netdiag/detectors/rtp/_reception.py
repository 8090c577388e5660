"""What the receivers themselves and other capture points say about a stream: does it arrive?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl

from netdiag.model import times
from netdiag.tables import Tables
from netdiag.tables.rtp import RtcpReport, RtpStream
from netdiag.tables.schema import rows

SETTLED_NS = 3_000_000_000
"""After an answer, streams and latching have this long to begin (practice)."""

_SENDER = ("point", "ssrc", "packets", "destination", "destination_port", "first_packet", "last_packet")
_QUOTED = ("point", "quoted_source", "quoted_source_port", "quoted_destination", "quoted_destination_port", "ts_ns",
           "packet", "name", "source")


class Fact(NamedTuple):
    """One statement, and the packets that make it."""

    text: str
    packets: tuple[int, ...]
    short: str
    """What it says against the reading that all is well, in few words."""


class Reception:
    """Asks RTCP, ICMP and other points about the streams of ``calls`` (rows of ``Tables.calls``)."""

    def __init__(self, tables: Tables, calls: Sequence[int]) -> None:
        self._points = tables.points
        streams = tables.rtp.filter(pl.col("call").is_in(pl.Series(calls, dtype=pl.UInt32).implode()))
        mine = streams["ssrc"].unique().implode()
        self._by: dict[tuple[str, int], list[RtcpReport]] = defaultdict(list)
        self._about: dict[tuple[str, int], list[RtcpReport]] = defaultdict(list)
        for report in rows(tables.rtcp.filter(pl.col("sender_ssrc").is_in(mine) | pl.col("about_ssrc").is_in(mine)),
                           RtcpReport):
            self._by[report.point, report.sender_ssrc].append(report)
            if report.about_ssrc is not None:
                self._about[report.point, report.about_ssrc].append(report)
        self._seen: set[tuple[str, int]] = set()
        self._senders: dict[tuple[str, str | None], list[tuple[str, int, int, str, int, int, int]]] = defaultdict(list)
        if len(tables.points) > 1:
            self._seen = set(tables.rtp.select("point", "ssrc").iter_rows())
            bound = tables.rtp.filter(pl.col("call_id").is_not_null())
            for call_id, sender, *rest in bound.select("call_id", "sender", *_SENDER).iter_rows():
                self._senders[call_id, sender].append((rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], rest[6]))
        self._errors: dict[tuple[object, ...], list[tuple[int, int, str, str]]] = defaultdict(list)
        for point, source, port, destination, dport, *rest in tables.icmp.select(*_QUOTED).iter_rows():
            self._errors[point, source, port, destination, dport].append((rest[0], rest[1], rest[2], rest[3]))

    def hears_nothing(self, own: Sequence[RtpStream], start_ns: int, end_ns: int) -> Fact | None:
        """A sender report of the side that sends ``own``, without a reception block: it received nothing."""
        reports = self._reports(own, start_ns, end_ns)
        if not reports or any(r.about_ssrc is not None for r in reports):
            return None
        sent, at = max((r.sender_packets or 0, r.ts_ns) for r in reports)
        after = (at - min(s.first_ns for s in own)) / 1e9
        return Fact(f"its own RTCP, {after:.1f} s into its stream, counts {sent} packets sent by then and reports no "
                    "reception (RFC 3550 §6.4)", tuple(r.packet for r in reports),
                    "the receiver itself says that nothing arrives")

    def stands_still(self, sent: RtpStream, own: RtpStream, start_ns: int, end_ns: int) -> Fact | None:
        """Reports of the host that sends ``own`` name ``sent`` again and again, and its highest number stays the same.
        """
        about = _between((r for r in self._about[sent.point, sent.ssrc] if r.source == own.source), start_ns, end_ns)
        highest = [r.highest_sequence or 0 for r in about]
        if len(about) < 2 or max(highest) != min(highest):
            return None
        return Fact(f"{len(about)} reports of the receiver name one highest sequence number, {highest[0]} (RFC 3550 "
                    "§6.4.1): nothing reaches it any more", tuple(r.packet for r in about),
                    "the receiver's reports stand still")

    def hears_something(self, own: Sequence[RtpStream], start_ns: int, end_ns: int) -> bool:
        """Reports of the side that sends ``own`` have a reception block: audio reaches it."""
        return any(r.about_ssrc is not None for r in self._reports(own, start_ns, end_ns))

    def claims(self, heard: Sequence[RtpStream], start_ns: int, end_ns: int) -> tuple[int, Fact] | None:
        """What the side that receives ``heard`` says in RTCP about its own sending: packets (0 in receiver reports)."""
        mine = _between((r for s in heard for r in self._about[s.point, s.ssrc]), start_ns, end_ns)
        if not mine:
            return None
        sent = max(r.sender_packets or 0 for r in mine)
        text = f"the silent side says in RTCP that it has sent {sent} packets"
        return sent, Fact(text, tuple(r.packet for r in mine), "")

    def refused(self, stream: RtpStream, start_ns: int, end_ns: int) -> Fact | None:
        """ICMP errors about packets of the stream."""
        errors = [e for e in self._errors[stream.point, stream.source, stream.source_port, stream.destination,
                                          stream.destination_port] if start_ns <= e[0] <= end_ns]
        if not errors:
            return None
        return Fact(f"ICMP {errors[0][2]} from {errors[0][3]}, {times(len(errors))}, about packets to "
                    f"{stream.destination}:{stream.destination_port}", tuple(e[1] for e in errors[:3]),
                    "ICMP says that the packets are not delivered")

    def lost_before(self, stream: RtpStream, own: Sequence[RtpStream]) -> Fact | None:
        """Another point that shows what the receiver sends (``own``), and nothing from the sender of ``stream``."""
        there = {point for point, *_ in self._senders[stream.call_id or "", stream.sender]}
        for point in self._points:
            if point not in there and (point, stream.ssrc) not in self._seen \
                    and any((point, s.ssrc) in self._seen for s in own):
                return Fact(f"SSRC 0x{stream.ssrc:08x} is sent at {stream.point} ({stream.packets} packets to "
                            f"{stream.destination}:{stream.destination_port}) and never seen at {point}, where the "
                            "receiver's own stream is seen", (), f"{point} shows that they do not arrive")
        return None

    def lost_after(self, call_id: str, sender: str, point: str, own: Sequence[RtpStream], least: float) -> Fact | None:
        """A stream of ``sender`` in this call at another point, absent here, while ``own`` is seen at both."""
        for there, ssrc, packets, address, port, first, last in self._senders[call_id, sender]:
            if there != point and packets >= least and (point, ssrc) not in self._seen \
                    and any((there, s.ssrc) in self._seen for s in own):
                return Fact(f"SSRC 0x{ssrc:08x} is sent at {there} ({packets} packets to {address}:{port}) and never "
                            f"reaches {point}", (first, last), f"{there} shows that it does not come this far")
        return None

    def _reports(self, own: Sequence[RtpStream], start_ns: int, end_ns: int) -> list[RtcpReport]:
        return _between((r for s in own for r in self._by[s.point, s.ssrc]), start_ns, end_ns)


def _between(reports: Iterable[RtcpReport], start_ns: int, end_ns: int) -> list[RtcpReport]:
    kept = {r.packet: r for r in reports if start_ns <= r.ts_ns <= end_ns}
    return [kept[packet] for packet in sorted(kept)]
