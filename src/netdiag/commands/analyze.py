"""``netdiag analyze``: the report."""

from __future__ import annotations

import click

from netdiag.commands import options
from netdiag.commands.output import Progress, colour, emit, on_terminal, width


@click.command("analyze", cls=options.CaptureCommand,
               short_help="Say what broke, how sure that is, and which frames prove it.")
@options.captures
@options.formats("terminal", "json", "markdown")
@options.output
@options.choices
@options.min_severity
@options.fail_on
@click.option("--second-opinion", is_flag=True,
              help="Ask tshark (through pyshark, the extra `tshark`) whether it shows the cited frames.")
@click.option("-v", "--verbose", is_flag=True, help="List every pattern, also those that were clear.")
def analyze(capture: tuple[str, ...], point: tuple[tuple[str, str], ...], keylog: str | None, ca_file: str | None,
            at_time: int | None, form: str, output: str | None, select: tuple[str, ...], ignore: tuple[str, ...],
            settings: tuple[tuple[str, float], ...], min_severity: str, fail_on: str, second_opinion: bool,
            verbose: bool) -> int:
    """Say what broke in one or several captures, how sure that is, and which frames prove it.

    Several CAPTUREs are files of one capture point. Captures from different places are given with --point:

    \b
        netdiag analyze incident.pcap
        netdiag analyze --point inside=lan.pcap --point outside=wan.pcap
        tcpdump -w - | netdiag analyze -

    What is given every time can stand in netdiag.toml, or in the file that --config names:

    \b
        ignore = ["CAP"]
        [settings]
        "RTP-ONEWAY.min_packets" = 50

    Exit status: 0 nothing at or above --fail-on, 1 findings, 2 usage or unreadable input, 3 incomplete.
    """
    with Progress() as progress:
        tables = options.read(progress, capture, point, keylog, ca_file, at_time, checksums=form != "terminal")
        report = options.judge(progress, tables, select, ignore, settings)
        from netdiag.render.digest import above
        shown, hidden = above(report, options.severity(min_severity))
        if second_opinion:
            from netdiag import second_opinion as other
            shown = other.ask(shown, keylog, progress=progress.stage)
    if form == "json":
        from netdiag.render import json
        text = json.render(shown)
    elif form == "markdown":
        from netdiag.render import markdown
        text = markdown.render(shown, verbose, hidden)
    else:
        from netdiag.render import terminal
        text = terminal.render(shown, width(output), colour(output), verbose, hidden)
    options.complain(report.captures, told=form == "terminal" and on_terminal(output))
    options.remark(shown.notes)
    emit(text, output, [*capture, *(path for _, path in point)])
    return options.exit_code(report, fail_on)
