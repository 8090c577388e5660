"""Bytes that nobody meant well: whatever a capture holds, each judgement and each output stays whole."""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from checkout import ROOT, udp_frame

from netdiag import engine
from netdiag.capture.lockstep import walk
from netdiag.model import Report, Status
from netdiag.render import evidence, facts, ladder, listing, markdown, terminal
from netdiag.render import json as as_json
from netdiag.tables.reader import open_captures

SAMPLES = ROOT / "captures" / "samples"
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "docs" / "report.schema.json").read_text()))
NASTY = [b"\x1b]0;x\x07", b"\x1b[2J", b"\xff\xfe\x80", b"\xe2\x80\xae", b"\0", b"\r", b"\n", b"\x9b31m", b"`<b>|",
         b"=1+1", b"\xc2\x9b", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"9" * 23, b"-1", b"\xd9\xa3"]
EDGES = [0, 1, 4, 0x7F, 0x80, 0xFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
Record = tuple[int, int, int, bytes]
"""Seconds, fraction, length on the wire, bytes."""


def records(data: bytes) -> tuple[str, list[Record]]:
    order = "<" if data[0] in (0xD4, 0x4D) else ">"
    at, out = 24, []
    while at < len(data):
        seconds, fraction, size, wire = struct.unpack_from(order + "IIII", data, at)
        out.append((seconds, fraction, wire, data[at + 16 : at + 16 + size]))
        at += 16 + size
    return order, out


def pcap(head: bytes, order: str, of: list[Record]) -> bytes:
    return head + b"".join(struct.pack(order + "IIII", s, f, len(p), w) + p for s, f, w, p in of)


def lengths(frame: bytes) -> bytes:
    """IPv4 and UDP lengths made true again, so that the damage reaches what lies above."""
    if len(frame) < 42 or frame[12:15] != b"\x08\x00\x45":
        return frame
    out = bytearray(frame)
    struct.pack_into(">H", out, 16, len(out) - 14)
    if out[23] == 17:
        struct.pack_into(">H", out, 38, len(out) - 34)
    return bytes(out)


def hurt(r: random.Random, frame: bytes) -> bytes:
    if not frame:
        return frame
    out, at = bytearray(frame), r.randrange(len(frame))
    kind = r.randrange(7)
    if kind == 0:
        out[at] ^= 1 << r.randrange(8)
    elif kind == 1:
        del out[at:]
    elif kind == 2:
        size = r.choice([1, 2, 4])
        out[at : at + size] = (r.choice(EDGES) & (1 << 8 * size) - 1).to_bytes(size, "big")
    elif kind == 3:
        out[at : at + 40] = r.randbytes(40)
    elif kind == 4:
        text = r.choice(NASTY)
        out[at : at + len(text)] = text
    elif kind == 5:
        out[at:at] = r.choice(NASTY) * r.choice([1, 1, 90])
    else:
        out[min(at, 70)] = r.choice([0, 255, 0x45, 0x60])
    return bytes(out) if r.random() < 0.3 else lengths(bytes(out)[:65000])


def spoil(r: random.Random, data: bytes) -> bytes:
    order, of = records(data)
    for _ in range(r.choice([1, 3, len(of)])):
        i, kind = r.randrange(len(of)), r.randrange(9)
        seconds, fraction, wire, frame = of[i]
        if kind < 6:
            of[i] = seconds, fraction, wire, hurt(r, frame)
        elif kind == 6:
            of.insert(r.randrange(len(of)), of[i])
        elif kind == 7:
            of[i] = r.choice([0, 0xFFFFFFFF, min(seconds + r.randrange(99), 0xFFFFFFFF)]), fraction, wire, frame
        else:
            of[i] = seconds, fraction, r.choice(EDGES), frame
    if r.random() < 0.2:
        r.shuffle(of)
    head = bytearray(data[:24])
    if r.random() < 0.1:
        struct.pack_into(order + "I", head, 20, r.choice([0, 1, 101, 113, 276, 228, 12, 105, 9]))
    out = pcap(bytes(head), order, of)
    return out[: r.randrange(24, len(out))] if r.random() < 0.1 else out


def outputs(report: Report, tables: Any) -> Iterator[tuple[str, str]]:
    yield "terminal", terminal.render(report, 80, False, True)
    yield "markdown", markdown.render(report, True)
    yield "json", as_json.render(report)
    yield "evidence", evidence.render(tables, report, evidence.choose(report))
    for noun in ("calls", "registrations", "streams", "handshakes", "connections", "lookups"):
        for form in ("terminal", "json", "csv"):
            yield f"{noun} {form}", listing.render(facts.of(tables, noun), form, 100)
    for call in tables.sip["call_id"].drop_nulls().unique(maintain_order=True).to_list()[:2]:
        for drawn in ladder.of_call(tables, call):
            yield "ladder", ladder.text(drawn)
            yield "mermaid", ladder.mermaid(drawn)


def whole(paths: list[str], points: tuple[tuple[str, str], ...] = ()) -> None:
    """Judges, writes everything, and looks at what came out."""
    tables = open_captures(paths, points)
    report = engine.analyze(tables)
    assert [o for o in report.outcomes if o.status is Status.ERROR] == []
    assert [a for a in report.anomalies if "could not be built" in a.reason] == []
    frames = {(c.point, c.path): c.frames for c in report.captures}
    for c in report.captures:
        assert c.frames == c.decoded + sum(c.skipped.values())
    for e in (e for f in report.findings for e in f.evidence):
        assert e.frames
        assert 1 <= min(e.frames) <= max(e.frames) <= frames[e.point, e.path]
    for name, text in outputs(report, tables):
        assert all(line.isprintable() for line in text.split("\n")), name
    SCHEMA.validate(json.loads(as_json.render(report)))


@pytest.mark.parametrize("seed", range(60))
def test_spoilt_samples(seed: int, tmp_path: Path) -> None:
    """Random by the seed, so a failure repeats; a longer search changes the range."""
    r = random.Random(seed)
    path = tmp_path / "spoilt.pcap"
    chosen = r.choice(sorted(SAMPLES.glob("**/*.pcap")))
    path.write_bytes(spoil(r, chosen.read_bytes()))
    if seed % 4:
        whole([str(path)])
    else:
        whole([], (("a", str(path)), ("b", str(chosen))))


@pytest.mark.parametrize("seed", range(12))
def test_shuffled_handshakes_at_one_of_two_points(seed: int, tmp_path: Path) -> None:
    """Out of order, a handshake may be known to be completed and its version not; the other point knows it."""
    samples = SAMPLES / "tls"
    data = (samples / "version_mismatch.hit_too_new.pcap").read_bytes()
    order, of = records(data)
    random.Random(seed).shuffle(of)
    path = tmp_path / "shuffled.pcap"
    path.write_bytes(pcap(data[:24], order, of))
    for other in ("intolerant", "fallback", "closed"):
        points = ("a", str(path)), ("b", str(samples / f"version_mismatch.hit_{other}.pcap"))
        report = engine.analyze(open_captures([], points), select=["TLS"])
        assert [o for o in report.outcomes if o.status is Status.ERROR] == []


def test_a_walk_with_too_few_cursors_gives_up() -> None:
    """One cursor on a million records would step a million times, and its table would have a column for each."""
    steps = 0

    def advance(at: Any) -> Any:
        nonlocal steps
        steps += 1
        return at + 16

    end = 16 << 20
    assert walk(0, end, advance, lambda at: np.zeros(len(at), bool)) is None
    assert steps < 10_000


def test_records_without_bytes_are_read_in_bounded_time(tmp_path: Path) -> None:
    path = tmp_path / "none.pcap"
    record = struct.pack("<IIII", 1, 0, 0, 0)
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + record * (1 << 19))
    begin = time.process_time()
    assert open_captures([str(path)]).captures[0].skipped == {"frame too short for a network header": 1 << 19}
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_reading_many_files_leaves_no_file_open(pack: Any, tmp_path: Path) -> None:
    frame = udp_frame()
    data = struct.pack("<IHHiIIIIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1, 1, 0, len(frame), len(frame)) + frame
    paths = []
    for i in range(20):
        paths.append(tmp_path / f"{i}.pcap")
        paths[-1].write_bytes(pack(data))
    before = len(os.listdir("/proc/self/fd"))
    tables = open_captures(list(map(str, paths)))
    assert [bool(c.sha256) for c in tables.captures] == [True] * 20
    assert len(os.listdir("/proc/self/fd")) <= before + 1
