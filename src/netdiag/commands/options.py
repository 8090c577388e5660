"""Arguments and options that several commands share."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from netdiag.commands import config, guard
from netdiag.model import Severity

if TYPE_CHECKING:
    from netdiag.commands.output import Progress
    from netdiag.model import CaptureSummary, Report
    from netdiag.tables import Tables

F = TypeVar("F", bound=Callable[..., Any])

FOUND, USAGE, INCOMPLETE = 1, 2, 3


class CaptureCommand(click.Command):
    """A command that maps captures: it runs in a guarded child process."""


def _points(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """NAME=FILE, each."""
    out = []
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise click.BadParameter(f"{value!r} is not NAME=FILE, for example inside=lan.pcap", ctx, param)
        out.append((name, path))
    return tuple(out)


def _settings(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """ID.name=number, each; behind those of the configuration file, so that they win."""
    out = list(ctx.meta.get(config.SETTINGS, ()))
    for value in values:
        name, equals, number = value.partition("=")
        pattern, dot, setting = name.partition(".")
        try:
            if not (equals and dot):
                raise ValueError
            out.append((f"{pattern.upper()}.{setting}", float(number)))
        except ValueError:
            raise click.BadParameter(f"{value!r} is not ID.name=number, for example RTP-ONEWAY.min_packets=50",
                                     ctx, param) from None
    return tuple(out)


def _time(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """ISO 8601 or seconds since the epoch, UTC where no zone is given, as nanoseconds."""
    if value is None:
        return None
    try:
        if value.isascii() and value.isdigit():
            seconds = int(value[:12])
        else:
            when = datetime.fromisoformat(value)
            seconds = int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is no time; write 2026-11-22, 2026-11-22T06:00:00Z or seconds since 1970",
                                 ctx, param) from None
    if abs(seconds) > 9_000_000_000:  # what 64 bits of nanoseconds hold
        raise click.BadParameter(f"{value!r} is out of range (1685 to 2255)", ctx, param)
    return seconds * 1_000_000_000


def _severities(*more: str) -> click.Choice[str]:
    return click.Choice([*(s.label for s in Severity), *more], case_sensitive=False)


def severity(name: str) -> Severity:
    return Severity[name.upper()]


def captures(command: F) -> F:
    """CAPTURE... and --point, --keylog, --ca-file, --at-time: what is read, and with what knowledge."""
    for decorate in reversed((
        click.argument("capture", nargs=-1),
        click.option("--point", callback=_points, multiple=True, metavar="NAME=FILE",
                     help="A capture from a named place, such as inside=lan.pcap; repeat it for each file."),
        click.option("--keylog", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
                     help="TLS secrets (NSS key log): opens handshakes, and SIP inside TLS and WebSocket."),
        click.option("--ca-file", type=click.Path(exists=True, dir_okay=False), metavar="FILE",
                     help="PEM file of the roots that the clients trust."),
        click.option("--at-time", callback=_time, metavar="TIME",
                     help="Judge certificates at this time instead of at capture time."),
    )):
        command = decorate(command)
    return command


def choices(command: F) -> F:
    """--select, --ignore and --set: which patterns, with which numbers; --config, which may say so too."""
    for decorate in reversed((
        click.option("--select", multiple=True, metavar="IDS",
                     help="Only these patterns or families, with commas: TLS,RTP-ONEWAY."),
        click.option("--ignore", multiple=True, metavar="IDS", help="All but these patterns or families."),
        click.option("--set", "settings", callback=_settings, multiple=True, metavar="ID.name=VALUE",
                     help="Change a number of a pattern; `netdiag explain ID` lists them."),
        click.option("--config", is_eager=True, expose_value=False, callback=config.load, metavar="FILE",
                     help="Take select, ignore, fail_on, min_severity, ca_file and [settings] from this TOML file "
                          "[default: netdiag.toml, where there is one]. The command line wins."),
    )):
        command = decorate(command)
    return command


def formats(*names: str) -> Callable[[F], F]:
    return click.option("--format", "form", type=click.Choice(names), default=names[0], show_default=True,
                        help="How to write the result.")


def output(command: F) -> F:
    return click.option("-o", "--output", metavar="FILE", callback=_place,
                        help="Write to this file, not to standard output.")(command)


def _place(_context: click.Context, _option: click.Parameter, path: str | None) -> str | None:
    """Asked before the captures are read: that may take minutes."""
    if path is not None and path != "-":
        if os.path.isdir(path):
            raise click.UsageError(f"-o {path}: {os.strerror(errno.EISDIR)}")
        if not os.path.isdir(os.path.dirname(path) or "."):
            raise click.UsageError(f"-o {path}: {os.strerror(errno.ENOENT)}")
    return path


min_severity = click.option("--min-severity", type=_severities(), default="info", show_default=True,
                            help="Show findings from this severity up.")
fail_on = click.option("--fail-on", type=_severities("never"), default="low", show_default=True,
                       help="Exit with 1 for findings from this severity up.")


def ids(texts: Sequence[str]) -> list[str]:
    """``--select a,b --select c`` as a list."""
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]


def read(progress: Progress, capture: Sequence[str], point: Sequence[tuple[str, str]], keylog: str | None = None,
         ca_file: str | None = None, at_time: int | None = None, checksums: bool = True) -> Tables:
    """The tables of what ``captures`` was given; usage error when that is nothing, CaptureError when unreadable."""
    if not capture and not point:
        raise click.UsageError("no capture: name a file, NAME=FILE with --point, or - for standard input")
    if [*capture, *(p for _, p in point)].count("-") > 1:
        raise click.UsageError("standard input can be read only once")
    if "-" in [*capture, *(p for _, p in point)] and sys.stdin is not None and sys.stdin.isatty():
        raise click.UsageError("standard input is a terminal; pipe a capture into it: tcpdump -w - | netdiag ...")
    progress.stage(f"reading {', '.join([*capture, *(p for _, p in point)])}")
    from netdiag.tables import Options
    from netdiag.tables.reader import open_captures
    # Polars chains its own SIGINT handler with SA_RESTART: a read from a silent pipe would never be interrupted.
    signal.siginterrupt(signal.SIGINT, True)
    options = Options(at_ns=at_time, ca_file=ca_file, keylog=keylog, checksums=checksums)
    _check_knowledge(keylog, ca_file)
    tables = open_captures(list(capture), list(point), options, progress.bytes_read)
    guard.give_back()
    return tables


def _check_knowledge(keylog: str | None, ca_file: str | None) -> None:
    """CaptureError for a file that holds nothing of what it was given for: a verdict would seem to rest on it."""
    from netdiag.errors import CaptureError
    if keylog is not None:
        from netdiag.decode import keylog as keys
        if not keys.read(keylog).secrets:
            raise CaptureError(f"{keylog}: holds no TLS secret in NSS key log format")
    if ca_file is not None:
        from netdiag.tables import roots
        roots.load(ca_file)


def complain(captures: Sequence[CaptureSummary], told: bool = False) -> None:
    """One line on standard error for each capture that was not read to its end, unless the reader sees it anyway."""
    from netdiag.render.escape import plain
    for c in captures:
        if not c.complete and not told:
            print(f"netdiag: {plain(c.path)}: incomplete, {plain(c.damage)}", file=sys.stderr)


def remark(notes: Sequence[str]) -> None:
    """What could not be had, one line each on standard error."""
    from netdiag.render.escape import plain
    for note in notes:
        print(f"netdiag: {plain(note)}", file=sys.stderr)


def judge(progress: Progress, tables: Tables, select: Sequence[str], ignore: Sequence[str],
          settings: Sequence[tuple[str, float]]) -> Report:
    """What the engine finds in them."""
    from netdiag import engine
    progress.stage("checking patterns")

    def next_pattern(name: str, number: int, total: int) -> None:
        progress.pattern(name, number, total)
        guard.give_back()

    return engine.analyze(tables, select=ids(select), ignore=ids(ignore), settings=dict(settings),
                          progress=next_pattern)


def exit_code(report: Report, fail_on: str) -> int:
    """3 incomplete, else 1 when a finding reaches ``fail_on``, else 0. CAP-* patterns are no faults."""
    from netdiag.render.digest import is_gate
    if not report.complete:
        return INCOMPLETE
    if fail_on == "never":
        return 0
    least = severity(fail_on)
    return FOUND if any(f.severity >= least and not is_gate(f) for f in report.findings) else 0
