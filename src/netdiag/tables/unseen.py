"""TCP bytes that their receiver acknowledged and the capture lacks: where, and who else has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from netdiag.tables.packets import FIN, RST, SYN
from netdiag.tables.tcp_segments import ACKED_UNSEEN, Segments, connection_segments, segments

if TYPE_CHECKING:
    from netdiag.tables import Tables

I64 = npt.NDArray[np.int64]


def unseen_acks(tables: Tables) -> pl.DataFrame:
    """ACKs that are the first for bytes that the capture never holds: ``connection``, ``flow``, ``packet``, ``ts_ns``.

    Resets are left out: once a connection is up nobody checks their acknowledgment number (RFC 9293 §3.5.3), so any may
    be there.
    """
    s = segments(tables)
    entry = np.flatnonzero((s.classes & ACKED_UNSEEN) != 0)
    entry = entry[((s.flags[entry] & RST) == 0) & ~_challenged(tables, s, entry)]
    row = s.row[entry]
    p = tables.packets
    return pl.DataFrame({"connection": s.connection[entry], "flow": p.flow[row], "packet": row, "ts_ns": p.ts[row]})


def _challenged(tables: Tables, s: Segments, entry: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Of connections where the server's first answer to the SYN is no SYN-ACK: it speaks of an older connection
    (RFC 5961 §4), in numbers that have nothing to do with those of this one."""
    connection = s.connection[entry]
    opened = tables.tcp.select("midstream", "data_client", pl.col("syn_ack_packet").cast(pl.Int64).fill_null(-1))
    midstream, sent, syn_ack = (opened[name].to_numpy() for name in opened.columns)
    out = np.zeros(len(tables.tcp), np.bool_)
    for c in np.unique(connection).tolist():
        block = s.block(c)
        answers = s.row[block][~s.client[block]]
        if not midstream[c] and len(answers):
            out[c] = answers[0] < syn_ack[c] if syn_ack[c] >= 0 else not sent[c]
    return out[connection]


def data_segments(tables: Tables, connections: list[int]) -> list[int]:
    """How many segments with payload of each of these connections were captured."""
    s = segments(tables)
    return [int((s.length[s.block(c)] > 0).sum()) for c in connections]


class Hole(NamedTuple):
    """Bytes of one side of a connection that were acknowledged and not captured."""

    first: int
    """Counted as in ``Segments.seq``: from the first segment of that side that was captured, mostly its SYN."""
    size: int
    raw: int
    """Sequence number on the wire."""


def hole(tables: Tables, connection: int, packet: int) -> Hole | None:
    """The first bytes that ``packet`` acknowledges and the capture lacks; None where it lacks none."""
    s = connection_segments(tables, connection)
    at = int(np.flatnonzero(s.row == packet)[0])
    limit = int(s.ack[at])
    mine = np.flatnonzero((s.client != s.client[at]) & ((s.flags & RST) == 0))
    mine = mine[np.argsort(s.seq[mine], kind="stable")]
    if not len(mine):
        return None
    begin = s.seq[mine]
    reach: I64 = np.maximum.accumulate(begin + s.length[mine] + ((s.flags[mine] & (SYN | FIN)) != 0))
    # What was sent before the capture began is not missing in it.
    floor = int(segments(tables).floor[connection, int(s.client[at])])
    reach = np.maximum(reach, floor)
    gaps = np.flatnonzero(begin[1:] > reach[:-1])
    first = int(reach[gaps[0]]) if len(gaps) else int(reach[-1])
    stop = min(limit, int(begin[gaps[0] + 1])) if len(gaps) else limit
    if first >= stop:
        return None
    p = tables.packets
    known = int(p.tcp.seq[np.searchsorted(p.tcp.row, s.row[mine[0]])])
    return Hole(first, stop - first, (known + first - int(begin[0])) & 0xFFFFFFFF)


def held_elsewhere(tables: Tables, packet: int, missing: Hole) -> int | None:
    """A packet of another capture point that holds the first missing byte, sent by whom ``packet`` answers."""
    p = tables.packets
    row = p.tcp.row[(np.uint32(missing.raw) - p.tcp.seq) < p.wire[p.tcp.row]]
    row = row[(p.src[row] == p.dst[packet]) & (p.sport[row] == p.dport[packet])
              & (p.dst[row] == p.src[packet]) & (p.dport[row] == p.sport[packet])]
    there = row[p.points(row) != p.points([packet])[0]]
    return int(there[0]) if len(there) else None
