"""A directory with everything that a postmortem or a ticket needs: evidence, report, and captures of the cited frames.

The captures are classic pcap with nanoseconds, which every tool reads. They keep bytes, times, lengths and link
types; comments, interface names and TLS secrets of the original stay behind.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netdiag.capture.records import MAX_RECORD
from netdiag.decode.keep import MEDIA
from netdiag.errors import NetdiagError
from netdiag.model import Finding, Report
from netdiag.render import digest as d
from netdiag.render import evidence as section
from netdiag.render import json
from netdiag.render.escape import code, markdown
from netdiag.render.markdown import rows
from netdiag.render.timeline import packet_rows
from netdiag.tables.excerpt import Frame, frames

if TYPE_CHECKING:
    from netdiag.tables import Tables

EVIDENCE, REPORT = "evidence.md", "report.json"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_NAME = 60
"""Characters of a point's name that go into a file name (practice)."""
_SECONDS = 1 << 32
"""Classic pcap has 32 bits for them: until 2106."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One capture of the bundle: the cited frames of one point with one link type, in the point's order."""

    name: str
    point: str
    link: int
    frames: tuple[Frame, ...]


def check(directory: str) -> None:
    """NetdiagError unless ``directory`` is absent or empty: nothing is ever overwritten."""
    if not directory:
        raise NetdiagError("--bundle: needs the name of a directory")
    try:
        if os.listdir(directory):
            raise NetdiagError(f"--bundle {directory}: is not empty")
    except FileNotFoundError:
        return
    except OSError as error:
        raise NetdiagError(f"--bundle {directory}: {error.strerror or error}") from None


def write(directory: str, tables: Tables, report: Report, chosen: Sequence[Finding]) -> list[str]:
    """Writes the bundle about the findings ``chosen`` and returns the names of its files.

    The report in it holds these findings and the CAP-* that limit them; the captures hold every frame it cites.
    """
    told = _about(report, chosen)
    cuts = cut(tables, told.findings)
    text = section.render(tables, report, chosen) + "\n" + "\n".join(_mapping(tables, cuts)).rstrip() + "\n"
    check(directory)
    where = Path(directory)
    try:
        where.mkdir(parents=True, exist_ok=True)
        for name, content in ((EVIDENCE, text), (REPORT, json.render(told))):
            with open(where / name, "x", encoding="utf-8", errors="backslashreplace") as out:
                out.write(content)
        for one in cuts:
            _save(where / one.name, one)
    except OSError as error:
        raise NetdiagError(f"--bundle {directory}: {error.strerror or error}") from None
    return [EVIDENCE, REPORT, *(c.name for c in cuts)]


def _about(report: Report, chosen: Sequence[Finding]) -> Report:
    ids = {f.id for f in chosen}
    incidents = tuple(dataclasses.replace(i, impacts=tuple(f for f in i.impacts if f in ids))
                      for i in report.incidents if i.mechanism in ids)
    findings = tuple(f for f in report.findings if f.id in ids or d.is_gate(f))
    return dataclasses.replace(report, findings=findings, incidents=incidents)


def cut(tables: Tables, findings: Sequence[Finding]) -> list[Cut]:
    """The cited frames of ``findings``: one capture a point, or one for each link type where a point has several.

    NetdiagError for a frame whose time classic pcap cannot hold.
    """
    capture, number = tables.packets.locate(packet_rows(tables, [e for f in findings for e in f.evidence]))
    cited = list(zip(capture.tolist(), number.tolist(), strict=True))
    found = {c: frames(tables, c, {n for other, n in cited if other == c}) for c in dict(cited)}
    groups: dict[tuple[str, int], list[Frame]] = {}
    for c, n in cited:
        if (frame := found[c].get(n)) is None:
            continue
        if not 0 <= frame.ts_ns < _SECONDS * 1_000_000_000:
            raise NetdiagError(f"--bundle: frame {n} of {tables.captures[c].path} has a time outside 1970 to 2106, "
                               "which a pcap file cannot hold")
        groups.setdefault((tables.captures[c].point, frame.link), []).append(frame)
    points = [point for point, _ in groups]
    taken: set[str] = set()
    return [Cut(_name(point, link if points.count(point) > 1 else None, taken), point, link, tuple(members))
            for (point, link), members in groups.items()]


def _name(point: str, link: int | None, taken: set[str]) -> str:
    """A file name that is safe everywhere and not ``taken``, also where case does not count."""
    stem = _UNSAFE.sub("_", point)[:_NAME].strip("._-") or "point"
    stem += "" if link is None else f".link{link}"
    name, again = f"{stem}.pcap", 1
    while name.lower() in taken:
        again += 1
        name = f"{stem}-{again}.pcap"
    taken.add(name.lower())
    return name


def _save(path: Path, one: Cut) -> None:
    from scapy.utils import RawPcapWriter
    with open(path, "xb") as file:
        longest = max(f.captured for f in one.frames)
        writer = RawPcapWriter(file, linktype=one.link, nano=True, snaplen=max(MAX_RECORD, longest))
        writer.linktype = one.link  # 0 (BSD loopback) is none to its constructor
        writer.write_header(None)
        for frame in one.frames:
            second, part = divmod(frame.ts_ns, 1_000_000_000)
            writer.write_packet(frame.data, sec=second, usec=part, caplen=frame.captured, wirelen=frame.wire)


def _mapping(tables: Tables, cuts: Sequence[Cut]) -> list[str]:
    """Which frame of the bundle is which of the original; neighbours share a line."""
    out = ["### Captures of this bundle", ""]
    if not cuts:
        return [*out, "No frame is cited, so there is no capture.", ""]
    out += ["They hold the cited frames alone, with their bytes, times and lengths. Frame numbers and display filters "
            "above are those of the originals.", ""]
    paths = sorted({tables.captures[f.capture].path for one in cuts for f in one.frames if f.trimmed})
    if paths:
        out += [f"{', '.join(code(p) for p in paths)} was read as a stream, so that media packets of it are here with "
                f"their first {MEDIA} payload bytes.", ""]
    body = []
    for one in cuts:
        for first, last, frame in _runs(one.frames):
            length = last - first
            body.append((markdown(one.point), code(one.name, cell=True), _run(first, last),
                         code(tables.captures[frame.capture].path, cell=True),
                         _run(frame.number, frame.number + length)))
    return out + rows(("point", "capture of the bundle", "frame", "original", "its frame"), body)


def _runs(members: Sequence[Frame]) -> Iterator[tuple[int, int, Frame]]:
    """First and last number in the cut capture, and the first original frame, of each run without a gap."""
    start = 0
    for i in range(1, len(members) + 1):
        if i == len(members) or (members[i].capture, members[i].number) != (members[i - 1].capture,
                                                                            members[i - 1].number + 1):
            yield start + 1, i, members[start]
            start = i


def _run(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"
