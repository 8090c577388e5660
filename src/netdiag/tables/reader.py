"""Opens captures and builds the packet table: ``open_captures`` is where every analysis begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from netdiag.capture import pcap, pcapng
from netdiag.capture.records import FileNotes
from netdiag.capture.source import Source, open_source
from netdiag.capture.space import Space
from netdiag.decode import encap, ip
from netdiag.decode.fragments import Result, reassemble
from netdiag.decode.frames import COLUMNS, TCP_COLUMNS, Columns, Decoded, Piece, Wrapping, ascending, joined
from netdiag.decode.ip import Addresses6
from netdiag.errors import CaptureError
from netdiag.model import CaptureSummary
from netdiag.tables import Options, Tables, duplicates, grouping
from netdiag.tables.packets import BAD, FORWARD, IPV6, KIND_NONE, REASSEMBLED, FileMap, Packets, TcpColumns

DEFAULT_POINT = "capture"
"""Name of the capture point of files that were given without one."""
_MAX_FILES = 65000
_MAX_POINTS = 250
_NESTED = 4
"""Times that a datagram put together may hold a fragment again (practice: one tunnel is common)."""

Progress = Callable[[str, int, int], None]
"""(what, bytes done, bytes in all)."""


@dataclass(slots=True)
class _File:
    path: str
    point: int
    source: Source
    notes: FileNotes
    decoded: Decoded

    @property
    def span(self) -> tuple[int, int]:
        """First and last time; (0, 0) without frames."""
        lows = [int(p["ts"].min()) for p in self.decoded.parts if len(p["ts"])]
        highs = [int(p["ts"].max()) for p in self.decoded.parts if len(p["ts"])]
        return (min(lows), max(highs)) if lows else (0, 0)


def open_captures(paths: Iterable[str], points: Iterable[tuple[str, str]] = (), options: Options | None = None,
                  progress: Progress | None = None) -> Tables:
    """Reads captures: ``paths`` are (rotated) files of one point, ``points`` are (name, path) of further points.

    A damaged file is read as far as it goes; its ``CaptureSummary.damage`` says where it broke.
    CaptureError, with one clear line, when a file cannot be used at all.
    """
    given = [(DEFAULT_POINT, p) for p in paths] + list(points)
    if not given:
        raise CaptureError("no capture was given")
    _check_names(given, [name for name, _ in points])
    names = list(dict.fromkeys(name for name, _ in given))
    sources: list[Source] = []
    options = options or Options()
    try:
        for _, path in given:
            sources.append(open_source(path, options.checksums))
        space = Space([(s.fd, s.size) for s in sources])
        for source, extent in zip(sources, space.extents, strict=True):
            source.start_checksum(space.view(extent.start, extent.size))
    finally:
        for source in sources:
            os.close(source.fd)
    addresses, wrappings = Addresses6(), encap.Paths()
    files: list[_File] = []
    total, done = sum(s.size for s in sources), 0
    for index, ((name, path), source) in enumerate(zip(given, sources, strict=True)):
        file = _File(path, names.index(name), source, FileNotes(), Decoded(addresses=addresses, paths=wrappings))
        _read(space, index, file, partial(_report, progress, done, total) if progress else None)
        files.append(file)
        done += source.size
    _note_twins(files, names)
    return _assemble(space, files, tuple(names), options)


def _note_twins(files: list[_File], names: list[str]) -> None:
    """One file (also by a link) as two points is no mistake to refuse, but it proves nothing about what is between."""
    same: dict[tuple[int, int], list[_File]] = {}
    for file in files:
        if file.source.inode is not None:
            same.setdefault(file.source.inode, []).append(file)
    for group in same.values():
        for file in group:
            others = sorted({names[o.point] for o in group if o.point != file.point})
            file.notes.notes += [f"the same file as point {name}: these two cannot confirm each other"
                                 for name in others]


def _report(progress: Progress, done: int, total: int, at: int) -> None:
    progress("reading", done + at, total)


def _check_names(given: list[tuple[str, str]], named: list[str]) -> None:
    for name in named:
        if named.count(name) > 1:
            raise CaptureError(f"--point {name}: given twice; each point needs a name of its own "
                               "(rotated files of one point are given without --point)")
        if not name or not name.isprintable():
            raise CaptureError("--point: the name must be printable and not empty")
    if [p for _, p in given].count("-") > 1:
        raise CaptureError("-: standard input can be read once only")
    seen: set[tuple[str, str]] = set()
    for name, path in given:
        where = name, os.path.realpath(path)
        if where in seen:  # its packets would count as sent twice
            raise CaptureError(f"{path}: given twice")
        seen.add(where)
    if len(given) > _MAX_FILES or len({n for n, _ in given}) > _MAX_POINTS:
        raise CaptureError(f"more than {_MAX_FILES} files or {_MAX_POINTS} points")


def _read(space: Space, index: int, file: _File, progress: Callable[[int], None] | None) -> None:
    extent = space.extents[index]
    magic = space.read(extent.start, 4)
    if magic in pcap.MAGIC:
        batches = pcap.read(space, extent, file.notes, file.path)
    elif magic == pcapng.MAGIC:
        batches = pcapng.read(space, extent, file.notes, file.path)
    else:
        raise CaptureError(f"{file.path}: {_describe(space.read(extent.start, min(64, extent.size)))}; "
                           "expected pcap or pcapng, plain or compressed")
    for records in batches:
        file.decoded.add(space, records)
        if progress and len(records.offset):
            progress(int(records.offset[-1]) - extent.start)
    if file.source.damage:
        file.notes.damage = "; ".join(d for d in (file.source.damage, file.notes.damage) if d)


def _describe(head: bytes) -> str:
    if all(b in b"\t\n\r\x0c" or 32 <= b < 127 for b in head):
        return "a text file, not a capture"
    return f"not a capture (begins with {head[:4].hex(' ')})"


def _assemble(space: Space, files: list[_File], names: tuple[str, ...], options: Options) -> Tables:
    # Rows of a point stand together, rotated files in the order of their first frame.
    order = sorted(range(len(files)), key=lambda i: (files[i].point, files[i].span[0]))
    starts, at = [], 0
    for i in order:
        starts.append(at)
        at += files[i].decoded.rows
    columns: Columns = {}
    wrapped = joined([path for i in order for path in files[i].decoded.encap],
                     [len(part["ts"]) for i in order for part in files[i].decoded.parts])
    for name, kind in COLUMNS.items():
        parts = [part.pop(name) for i in order for part in files[i].decoded.parts]
        columns[name] = np.concatenate(parts) if parts else np.empty(0, kind)
    tcp: Columns = {}
    for name, kind in TCP_COLUMNS.items():
        parts = [part[name] + np.uint32(base) if name == "row" else part[name]
                 for base, i in zip(starts, order, strict=True) for part in files[i].decoded.tcp]
        tcp[name] = np.concatenate(parts) if parts else np.empty(0, kind)
    if wrapped is not None:
        columns["encap"] = wrapped
    spans = {i: _span(columns["ts"][base : base + files[i].decoded.rows])
             for base, i in zip(starts, order, strict=True)}
    filemap = FileMap(np.array(order, np.uint16), np.array([files[i].point for i in order], np.uint8),
                      np.array(starts, np.int64), at)
    pieces = []
    for base, i in zip(starts, order, strict=True):
        for piece in files[i].decoded.pieces:
            piece.row += base
            pieces.append(piece)
    _interleave(columns, tcp, pieces, files, order, starts, spans, filemap)
    head = files[0].decoded
    result, tcp = _fragments(space, columns, tcp, pieces, filemap, head.addresses, head.paths)

    packets = _packets(space, columns, tcp, filemap, head.addresses, head.paths)
    summaries = tuple(_summary(f, names[f.point], spans.get(i, (0, 0))) for i, f in enumerate(files))
    tables = Tables(packets, summaries, names, options,
                    tuple(s for f in files for s in f.notes.secrets),
                    _drops(files, names),
                    {names[f.point]: "; ".join(f.notes.filters) for f in files if f.notes.filters})
    for reason, odd in result.odd.items():
        for row in odd:
            tables.anomaly_log.add("packets", reason, row)
    malformed = np.flatnonzero((packets.flags & BAD) != 0)
    if len(malformed):
        capture, _ = packets.locate(malformed)
        for c in np.unique(capture).tolist():
            mine = malformed[capture == c]
            tables.anomaly_log.add("packets", "malformed or cut IP, TCP or UDP header", int(mine[0]), len(mine))
    return tables


def _packets(space: Space, columns: Columns, tcp: Columns, filemap: FileMap, addresses: Addresses6,
             paths: encap.Paths) -> Packets:
    """The packet table with its flows."""
    wrapped = columns.get("encap")
    present = columns["proto"] != 0
    present |= (columns["flags"] & (IPV6 | 1)) != 0
    present &= (columns["src"] != 0) | (columns["dst"] != 0) | ((columns["flags"] & BAD) == 0)
    six, point = (columns["flags"] & IPV6) != 0, filemap.points(np.arange(filemap.total))

    def flows(path: npt.NDArray[np.uint16] | None) -> tuple[Any, ...]:
        return grouping.flows(columns["src"], columns["dst"], columns["sport"], columns["dport"], columns["proto"],
                              six, point, present, path)

    flow, rows, start, size, forward = flows(None)
    copies = duplicates.find(space, columns, rows, flow, tcp)
    if copies is not None:
        present[copies.row] = False
        columns["kind"][copies.row] = KIND_NONE
        kept = ~np.isin(tcp["row"], copies.row)
        tcp = {name: column[kept] for name, column in tcp.items()}
    if copies is not None or wrapped is not None:
        flow, rows, start, size, forward = flows(wrapped)
    columns["flags"][forward] |= FORWARD
    columns.pop("encap", None)
    return Packets(space=space, flow=flow, order=rows, flow_start=start, flow_size=size,
                   tcp=TcpColumns(**tcp), v6=addresses.values, files=filemap, encap=wrapped, paths=paths.values,
                   duplicates=copies, **columns)


def _span(ts: npt.NDArray[np.int64]) -> tuple[int, int]:
    return (int(ts.min()), int(ts.max())) if len(ts) else (0, 0)


def _interleave(columns: Columns, tcp: Columns, pieces: list[Piece], files: list[_File], order: list[int],
                starts: list[int], spans: dict[int, tuple[int, int]], filemap: FileMap) -> None:
    """Sorts rows by time where files of one point overlap (two interfaces, say); rotated files stay as they are."""
    overlap = any(
        files[a].point == files[b].point and files[b].decoded.rows and spans[b][0] < spans[a][1]
        for a, b in pairwise(order) if files[a].decoded.rows)
    if not overlap:
        return
    total = filemap.total
    capture, frame = filemap.locate(np.arange(total))
    point = filemap.points(np.arange(total))
    new = np.lexsort((columns["ts"], point))
    for name in columns:
        columns[name] = columns[name][new]
    filemap.explicit_capture, filemap.explicit_frame = capture[new], frame[new]
    where = np.empty(total, np.uint32)
    where[new] = np.arange(total, dtype=np.uint32)
    row = where[tcp["row"]]
    again = np.argsort(row, kind="stable")
    for name in tcp:
        tcp[name] = tcp[name][again]
    tcp["row"] = row[again]
    for piece in pieces:
        piece.row = int(where[piece.row])
    pieces.sort(key=lambda p: p.row)
    filemap.start, filemap.capture, filemap.point = _blocks(point)


def _blocks(point: npt.NDArray[np.uint8]
            ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    values, first = np.unique(point, return_index=True)
    return first.astype(np.int64), np.zeros(len(values), np.uint16), values.astype(np.uint8)


def _fragments(space: Space, columns: Columns, tcp: Columns, pieces: list[Piece], filemap: FileMap,
               addresses: Addresses6, paths: encap.Paths) -> tuple[Result, Columns]:
    """Gives the last piece of each whole datagram its ports and payload, as Wireshark shows it there.

    A tunnel may be in it, and in that again a fragment: datagrams are put together until no piece is left.
    """
    result = Result()
    segments = [tcp]
    for _ in range(_NESTED if pieces else 0):
        points = filemap.points(np.array([p.row for p in pieces], np.int64)).tolist()
        found = reassemble(space, pieces, points)
        result.add(found)
        if not found.whole:
            break
        for datagram in found.whole:
            every = np.array(datagram.rows)
            columns["length"][every] = columns["wire"][every] = 0
        rows = np.array([d.last_row for d in found.whole], np.int64)
        at, size = (np.array([getattr(d, name) for d in found.whole], np.int64) for name in ("offset", "size"))
        columns["flags"][rows] |= REASSEMBLED
        none = np.zeros(len(rows), np.int64)
        net = ip.Internet(
            np.ones(len(rows), np.bool_), np.where(columns["flags"][rows] & IPV6, 6, 4).astype(np.uint8),
            columns["src"][rows], columns["dst"][rows], columns["proto"][rows], columns["ttl"][rows],
            columns["ip_id"][rows], at, size, none != 0, none, none != 0, none.astype(np.uint32))
        again = Decoded(addresses=addresses, paths=paths)
        wrapping = Wrapping(columns.get("encap"), filemap.total)
        again.packets(space, columns, rows, net, at + size, wrapping)
        if wrapping.path is not None:
            columns["encap"] = wrapping.path
        segments += again.tcp
        tunnels = set(np.concatenate([*wrapping.opened, none[:0]]).tolist())
        for datagram in found.whole:  # its other pieces belong to the same flow
            every, row = np.array(datagram.rows), datagram.last_row
            if row not in tunnels:
                columns["sport"][every], columns["dport"][every] = columns["sport"][row], columns["dport"][row]
        pieces = again.pieces
        if not pieces:
            break
    return result, ascending(segments) if len(segments) > 1 else tcp


def _drops(files: list[_File], names: tuple[str, ...]) -> dict[str, int]:
    out: dict[str, int] = {}
    for f in files:
        if f.notes.drops is not None:
            out[names[f.point]] = out.get(names[f.point], 0) + f.notes.drops
    return out


def _summary(file: _File, point: str, span: tuple[int, int]) -> CaptureSummary:
    frames, skipped = file.decoded.rows, dict(sorted(file.decoded.skipped.items()))
    form = file.notes.format + (f", {file.source.compression}" if file.source.compression else "")
    return CaptureSummary(
        path=file.path, point=point, format=form, sha256=file.source.sha256(), size=file.source.stored, frames=frames,
        decoded=frames - sum(skipped.values()), skipped=skipped, first_ns=span[0], last_ns=span[1],
        complete=not file.notes.damage, damage=file.notes.damage, comments=tuple(file.notes.comments),
        notes=tuple(dict.fromkeys(file.notes.notes)))
