"""Frames in order of time, each with one line that says what it is.

What a frame is comes from the fact tables; a frame that no table knows is named by its
protocol, ports and length, so that nothing disappears from a timeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from netdiag.render.frames import describe
from netdiag.tables.packets import TCP, UDP

if TYPE_CHECKING:
    from netdiag.model import Evidence
    from netdiag.tables import Tables


@dataclass(frozen=True, slots=True)
class Entry:
    """One frame. ``text`` and ``note`` hold text from the wire: whoever prints them escapes them."""

    ts_ns: int
    point: str
    path: str
    frame: int
    source: str
    source_port: int
    """0 where the protocol has no ports."""
    destination: str
    destination_port: int
    text: str
    note: str = ""
    """A second line: addresses in the SDP, what a report says."""
    alike: bool = False
    """One of many of its kind (media, bulk data): may be folded with its neighbours."""
    count: int = 1
    last_ns: int = 0
    """Time of the last one folded into this entry; equal to ``ts_ns`` when it is alone."""


def packet_rows(tables: Tables, evidence: Iterable[Evidence]) -> list[int]:
    """Packet rows of the frames in ``evidence``: the inverse of ``Packets.locate``. Unknown frames are left out."""
    files = tables.packets.files
    rows: set[int] = set()
    wanted: dict[int, set[int]] = {}
    index = {(c.point, c.path): i for i, c in enumerate(tables.captures)}
    for e in evidence:
        if (e.point, e.path) in index:
            wanted.setdefault(index[e.point, e.path], set()).update(e.frames)
    if files.explicit_capture is not None and files.explicit_frame is not None:
        for capture, frames in wanted.items():
            here = np.flatnonzero(files.explicit_capture == capture)
            rows.update(here[np.isin(files.explicit_frame[here], sorted(frames))].tolist())
        return sorted(rows)
    ends = [*files.start[1:].tolist(), files.total]
    for capture, start, end in zip(files.capture.tolist(), files.start.tolist(), ends, strict=True):
        rows.update(start + f - 1 for f in wanted.get(capture, ()) if 0 < f <= end - start)
    return sorted(rows)


def timeline(tables: Tables, rows: Sequence[int]) -> list[Entry]:
    """Entries of packet ``rows``, by time; equal times by point and frame."""
    packets = tables.packets
    ordered = sorted({r for r in rows if 0 <= r < packets.n})
    if not ordered:
        return []
    captures, frames = packets.locate(ordered)
    told = describe(tables, ordered)
    entries = []
    for row, capture, frame in zip(ordered, captures.tolist(), frames.tolist(), strict=True):
        summary = tables.captures[capture]
        ported = int(packets.proto[row]) in (TCP, UDP)
        known = int(packets.proto[row]) != 0 or int(packets.src[row]) != 0 or int(packets.dst[row]) != 0
        said = told[row]
        ts = int(packets.ts[row])
        entries.append(Entry(
            ts, summary.point, summary.path, frame,
            packets.source(row) if known else "", int(packets.sport[row]) if ported else 0,
            packets.destination(row) if known else "", int(packets.dport[row]) if ported else 0,
            said.text, said.note, said.alike, 1, ts,
        ))
    return sorted(entries, key=lambda e: (e.ts_ns, e.point, e.path, e.frame))


def fold(entries: Iterable[Entry]) -> list[Entry]:
    """Entries that are one of many alike become one, at the time of the first, with count and last time."""
    out: list[Entry] = []
    seen: dict[tuple[object, ...], int] = {}
    for e in entries:
        key = (e.point, e.path, e.source, e.source_port, e.destination, e.destination_port, e.text)
        if e.alike and key in seen:
            old = out[seen[key]]
            out[seen[key]] = Entry(old.ts_ns, old.point, old.path, old.frame, old.source, old.source_port,
                                   old.destination, old.destination_port, old.text, old.note, True, old.count + 1,
                                   e.ts_ns)
            continue
        seen[key] = len(out)
        out.append(e)
    return out


def endpoint(address: str, port: int) -> str:
    """"192.0.2.1:5060", "[2001:db8::1]:5060", or the address alone."""
    if not port:
        return address or "?"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
