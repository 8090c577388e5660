"""What each TCP segment is (first sending, retransmission, out of order, …), for all connections at once.

The classes follow the rules of tshark's sequence analysis ("TCP Analysis" in the Wireshark User's Guide), so that a
finding can be looked up there with the same filter. The arrays stand in *connection order*: the segments of a
connection are one block, in order of time. ``segments(tables)`` builds them once for each ``Tables`` and keeps
them as long as that lives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from netdiag.decode import store
from netdiag.tables import tcp_coverage, tcp_split, tcp_window
from netdiag.tables.packets import ACK, FIN, I64, RST, SYN, U8, U16, U32, Packets

if TYPE_CHECKING:
    from netdiag.tables import Tables

Bools = npt.NDArray[np.bool_]

# Bits of ``classes``.
RETRANSMISSION = 1
"""As ``tcp.analysis.retransmission``: also set beside FAST_RETRANSMISSION and SPURIOUS_RETRANSMISSION."""
FAST_RETRANSMISSION = 2
SPURIOUS_RETRANSMISSION = 4
"""Everything in it had been acknowledged before."""
OUT_OF_ORDER = 8
KEEP_ALIVE = 16
KEEP_ALIVE_ACK = 32
DUPLICATE_ACK = 64
ZERO_WINDOW = 128
LOST_SEGMENT = 256
"""Bytes before this segment have not been captured (yet): loss before the capture point, or in the capture."""
ACKED_UNSEEN = 512
"""Acknowledges bytes that the capture never holds, neither before nor after; first such ACK for those bytes. Not what
may have been sent before the capture began (``Segments.floor``)."""
ZERO_WINDOW_PROBE = 1024
REUSED_PORTS = 2048
"""The SYN of a connection whose four-tuple was in use before."""
ZERO_WINDOW_PROBE_ACK = 4096
WINDOW_FULL = 8192
"""Reaches exactly to the end of the window that the other side offered last (where its scale is known); no probe."""
WINDOW_UPDATE = 16384
"""Only the offered window changes."""

FAST_RETRANSMIT_NS = 20_000_000
"""tshark: longest time after the last duplicate ACK."""
REORDER_NS = 3_000_000
"""tshark: a late segment within this time is out of order, not retransmitted, when the initial RTT is not known."""
_BLOCK = 1 << 16
"""Segments analysed at once (measured)."""
_PROBE_TURNS = 8
"""Zero-window probes are few; where they are not settled after this, some may be named wrongly (practice)."""


@dataclass(slots=True)
class Segments:
    """One entry for each TCP segment, in connection order; ``start`` and ``size`` have one for each connection."""

    row: U32
    """Packet row."""
    connection: U32
    client: Bools
    """Sent by the client."""
    seq: I64
    """Sequence number counted from the first segment of that side in the connection, across wrap-around."""
    ack: I64
    """Acknowledgment number in the other side's count; from the first ACK where the other side was not captured."""
    length: U32
    """Payload bytes on the wire."""
    flags: U8
    classes: U16
    start: I64
    size: I64
    syn: I64
    """For each connection, the entry of the client's last SYN before ``handshake_ack`` (or its last at all), -1
    without."""
    syn_ack: I64
    """First SYN-ACK of the server, -1 without."""
    handshake_ack: I64
    """First ACK of the client behind it (or behind the SYN, where no SYN-ACK was captured), -1 without."""
    data: I64
    """Shape (connections, 2): distinct payload bytes on the wire of client and server."""
    unacked_sends: I64
    """Shape (connections, 2): how often client and server sent their first byte that was never acknowledged."""
    floor: I64
    """Shape (connections, 2): sequence numbers of client and server below which they may have sent before the capture
    began; ``tcp_coverage.LOWEST`` where that is not so."""

    def block(self, connection: int) -> slice:
        a = int(self.start[connection])
        return slice(a, a + int(self.size[connection]))


@dataclass(slots=True)
class ConnectionSegments:
    """The segments of one connection, in order of time; columns as in ``Segments``."""

    row: U32
    client: Bools
    classes: U16
    seq: I64
    ack: I64
    length: U32
    flags: U8


_cache: WeakKeyDictionary[Tables, Segments] = WeakKeyDictionary()


def segments(tables: Tables) -> Segments:
    """The segment analysis of all connections, built on first use."""
    found = _cache.get(tables)
    if found is None:
        found = _cache[tables] = analyse(tables.packets)
    return found


def connection_segments(tables: Tables, connection: int) -> ConnectionSegments:
    """Segments of one connection (row number of ``Tables.tcp``); views, not copies."""
    s = segments(tables)
    b = s.block(connection)
    return ConnectionSegments(s.row[b], s.client[b], s.classes[b], s.seq[b], s.ack[b], s.length[b], s.flags[b])


def analyse(packets: Packets) -> Segments:
    """All of it, from the packet table alone; some flows at a time, which bounds memory and stays near the cache."""
    column = tcp_split.by_flow(packets)
    n = len(column)
    none = np.empty(0, np.int64)
    row, connection, client, seq, ack, length, flags, classes = (
        store.column(kind, n) for kind in ("u4", "u4", "?", "i8", "i8", "u4", "u1", "u2"))
    out = Segments(row, connection, client, seq, ack, length, flags, classes,
                   none, none, none, none, none, none, none, none)
    parts: list[Segments] = []
    connections = 0
    for begin, end in tcp_split.blocks(packets, column, _BLOCK):
        part = _analyse(packets, column[begin:end])
        part.connection += np.uint32(connections)
        connections += len(part.start)
        for name in ("row", "connection", "client", "seq", "ack", "length", "flags", "classes"):
            getattr(out, name)[begin:end] = getattr(part, name)
            setattr(part, name, None)
        for name in ("start", "syn", "syn_ack", "handshake_ack"):
            entry = getattr(part, name)
            entry[entry >= 0] += begin
        parts.append(part)
    for name in ("start", "size", "syn", "syn_ack", "handshake_ack", "data", "unacked_sends", "floor"):
        setattr(out, name, _joined([getattr(part, name) for part in parts]))
        for part in parts:
            setattr(part, name, None)
    return out


def _joined(parts: list[I64]) -> I64:
    """One column of facts about connections."""
    wide = parts[0].shape[1:] if parts else ()
    whole = store.column("i8", sum(map(np.size, parts))).reshape(-1, *wide)
    np.concatenate(parts, out=whole)
    return whole


def _analyse(packets: Packets, column: npt.NDArray[np.int32]) -> Segments:
    """The segments of whole flows; entries and connections count from the first of these."""
    s = tcp_split.split(packets, column)
    by = tcp_split.sides(s)
    count = len(s.start)
    length = s.length.astype(np.int64)
    seq = np.empty(len(s.row), np.int64)
    seq[by.order] = tcp_split.unwrapped(s.raw_seq[by.order], by.start, by.side)
    ack = _relative_ack(s, by, seq)
    syn, syn_ack, handshake_ack = _handshake(s)
    rtt = np.zeros(count, np.int64)
    met = (syn >= 0) & (handshake_ack >= 0)
    rtt[met] = s.ts[handshake_ack[met]] - s.ts[syn[met]]
    classes = np.empty(len(s.row), np.uint16)
    classes[by.order] = _classify(s, by, seq, ack, length, rtt)
    classes[s.reused] |= REUSED_PORTS
    full = tcp_window.full(packets, s)
    classes[full[(classes[full] & ZERO_WINDOW_PROBE) == 0]] |= WINDOW_FULL

    opposite = np.full(len(by.start), -1, np.int64)
    for mine, other in ((0, 1), (1, 0)):
        sent = by.number[:, mine] >= 0
        opposite[by.number[sent, mine]] = by.number[sent, other]
    soon = s.ts - s.ts[s.start][s.connection] <= tcp_coverage.IN_FLIGHT_NS
    # A SYN-ACK may come first because it came again: the client may have sent by then.
    head = by.order[by.start]
    begun = ((s.flags[s.start] & (SYN | ACK)) != SYN)[s.connection[head]] & ((s.flags[head] & SYN) == 0)
    coverage = tcp_coverage.measure(by, opposite, seq[by.order], ack[by.order], length[by.order], s.flags[by.order],
                                    soon[by.order], begun)
    classes[by.order[coverage.acked_unseen]] |= ACKED_UNSEEN
    size = np.diff(np.append(s.start, len(s.row)))
    return Segments(s.row, s.connection.astype(np.uint32), s.client, seq, ack, s.length, s.flags, classes,
                    s.start, size, syn, syn_ack, handshake_ack,
                    _both(by, coverage.data), _both(by, coverage.unacked_sends),
                    _both(by, coverage.floor, tcp_coverage.LOWEST))


def _both(by: tcp_split.Sides, per_side: I64, otherwise: int = 0) -> I64:
    out = np.full(by.number.shape, otherwise, np.int64)
    sent = by.number >= 0
    out[sent] = per_side[by.number[sent]]
    return out


def _relative_ack(s: tcp_split.Split, by: tcp_split.Sides, seq: I64) -> I64:
    """ACK numbers in the count of the other side: measured from that side's nearest segment before, else its first."""
    side_of = by.number[s.connection, s.client.astype(np.int64)]  # column 1 is the server: the other side of the client
    reference = s.other.copy()
    unseen = np.flatnonzero(reference < 0)
    later = side_of[unseen]
    reference[unseen] = np.where(later >= 0, by.order[by.start[later]], -1) if len(unseen) else reference[unseen]
    out = seq[reference] + (s.raw_ack - s.raw_seq[reference]).view(np.int32)
    alone = np.flatnonzero(side_of < 0)
    if len(alone):
        # Nothing of the other side was captured: count from this side's first ACK, to show whether they advance.
        alone = alone[(s.flags[alone] & ACK) != 0]
        group = s.connection[alone]
        first = np.ones(len(alone), np.bool_)
        first[1:] = group[1:] != group[:-1]
        out[side_of < 0] = 0
        out[alone] = tcp_split.unwrapped(s.raw_ack[alone], np.flatnonzero(first), np.cumsum(first) - 1)
    return out


def _handshake(s: tcp_split.Split) -> tuple[I64, I64, I64]:
    count = len(s.start)
    entry = np.arange(len(s.row))
    kind = s.flags & (SYN | ACK | RST)
    syn_ack = tcp_split.first_of((kind == (SYN | ACK)) & ~s.client, s.connection, count)
    syns = np.flatnonzero(((kind & (SYN | ACK)) == SYN) & s.client)
    before = syns[(syns < syn_ack[s.connection[syns]]) | (syn_ack[s.connection[syns]] < 0)]
    syn = np.full(count, -1, np.int64)
    syn[s.connection[before]] = before
    # Where the SYN-ACK was not captured, the client's first ACK shows that there was one.
    after = np.where(syn_ack >= 0, syn_ack, np.where(syn >= 0, syn, len(s.row)))
    hits = np.flatnonzero(s.client & (kind == ACK) & (entry > after[s.connection]))
    c = s.connection[hits]
    accepts = (s.raw_ack[hits] - s.raw_seq[np.maximum(syn_ack, 0)][c]).view(np.int32) >= 1
    hits = hits[accepts | (syn_ack[c] < 0)]
    first = np.full(count, -1, np.int64)
    first[s.connection[hits[::-1]]] = hits[::-1]
    # A SYN that came again behind the SYN-ACK: that one was lost, and the wait for the next try is no round trip (RFC
    # 6298 §3: Karn).
    again = syns[(syn_ack[s.connection[syns]] >= 0) & (syns < first[s.connection[syns]])]
    syn[s.connection[again]] = again
    return syn, syn_ack, first


def _classify(s: tcp_split.Split, by: tcp_split.Sides, seq_c: I64, ack_c: I64, length_c: I64, rtt: I64) -> U16:
    """Classes in side order; the names of the conditions are those of tshark's analysis."""
    order, start, side = by.order, by.start, by.side
    n = len(order)
    out = np.zeros(n, np.uint16)
    if not n:
        return out
    seq, length, flags, ts = seq_c[order], length_c[order], s.flags[order], s.ts[order]
    window, raw_ack = s.window[order], s.raw_ack[order]
    other = s.other[order]
    has_other = other >= 0
    known = np.ones(n, np.bool_)  # something of this side came before
    known[start] = False
    plain = (flags & (SYN | FIN | RST)) == 0
    counts = length + ((flags & (SYN | FIN)) != 0)
    end = seq + counts

    # A zero-window probe does not move the next expected number, and that number decides what a probe is: begin with
    # all candidates and repeat until nothing changes. Each turn settles at least one more candidate of each side.
    candidate = np.flatnonzero(known & (length == 1) & has_other)
    candidate = candidate[s.window[other[candidate]] == 0]
    probe, reach = candidate, end
    for _ in range(_PROBE_TURNS if len(candidate) else 0):
        reach = end.copy()
        reach[probe] = seq[start][side[probe]]
        again = candidate[seq[candidate] == _before(tcp_split.running_max(reach, start, side))[candidate]]
        if np.array_equal(again, probe):
            break
        probe = again
    out[probe] |= ZERO_WINDOW_PROBE
    highest = tcp_split.running_max(reach, start, side)
    expected = _before(highest)  # tshark's nextseq; meaningless where not known
    entry = np.arange(n)
    advanced = ~known | (highest > expected)
    when = ts[_before(np.maximum.accumulate(np.where(advanced, entry, 0)))]  # when the next expected number was reached

    no_probe = out == 0
    shut = np.flatnonzero(window == 0)
    out[shut[plain[shut] & no_probe[shut]]] |= ZERO_WINDOW
    out[np.flatnonzero(known & (seq > expected) & ((flags & RST) == 0) & no_probe)] |= LOST_SEGMENT
    keep_alive = known & (length <= 1) & (seq == expected - 1) & plain & no_probe
    out[np.flatnonzero(keep_alive)] |= KEEP_ALIVE

    same_ack = np.zeros(n, np.bool_)
    same_ack[1:] = known[1:] & (raw_ack[1:] == raw_ack[:-1])
    repeats = np.flatnonzero(same_ack & (length == 0) & (seq == expected) & plain)
    open_, same_window = window[repeats] != 0, window[repeats] == window[repeats - 1]
    out[repeats[open_ & ~same_window]] |= WINDOW_UPDATE
    repeats, open_ = repeats[same_window], open_[same_window]
    peer = other[repeats]
    answered = np.where(peer >= 0, out[by.place[peer]], 0)
    out[repeats[~open_ & ((answered & ZERO_WINDOW_PROBE) != 0)]] |= ZERO_WINDOW_PROBE_ACK
    after_keep_alive = (answered & KEEP_ALIVE) != 0
    out[repeats[open_ & after_keep_alive]] |= KEEP_ALIVE_ACK
    repeats = repeats[open_ & ~after_keep_alive]
    out[repeats] |= DUPLICATE_ACK
    duplicate = np.zeros(n, np.bool_)
    duplicate[repeats] = True
    total = np.cumsum(duplicate)
    duplicates: I64 = total - total[np.maximum.accumulate(np.where(same_ack, 0, entry))]

    some = np.flatnonzero((counts > 0) & known & ~keep_alive & ((seq < expected) | has_other))
    peer = other[some]
    acked = (length[some] > 0) & (peer >= 0) & (s.raw_ack[peer] != 0) & (ack_c[peer] >= seq[some] + length[some])
    out[some[acked]] |= SPURIOUS_RETRANSMISSION | RETRANSMISSION
    late = (seq[some] < expected[some]) & ~((length[some] > 1) & (seq[some] == expected[some] - 1)) & ~acked
    some, peer = some[late], peer[late]
    place = by.place[peer]
    wait = ts[some] - s.ts[peer]
    fast = (peer >= 0) & (duplicates[place] >= 2) & (s.raw_ack[peer] == s.raw_seq[order[some]])
    fast &= (wait >= 0) & (wait < FAST_RETRANSMIT_NS)
    out[some[fast]] |= FAST_RETRANSMISSION | RETRANSMISSION
    some = some[~fast]
    wait = ts[some] - when[some]
    limit = rtt[s.connection[order[some]]]
    limit = np.where(limit > 0, limit, REORDER_NS)
    reordered = (wait >= 0) & (wait < limit) & (end[some] != expected[some])
    out[some[reordered]] |= OUT_OF_ORDER
    out[some[~reordered]] |= RETRANSMISSION
    return out


def _before(values: I64) -> I64:
    out = np.empty_like(values)
    out[:1] = 0
    out[1:] = values[:-1]
    return out
