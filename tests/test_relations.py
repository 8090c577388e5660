"""What must change no verdict: when a capture was taken, what wraps its frames, and a second tap at the same place."""

from __future__ import annotations

import os
import struct
from collections import Counter
from pathlib import Path

import pytest
import recipes

from netdiag import engine, registry
from netdiag.model import Report
from netdiag.tables.reader import open_captures

EVERY = int(os.environ.get("NETDIAG_EVERY", "5"))
"""One sample of so many: all of them (1) take three minutes of two cores."""
SAMPLES = list(recipes.samples())
PATTERNS = registry.patterns()
TAG = b"\x81\x00\x00\x07"
LATER_NS = 9 * 365 * 86_400 * 10**9 + 370_000_001
"""Years, and a part of a second: no bin of the clock begins where it did."""


def name(sample: recipes.Sample) -> str:
    return f"{sample.pattern}-{sample.name}"


def changed(path: Path, target: Path, tag: bytes, later_ns: int) -> str:
    """A copy of a capture, with ``tag`` behind the MAC addresses of each frame and its time moved."""
    data = path.read_bytes()
    magic, link = struct.unpack_from("<I16xI", data)
    unit = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}[magic]
    out, at = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, link)], 24
    if link != 1:
        tag = b""
    while at < len(data):
        seconds, part, kept, size = struct.unpack_from("<4I", data, at)
        ns = seconds * 10**9 + part * unit + later_ns
        frame = data[at + 16 : at + 16 + kept]
        out.append(struct.pack("<4I", ns // 10**9, ns % 10**9, kept + len(tag), size + len(tag)) + frame[:12] + tag
                   + frame[12:])
        at += 16 + kept
    target.write_bytes(b"".join(out))
    return str(target)


def judged(points: list[tuple[str, str]]) -> Report:
    alone = points[0][0] == ""
    return engine.analyze(open_captures([points[0][1]] if alone else [], [] if alone else points))


def verdicts(report: Report) -> Counter[tuple[str, str]]:
    return Counter((f.pattern, f.confidence.label) for f in report.findings)


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.hit][::EVERY], ids=name)
def test_another_time_and_a_vlan_change_nothing(sample: recipes.Sample, tmp_path: Path) -> None:
    later = LATER_NS % 10**9 if sample.pattern.startswith("TLS-") else LATER_NS  # certificates end
    moved = [(point, changed(path, tmp_path / f"{point}.pcap", TAG, later)) for point, path in sample.paths.items()]
    assert verdicts(judged(moved)) == verdicts(judged([(point, str(path)) for point, path in sample.paths.items()]))


@pytest.mark.parametrize("sample", [s for s in SAMPLES if list(s.paths) == [""]][::EVERY], ids=name)
def test_a_second_tap_at_the_same_place_neither_hides_a_fault_nor_makes_one(sample: recipes.Sample) -> None:
    path = str(sample.paths[""])
    alone, twice = judged([("", path)]), judged([("one", path), ("two", path)])
    # Gates speak of one point each.
    assert {f.pattern for f in twice.findings if not PATTERNS[f.pattern].gate} == {
        f.pattern for f in alone.findings if not PATTERNS[f.pattern].gate}
