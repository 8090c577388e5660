"""Agreement with tshark, frame by frame where it can be: on captures that nobody here made, on recordings of real
TCP stacks and on samples. Every difference is a line with its reason in ``tshark_differences.tsv``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tshark_view
from checkout import ROOT, real_captures
from tshark_view import Stream, View

from netdiag.tables import Tables
from netdiag.tables import tcp_segments as seg
from netdiag.tables.packets import ICMP, ICMPV6, IPV4, IPV6, RST, TCP, UDP
from netdiag.tables.reader import open_captures

DIFFERENCES = ROOT / "tests" / "tshark_differences.tsv"
SAMPLES = ROOT / "captures" / "samples"
CLASSES = {name: getattr(seg, {"ack_lost_segment": "ACKED_UNSEEN"}.get(name, name.upper()))
           for name in tshark_view.CLASSES}
COUNTS = ("frames", "sip requests", "sip responses", "client hellos", "server hellos", "certificates", "alerts",
          "resets", "dns queries", "rtcp report blocks", "rtcp xr blocks")
NEAR_MS = 0.0021
"""tshark prints times of RTP streams with three decimals of a millisecond, and adds up rounded ones."""

Seen = dict[tuple[str, str], tuple[str, str]]


def captures() -> list[Path]:
    """Real captures, recordings, and one sample of every pattern: a run of tshark takes a quarter of a second."""
    chosen = [p for pattern in ("tcp_stack/recorded/*.pcap", "*/*.hit.pcap", "cases/*/broken.*.pcap")
              for p in sorted(SAMPLES.glob(pattern))]
    return real_captures() + chosen


def title(path: Path) -> str:
    return str(path.relative_to(SAMPLES)) if path.is_relative_to(SAMPLES) else path.name


def differences() -> dict[tuple[str, str], tuple[str, str, str]]:
    """(capture, quantity) to (ours, tshark's, reason)."""
    out = {}
    for line in DIFFERENCES.read_text().splitlines()[1:]:
        capture, quantity, ours, theirs, reason = line.split("\t")
        assert len(reason) > 20, line
        out[capture, quantity] = (ours, theirs, reason)
    return out


def counts(tables: Tables) -> dict[str, int]:
    sip, shakes = tables.sip, tables.handshakes
    return {
        "frames": sum(c.frames for c in tables.captures),
        "sip requests": sip.filter(pl.col("method").is_not_null()).height,
        "sip responses": sip.filter(pl.col("status").is_not_null()).height,
        # as sent, without what tells calls with one Call-ID apart
        "call-ids": sip["call_id"].drop_nulls().str.split(";from-tag=").list.first().n_unique(),
        "client hellos": int(shakes["client_hellos"].sum()),
        "server hellos": int(shakes["server_hellos"].sum()),
        "certificates": int(shakes["certificates"].list.len().sum() + shakes["client_certificates"].list.len().sum()),
        "alerts": tables.alerts.height,
        "resets": int(((tables.packets.tcp.flags & RST) != 0).sum()),
        "dns queries": tables.lookups.filter(pl.col("query_packet").is_not_null()).height,
        "rtcp report blocks": tables.rtcp["about_ssrc"].count(),
        "rtcp xr blocks": tables.rtcp_xr.filter(pl.col("block") != 5).height,
    }


def frames_of(tables: Tables, rows: np.typing.ArrayLike) -> list[int]:
    return [int(f) for f in tables.packets.locate(rows)[1]]


def classes(tables: Tables) -> dict[str, set[int]]:
    s = seg.segments(tables)
    return {name: set(frames_of(tables, s.row[(s.classes & bit) != 0])) for name, bit in CLASSES.items()}


def connections(tables: Tables) -> dict[int, int]:
    s = seg.segments(tables)
    return dict(zip(frames_of(tables, s.row), s.connection.tolist(), strict=True))


def streams(tables: Tables) -> dict[str, Stream]:
    return {f"{r['source']}:{r['source_port']}>{r['destination']}:{r['destination_port']} {r['ssrc']:08X}":
            Stream(r["packets"], r["lost"], r["max_delta_ms"], r["jitter_mean_ms"], r["jitter_max_ms"])
            for r in tables.rtp.iter_rows(named=True)}


def ranges(frames: set[int]) -> str:
    """"3-5 9", "-" for none."""
    out: list[list[int]] = []
    for frame in sorted(frames):
        if out and frame == out[-1][1] + 1:
            out[-1][1] = frame
        else:
            out.append([frame, frame])
    return " ".join(f"{a}-{b}" if b > a else str(a) for a, b in out) or "-"


def sets(seen: Seen, name: str, quantity: str, mine: set[int], theirs: set[int]) -> None:
    """What only one side has."""
    if mine != theirs:
        seen[name, quantity] = (ranges(mine - theirs), ranges(theirs - mine))


def compare(path: Path) -> Seen:
    """(capture, quantity) to (ours, tshark's); for sets of frames, those that only one of them names."""
    name, tables, them = title(path), open_captures([str(path)]), tshark_view.view(path)
    seen: Seen = {}
    theirs = {**{q: them.counts[q] for q in COUNTS}, "call-ids": len(them.call_ids)}
    for quantity, value in counts(tables).items():
        if value != theirs[quantity]:
            seen[name, quantity] = (str(value), str(theirs[quantity]))
    copies = tables.packets.duplicates
    aside = set(frames_of(tables, copies.row)) if copies is not None else set()
    sets(seen, name, "copies", aside, set())
    for quantity, frames in classes(tables).items():
        sets(seen, name, f"tcp {quantity}", frames, them.classes[quantity] - aside)
    compare_connections(seen, name, connections(tables), {f: s for f, s in them.streams.items() if f not in aside})
    compare_headers(seen, name, tables, them)
    compare_datagrams(seen, name, tables, them, aside)
    compare_streams(seen, name, streams(tables), them.rtp)
    return seen


def compare_connections(seen: Seen, name: str, mine: dict[int, int], theirs: dict[int, int]) -> None:
    count = (len(set(mine.values())), len(set(theirs.values())))
    if count[0] != count[1]:
        seen[name, "tcp streams"] = (str(count[0]), str(count[1]))
    sets(seen, name, "tcp frames", set(mine), set(theirs))
    pairs: dict[int, int] = {}
    for frame in sorted(mine.keys() & theirs.keys()):
        pairs.setdefault(mine[frame], theirs[frame])
    other = {f for f in mine.keys() & theirs.keys() if pairs[mine[f]] != theirs[f]}
    sets(seen, name, "tcp stream of frame", other, set())


def compare_headers(seen: Seen, name: str, tables: Tables, them: View) -> None:
    p = tables.packets
    quoting = (p.proto == ICMP) | (p.proto == ICMPV6)
    frame = frames_of(tables, np.arange(p.n))
    mine = {frame[r]: (p.source(r), p.destination(r)) for r in np.flatnonzero((p.flags & (IPV4 | IPV6)) != 0).tolist()
            if not quoting[r]}
    here = mine.keys() & them.addresses.keys()
    sets(seen, name, "ip frames", set(mine), set(them.addresses))
    sets(seen, name, "ip addresses", {f for f in here if mine[f] != them.addresses[f]}, set())
    ports = {frame[r]: (str(p.sport[r]), str(p.dport[r]))
             for r in np.flatnonzero((p.proto == TCP) | (p.proto == UDP)).tolist()}
    sets(seen, name, "ports", {f for f, value in them.ports.items() if ports.get(f) != value}, set())


def compare_datagrams(seen: Seen, name: str, tables: Tables, them: View, aside: set[int]) -> None:
    mine: dict[int, set[int]] = {}
    overlaps, conflicts = set(), set()
    for row in tables.fragments.filter("complete").iter_rows(named=True):
        frame = frames_of(tables, [row["last_packet"]])[0]
        mine[frame] = set(frames_of(tables, row["packets"]))
        overlaps |= {frame} if row["overlap"] else set()
        conflicts |= {frame} if row["conflict"] else set()
    sets(seen, name, "datagrams", set(mine), set(them.datagrams))
    both = mine.keys() & them.datagrams.keys()
    sets(seen, name, "pieces of datagrams", {f for f in both if mine[f] != them.datagrams[f] - aside}, set())
    # A copy of a piece is an overlap to tshark.
    copied = {f for f in both if them.datagrams[f] & aside}
    sets(seen, name, "overlaps", overlaps - copied, them.overlaps - copied)
    sets(seen, name, "conflicts", conflicts, them.conflicts)


def compare_streams(seen: Seen, name: str, mine: dict[str, Stream], theirs: dict[str, Stream]) -> None:
    if mine.keys() != theirs.keys():
        seen[name, "rtp streams"] = (", ".join(sorted(mine.keys() - theirs.keys())) or "-",
                                     ", ".join(sorted(theirs.keys() - mine.keys())) or "-")
    for key in sorted(mine.keys() & theirs.keys()):
        a, b = mine[key], theirs[key]
        for quantity in ("packets", "lost", "max_delta", "mean_jitter", "max_jitter"):
            x, y = getattr(a, quantity), getattr(b, quantity)
            if abs(x - y) > (NEAR_MS if isinstance(x, float) else 0):
                seen[name, f"rtp {quantity} {key}"] = (f"{x:.4g}", f"{y:.4g}")


@pytest.mark.tshark
@pytest.mark.parametrize("path", captures(), ids=title)
def test_agrees_with_tshark(path: Path) -> None:
    assert shutil.which("tshark"), "tshark is needed: make install-system"
    assert compare(path) == {key: value[:2] for key, value in differences().items() if key[0] == title(path)}


@pytest.mark.tshark
def test_generated_loss_agrees_with_tshark(tmp_path: Path) -> None:
    path = tmp_path / "tcp.pcap"
    argv = [sys.executable, str(ROOT / "bench" / "generate.py"), "tcp", "--packets", "20000", "-o", str(path)]
    subprocess.run(argv, check=True)
    tables = open_captures([str(path)])
    assert all(len(frames) > 50 for frames in (classes(tables)["retransmission"], classes(tables)["duplicate_ack"]))
    assert compare(path) == {}


def test_differences_name_captures_that_are_there(real: Path) -> None:
    present = {title(p) for p in captures()}
    assert {capture for capture, _ in differences()} <= present
