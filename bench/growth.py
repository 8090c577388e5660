"""How time and memory grow with the capture, for few and for many flows."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tools
import traffic_flows
from measure import Run, measure, median

FLOWS = (10, 1000, 100_000, 1_000_000)
PACKETS = (1_000_000, 2_000_000, 4_000_000, 8_000_000)
TOLERANCE = 0.15
"""How far from its line a measured time may be."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One number of flows, measured at growing lengths."""

    flows: int
    packets: tuple[int, ...]
    runs: tuple[tuple[Run, ...], ...]
    """Of each length."""

    def values(self, field: str) -> list[float]:
        """Medians of one figure."""
        return [median(runs, field) for runs in self.runs]

    @property
    def line(self) -> tuple[float, float]:
        """Slope (CPU s a packet) and intercept (CPU s) of the least-squares line."""
        slope, intercept = np.polyfit(self.packets, self.values("cpu_s"), 1)
        return float(slope), float(intercept)

    @property
    def deviations(self) -> list[float]:
        """Of each length: (measured - line) / line."""
        slope, intercept = self.line
        measured = self.values("cpu_s")
        return [value / (slope * n + intercept) - 1 for n, value in zip(self.packets, measured, strict=True)]


def grow(flows: int, packets: Sequence[int], captures: Path, repeat: int, limit_s: float) -> Curve:
    """Measures ``netdiag analyze`` while a capture is made longer; the capture is deleted afterwards."""
    runs = []
    with tempfile.TemporaryDirectory(dir=captures) as name:
        path, at = Path(name) / "flows.pcap", 0
        path.write_bytes(traffic_flows.PCAP_HEADER_NS)
        for end in packets:
            with open(path, "ab") as out:
                traffic_flows.append(out, flows, at, end)
            at = end
            found = tuple(measure(tools.NETDIAG.on(str(path)), tools.NETDIAG.allowed, tools.environment(), path.parent,
                                  limit_s) for _ in range(repeat))
            print(f"{flows} flows, {end} packets: {median(found, 'cpu_s'):.2f} CPU s, {median(found, 'own_mb'):.0f} MB",
                  file=sys.stderr)
            runs.append(found)
    return Curve(flows, tuple(packets), tuple(runs))
