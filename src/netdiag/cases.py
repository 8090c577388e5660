"""Case studies: what ``cases/<slug>/`` holds and whether it is complete.

A case is a folder with ``README.md`` (the study, seven sections), ``case.toml``
(patterns, capture points, lab variants with what each must show) and ``lab.py``
(which makes it happen again). This module reads them; it judges a case's form in
`problems`, and runs nothing.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from netdiag.errors import RegistryError

SECTIONS = (
    "Executive Summary",
    "Environment & Constraints",
    "Symptoms & Initial Signals",
    "Investigation Timeline",
    "Root Cause",
    "Resolution",
    "Prevention & Takeaways",
)
"""The level-two headings of every study, in this order."""

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_PATTERN_ID = re.compile(r"[A-Z][A-Z0-9]*(-[A-Z0-9]+)+")
# Not after a section sign: "§4.2.2.1" is no address.
_IPV4 = re.compile(r"(?<![\w.§])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)")
# RFC 5737 and RFC 1918, then what no host can own: loopback, link-local, multicast and the unspecified net.
_ALLOWED_NETWORKS = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
        *("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "0.0.0.0/8", "255.255.255.255/32"),
    )
)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a lab, and the pattern ids that analysing its captures must and must not give."""

    name: str
    description: str
    expect: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One case study. ``points`` maps a capture point to where it is; ``requires``: programs and modules of the lab."""

    slug: str
    title: str
    summary: str
    patterns: tuple[str, ...]
    tags: tuple[str, ...]
    points: Mapping[str, str]
    variants: Mapping[str, Variant]
    requires: tuple[str, ...]
    folder: Path

    @property
    def readme(self) -> Path:
        """The study itself, Markdown."""
        return self.folder / "README.md"

    @property
    def lab_file(self) -> Path:
        """The module whose ``run(lab, variant)`` reproduces the case."""
        return self.folder / "lab.py"

    def sections(self) -> dict[str, str]:
        """The study by level-two heading, in the file's order; text before the first heading is left out."""
        return _sections(self.readme.read_text(encoding="utf-8"))

    def recording(self, variant: str, point: str) -> Path:
        """Where the recorded capture of a variant at a point is kept (it need not exist); a large one is compressed."""
        plain = samples_dir() / "cases" / self.slug / f"{variant}.{point}.pcap"
        packed = plain.with_name(f"{plain.name}.gz")
        return packed if packed.is_file() else plain


def cases_dir() -> Path:
    """The folder of all cases: inside the installed package, or in the checkout."""
    return _shipped("cases", Path("cases"))


def samples_dir() -> Path:
    """The folder of sample captures: inside the installed package, or in the checkout."""
    return _shipped("samples", Path("captures", "samples"))


def _shipped(name: str, in_checkout: Path) -> Path:
    package = Path(__file__).resolve().parent
    installed = package / "_data" / name
    return installed if installed.is_dir() else package.parents[1] / in_checkout


@cache
def all_cases() -> dict[str, Case]:
    """Every case by slug, sorted; RegistryError when one cannot be read."""
    folders = sorted(file.parent for file in cases_dir().glob("*/case.toml"))
    return {folder.name: load_case(folder) for folder in folders}


def load_case(folder: Path) -> Case:
    """Read ``folder/case.toml``; RegistryError naming the file and the field when it is not as specified."""
    file = folder / "case.toml"
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RegistryError(f"{file}: {error}") from error
    table = _Table(file, "", raw)
    known = {"slug", "title", "summary", "patterns", "tags", "requires", "points", "variants"}
    table.refuse_others(known)
    points = table.tables("points")
    variants = table.tables("variants")
    return Case(
        slug=table.text("slug"),
        title=table.text("title"),
        summary=table.text("summary"),
        patterns=table.texts("patterns"),
        tags=table.texts("tags", ()),
        points={name: points.text(name) for name in points.raw},
        variants={name: _variant(name, variants.tables(name)) for name in variants.raw},
        requires=table.texts("requires", ()),
        folder=folder,
    )


def _variant(name: str, table: _Table) -> Variant:
    table.refuse_others({"description", "expect", "absent"})
    return Variant(name, table.text("description"), table.texts("expect"), table.texts("absent", ()))


@dataclass(frozen=True, slots=True)
class _Table:
    """A TOML table whose fields are asked for by type."""

    file: Path
    name: str
    raw: dict[str, Any]

    def text(self, key: str) -> str:
        value = self.raw.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(key, "a non-empty string")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        value = self.raw.get(key, default)
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise self._wrong(key, "a list of strings")

    def tables(self, key: str) -> _Table:
        value = self.raw.get(key)
        if not isinstance(value, dict) or not value:
            raise self._wrong(key, "a non-empty table")
        return _Table(self.file, f"{self.name}{key}.", value)

    def refuse_others(self, known: set[str]) -> None:
        for key in self.raw:
            if key not in known:
                raise RegistryError(f"{self.file}: {self.name}{key}: unknown field")

    def _wrong(self, key: str, wanted: str) -> RegistryError:
        return RegistryError(f"{self.file}: {self.name}{key}: must be {wanted}")


def _sections(text: str) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    body: list[str] | None = None
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if not fenced and line.startswith("## "):
            # A repeated heading joins its first one; `problems` reports it.
            body = found.setdefault(line[3:].strip(), [])
        elif body is not None:
            body.append(line)
    return {heading: "\n".join(lines).strip() for heading, lines in found.items()}


def problems(case: Case) -> list[str]:
    """What keeps ``case`` from being complete, one sentence each; empty when it is."""
    return [*_problems_of_fields(case), *_problems_of_variants(case), *_problems_of_files(case)]


def _problems_of_fields(case: Case) -> list[str]:
    found = []
    if not _SLUG.fullmatch(case.slug) or case.slug != case.folder.name:
        found.append(f"slug {case.slug!r} is not the name of its folder in lower case with hyphens")
    if "\n" in case.summary or not case.summary.endswith("."):
        found.append("summary is not one line that ends with a full stop")
    if not case.patterns:
        found.append("no patterns")
    ids = [*case.patterns, *(p for v in case.variants.values() for p in (*v.expect, *v.absent))]
    found += [f"{name!r} is not a pattern id" for name in sorted(set(ids)) if not _PATTERN_ID.fullmatch(name)]
    if len(set(case.patterns)) != len(case.patterns):
        found.append("a pattern is listed twice")
    found += [f"{n!r} is not a point name" for n in case.points if not _NAME.fullmatch(n)]
    found += [f"{n!r} is not a variant name" for n in case.variants if not _NAME.fullmatch(n)]
    return found


def _problems_of_variants(case: Case) -> list[str]:
    found = [f"no variant {name!r}" for name in ("broken", "fixed") if name not in case.variants]
    if "broken" in case.variants and not case.variants["broken"].expect:
        found.append("variant 'broken' expects nothing")
    if "fixed" in case.variants and case.variants["fixed"].expect:
        found.append("variant 'fixed' still expects a pattern")
    shown = {name for variant in case.variants.values() for name in variant.expect}
    found += [f"no variant shows {name}" for name in case.patterns if name not in shown]
    for variant in case.variants.values():
        both = sorted(set(variant.expect) & set(variant.absent))
        found += [f"variant {variant.name!r} both expects and excludes {name}" for name in both]
    return found


def _problems_of_files(case: Case) -> list[str]:
    found = []
    if not case.lab_file.is_file():
        found.append("lab.py is missing")
    elif not re.search(r"^def run\(", case.lab_file.read_text(encoding="utf-8"), re.MULTILINE):
        found.append("lab.py has no run()")
    for variant in case.variants:
        for point in case.points:
            if not case.recording(variant, point).is_file():
                found.append(f"no recording {variant}.{point}.pcap")
    if not case.readme.is_file():
        return [*found, "README.md is missing"]
    return [*found, *_problems_of_text(case, case.readme.read_text(encoding="utf-8"))]


def _problems_of_text(case: Case, text: str) -> list[str]:
    found = []
    if not text.startswith(f"# {case.title}\n"):
        found.append("README.md does not begin with the title")
    sections = _sections(text)
    if tuple(sections) != SECTIONS:
        found.append(f"sections are {list(sections)}, not the seven in order")
    found += [f"section {heading!r} is empty" for heading, body in sections.items() if not body]
    if f"netdiag lab run {case.slug}" not in text:
        found.append(f"README.md does not name `netdiag lab run {case.slug}`")
    for shown in sorted(set(_IPV4.findall(text))):
        try:
            address = ipaddress.IPv4Address(shown)
        except ipaddress.AddressValueError:
            continue
        if not any(address in network for network in _ALLOWED_NETWORKS):
            found.append(f"{shown} is not a documentation or private address")
    return found
