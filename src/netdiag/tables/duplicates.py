"""Packets that a capture holds twice: a mirror of both sides of a switch port, all interfaces of a host, a routed hop.

A packet repeats another one when everything that its sender wrote is the same (addresses, ports, IP identification,
the TCP header or the UDP payload), it comes within ``WINDOW_NS``, and its TTL is the same or lower, as behind a router.
A retransmission is a packet of its own: it has another IP identification where the sender counts those, and it comes
a round trip later at the earliest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space
from netdiag.decode.frames import Columns
from netdiag.tables.packets import Duplicates

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]

WINDOW_NS = 5_000_000
"""Longest time between a packet and its copy (practice)."""
UNNUMBERED_NS = 1_000_000
"""The same for packets without IP identification (IPv6, atomic datagrams of RFC 6864 §4.1), which a hasty
retransmission can equal (practice)."""
REACH = 4
"""Packets of the same flow looked back at: copies of a burst may follow the burst (practice)."""
_COMPARED = 4096
"""Bytes of payload compared; longer packets with equal beginnings within the window are one packet (practice)."""
_AT_ONCE, _STEP = 1 << 16, 64
"""Pairs and bytes of them compared at once."""


def find(space: Space, columns: Columns, order: U32, flow: U32, tcp: Columns) -> Duplicates | None:
    """Copies among the packets of each flow; ``order`` has the rows by flow, ``flow`` the flow of each row."""
    n = len(order)
    if n < 2:
        return None
    key = _keys(space, columns, tcp)[order]
    repeats = np.full(n, -1, np.int64)
    for back in range(1, min(REACH, n - 1) + 1):
        alike = np.flatnonzero(key[back:] == key[:-back]) + back
        alike = alike[(repeats[alike] < 0) & (flow[order[alike]] == flow[order[alike - back]])]
        alike = alike[_equal(space, columns, order[alike], order[alike - back], tcp)]
        repeats[alike] = alike - back
    copies = np.flatnonzero(repeats >= 0)
    if not len(copies):
        return None
    source = repeats[copies]
    for _ in range(REACH):  # a copy of a copy repeats the first one
        again = repeats[source] >= 0
        source[again] = repeats[source[again]]
    rows, of = order[copies], order[source]
    by_row = np.argsort(rows)
    rows, of = rows[by_row], of[by_row]
    lower = columns["ttl"][rows] != columns["ttl"][of]
    return Duplicates(rows.astype(np.uint32), of.astype(np.uint32), lower.astype(np.uint8))


def _keys(space: Space, columns: Columns, tcp: Columns) -> U32:
    """What a copy shares with its original, in 32 bits; few other packets of a flow do."""
    # The first bytes of a payload hold what changes: sequence numbers of RTP, transaction ids of DNS.
    key: U32 = space.numbers("<u4")[columns["offset"]]
    key[tcp["row"]] = tcp["seq"] ^ (tcp["ack"] * np.uint32(3))
    key ^= columns["ip_id"]
    key ^= columns["wire"] << np.uint32(17)
    return key


def _equal(space: Space, columns: Columns, rows: U32, others: U32, tcp: Columns) -> Mask:
    """Exactly: is each of ``rows`` a copy of the packet beside it in ``others``?"""
    wait = columns["ts"][rows] - columns["ts"][others]
    numbered = columns["ip_id"][rows] != 0
    same = (wait >= 0) & (wait <= np.where(numbered, WINDOW_NS, UNNUMBERED_NS))
    for name in ("src", "sport", "ip_id", "wire", "length"):
        same &= columns[name][rows] == columns[name][others]
    # Without identification and payload, a copy cannot be told from a packet sent twice (bare ACKs).
    same &= numbered | (columns["length"][rows] > 0)
    if "encap" in columns:  # a router sends its own greetings, all alike, into each of its VLANs
        same &= numbered | (columns["encap"][rows] == columns["encap"][others])
    same &= columns["ttl"][rows] <= columns["ttl"][others]
    index = np.flatnonzero(same)
    header = np.zeros(len(rows), np.int64)
    if len(index) and len(tcp["row"]):
        place = np.searchsorted(tcp["row"], rows[index])
        is_tcp = tcp["row"][np.minimum(place, len(tcp["row"]) - 1)] == rows[index]
        mine = index[is_tcp]
        a, b = place[is_tcp], np.searchsorted(tcp["row"], others[mine])
        same[mine] = tcp["header"][a] == tcp["header"][b]
        header[mine] = tcp["header"][a]  # compared like payload: sequence numbers, flags, window, timestamps
    for begin in range(0, len(index), _AT_ONCE):
        some = index[begin : begin + _AT_ONCE]
        some = some[same[some]]
        same[some] &= _same_bytes(space, columns, rows[some], others[some], header[some])
    return same


def _same_bytes(space: Space, columns: Columns, rows: U32, others: U32, header: I64) -> Mask:
    """Payload, and before it ``header`` bytes, of pairs of packets of equal length."""
    size = np.minimum(columns["length"][rows].astype(np.int64), _COMPARED) + header
    here, there = columns["offset"][rows] - header, columns["offset"][others] - header
    same = np.ones(len(rows), np.bool_)
    todo, begin = np.flatnonzero(size > 0), 0
    while len(todo):
        differ = space.gather(here[todo] + begin, _STEP) != space.gather(there[todo] + begin, _STEP)
        differ &= np.arange(begin, begin + _STEP) < size[todo, None]
        same[todo] = ~differ.any(axis=1)
        begin += _STEP
        todo = todo[same[todo] & (size[todo] > begin)]
    return same
