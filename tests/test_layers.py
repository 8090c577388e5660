"""Imports point left, modules stay small, and every decode, table and capture module has its test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from checkout import ROOT

SOURCE = ROOT / "src" / "netdiag"
LAYERS = ["errors", "model", "capture", "decode", "tables", "detectors", "registry", "diagnosis", "inventory", "engine",
          "cases", "second_opinion", "lab", "render", "commands", "cli", "__main__"]
MODULES = sorted(SOURCE.rglob("*.py"))
LONG: dict[str, str] = {}
"""Modules over 400 lines and why; may only shrink."""


def layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Names of netdiag modules that ``path`` imports, wherever the import stands."""
    out: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "netdiag":
            if node.module == "netdiag":
                out |= {f"netdiag.{alias.name}" for alias in node.names}
            else:
                out.add(node.module)
        elif isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names if alias.name.split(".")[0] == "netdiag"}
    return out


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_left(path: Path) -> None:
    mine = layer(path)
    if mine == "__init__":
        return
    for name in imported(path):
        other = name.split(".")[1]
        if other == "__version__":
            continue
        assert other in LAYERS, name
        assert LAYERS.index(other) <= LAYERS.index(mine), f"{mine} imports {other}"
        if mine == "detectors":
            assert other in ("model", "tables", "detectors"), f"a detector imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_modules_stay_small(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= 400 or str(path.relative_to(SOURCE)) in LONG, f"{lines} lines: split it by noun"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_modules_say_what_they_are(path: Path) -> None:
    if path.name != "__init__.py" or path.read_text().strip():
        assert ast.get_docstring(ast.parse(path.read_text())), path
