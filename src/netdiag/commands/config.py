"""``netdiag.toml``: what would otherwise be given on every command line. The command line wins."""

from __future__ import annotations

import math
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import click

from netdiag.model import Severity

NAME = "netdiag.toml"
"""Looked for in the current directory when ``--config`` is not given."""
SETTINGS = "netdiag.config.settings"
"""Where ``--set`` finds the settings of the file: a key of ``click.Context.meta``."""
_MOST = 1 << 20
"""Bytes that are read; a longer file is no configuration (practice)."""
_LEVELS = tuple(s.label for s in Severity)


def load(ctx: click.Context, param: click.Parameter, given: str | None) -> None:
    """Callback of ``--config``: the file's values become defaults of the other options. Usage error, one line."""
    if ctx.resilient_parsing:
        return
    path = given or NAME
    if given is None and not os.path.isfile(path):
        return
    values = _checked(path, _parsed(path))
    ctx.meta[SETTINGS] = tuple(values.pop("settings", {}).items())
    ctx.default_map = {**(ctx.default_map or {}), **values}
    if given is None:  # it changes what is reported: a file that merely lies there must not do so in silence
        print(f"netdiag: using {NAME} of this directory", file=sys.stderr)


def _parsed(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST + 1)
        if len(data) > _MOST:
            raise _error(path, "larger than 1 MiB: no configuration")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise _error(path, error.strerror or str(error)) from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise _error(path, f"not TOML: {error}") from None


def _error(path: str, text: str) -> click.UsageError:
    return click.UsageError(f"{path}: {text}")


def _checked(path: str, table: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Callable[[str, str, Any], Any]] = {
        "settings": _settings, "select": _ids, "ignore": _ids, "fail_on": _fail_on, "min_severity": _severity,
        "ca_file": _file}
    for key in table:
        if key not in known:
            raise _error(path, f"unknown key {key!r}; there are {', '.join(known)}")
    return {key: known[key](path, key, value) for key, value in table.items()}


def _settings(path: str, key: str, value: Any) -> dict[str, float]:
    """``"ID.name" = number``, or a table for each ID with ``name = number``."""
    if not isinstance(value, dict):
        raise _error(path, f"{key} must be a table: [settings]")
    numbers: dict[str, Any] = {}
    for name, item in value.items():
        nested = {f"{name}.{inner}": v for inner, v in item.items()} if isinstance(item, dict) else {name: item}
        for full, number in nested.items():
            pattern, _, setting = full.partition(".")
            full = f"{pattern.upper()}.{setting}"
            if full in numbers:
                raise _error(path, f"{key}: {full} is given twice")
            numbers[full] = number
    from netdiag import registry
    known = {f"{p.id}.{s.name}" for p in registry.patterns().values() for s in p.settings}
    for full, number in numbers.items():
        if full not in known:
            of = sorted(k for k in known if k.split(".")[0] == full.split(".")[0])
            raise _error(path, f"{key}: there is no setting {full}" + (f"; there are {', '.join(of)}" if of else ""))
        if isinstance(number, bool) or not isinstance(number, int | float) or not _finite(number):
            raise _error(path, f"{key}: {full} must be a number")
    return {full: float(number) for full, number in numbers.items()}


def _finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _ids(path: str, key: str, value: Any) -> list[str]:
    """Patterns or families: a list of texts, or one text with commas as on the command line."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(i, str) for i in items):
        raise _error(path, f'{key} must be a list of patterns or families: ["TLS", "RTP-ONEWAY"]')
    from netdiag import registry
    from netdiag.errors import RegistryError
    names = [i.strip() for i in items if i.strip()]
    for name in names:
        if any(i == name.upper() or i.startswith(name.upper() + "-") for i in registry.patterns()):
            continue
        try:
            registry.get(name)
        except RegistryError as error:  # it names the nearest ones
            raise _error(path, f"{key}: {error}") from None
    return names


def _severity(path: str, key: str, value: Any, more: tuple[str, ...] = ()) -> str:
    if not isinstance(value, str) or value.lower() not in (*_LEVELS, *more):
        raise _error(path, f"{key} must be one of {', '.join((*_LEVELS, *more))}")
    return value.lower()


def _fail_on(path: str, key: str, value: Any) -> str:
    return _severity(path, key, value, ("never",))


def _file(path: str, key: str, value: Any) -> str:
    """Relative to the configuration, not to where netdiag is run."""
    if not isinstance(value, str):
        raise _error(path, f"{key} must be the path of a file")
    where = os.path.join(os.path.dirname(path), value)
    if not os.path.isfile(where):
        raise _error(path, f"{key}: there is no file {where}")
    return where
