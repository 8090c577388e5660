"""Measures ``netdiag analyze`` beside other tools and writes docs/performance.md with its pictures.

    python bench/run.py                            all of it: about 25 minutes and 6 GB of disk
    python bench/run.py --only sip --repeat 5      one capture
    python bench/run.py --scale 0.01 --no-peers    a quick look
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import growth
import lines
import page
import stages
import tools
from measure import Failed

T = TypeVar("T")
REPORT = tools.ROOT / "docs" / "performance.md"
LARGE = lines.Subject("large", "Mixed, large", "mixed", 44_700_000, (), ())
"""12 GB. Only netdiag and the floors: tshark keeps several hundred bytes of memory a packet."""
PARTS = (*(s.key for s in lines.SUBJECTS), "growth", "profile")
PROFILED = ("mixed", "sip", "tcp", "small")
LEAST = 200
"""Packets that a scaled capture has at least."""


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measures netdiag beside other tools and writes docs/performance.md.", allow_abbrev=False)
    parser.add_argument("--only", action="append", choices=(*PARTS, "large"), help="this part only (may be repeated)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each command (default 3)")
    parser.add_argument("--scale", type=float, default=1, help="factor on the size of all captures (default 1)")
    parser.add_argument("--captures", type=Path, default=Path(tempfile.gettempdir()) / "netdiag-bench",
                        help="where captures and tools of others are kept (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=REPORT, help="page to write (default: docs/performance.md)")
    parser.add_argument("--limit", type=float, default=1200, help="seconds that one command may take (default 1200)")
    parser.add_argument("--no-peers", action="store_true", help="without the tools that have to be installed from PyPI")
    parser.add_argument("--large", action="store_true", help="a capture of 12 GB as well")
    options = parser.parse_args(given)
    if options.repeat < 1 or options.scale <= 0:
        parser.error("--repeat must be at least 1 and --scale more than 0")
    return options


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    parts = options.only or PARTS
    captures = options.captures.resolve()
    captures.mkdir(parents=True, exist_ok=True)
    packages = None if options.no_peers else captures
    said = sys.argv[1:] if given is None else given
    results = page.Results(shlex.join(["python", "bench/run.py", *_public(said)]) if said else "make bench",
                           os.getloadavg()[0])
    measure_all(results, options, parts, captures, packages)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    pictures = {}
    if results.curves:
        for name, svg in (("time", page.time_chart(results.curves)), ("memory", page.memory_chart(results.curves))):
            path = options.output.with_name(f"{options.output.stem}-{name}.svg")
            path.write_text(svg, encoding="utf-8")
            pictures[name] = path.name
    text = page.render(results, pictures)
    options.output.write_text(text, encoding="utf-8")
    print(text)
    return 1 if results.failures else 0


def measure_all(results: page.Results, options: argparse.Namespace, parts: list[str] | tuple[str, ...], captures: Path,
                packages: Path | None) -> None:
    """Fills in the results; where netdiag fails, that is said and the next part is measured."""
    def scaled(subject: lines.Subject) -> int:
        return max(LEAST, round(subject.packets * options.scale)) if subject.scaled else subject.packets

    def attempt(into: list[T], work: Callable[[], T]) -> None:
        try:
            into.append(work())
        except Failed as failure:
            print(failure, file=sys.stderr)
            results.failures.append(str(failure).replace(str(captures), "."))

    for subject in lines.SUBJECTS:
        if subject.key in parts:
            attempt(results.lines, partial(lines.compare, subject, scaled(subject), captures, options.repeat,
                                           options.limit, packages))
    if "growth" in parts:
        packets = sorted({max(LEAST, round(n * options.scale)) for n in growth.PACKETS})
        for flows in dict.fromkeys(max(growth.FLOWS[0], round(n * options.scale)) for n in growth.FLOWS):
            attempt(results.curves, partial(growth.grow, flows, packets, captures, options.repeat, options.limit))
    if "profile" in parts:
        for subject in lines.SUBJECTS:
            if subject.key in PROFILED:
                path = lines.capture(subject.mix, scaled(subject), captures)
                title = f"{subject.title}, {scaled(subject):,} packets"
                attempt(results.profiles, partial(stages.profile, title, path))
    if options.large or "large" in parts:
        subject = replace(LARGE, packets=scaled(LARGE))
        attempt(results.large, partial(lines.compare, subject, subject.packets, captures, 1,
                                       max(options.limit, 3600), packages))


def _public(said: list[str]) -> list[str]:
    """The arguments without paths of this machine."""
    return [Path(a).name if os.path.isabs(a) else a for a in said]


if __name__ == "__main__":
    sys.exit(main())
