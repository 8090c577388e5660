"""Fact tables, built when first asked for: facts only, nothing here judges.

``Tables`` is all that a detector sees. Frames are Polars, their columns are documented by
the dataclass of the same module; ``schema.rows(frame, Row)`` gives objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from netdiag.model import Anomaly, CaptureSummary, Evidence

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import polars as pl

    from netdiag.decode.fragments import Datagram
    from netdiag.decode.keylog import KeyLog
    from netdiag.tables.clocks import Clocks
    from netdiag.tables.decrypted import Decrypted
    from netdiag.tables.packets import Packets
    from netdiag.tables.points import CrossPoint
    from netdiag.tables.rtcp_read import RtcpPackets
    from netdiag.tables.streams import Streams
    from netdiag.tables.stun_messages import Traffic

EVIDENCE_FRAMES = 40
"""Frames listed per evidence entry; more make a filter nobody can paste (practice)."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user said about how to judge."""

    at_ns: int | None = None
    """Judge certificates at this time instead of at capture time."""
    ca_file: str | None = None
    """PEM bundle of roots that the clients are known to trust."""
    keylog: str | None = None
    checksums: bool = True
    """Compute the SHA-256 of each file; what is only shown on a terminal does without."""


@dataclass(slots=True)
class AnomalyLog:
    """Odd input, counted by (table, reason, file)."""

    packets: Packets
    counts: dict[tuple[str, str, int], list[int]] = field(default_factory=dict)
    """(table, reason, capture index) to [count, first frame]."""

    def add(self, table: str, reason: str, packet: int, count: int = 1) -> None:
        """Counts one more; ``packet`` is a packet row. ``reason`` is our own text, never from the wire."""
        capture, frame = self.packets.locate([packet])
        entry = self.counts.setdefault((table, reason, int(capture[0])), [0, int(frame[0])])
        entry[0] += count
        entry[1] = min(entry[1], int(frame[0]))


class Tables:
    """The packet table and everything derived from it, each built once, on first use."""

    def __init__(self, packets: Packets, captures: tuple[CaptureSummary, ...], points: tuple[str, ...],
                 options: Options | None = None, secrets: tuple[bytes, ...] = (),
                 interface_drops: dict[str, int] | None = None, capture_filters: dict[str, str] | None = None) -> None:
        self.packets = packets
        self.captures = captures
        self.points = points
        self.options = options or Options()
        self.secrets = secrets
        """Key-log text of pcapng Decryption Secrets Blocks."""
        self.interface_drops = interface_drops or {}
        """Point to packets the capturing interface dropped (pcapng ISB); points without that record are absent."""
        self.capture_filters = capture_filters or {}
        self.anomaly_log = AnomalyLog(packets)
        self.datagrams: list[Datagram] = []
        """Fragmented IP datagrams as they were put together, or not; ``fragments`` shows them as a table."""

    # Each property imports its module when asked: a command pays for the tables it uses.

    @cached_property
    def flows(self) -> pl.DataFrame:
        from netdiag.tables import flows
        return flows.build(self)

    @cached_property
    def fragments(self) -> pl.DataFrame:
        from netdiag.tables import fragments
        return fragments.build(self)

    @cached_property
    def tcp(self) -> pl.DataFrame:
        from netdiag.tables import tcp
        return tcp.build(self)

    @cached_property
    def streams(self) -> Streams:
        from netdiag.tables.streams import Streams
        return Streams(self)

    @cached_property
    def keylog(self) -> KeyLog:
        """TLS secrets of the user's key log and of the captures; CaptureError when that file cannot be read."""
        from netdiag.decode import keylog
        return keylog.read(self.options.keylog, self.secrets)

    @cached_property
    def decrypted(self) -> Decrypted:
        from netdiag.tables.decrypted import Decrypted
        return Decrypted(self)

    @cached_property
    def icmp(self) -> pl.DataFrame:
        from netdiag.tables import icmp
        return icmp.build(self)

    @cached_property
    def sip(self) -> pl.DataFrame:
        from netdiag.tables import sip
        return sip.build(self)

    @cached_property
    def transactions(self) -> pl.DataFrame:
        from netdiag.tables import transactions
        return transactions.build(self)

    @cached_property
    def calls(self) -> pl.DataFrame:
        from netdiag.tables import calls
        return calls.build(self)

    @cached_property
    def legs(self) -> pl.DataFrame:
        from netdiag.tables import legs
        return legs.build(self)

    @cached_property
    def media(self) -> pl.DataFrame:
        from netdiag.tables import sdp
        return sdp.build(self)

    @cached_property
    def registrations(self) -> pl.DataFrame:
        from netdiag.tables import registrations
        return registrations.build(self)

    @cached_property
    def bindings(self) -> pl.DataFrame:
        from netdiag.tables import bindings
        return bindings.build(self)

    @cached_property
    def rtp(self) -> pl.DataFrame:
        from netdiag.tables import rtp
        return rtp.build(self)

    @cached_property
    def srtp(self) -> pl.DataFrame:
        from netdiag.tables import srtp
        return srtp.build(self)

    @cached_property
    def rtcp_rows(self) -> npt.NDArray[np.uint32]:
        """Packet rows that start like RTCP; building ``rtp`` finds them on its way."""
        from netdiag.tables import rtp
        return rtp.rtcp_rows(self.packets, rtp.all_candidates(self.packets))

    @cached_property
    def rtcp_packets(self) -> RtcpPackets:
        """RTCP as the packets have it, without calls: what ``rtcp`` and ``rtcp_xr`` are made from."""
        from netdiag.tables import rtcp_read
        return rtcp_read.read(self)

    @cached_property
    def rtcp(self) -> pl.DataFrame:
        from netdiag.tables import rtcp
        return rtcp.build(self)

    @cached_property
    def rtcp_xr(self) -> pl.DataFrame:
        from netdiag.tables import rtcp_xr
        return rtcp_xr.build(self)

    @cached_property
    def stun_traffic(self) -> Traffic | None:
        from netdiag.tables import stun_messages
        return stun_messages.read(self)

    @cached_property
    def stun(self) -> pl.DataFrame:
        from netdiag.tables import stun
        return stun.build(self)

    @cached_property
    def _turn(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        from netdiag.tables import turn
        return turn.build(self)

    @property
    def allocations(self) -> pl.DataFrame:
        return self._turn[0]

    @property
    def turn_peers(self) -> pl.DataFrame:
        return self._turn[1]

    @cached_property
    def checks(self) -> pl.DataFrame:
        from netdiag.tables import ice
        return ice.build(self)

    @cached_property
    def ice_descriptions(self) -> pl.DataFrame:
        from netdiag.tables import ice_sdp
        return ice_sdp.build(self)

    @cached_property
    def dtls(self) -> pl.DataFrame:
        from netdiag.tables import dtls
        return dtls.build(self)

    @cached_property
    def _tls(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        from netdiag.tables import tls
        return tls.build(self)

    @property
    def handshakes(self) -> pl.DataFrame:
        return self._tls[0]

    @property
    def alerts(self) -> pl.DataFrame:
        return self._tls[1]

    @property
    def certs(self) -> pl.DataFrame:
        return self._tls[2]

    @cached_property
    def lookups(self) -> pl.DataFrame:
        from netdiag.tables import lookups
        return lookups.build(self)

    @cached_property
    def quality(self) -> pl.DataFrame:
        from netdiag.tables import quality
        return quality.build(self)

    @cached_property
    def crosspoint(self) -> CrossPoint:
        from netdiag.tables.points import CrossPoint
        return CrossPoint(self)

    @cached_property
    def clocks(self) -> Clocks:
        from netdiag.tables.clocks import Clocks
        return Clocks(self)

    def anomalies(self) -> tuple[Anomaly, ...]:
        """What was odd so far; complete when all tables of interest have been built."""
        return tuple(
            Anomaly(table, reason, count, self.captures[i].point, self.captures[i].path, first)
            for (table, reason, i), (count, first) in sorted(self.anomaly_log.counts.items())
        )

    def evidence(self, packets: Iterable[int], facts: dict[str, str | int | float] | None = None,
                 filter: str = "") -> tuple[Evidence, ...]:
        """Evidence entries for packet rows: one for each capture file, in order, EVIDENCE_FRAMES frames at most."""
        import numpy as np
        rows = np.unique(np.fromiter(packets, np.int64))
        capture, frame = self.packets.locate(rows)
        out = []
        for index in np.unique(capture).tolist():
            frames = sorted(frame[capture == index].tolist())[:EVIDENCE_FRAMES]
            summary = self.captures[index]
            shown = filter or "frame.number in {" + ", ".join(map(str, frames)) + "}"
            out.append(Evidence(summary.point, summary.path, tuple(frames), shown, facts or {}))
        return tuple(out)
