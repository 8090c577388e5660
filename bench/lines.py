"""The lines of the target table: which capture, which tool beside netdiag, and how much faster netdiag is to be."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import generate
import tools
from measure import OUTPUT, Failed, Run, measure, median
from tools import Tool

MAKERS = {"generate.py", "records.py", "frames.py", "tls12.json"}
"""Files that make the captures, with those of the traffic."""
ENOUGH_S = 90
"""A tool whose runs on a capture have taken that long is not run on it again."""


@dataclass(frozen=True, slots=True)
class Target:
    """What netdiag is compared with on one capture."""

    tool: Tool
    factor: float
    wall: bool = False
    """Wall time counts instead of CPU seconds."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One capture and what is run on it."""

    key: str
    title: str
    mix: str
    packets: int
    targets: tuple[Target, ...]
    more: tuple[Tool, ...] = ()
    """Measured beside them, without a target."""
    turns: int = 1
    """Factor on the number of runs, for what is over in a moment."""
    scaled: bool = True


SUBJECTS = (
    Subject("mixed", "Mixed, 90 % RTP", "mixed", 4_000_000, (Target(tools.STATISTICS, 7),), (tools.NETDIAG_JSON,)),
    Subject("sip", "SIP only", "sip", 500_000, (Target(tools.STATISTICS, 5), Target(tools.FIELDS, 12))),
    Subject("tcp", "TCP with loss", "tcp", 2_000_000, (Target(tools.EXPERT, 20),)),
    Subject("small", "Mixed, cold start", "mixed", 1000, (Target(tools.EXPERT, 1, wall=True),), tools.PYTHON,
            turns=5, scaled=False),
    Subject("calls", "SIP only, about {calls:,} calls", "sip", 136_364, (Target(tools.SIP_DOCTOR, 50),)),
    Subject("connections", "TCP with loss", "tcp", 500_000, (Target(tools.NETVERDICT, 30),)),
)
CALL_MESSAGES = 75 / 11
"""Ten of eleven calls have 7 messages, the eleventh has 5."""


@dataclass(slots=True)
class Measured:
    """The runs on one capture."""

    subject: Subject
    packets: int
    size: int
    """Bytes of the file."""
    tools: list[Tool]
    runs: dict[str, list[Run]]
    seen: dict[str, str] = field(default_factory=dict)
    """What a tool's output says that it read."""
    absent: dict[str, str] = field(default_factory=dict)
    """Tool to why it was not measured, or not to its end."""

    @property
    def title(self) -> str:
        """What the capture is, with the number of packets."""
        what = self.subject.title.format(calls=round(self.packets / CALL_MESSAGES))
        return f"{what}, {self.packets:,} packets"

    def ratio(self, target: Target) -> float | None:
        """How many times longer the other tool takes; None when it was not measured."""
        by, other = "wall_s" if target.wall else "cpu_s", self.runs.get(target.tool.name)
        return median(other, by) / median(self.runs[tools.NETDIAG.name], by) if other else None


def budget_mb(packets: int) -> float:
    """200 MB and 64 bytes a packet."""
    return 200 + 64 * packets / 1e6


def capture(mix: str, packets: int, captures: Path) -> Path:
    """The path of a generated capture, written first unless it is there as the present generator makes it."""
    sources = sorted(p for p in Path(__file__).parent.glob("*") if p.name in MAKERS or p.name.startswith("traffic_"))
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()[:8]
    path = captures / f"{mix}-{packets}-{digest}.pcap"
    if not path.exists():
        print(f"writing {path}", file=sys.stderr)
        part = path.with_suffix(".part")
        generate.write(mix, packets, str(part))
        part.rename(path)
    return path


def compare(subject: Subject, packets: int, captures: Path, repeat: int, limit_s: float,
            packages: Path | None) -> Measured:
    """Runs all tools of a subject in turn. Failed when netdiag does; another's failure is noted."""
    path = capture(subject.mix, packets, captures)
    wanted = [tools.NETDIAG, *(t.tool for t in subject.targets), *subject.more, *tools.FLOORS]
    found = Measured(subject, packets, path.stat().st_size, [], {})
    for tool in wanted:
        place = tools.located(tool, packages)
        if isinstance(place, str):
            found.absent[tool.name] = place
        else:
            found.tools.append(place)
    with open(path, "rb") as file:  # every tool finds the capture in the page cache
        while file.read(1 << 24):
            pass
    with tempfile.TemporaryDirectory(dir=captures) as name:
        directory = Path(name)
        for turn in range(repeat * subject.turns):
            for tool in found.tools:
                done = found.runs.get(tool.name, [])
                if tool.name not in found.absent and sum(r.wall_s for r in done) < ENOUGH_S:
                    _run(found, tool, path, directory, limit_s, first=turn == 0)
    return found


def _run(found: Measured, tool: Tool, path: Path, directory: Path, limit_s: float, first: bool) -> None:
    try:
        run = measure(tool.on(str(path)), tool.allowed, tools.environment(tool), directory, limit_s, tool.discard)
    except Failed as failure:
        if tool.name.startswith("netdiag"):
            raise
        found.absent[tool.name] = str(failure).replace(str(path), tools.CAPTURE)
        print(f"{found.subject.key}: {tool.name}: {failure}", file=sys.stderr)
        return
    found.runs.setdefault(tool.name, []).append(run)
    if first and tool.work:
        found.seen[tool.name] = tool.seen(directory / OUTPUT)
    print(f"{found.subject.key}: {tool.name}: {run.cpu_s:.2f} CPU s, {run.wall_s:.2f} s, {run.own_mb:.0f} MB, "
          f"{found.seen.get(tool.name, '')}", file=sys.stderr)
