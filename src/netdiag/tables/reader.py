"""Opens captures and builds the packet table: ``open_captures`` is where every analysis begins."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netdiag.capture.records import FileNotes
from netdiag.capture.source import Source
from netdiag.capture.space import Space
from netdiag.decode import encap, ip
from netdiag.decode.fragments import Result, reassemble
from netdiag.decode.frames import COLUMNS, TCP_COLUMNS, Decoded, Piece, Wrapping, ascending
from netdiag.decode.ip import Addresses6
from netdiag.decode.store import Columns, Store
from netdiag.errors import CaptureError
from netdiag.model import CaptureSummary
from netdiag.tables import Options, Tables, duplicates, grouping
from netdiag.tables.intake import Intake, Progress
from netdiag.tables.packets import BAD, FORWARD, IPV6, KIND_NONE, REASSEMBLED, FileMap, Packets, TcpColumns

DEFAULT_POINT = "capture"
"""Name of the capture point of files that were given without one."""
_MAX_FILES = 65000
_MAX_POINTS = 250
_NAMES, _NAME = 20, 253
"""Names of addresses that are told, and their length (practice; RFC 1035 §2.3.4 allows 253 characters)."""
_NESTED = 4
"""Times that a datagram put together may hold a fragment again (practice: one tunnel is common)."""


class _File(NamedTuple):
    path: str
    point: int
    source: Source
    notes: FileNotes
    decoded: Decoded

    @property
    def span(self) -> tuple[int, int]:
        """First and last time; (0, 0) without frames."""
        ts = self.decoded.columns["ts"]
        return (int(ts.min()), int(ts.max())) if len(ts) else (0, 0)


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
    options = options or Options()
    addresses, wrappings = Addresses6(), encap.Paths()
    files: list[_File] = []
    with Intake([path for _, path in given], options.checksums, progress) as intake:
        store, segments = Store(COLUMNS, intake.most_frames), Store(TCP_COLUMNS, intake.most_frames)
        for index, (name, path) in enumerate(given):
            file = _File(path, names.index(name), intake.sources[index], FileNotes(),
                         Decoded(store, segments, addresses=addresses, paths=wrappings))
            intake.read(index, file.notes, file.decoded)
            files.append(file)
    _note_twins(files, names)
    return _assemble(intake.space, files, tuple(names), options)


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


def _assemble(space: Space, files: list[_File], names: tuple[str, ...], options: Options) -> Tables:
    # Rows of a point stand together, rotated files in the order of their first frame.
    order = sorted(range(len(files)), key=lambda i: (files[i].point, files[i].span[0]))
    starts, at = [], 0
    for i in order:
        starts.append(at)
        at += files[i].decoded.rows
    columns = _in_order([files[i].decoded for i in order])
    tcp = _segments_in_order([files[i].decoded for i in order], starts)
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
    pieces.sort(key=lambda p: p.row)  # of each block, those inside tunnels were found last
    held = filemap.points(np.array([p.row for p in pieces], np.int64)).tolist()
    pieces, repeated = duplicates.of_pieces(space, columns, pieces, held)
    result, tcp = _fragments(space, columns, tcp, pieces, filemap, head.addresses, head.paths)

    packets = _packets(space, columns, tcp, filemap, head.addresses, head.paths, repeated)
    for f in files:
        f.notes.notes += _named(packets, f.notes.names)
    summaries = tuple(_summary(f, names[f.point], spans.get(i, (0, 0))) for i, f in enumerate(files))
    tables = Tables(packets, summaries, names, options,
                    tuple(s for f in files for s in f.notes.secrets),
                    _drops(files, names),
                    {names[f.point]: "; ".join(f.notes.filters) for f in files if f.notes.filters})
    tables.datagrams = result.whole + result.broken
    odd = {reason: np.array(found, np.int64) for reason, found in result.odd.items()}
    odd["malformed or cut IP, TCP or UDP header"] = np.flatnonzero((packets.flags & BAD) != 0)
    if packets.encap is not None:
        odd[f"packet in more than {encap.MAX_PATHS} tunnels and tags, whose flows are not kept apart"] = np.flatnonzero(
            packets.encap == encap.MAX_PATHS)
    for reason, found in odd.items():
        capture, _ = packets.locate(found)
        for c in np.unique(capture).tolist():
            mine = found[capture == c]
            tables.anomaly_log.add("packets", reason, int(mine.min()), len(mine))
    return tables


def _in_order(files: list[Decoded]) -> Columns:
    """Columns of all frames, the files one behind the other; with ``encap`` where any frame is wrapped."""
    if [f.first for f in files] == sorted(f.first for f in files):
        columns = files[0].store.rows(0, files[0].store.used)
    else:
        parts = [f.columns for f in files]
        columns = {name: np.concatenate([p[name] for p in parts]) for name in COLUMNS}
    if any(f.encap for f in files):
        columns["encap"] = np.zeros(len(columns["ts"]), np.uint16)
        at = 0
        for file in files:
            for begin, path in file.encap:
                columns["encap"][at + begin : at + begin + len(path)] = path
            at += file.rows
    return columns


def _segments_in_order(files: list[Decoded], starts: list[int]) -> Columns:
    """TCP columns of all frames, the files one behind the other, each with the number of its first row."""
    parts = []
    for file, base in zip(files, starts, strict=True):
        part = file.segments.rows(file.first_segment, file.last_segment)
        part["row"] += np.uint32(base)
        parts.append(part)
    if [f.first for f in files] == sorted(f.first for f in files):
        return files[0].segments.rows(0, files[0].segments.used)
    return {name: np.concatenate([part[name] for part in parts]) for name in TCP_COLUMNS}


def _packets(space: Space, columns: Columns, tcp: Columns, filemap: FileMap, addresses: Addresses6,
             paths: encap.Paths, repeated: duplicates.Pairs) -> Packets:
    """The packet table with its flows; ``repeated`` are copies of fragments."""
    wrapped = columns.get("encap")
    present = columns["proto"] != 0
    present |= (columns["flags"] & (IPV6 | 1)) != 0
    present &= (columns["src"] != 0) | (columns["dst"] != 0) | ((columns["flags"] & BAD) == 0)
    present[repeated[0]] = False
    six, point = (columns["flags"] & IPV6) != 0, filemap.all_points()

    def flows(path: npt.NDArray[np.uint16] | None) -> tuple[Any, ...]:
        return grouping.flows(columns["src"], columns["dst"], columns["sport"], columns["dport"], columns["proto"],
                              six, point, present, path)

    flow, rows, start, size, forward = flows(None)
    found = duplicates.find(space, columns, rows, flow, tcp, addresses.values)
    copies = duplicates.together(columns, repeated, found)
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
    point = filemap.all_points()
    new = np.lexsort((columns["ts"], point))
    for column in columns.values():
        column[:] = column[new]
    filemap.explicit_capture, filemap.explicit_frame = capture[new], frame[new]
    where = np.empty(total, np.uint32)
    where[new] = np.arange(total, dtype=np.uint32)
    row = where[tcp["row"]]
    again = np.argsort(row, kind="stable")
    tcp["row"][:] = row
    for column in tcp.values():
        column[:] = column[again]
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
    for turn in range(_NESTED if pieces else 0):
        held = np.array([p.row for p in pieces], np.int64)
        found = reassemble(space, pieces, filemap.points(held).tolist(), columns["ts"][held].tolist())
        if not found.whole:
            result.add(found)
            break
        for datagram in found.whole:
            every = np.array(datagram.rows)
            columns["length"][every] = columns["wire"][every] = 0
        rows = np.array([d.last_row for d in found.whole], np.int64)
        at, size = (np.array([getattr(d, name) for d in found.whole], np.int64) for name in ("offset", "size"))
        columns["flags"][rows] |= REASSEMBLED
        none, end, proto = np.zeros(len(rows), np.int64), at + size, columns["proto"][rows]
        good, six = np.ones(len(rows), np.bool_), (columns["flags"][rows] & IPV6) != 0
        at[six], proto[six], good[six] = ip.behind_extensions(space, at[six], end[six], proto[six])
        net = ip.Internet(
            good, np.where(six, 6, 4).astype(np.uint8), columns["src"][rows], columns["dst"][rows], proto,
            columns["ttl"][rows], columns["ip_id"][rows], at, end - at, none != 0, none, none != 0,
            none.astype(np.uint32))
        again = Decoded(Store({}, 1), Store({}, 1), addresses=addresses, paths=paths)
        wrapping = Wrapping(columns.get("encap"), filemap.total)
        again.packets(space, columns, rows, net, end, wrapping)
        if wrapping.path is not None:
            columns["encap"] = wrapping.path
        segments += again.tcp
        tunnels = set(np.concatenate([*wrapping.opened, none[:0]]).tolist())
        for datagram in found.whole:  # its other pieces belong to the same flow
            every, row = np.array(datagram.rows), datagram.last_row
            if row not in tunnels:
                for name in ("proto", "sport", "dport"):
                    columns[name][every] = columns[name][row]
        # Of the datagrams inside a tunnel, some pieces come in whole packets, and others only now.
        waiting = found.take_missing() if again.pieces and turn < _NESTED - 1 else set()
        result.add(found)
        pieces = sorted((*(p for p in pieces if p.row in waiting), *again.pieces), key=lambda p: p.row)
        if not again.pieces:
            break
    return result, ascending(segments) if len(segments) > 1 else tcp


def _drops(files: list[_File], names: tuple[str, ...]) -> dict[str, int]:
    out: dict[str, int] = {}
    for f in files:
        if f.notes.drops is not None:
            out[names[f.point]] = out.get(names[f.point], 0) + f.notes.drops
    return out


def _named(packets: Packets, names: dict[str, str]) -> list[str]:
    """A note with the names that a file gives to addresses of its packets; nothing is judged by them."""
    if not names:
        return []
    four = np.union1d(packets.src, packets.dst)
    known = set(packets.v6) | {int(v).to_bytes(4, "big") for v in four}
    met = [f"{address} {name[:_NAME]}" for address, name in names.items()
           if ipaddress.ip_address(address).packed in known]
    more = f" and {len(met) - _NAMES} more" if len(met) > _NAMES else ""
    return ["names in the file, from whoever wrote it: " + ", ".join(met[:_NAMES]) + more] if met else []


def _summary(file: _File, point: str, span: tuple[int, int]) -> CaptureSummary:
    frames, skipped = file.decoded.rows, dict(sorted(file.decoded.skipped.items()))
    form = file.notes.format + (f", {file.source.compression}" if file.source.compression else "")
    return CaptureSummary(
        path=file.path, point=point, format=form, sha256=file.source.sha256(), size=file.source.stored, frames=frames,
        decoded=frames - sum(skipped.values()), skipped=skipped, first_ns=span[0], last_ns=span[1],
        complete=not file.notes.damage, damage=file.notes.damage, comments=tuple(file.notes.comments),
        notes=tuple(dict.fromkeys(file.notes.notes)))
