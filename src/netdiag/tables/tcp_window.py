"""Where a sender filled the window that the other side had offered (RFC 9293 §3.8.6, RFC 7323 §2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from netdiag.decode import tcp_options
from netdiag.tables.packets import FIN, I64, RST, SYN, Packets
from netdiag.tables.tcp_split import Split

_MOST = 14
"""Largest shift count (RFC 7323 §2.3)."""


def full(packets: Packets, s: Split) -> I64:
    """Entries whose last byte is the last one that fits into the window offered by the other side.

    Only where the SYNs of both sides tell whether windows are scaled: the field alone may mean 64 kB or 1 GB.
    """
    entry = np.flatnonzero((s.length > 0) & (s.other >= 0) & ((s.flags & (SYN | FIN | RST)) == 0))
    other = s.other[entry]
    offered = s.window[other].astype(np.uint32)
    used = s.raw_seq[entry] + s.length[entry] - s.raw_ack[other]
    # Few are a power of two times the window: only for those is the scale looked up.
    times = used // np.maximum(offered, 1)
    some = np.flatnonzero((times * offered == used) & (times & (times - 1) == 0) & ((times > 0) | (offered == 0)))
    entry, other, offered, used = entry[some], other[some], offered[some], used[some]
    if not len(entry):
        return entry
    shift = _shifts(packets, s, np.unique(s.connection[entry]))[s.connection[entry], s.client[other].astype(np.int64)]
    shift = np.where((s.flags[other] & SYN) != 0, np.minimum(shift, 0), shift)  # the window of a SYN is not scaled
    out: I64 = entry[(shift >= 0) & (offered.astype(np.int64) << np.maximum(shift, 0) == used)]
    return out


def _shifts(packets: Packets, s: Split, connections: I64) -> npt.NDArray[np.int8]:
    """Shape (all connections, 2): shift count of server and client, -1 unknown; filled for ``connections`` alone."""
    out = np.full((len(s.start), 2), -1, np.int8)
    mine = np.zeros(len(s.start), np.bool_)
    mine[connections] = True
    syn = np.flatnonzero(((s.flags & SYN) != 0) & mine[s.connection])
    column = s.column[syn]
    row = packets.tcp.row[column].astype(np.int64)
    header = packets.tcp.header[column].astype(np.int64)
    found = tcp_options.parse(packets.space.gather(packets.offset[row] - header + 20, tcp_options.WIDTH), header - 20)
    shift = np.minimum(found.window_scale, _MOST)
    where = (s.connection[syn], s.client[syn].astype(np.int64))
    offers = np.full(out.shape, -2, np.int8)
    offers[where] = np.maximum(shift, -1)
    both = (offers != -2).all(axis=1)
    # RFC 7323 §2.2: without the option in both SYNs, no window is scaled.
    scaled = (offers >= 0).all(axis=1)
    out[both & scaled] = offers[both & scaled]
    out[both & ~scaled] = 0
    return out
