"""TCP connections, and what was retransmitted, out of order, reset or closed in them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.decode import tcp_options
from netdiag.tables import tcp_segments as seg
from netdiag.tables.addresses import endpoint
from netdiag.tables.columns import Columns
from netdiag.tables.flows import BLOCK, address_texts
from netdiag.tables.packets import ACK, FIN, I64, RST, SYN, Packets
from netdiag.tables.schema import U8, U16, U32, empty

if TYPE_CHECKING:
    from netdiag.tables import Tables

Bools = npt.NDArray[np.bool_]

LIST_LIMIT = 16
"""Packet rows kept in ``syn_packets`` and ``rst_packets``: more repeat what the first ones show (practice)."""


@dataclass(frozen=True, slots=True)
class Connection:
    """One TCP connection at one capture point. A reused four-tuple (new SYN with another ISN) makes a new row.

    The client is who sent the SYN; without one, who received the SYN-ACK; else the side with the higher port.
    """

    connection: U32
    """Row number of this table."""
    flow: U32
    point: str
    client: str
    client_port: U16
    server: str
    server_port: U16
    first_ns: int
    last_ns: int
    first_packet: U32
    last_packet: U32
    packets_client: U32
    """Packets the client sent."""
    packets_server: U32
    data_client: int
    """Distinct payload bytes the client sent (retransmissions not counted twice), as on the wire."""
    data_server: int
    syn_packets: tuple[U32, ...]
    """Packet rows of the client's SYNs, retransmissions included (first 16)."""
    syn_ack_packet: U32 | None
    """First SYN-ACK of the server."""
    established: bool
    """SYN, SYN-ACK and the client's ACK were seen, or data both ways."""
    midstream: bool
    """The first packet is no SYN: the start was not captured."""
    handshake_rtt_s: float | None
    """SYN to the ACK of the SYN-ACK, seconds; from the last SYN before it, as tshark's ``tcp.analysis.initial_rtt``."""
    syn_ttl: U8 | None
    server_ttl: U8 | None
    """TTL of the SYN-ACK, or of the server's first data packet: the genuine server's fingerprint."""
    mss_client: U16 | None
    mss_server: U16 | None
    wscale_client: U8 | None
    wscale_server: U8 | None
    sack_client: bool | None
    sack_server: bool | None
    timestamps_client: bool | None
    timestamps_server: bool | None
    retransmissions_client: U32
    """Retransmitted data segments (keep-alives not counted), as tshark's ``tcp.analysis.retransmission`` (SYNs too)."""
    retransmissions_server: U32
    out_of_order_client: U32
    out_of_order_server: U32
    fin_client_packet: U32 | None
    fin_server_packet: U32 | None
    rst_packets: tuple[U32, ...]
    """Packet rows of resets, in order (first 16)."""
    rst_by_client: bool
    rst_by_server: bool
    rst_ttl: U8 | None
    """TTL of the first reset."""
    refused: bool
    """A SYN was answered by a reset whose ACK number is ISN+1 (RFC 9293 §3.10.7.1)."""
    max_idle_s: float
    """Longest gap between two packets, seconds."""
    idle_before_packet: U32 | None
    """Packet that ended the longest gap."""
    tail_client_unacked: U32
    """How often the client sent (retransmissions included) its first byte that was never acknowledged; 0: all was."""
    tail_server_unacked: U32
    keepalives: U32
    zero_windows: U32
    acked_unseen: U32
    """ACKs from either side that cover bytes the capture does not hold (tshark: ``tcp.analysis.ack_lost_segment``)."""
    state: str
    """One of: syn-sent, refused, syn-received, established, closed (FIN both ways), reset, half-closed, midstream."""

    @property
    def ends(self) -> str:
        """"192.0.2.1:40000 → 198.51.100.2:443", the same at every point between translators."""
        return f"{endpoint(self.client, self.client_port)} → {endpoint(self.server, self.server_port)}"


def build(tables: Tables) -> pl.DataFrame:
    """One row for each connection, in the order of their flows."""
    packets, s = tables.packets, seg.segments(tables)
    count = len(s.start)
    if not count:
        return empty(Connection)
    facts = _Facts(packets, s)
    columns = Columns(Connection, packets)
    facts.endpoints(columns, tables.points)
    facts.volume(columns)
    facts.handshake(columns)
    facts.classes(columns)
    facts.ending(columns)
    facts.idle(columns)
    columns["state"] = facts.state(columns)
    return columns.frame()


def _nullable(values: npt.NDArray[np.generic], present: Bools) -> pl.Series:
    """Values where ``present``, else null."""
    frame = pl.DataFrame({"v": values, "p": present})
    return frame.select(pl.when("p").then("v")).to_series()


class _Facts:
    """Column makers; each fills some columns of ``Connection``."""

    def __init__(self, packets: Packets, s: seg.Segments) -> None:
        self.packets = packets
        self.s = s
        self.count = len(s.start)
        self.first = s.row[s.start]
        self.last = s.row[s.start + s.size - 1]

    def _per_connection(self, mask: Bools) -> I64:
        """How many entries of each connection the mask holds."""
        return np.bincount(self.s.connection[mask], minlength=self.count)

    def _first(self, mask: Bools) -> I64:
        """First entry of each connection where the mask holds, -1 without."""
        out = np.full(self.count, -1, np.int64)
        hits = np.flatnonzero(mask)[::-1]
        out[self.s.connection[hits]] = hits
        return out

    def _row(self, entry: I64) -> pl.Series:
        """Packet row of each entry, null for -1."""
        return _nullable(self.s.row[np.maximum(entry, 0)], entry >= 0)

    def _lists(self, mask: Bools) -> pl.Series:
        """The first rows of each connection where the mask holds, as lists."""
        hits = np.flatnonzero(mask)
        found = pl.DataFrame({"c": self.s.connection[hits], "r": self.s.row[hits]})
        lists = found.group_by("c", maintain_order=True).agg(pl.col("r").head(LIST_LIMIT))
        everything = pl.DataFrame({"c": np.arange(self.count, dtype=np.uint32)})
        joined = everything.join(lists, on="c", how="left", maintain_order="left")
        return joined["r"].fill_null(pl.Series([[]], dtype=pl.List(pl.UInt32)))

    def endpoints(self, out: Columns, points: tuple[str, ...]) -> None:
        p, first = self.packets, self.first
        sent = self.s.client[self.s.start]
        source = address_texts(p, p.src[first], p.flags[first])
        destination = address_texts(p, p.dst[first], p.flags[first])
        mine = pl.DataFrame({"s": source, "d": destination, "f": sent})
        out["connection"] = np.arange(self.count, dtype=np.uint32)
        out["flow"] = p.flow[first]
        names = pl.Series(points, dtype=pl.String)
        out["point"] = names.gather(p.points(first))
        out["client"] = mine.select(pl.when("f").then("s").otherwise("d")).to_series()
        out["server"] = mine.select(pl.when("f").then("d").otherwise("s")).to_series()
        out["client_port"] = np.where(sent, p.sport[first], p.dport[first])
        out["server_port"] = np.where(sent, p.dport[first], p.sport[first])

    def volume(self, out: Columns) -> None:
        s = self.s
        out["first_ns"], out["last_ns"] = self.packets.ts[self.first], self.packets.ts[self.last]
        out["first_packet"], out["last_packet"] = self.first, self.last
        sent = self._per_connection(s.client)
        out["packets_client"], out["packets_server"] = sent, s.size - sent
        out["data_client"], out["data_server"] = s.data[:, 0], s.data[:, 1]

    def handshake(self, out: Columns) -> None:
        p, s = self.packets, self.s
        syn_only = ((s.flags & (SYN | ACK)) == SYN) & s.client
        out["syn_packets"] = self._lists(syn_only)
        out["syn_ack_packet"] = self._row(s.syn_ack)
        out["midstream"] = (s.flags[s.start] & SYN) == 0
        complete = (s.syn >= 0) & (s.syn_ack >= 0) & (s.handshake_ack >= 0)
        out["established"] = complete | ((s.data[:, 0] > 0) & (s.data[:, 1] > 0))
        rtt = (p.ts[s.row[s.handshake_ack]] - p.ts[s.row[s.syn]]) / 1e9
        out["handshake_rtt_s"] = _nullable(rtt, complete & (rtt >= 0))
        first_syn = self._first(syn_only)
        out["syn_ttl"] = _nullable(p.ttl[s.row[first_syn]], first_syn >= 0)
        witness = np.where(s.syn_ack >= 0, s.syn_ack, self._first(~s.client & (s.length > 0)))
        out["server_ttl"] = _nullable(p.ttl[s.row[witness]], witness >= 0)
        for name, entry in (("client", first_syn), ("server", s.syn_ack)):
            self._options(out, name, entry)

    def _options(self, out: Columns, name: str, entry: I64) -> None:
        p = self.packets
        there = entry >= 0
        row = self.s.row[entry[there]].astype(np.int64)
        header = p.tcp.header[np.searchsorted(p.tcp.row, row)].astype(np.int64)
        area = p.space.gather(p.offset[row] - header + 20, tcp_options.WIDTH)
        found = tcp_options.parse(area, header - 20)
        columns = (("mss", found.mss, found.mss >= 0), ("wscale", found.window_scale, found.window_scale >= 0),
                   ("sack", found.sack, None), ("timestamps", found.timestamps, None))
        for column, values, valid in columns:
            wide = np.zeros(self.count, values.dtype)
            wide[there] = values
            present = there.copy()
            if valid is not None:
                present[there] = valid
            out[f"{column}_{name}"] = _nullable(np.where(present, wide, 0).astype(values.dtype), present)

    def classes(self, out: Columns) -> None:
        s = self.s
        for name, bit in (("retransmissions", seg.RETRANSMISSION), ("out_of_order", seg.OUT_OF_ORDER)):
            mask = (s.classes & bit) != 0
            out[f"{name}_client"] = self._per_connection(mask & s.client)
            out[f"{name}_server"] = self._per_connection(mask & ~s.client)
        for name, bit in (("keepalives", seg.KEEP_ALIVE), ("zero_windows", seg.ZERO_WINDOW),
                          ("acked_unseen", seg.ACKED_UNSEEN)):
            out[name] = self._per_connection((s.classes & bit) != 0)
        out["tail_client_unacked"], out["tail_server_unacked"] = s.unacked_sends[:, 0], s.unacked_sends[:, 1]

    def ending(self, out: Columns) -> None:
        s = self.s
        fin = (s.flags & FIN) != 0
        out["fin_client_packet"] = self._row(self._first(fin & s.client))
        out["fin_server_packet"] = self._row(self._first(fin & ~s.client))
        rst = (s.flags & RST) != 0
        out["rst_packets"] = self._lists(rst)
        out["rst_by_client"] = self._per_connection(rst & s.client) > 0
        out["rst_by_server"] = self._per_connection(rst & ~s.client) > 0
        first = self._first(rst)
        out["rst_ttl"] = _nullable(self.packets.ttl[s.row[np.maximum(first, 0)]], first >= 0)
        # RFC 9293 §3.10.7.1: the reset to a SYN carries SEQ 0 and ACK = SEQ of the SYN + its length, so ISN+1.
        answers = np.flatnonzero(rst & ~s.client & ((s.flags & ACK) != 0))
        c = s.connection[answers]
        opened = (s.syn[c] >= 0) & (s.syn[c] < answers) & ((s.syn_ack[c] < 0) | (s.syn_ack[c] > answers))
        answers, c = answers[opened], c[opened]
        refused = np.zeros(self.count, np.bool_)
        refused[c[s.ack[answers] == s.seq[s.syn[c]] + 1]] = True
        out["refused"] = refused

    def idle(self, out: Columns) -> None:
        s = self.s
        longest, entry = np.zeros(self.count, np.int64), np.full(self.count, -1, np.int64)
        cuts = np.append(np.searchsorted(s.start, np.arange(0, len(s.row), BLOCK)), self.count)
        for first, behind in pairwise(np.unique(cuts).tolist()):
            begin = s.start[first]
            start, end = s.start[first:behind] - begin, s.start[behind - 1] + s.size[behind - 1]
            ts = self.packets.ts[s.row[begin:end]]
            gap = np.diff(ts, prepend=ts[:1])
            gap[start] = 0
            most = np.maximum.reduceat(gap, start)
            longest[first:behind] = np.maximum(most, 0)
            hits = np.flatnonzero((gap > 0) & (gap == np.repeat(most, s.size[first:behind])))[::-1]
            entry[s.connection[begin + hits]] = begin + hits
        out["max_idle_s"] = longest / 1e9
        out["idle_before_packet"] = self._row(entry)

    def state(self, out: Columns) -> pl.Series:
        s = self.s
        facts = pl.DataFrame({n: out[n] for n in ("refused", "fin_client_packet", "fin_server_packet", "rst_by_client",
                                                  "rst_by_server", "midstream", "established")})
        facts = facts.with_columns(syn_ack=pl.Series(s.syn_ack >= 0))
        client_fin, server_fin = pl.col("fin_client_packet").is_not_null(), pl.col("fin_server_packet").is_not_null()
        return facts.select(
            pl.when("refused").then(pl.lit("refused"))
            .when(client_fin & server_fin).then(pl.lit("closed"))
            .when(pl.col("rst_by_client") | pl.col("rst_by_server")).then(pl.lit("reset"))
            .when(client_fin | server_fin).then(pl.lit("half-closed"))
            .when("midstream").then(pl.lit("midstream"))
            .when("established").then(pl.lit("established"))
            .when("syn_ack").then(pl.lit("syn-received"))
            .otherwise(pl.lit("syn-sent"))
        ).to_series()
