"""docs/performance.md: the figures as Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import growth
import tools
from growth import Curve
from lines import Measured, Target, budget_mb
from measure import POLL_S, Run, median, spread
from picture import Series, chart
from stages import Profile

SHOWN_SHARE = 0.01
"""Stages below that share of the time are shown as one."""


@dataclass(slots=True)
class Results:
    """All that was measured."""

    made_by: str
    load: float
    """Processes that wanted a processor when the run began (mean of a minute)."""
    lines: list[Measured] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    large: list[Measured] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What netdiag itself failed at."""


def render(results: Results, pictures: Mapping[str, str]) -> str:
    """The page; ``pictures`` maps "time" and "memory" to file names beside it."""
    parts = [
        "# Performance", "",
        f"Written by `{results.made_by}`; run it again rather than edit this page. `bench/README.md` says what the "
        "captures hold and how is measured.", "",
        f"Machine: {tools.machine()}; load when the run began: {results.load:.1f}.", ""]
    parts += [f"**Failed**: {failure}\n" for failure in results.failures]
    if results.lines:
        parts += _targets(results.lines) + _memory(results) + _runs(results.lines)
    if results.curves:
        parts += _growth(results.curves, pictures)
    for found in results.large:
        parts += _large(found)
    for profile in results.profiles:
        parts += _profile(profile)
    return "\n".join(parts + _commands(results)).rstrip() + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *map(line, rows), ""]


def _targets(lines: Sequence[Measured]) -> list[str]:
    rows = []
    for found in lines:
        for target in found.subject.targets:
            rows.append([found.title, target.tool.name, *_comparison(found, target)])
    return ["## Against other tools", "",
            "CPU seconds of the whole command, all patterns on; medians, with the range of the runs. For the cold "
            "start (a new process, the files in the page cache) wall time counts. *Wall* is netdiag's wall time and "
            "the other's. [floors.md](floors.md) says what stands under the missed lines.", "",
            *_table(("capture", "against", "netdiag", "other", "ratio", "target", "", "wall"), rows)]


def _comparison(found: Measured, target: Target) -> list[str]:
    by = "wall_s" if target.wall else "cpu_s"
    own, other = found.runs[tools.NETDIAG.name], found.runs.get(target.tool.name)
    ratio = found.ratio(target)
    wanted = f"{target.factor:g}×"
    if other is None or ratio is None:
        return [spread(own, by), f"not measured: {found.absent.get(target.tool.name, '')}", "", wanted, "",
                f"{median(own, 'wall_s'):.2f} / –"]
    walls = median(own, "wall_s"), median(other, "wall_s")
    return [spread(own, by), spread(other, by), f"**{ratio:.1f}×**", wanted,
            "met" if ratio >= target.factor else "missed",
            f"{walls[0]:.2f} / {walls[1]:.2f}" + ("" if walls[0] <= walls[1] else ", worse")]


def _memory_row(title: str, packets: int, runs: Sequence[Run]) -> list[str]:
    own, budget = max(r.own_mb for r in runs), budget_mb(packets)
    return [title, f"{packets:,}", f"{own:.0f}", f"{budget:.0f}", "met" if own <= budget else "missed",
            f"{max(r.resident_mb for r in runs):.0f}"]


def _memory(results: Results) -> list[str]:
    rows = [_memory_row(f.title, f.packets, f.runs[tools.NETDIAG.name]) for f in (*results.lines, *results.large)]
    rows += [_memory_row(f"{c.flows:,} flows", n, runs) for c in results.curves
             for n, runs in list(zip(c.packets, c.runs, strict=True))[-1:]]
    return ["## Memory", "",
            "Peak of netdiag's own (anonymous) memory over all runs, MB of 10⁶ bytes, read every "
            f"{POLL_S * 1000:.0f} ms, worker processes included; budget: 200 MB and 64 bytes a packet. "
            "Resident memory counts mapped pages of the capture too, which the kernel may drop.", "",
            *_table(("capture", "packets", "own", "budget", "", "resident"), rows)]


def _runs(lines: Sequence[Measured]) -> list[str]:
    parts = ["## Every tool on every capture", "",
             "`cat`, `capinfos` and `tcpdump` are floors: what it costs to read the file, and to walk through its "
             "packets without looking at them. *Read* is what a tool's output says that it read.", ""]
    for found in lines:
        rows = []
        for tool in found.tools:
            if tool.name in found.runs:
                runs = found.runs[tool.name]
                rows.append([tool.name, str(len(runs)), spread(runs, "cpu_s"), spread(runs, "wall_s"),
                             f"{median(runs, 'own_mb'):.0f}", found.seen.get(tool.name, "")])
        rows += [[name, "", f"not measured: {why}", "", "", ""] for name, why in found.absent.items()]
        parts += [f"### {found.title} ({found.size / 1e6:.0f} MB)", "",
                  *_table(("tool", "runs", "CPU s", "wall s", "own memory, MB", "read"), rows)]
    return parts


def _growth(curves: Sequence[Curve], pictures: Mapping[str, str]) -> list[str]:
    rows = []
    for curve in curves:
        for n, runs, away in zip(curve.packets, curve.runs, curve.deviations, strict=True):
            rows.append([f"{curve.flows:,}", f"{n:,}", spread(runs, "cpu_s"), f"{away:+.1%}",
                         "met" if abs(away) <= growth.TOLERANCE else "missed", f"{median(runs, 'wall_s'):.2f}",
                         f"{max(r.own_mb for r in runs):.0f}", f"{budget_mb(n):.0f}"])
    return ["## Growth", "",
            "Captures with a fixed number of flows (half RTP, half TCP with retransmissions) that go on for longer. "
            "*Off the line* is the distance of the median from the least-squares line of its number of flows; "
            f"{growth.TOLERANCE:.0%} is allowed.", "",
            f"![CPU seconds over packets, one line for each number of flows]({pictures['time']})", "",
            f"![Own memory over packets, with the budget]({pictures['memory']})", "",
            *_table(("flows", "packets", "CPU s", "off the line", "", "wall s", "own memory, MB", "budget, MB"), rows)]


def time_chart(curves: Sequence[Curve]) -> str:
    """SVG of CPU seconds with the fitted lines."""
    def series(curve: Curve) -> Series:
        slope, intercept = curve.line
        first, last = curve.packets[0], curve.packets[-1]
        points = [(n / 1e6, value) for n, value in zip(curve.packets, curve.values("cpu_s"), strict=True)]
        return Series(f"{curve.flows:,} flows", points,
                      ((first / 1e6, slope * first + intercept), (last / 1e6, slope * last + intercept)))
    return chart("netdiag analyze: time, with least-squares lines", "million packets", "CPU seconds",
                 [series(c) for c in curves])


def memory_chart(curves: Sequence[Curve]) -> str:
    """SVG of own memory with the budget."""
    made = [Series(f"{c.flows:,} flows",
                   [(n / 1e6, max(r.own_mb for r in runs)) for n, runs in zip(c.packets, c.runs, strict=True)])
            for c in curves]
    lengths = sorted({n for c in curves for n in c.packets})
    return chart("netdiag analyze: own memory at its peak", "million packets", "MB", made,
                 ("budget", [(n / 1e6, budget_mb(n)) for n in (lengths[0], lengths[-1])]))


def _large(found: Measured) -> list[str]:
    rows = [[name, spread(runs, "cpu_s"), spread(runs, "wall_s"), f"{max(r.own_mb for r in runs):.0f}",
             found.seen.get(name, "")] for name, runs in found.runs.items()]
    return [f"## A capture of {found.size / 1e9:.1f} GB", "", f"{found.title}.", "",
            *_table(("tool", "CPU s", "wall s", "own memory, MB", "read"), rows)]


def _profile(profile: Profile) -> list[str]:
    total = sum(s.cpu_s for s in profile.stages)
    shown = [s for s in profile.stages if s.cpu_s >= SHOWN_SHARE * total]
    small = [s for s in profile.stages if s.cpu_s < SHOWN_SHARE * total]
    rows = [[s.name, f"{s.cpu_s:.2f}", f"{s.wall_s:.2f}", f"{s.cpu_s / total:.0%}"] for s in shown]
    if small:
        cpu = sum(s.cpu_s for s in small)
        rows.append([f"{len(small)} smaller ones", f"{cpu:.2f}", f"{sum(s.wall_s for s in small):.2f}",
                     f"{cpu / total:.0%}"])
    return [f"## Where the time goes: {profile.title}", "",
            "One run with a clock around every stage; a stage's time is without that of the tables it asks for. "
            f"{total:.2f} CPU s in all.", "", *_table(("stage", "CPU s", "wall s", "share"), rows)]


def _commands(results: Results) -> list[str]:
    used = {tool.name: tool for found in (*results.lines, *results.large)
            for tool in found.tools}
    if not used:
        used = {tools.NETDIAG.name: tools.NETDIAG}
    parts = ["## Commands and versions", "", f"{tools.CAPTURE} stands for the file.", ""]
    for tool in used.values():
        command = [Path(tool.command[0]).name, *tool.command[1:]]
        if tool.name.startswith("netdiag"):
            command = ["netdiag", *tool.command[tool.command.index("analyze"):]]
        parts.append(f"- {tool.name}: `{shlex.join(command)}` ({tools.version(tool)})")
    missing = {name: why for found in results.lines for name, why in found.absent.items() if name not in used}
    return parts + [f"- {name}: not measured: {why}" for name, why in missing.items()]
