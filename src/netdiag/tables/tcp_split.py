"""Which segments make a connection, who is its client, and sequence numbers without wrap-around."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from netdiag.tables.packets import ACK, FORWARD, I64, SYN, U8, U16, U32, Packets

Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Split:
    """Columns in connection order: the segments of a connection are one block, in order of time."""

    column: I64
    """Index into ``Packets.tcp``."""
    row: U32
    ts: I64
    raw_seq: U32
    raw_ack: U32
    window: U16
    flags: U8
    length: U32
    connection: I64
    client: Bools
    start: I64
    """For each connection, its first entry."""
    reused: I64
    """Entries of the SYNs that began another connection on a used four-tuple."""
    other: I64
    """Last entry of the other side before this one in the same connection, -1 without."""


@dataclass(slots=True)
class Sides:
    """The same segments sorted by connection and side, client first: *side order*."""

    order: I64
    """Side order to connection order."""
    place: I64
    """Connection order to side order."""
    start: I64
    """First entry (in side order) of each side that sent anything."""
    side: I64
    """Number of the side of each entry in side order."""
    number: I64
    """Shape (connections, 2): side number of client and server, -1 where that side sent nothing."""


def by_flow(packets: Packets) -> npt.NDArray[np.int32]:
    """Indices into ``Packets.tcp``, the segments of a flow together and in order of time."""
    place = np.full(packets.n, -1, np.int32)
    place[packets.tcp.row] = np.arange(len(packets.tcp.row), dtype=np.int32)
    column = place[packets.order]
    return column[column >= 0]


def blocks(packets: Packets, column: npt.NDArray[np.int32], size: int) -> list[tuple[int, int]]:
    """Cuts ``column`` between flows into parts of ``size`` or, where a flow is longer, a little more."""
    flow = packets.flow[packets.tcp.row[column]]
    first = np.flatnonzero(np.append(True, flow[1:] != flow[:-1])) if len(flow) else np.empty(0, np.int64)
    wanted = np.arange(size, len(column), size)
    cuts = np.unique(np.append(first, len(column))[np.searchsorted(first, wanted)]).tolist()
    edges = [0, *(c for c in cuts if 0 < c < len(column)), len(column)]
    return list(pairwise(edges))


def split(packets: Packets, column: npt.NDArray[np.int32]) -> Split:
    """Groups the segments of whole flows into connections, as tshark's ``tcp.stream`` does."""
    tcp = packets.tcp
    row = tcp.row[column]
    flags, seq, ack = tcp.flags[column], tcp.seq[column], tcp.ack[column]
    flow = packets.flow[row]
    forward = (packets.flags[row] & FORWARD) != 0
    first = np.ones(len(row), np.bool_)
    first[1:] = flow[1:] != flow[:-1]
    reused = _reused(flow, forward, first, flags, seq, ack)
    first[reused] = True
    start = np.flatnonzero(first)
    connection = np.cumsum(first) - 1
    client = forward == _client_is_forward(packets, row, forward, flags, connection, start)[connection]
    entry = np.arange(len(row))
    last_client = np.maximum.accumulate(np.where(client, entry, -1)) if len(row) else entry
    last_server = np.maximum.accumulate(np.where(client, -1, entry)) if len(row) else entry
    other = np.where(client, last_server, last_client)
    other[other < start[connection]] = -1
    return Split(column.astype(np.int64), row, packets.ts[row], seq, ack, tcp.window[column], flags, packets.wire[row],
                 connection, client, start, reused, other)


def first_of(mask: Bools, connection: I64, connections: int) -> I64:
    """For each connection the first entry where ``mask`` is true, -1 without."""
    out = np.full(connections, -1, np.int64)
    hits = np.flatnonzero(mask)[::-1]
    out[connection[hits]] = hits  # reversed: the first entry is written last
    return out


def _reused(flow: U32, forward: Bools, first: Bools, flags: U8, seq: U32, ack: U32) -> I64:
    """Entries of SYNs that start another connection: their ISN is not the one this side had announced before."""
    only = (flags & (SYN | ACK)) == SYN
    with_syn = np.flatnonzero(flags & SYN)
    if not len(with_syn):
        return with_syn
    key = flow[with_syn].astype(np.int64) * 2 + forward[with_syn]
    by_side = np.argsort(key, kind="stable")
    at, key = with_syn[by_side], key[by_side]
    known = np.zeros(len(at), np.bool_)
    known[1:] = key[1:] == key[:-1]
    other_isn = np.zeros(len(at), np.bool_)
    other_isn[1:] = known[1:] & (seq[at[1:]] != seq[at[:-1]])
    again = at[other_isn & only[at]]
    # First SYN of this side, yet something came before: mid-stream packets of an earlier connection on these ports,
    # unless it is only the other side's SYN (simultaneous open) or a SYN-ACK for this SYN (captured in wrong order).
    late = at[~known & only[at] & ~first[at]]
    if len(late):
        others = np.cumsum(~only)
        begin = np.maximum.accumulate(np.where(first, np.arange(len(flow)), 0))[late]
        before = others[late - 1] - others[begin] + ~only[begin]
        answer = ((flags[late - 1] & (SYN | ACK)) == (SYN | ACK)) & (ack[late - 1] == seq[late] + np.uint32(1))
        late = late[(before > 1) | ((before == 1) & ~answer)]
    return np.concatenate([again, late])


def _client_is_forward(packets: Packets, row: U32, forward: Bools, flags: U8, connection: I64, start: I64) -> Bools:
    """For each connection: is the client the sender of the flow's first packet?"""
    count = len(start)
    begin = row[start]
    sport, dport = packets.sport[begin], packets.dport[begin]
    # Without a handshake the higher port is the client; equal ports: who sent first.
    out = np.where(sport == dport, forward[start], (sport > dport) == forward[start])
    syn = first_of((flags & (SYN | ACK)) == SYN, connection, count)
    answer = first_of((flags & (SYN | ACK)) == (SYN | ACK), connection, count)
    has_answer = answer >= 0
    out[has_answer] = ~forward[answer[has_answer]]
    has_syn = syn >= 0
    out[has_syn] = forward[syn[has_syn]]
    return out


def sides(s: Split) -> Sides:
    """Sorts by side in linear time: a stable partition of each connection's block."""
    n, count = len(s.row), len(s.start)
    entry = np.arange(n)
    sent = np.cumsum(s.client) if n else entry
    before = sent[s.start] - s.client[s.start]
    clients = np.add.reduceat(s.client, s.start, dtype=np.int64) if n else np.zeros(0, np.int64)
    so_far = sent - before[s.connection]
    block = s.start[s.connection]
    place = block + np.where(s.client, so_far - 1, clients[s.connection] + (entry - block) - so_far)
    order = np.empty(n, np.int64)
    order[place] = entry
    change = np.ones(n, np.bool_)
    connection, client = s.connection[order], s.client[order]
    change[1:] = (connection[1:] != connection[:-1]) | (client[1:] != client[:-1])
    start = np.flatnonzero(change)
    number = np.full((count, 2), -1, np.int64)
    number[connection[start], 1 - client[start]] = np.arange(len(start))
    return Sides(order, place, start, np.cumsum(change) - 1, number)


def unwrapped(raw: U32, start: I64, group: I64) -> I64:
    """Counts 32-bit sequence numbers from the first of each group: sums of signed differences (RFC 9293 §3.4)."""
    if not len(raw):
        return np.zeros(0, np.int64)
    step = np.zeros(len(raw), np.int64)
    step[1:] = (raw[1:] - raw[:-1]).view(np.int32)
    step[start] = 0
    total = np.cumsum(step)
    return total - total[start][group]


def running_max(values: I64, start: I64, group: I64) -> I64:
    """Running maximum inside each group (groups are consecutive)."""
    if not len(values):
        return values
    shift = apart(np.minimum.reduceat(values, start), np.maximum.reduceat(values, start))[group]
    return np.maximum.accumulate(values + shift) - shift


def apart(low: I64, high: I64) -> I64:
    """What to add to each group's values so that the ranges low..high of the groups follow one another, disjoint."""
    width: I64 = high - low + 1
    end: I64 = np.cumsum(width)
    return end - width - low


