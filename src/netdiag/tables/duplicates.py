"""Packets that a capture holds twice: a mirror of both sides of a switch port, all interfaces of a host, a routed hop.

A packet repeats another one when everything that its sender wrote is the same (addresses, ports, IP identification,
the TCP header or the UDP payload), it comes within ``WINDOW_NS``, and its TTL is the same or lower, as behind a router.
A retransmission is a packet of its own: it has another IP identification where the sender counts those, and it comes
a round trip later at the earliest. Copies of fragments are set aside one by one, before datagrams are put together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from netdiag.capture.space import Space
from netdiag.decode.frames import FRAGMENT, REASSEMBLED, Piece
from netdiag.decode.store import Columns
from netdiag.tables.packets import FIN, IPV6, SYN, Duplicates

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]
Pairs = tuple[I64, I64]

WINDOW_NS = 5_000_000
"""Longest time between a packet and its copy (practice)."""
UNNUMBERED_NS = 1_000_000
"""The same for packets without IP identification (IPv6, atomic datagrams of RFC 6864 §4.1), which a hasty
retransmission can equal (practice)."""
REACH = 4
"""Packets of the same flow looked back at: copies of a burst may follow the burst (practice)."""
_COMPARED = 4096
"""Bytes of payload compared; longer packets with equal beginnings within the window are one packet (practice)."""
_PIECES = 1 << 16
"""Fragments remembered (practice): far more than come within the window."""
_AT_ONCE, _STEP = 1 << 16, 64
"""Pairs and bytes of them compared at once."""


def find(space: Space, columns: Columns, order: U32, flow: U32, tcp: Columns, v6: Sequence[bytes]) -> Pairs:
    """(row, row that it repeats) of copies among the packets of each flow.

    ``order`` has the rows by flow, ``flow`` the flow of each row, ``v6`` the addresses that IPv6 columns point to.
    """
    # What is left of a fragment beside its datagram has no payload to compare.
    pieces = (columns["flags"] & (FRAGMENT | REASSEMBLED)) == FRAGMENT
    if pieces.any():
        order = order[~pieces[order]]
    n = len(order)
    none = np.empty(0, np.int64)
    if n < 2:
        return none, none
    key = _keys(space, columns, tcp)[order]
    everybody = np.array([address[0] == 0xFF for address in v6] or [False])
    repeats = np.zeros(0, np.int64)
    for back in range(1, min(REACH, n - 1) + 1):
        alike = np.flatnonzero(key[back:] == key[:-back]) + back
        alike = alike[flow[order[alike]] == flow[order[alike - back]]]
        alike = alike[_equal(space, columns, order[alike], order[alike - back], tcp, everybody)]
        if len(alike):
            repeats = np.full(n, -1, np.int64) if not len(repeats) else repeats
            alike = alike[repeats[alike] < 0]
            repeats[alike] = alike - back
    if not len(repeats):
        return none, none
    copies = np.flatnonzero(repeats >= 0)
    first = np.where(repeats >= 0, repeats, np.arange(n))
    while (first[first] != first).any():  # a copy of a copy repeats the first one
        first = first[first]
    return order[copies].astype(np.int64), order[first[copies]].astype(np.int64)


def together(columns: Columns, *found: Pairs) -> Duplicates | None:
    """The table of all these copies; None without any."""
    rows, of = (np.concatenate([pair[i] for pair in found]) for i in (0, 1))
    if not len(rows):
        return None
    by_row = np.argsort(rows)
    rows, of = rows[by_row], of[by_row]
    lower = columns["ttl"][rows] != columns["ttl"][of]
    return Duplicates(rows.astype(np.uint32), of.astype(np.uint32), lower.astype(np.uint8))


def of_pieces(space: Space, columns: Columns, pieces: list[Piece], points: list[int]) -> tuple[list[Piece], Pairs]:
    """Fragments without their copies, and the copies: a datagram would be put together from what is left of each."""
    kept: list[Piece] = []
    latest: dict[tuple[object, ...], Piece] = {}
    rows, of = [], []
    ts, ttl = columns["ts"], columns["ttl"]
    for piece, point in zip(pieces, points, strict=True):
        key = (point, piece.version, piece.src, piece.dst, piece.proto, piece.id, piece.start, piece.more, piece.size,
               piece.captured)
        if len(latest) >= _PIECES:
            latest.clear()
        before = latest.setdefault(key, piece)
        size = min(piece.captured, _COMPARED)
        if before is not piece and abs(int(ts[piece.row]) - int(ts[before.row])) <= WINDOW_NS \
                and ttl[piece.row] <= ttl[before.row] and space.view(piece.at, size) == space.view(before.at, size):
            rows.append(piece.row)
            of.append(before.row)
        else:
            kept.append(piece)
            latest[key] = piece
    return kept, (np.array(rows, np.int64), np.array(of, np.int64))


def _keys(space: Space, columns: Columns, tcp: Columns) -> U32:
    """What a copy shares with its original, in 32 bits; few other packets of a flow do."""
    # The first bytes of a payload hold what changes: sequence numbers of RTP, transaction ids of DNS.
    key: U32 = space.numbers("<u4")[columns["offset"]]
    key[tcp["row"]] = tcp["seq"] ^ (tcp["ack"] * np.uint32(3))
    key ^= columns["ip_id"]
    key ^= columns["wire"] << np.uint32(17)
    return key


def _equal(space: Space, columns: Columns, rows: U32, others: U32, tcp: Columns, everybody: Mask) -> Mask:
    """Exactly: is each of ``rows`` a copy of the packet beside it in ``others``? ``everybody``: IPv6 multicast."""
    wait = np.abs(columns["ts"][rows] - columns["ts"][others])  # two interfaces are not always written in order
    numbered = columns["ip_id"][rows] != 0
    same: Mask = wait <= np.where(numbered, WINDOW_NS, UNNUMBERED_NS)
    for name in ("src", "sport", "ip_id", "wire", "length"):
        same &= columns[name][rows] == columns[name][others]
    if "encap" in columns:  # a router sends its own greetings, all alike, into each of its VLANs
        same &= numbered | (columns["encap"][rows] == columns["encap"][others]) | ~_to_many(columns, rows, everybody)
    same &= columns["ttl"][rows] <= columns["ttl"][others]
    index = np.flatnonzero(same)
    header = np.zeros(len(rows), np.int64)
    # Without identification and payload, a copy cannot be told from a packet sent twice: bare ACKs, resets.
    told = numbered | (columns["length"][rows] > 0)
    if len(index) and len(tcp["row"]):
        place, whole = _place(tcp, rows[index])
        partner, its = _place(tcp, others[index])
        same[index] &= whole == its
        mine = index[whole & its]
        a, b = place[whole & its], partner[whole & its]
        same[mine] = tcp["header"][a] == tcp["header"][b]
        header[mine] = tcp["header"][a]  # compared like payload: sequence numbers, flags, window, timestamps
        # SYN and FIN are repeated after the retransmission timeout only (RFC 6298 §2.4: one second, in practice 0.2).
        told[mine] |= (tcp["flags"][a] & (SYN | FIN)) != 0
    same &= told
    for begin in range(0, len(index), _AT_ONCE):
        some = index[begin : begin + _AT_ONCE]
        some = some[same[some]]
        same[some] &= _same_bytes(space, columns, rows[some], others[some], header[some])
    return same


def _place(tcp: Columns, rows: U32) -> tuple[I64, Mask]:
    """Where these rows stand in the columns of TCP, and which do."""
    place = np.minimum(np.searchsorted(tcp["row"], rows), len(tcp["row"]) - 1)
    return place, tcp["row"][place] == rows


def _to_many(columns: Columns, rows: U32, everybody: Mask) -> Mask:
    """Are these for a multicast or broadcast address?"""
    to, six = columns["dst"][rows], (columns["flags"][rows] & IPV6) != 0
    many: Mask = (to >> np.uint32(28)) >= 14
    many[six] = everybody[to[six]]
    return many


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
