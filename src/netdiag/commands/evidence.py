"""``netdiag evidence`` and ``netdiag ladder``: what to paste into a postmortem or a ticket."""

from __future__ import annotations

import click

from netdiag.commands import options
from netdiag.commands.output import Progress, emit, width

MENTIONED = 5
"""Call-IDs that an error message lists (practice)."""


@click.command("evidence", cls=options.CaptureCommand, short_help="Write the evidence section of a postmortem.")
@options.captures
@options.choices
@click.option("--case", metavar="SLUG", help="Only the findings that this case study explains.")
@click.option("--finding", metavar="ID", help="Only this finding: its id from the JSON report, or its pattern.")
@click.option("--bundle", metavar="DIR", help="Write evidence.md, report.json and captures of the cited frames into "
                                              "this directory, which must be empty or absent.")
@options.output
def evidence(capture: tuple[str, ...], point: tuple[tuple[str, str], ...], keylog: str | None, ca_file: str | None,
             at_time: int | None, select: tuple[str, ...], ignore: tuple[str, ...],
             settings: tuple[tuple[str, float], ...], case: str | None, finding: str | None, bundle: str | None,
             output: str | None) -> int:
    """Write the evidence section of a postmortem, Markdown: timeline, frames, ladder, limits, what to do.

    Exit status: 0 written, 2 usage, unreadable input or no such finding, 3 incomplete.
    """
    if case and finding:
        raise click.UsageError("--case and --finding exclude each other")
    if bundle is not None and output is not None:
        raise click.UsageError("--bundle and --output exclude each other")
    if bundle is not None:
        from netdiag.render import bundle as package
        package.check(bundle)
    with Progress() as progress:
        tables = options.read(progress, capture, point, keylog, ca_file, at_time)
        report = options.judge(progress, tables, select, ignore, settings)
        progress.stage("writing evidence")
        from netdiag.render import evidence as section
        chosen = section.choose(report, case, finding)
        if bundle is not None:
            written = package.write(bundle, tables, report, chosen)
        else:
            text = section.render(tables, report, chosen)
    options.complain(tables.captures)
    if bundle is not None:
        options.remark([f"{bundle}: wrote {', '.join(written)}"])
    else:
        emit(text, output, [*capture, *(path for _, path in point)])
    return 0 if report.complete else options.INCOMPLETE


@click.command("ladder", cls=options.CaptureCommand, short_help="Draw the messages and the media of one call.")
@options.captures
@click.option("--call-id", required=True, metavar="X", help="The Call-ID or its beginning; `netdiag calls` lists them.")
@click.option("--legs/--no-legs", default=True, help="Draw all legs that a B2BUA made of the call (default), or one.")
@options.formats("terminal", "markdown")
@options.output
def ladder(capture: tuple[str, ...], point: tuple[tuple[str, str], ...], keylog: str | None, ca_file: str | None,
           at_time: int | None, call_id: str, legs: bool, form: str, output: str | None) -> int:
    """Draw the messages and the media of one call, for each capture point; --format markdown writes Mermaid.

    All legs of a call that passed a B2BUA are drawn, with what joins them and how sure that is.
    """
    with Progress() as progress:
        tables = options.read(progress, capture, point, keylog, ca_file, at_time)
        from netdiag.render import ladder as drawing
        from netdiag.render.escape import block, plain
        names = drawing.named(tables, call_id)
        drawn = drawing.of_call(tables, names[0], legs) if len(names) == 1 else []
    if not names:
        raise click.UsageError(f"no SIP message with Call-ID {plain(call_id)}; `netdiag calls` lists the calls")
    if len(names) > 1:
        from netdiag.render import words
        raise click.UsageError(f"{len(names)} Call-IDs begin with {plain(call_id)}: "
                               f"{plain(words.join(names, MENTIONED))}")
    if form == "markdown":
        text = "\n\n".join(block(drawing.mermaid(d), "mermaid") for d in drawn) + "\n"
    else:
        text = "\n\n".join(drawing.text(d, width(output)) for d in drawn) + "\n"
    options.complain(tables.captures)
    emit(text, output, [*capture, *(path for _, path in point)])
    return 0 if all(c.complete for c in tables.captures) else options.INCOMPLETE
