"""Finds the detectors: every module of ``netdiag.detectors`` is one pattern, and its path is its id.

Metadata is read from the source without importing the module, so that ``netdiag explain`` loads
neither NumPy nor Polars. Packages of others join through the entry-point group ``netdiag.detectors``,
whose values name packages laid out like ours. Any breach of the contract is a RegistryError.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from netdiag import model
from netdiag.errors import RegistryError
from netdiag.model import Pattern

if TYPE_CHECKING:
    from netdiag.model import Detection
    from netdiag.tables import Tables

GROUP = "netdiag.detectors"
Detect = Callable[["Tables", Mapping[str, float]], "Detection"]
_BEGIN = "\nPATTERN = "


@dataclass(frozen=True, slots=True)
class Entry:
    """One pattern and where its detector lives."""

    pattern: Pattern
    module: str
    path: Path
    page: str
    """The module's docstring: what it is, why these packets mean it, what looks alike and is not it."""


@cache
def entries() -> dict[str, Entry]:
    """All patterns by id, sorted. RegistryError names the first module that breaks the contract."""
    found: dict[str, Entry] = {}
    for package in ("netdiag.detectors", *sorted(e.value for e in importlib.metadata.entry_points(group=GROUP))):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise RegistryError(f"{package}: named by the entry-point group {GROUP}, but is not a package")
        for place in spec.submodule_search_locations:
            root = Path(place)
            for path in sorted(root.glob("*/*.py")):
                if path.name.startswith("_"):
                    continue
                entry = _entry(package, root, path)
                if entry.pattern.id in found:
                    raise RegistryError(f"{path}: {entry.pattern.id} is already defined by "
                                        f"{found[entry.pattern.id].path}")
                found[entry.pattern.id] = entry
    for entry in found.values():
        unknown = [i for i in entry.pattern.explains if i not in found]
        if unknown and not all(_is_id(i) for i in unknown):
            raise RegistryError(f"{entry.path}: explains {unknown}, which are not pattern ids")
    return dict(sorted(found.items()))


def patterns() -> dict[str, Pattern]:
    """Metadata of all patterns by id."""
    return {i: e.pattern for i, e in entries().items()}


def get(pattern_id: str) -> Entry:
    """One entry; RegistryError with the nearest ids when there is none of that name."""
    known = entries()
    entry = known.get(pattern_id.upper())
    if entry is None:
        import difflib
        near = difflib.get_close_matches(pattern_id.upper(), known, 3, 0.5)
        raise RegistryError(f"no pattern {pattern_id!r}" + (f"; did you mean {', '.join(near)}?" if near else
                                                            "; netdiag patterns lists them"))
    return entry


def page(pattern_id: str) -> str:
    """The page of a pattern, Markdown."""
    return get(pattern_id).page


def detector(pattern_id: str) -> Detect:
    """The function ``detect(tables, settings)`` of a pattern; imports its module."""
    entry = get(pattern_id)
    try:
        detect = importlib.import_module(entry.module).detect
    except AttributeError:
        raise RegistryError(f"{entry.path}: has no function detect") from None
    if list(inspect.signature(detect).parameters) != ["tables", "settings"]:
        raise RegistryError(f"{entry.path}: detect must take (tables, settings)")
    return detect  # type: ignore[no-any-return]


def settings(pattern: Pattern, given: Mapping[str, float]) -> dict[str, float]:
    """Values of a pattern's settings: defaults, overridden by ``given`` (``ID.name`` to value)."""
    return {s.name: given.get(f"{pattern.id}.{s.name}", s.default) for s in pattern.settings}


def check_settings(given: Mapping[str, float]) -> None:
    """RegistryError for a setting that no pattern has."""
    known = {f"{p.id}.{s.name}" for p in patterns().values() for s in p.settings}
    for name in given:
        if name not in known:
            of = [k for k in known if k.split(".")[0] == name.split(".")[0]]
            raise RegistryError(f"--set {name}: no such setting"
                                + (f"; there are {', '.join(sorted(of))}" if of else ""))


def _is_id(text: str) -> bool:
    return text.count("-") >= 1 and text == text.upper()


def _entry(package: str, root: Path, path: Path) -> Entry:
    source = path.read_text(encoding="utf-8")
    # PATTERN is one expression, which compiles in half the time without a tree of it; what follows is code.
    begin, end = source.find(_BEGIN), source.find("\n)\n", source.find(_BEGIN))
    usual = 0 <= begin < end
    tree = ast.parse(source[:begin] if usual else source, str(path))
    doc = ast.get_docstring(tree)
    if not doc:
        raise RegistryError(f"{path}: has no docstring, which is the pattern's page")
    # Only what PATTERN is made of is run: names from netdiag.model, plain constants, and PATTERN itself.
    body: list[ast.stmt] = []
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        if node.targets[0].id == "PATTERN" or isinstance(node.value, ast.Constant):
            body.append(node)
    space: dict[str, object] = {k: v for k, v in vars(model).items() if not k.startswith("__")}
    try:
        exec(compile(ast.Module(body, []), str(path), "exec"), space)
        if usual:
            space["PATTERN"] = eval(compile(source[begin + len(_BEGIN) : end + 2], str(path), "eval"), space)
    except Exception as error:
        raise RegistryError(f"{path}: PATTERN must be made of netdiag.model and constants only ({error})") from error
    pattern = space.get("PATTERN")
    if not isinstance(pattern, Pattern):
        raise RegistryError(f"{path}: defines no PATTERN")
    expected = f"{path.parent.name}-{path.stem}".upper().replace("_", "-")
    if pattern.id != expected:
        raise RegistryError(f"{path}: PATTERN.id is {pattern.id!r}, but its place says {expected}")
    return Entry(pattern, f"{package}.{path.parent.name}.{path.stem}", path, doc)
