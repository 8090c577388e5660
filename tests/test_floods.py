"""The same fault thousands of times: what judges, joins and shows it must stay in proportion to the capture."""

from __future__ import annotations

import re
import struct
import time
from itertools import count, product
from pathlib import Path

import pytest
from checkout import ROOT
from scapy.utils import RawPcapReader
from test_superlinear import CHEAP, GROWTH

from netdiag import engine, registry
from netdiag.model import Severity
from netdiag.render import digest, json, terminal
from netdiag.tables.reader import open_captures

SAMPLES = ROOT / "captures" / "samples"
FRAMES = 2000
_CALL_ID = re.compile(rb"\n(?:Call-ID|i): *([^\r\n]{4,})", re.IGNORECASE)
_WORDS = ["".join(word).encode() for word in product("0123456789abcdefghijklmnopqrstuvwxyz", repeat=3)]
"""What the first bytes of a Call-ID are replaced with, for each copy."""


def frames_of(sample: Path) -> list[tuple[int, bytes]]:
    """Nanoseconds and bytes of each frame."""
    with RawPcapReader(str(sample)) as reader:
        unit = 1 if reader.nano else 1000
        return [(meta.sec * 10**9 + meta.usec * unit, frame) for frame, meta in reader]


def flood(sample: Path, copies: int, path: Path) -> str:
    """The frames of ``sample`` again and again a millisecond later, between other hosts and with other Call-IDs."""
    frames = frames_of(sample)
    names = {name for _, frame in frames for name in _CALL_ID.findall(frame)}
    out = []
    for copy in range(copies):
        word = _WORDS[copy]
        for ns, frame in frames:
            if frame[12:14] == b"\x08\0":
                frame = _moved(frame, copy)
            for name in names:
                frame = frame.replace(name, word + name[3:])
            out.append((ns + copy * 1_000_000, frame))
    out.sort(key=lambda item: item[0])
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        for ns, frame in out:
            file.write(struct.pack("<IIII", ns // 10**9, ns % 10**9, len(frame), len(frame)) + frame)
    return str(path)


def _moved(frame: bytes, copy: int) -> bytes:
    """IPv4 between other hosts: the second and third byte of both addresses go up."""
    moved = bytearray(frame)
    for at in (26, 30):
        moved[at + 1] = (moved[at + 1] + (copy >> 8)) & 255
        moved[at + 2] = (moved[at + 2] + copy) & 255
    return bytes(moved)


def cost(path: str, pattern: str) -> float:
    """Processor time of one pattern with its tables, of the incidents, and of what shows them."""
    begin = time.process_time()
    report = engine.analyze(open_captures([path]), select=[pattern])
    report, hidden = digest.above(report, Severity.LOW)
    assert terminal.render(report, hidden=hidden)
    assert json.render(report)
    return time.process_time() - begin


@pytest.mark.parametrize("pattern", list(registry.patterns()))
def test_time_grows_with_the_number_of_faults(pattern: str, tmp_path: Path) -> None:
    family, _, name = pattern.lower().partition("-")
    samples = sorted((SAMPLES / family).glob(f"{name.replace('-', '_')}.hit*.pcap"))
    sample = samples[0]
    copies = max(2, FRAMES // len(frames_of(sample)))
    small, large = (flood(sample, n, tmp_path / f"{n}.pcap") for n in (copies, 4 * copies))
    cost(small, pattern)
    for attempt in count():
        one, four = cost(small, pattern), cost(large, pattern)
        if four <= max(GROWTH * one, CHEAP) or attempt:
            break
    assert four <= max(GROWTH * one, CHEAP), f"{one:.2f} s for {copies} copies, {four:.2f} s for {4 * copies}"
