"""``netdiag explain``, ``patterns`` and ``cases``: what netdiag knows, without any capture."""

from __future__ import annotations

import click

from netdiag.commands import options
from netdiag.commands.output import colour, emit, on_terminal, width


def show_page(text: str, output: str | None = None) -> None:
    """Our own Markdown: laid out on a terminal, as it is elsewhere."""
    if not on_terminal(output):
        emit(text, output)
        return
    import io

    from rich.console import Console
    from rich.markdown import Markdown
    columns = min(width(output), 100)
    console = Console(file=io.StringIO(), width=columns, force_terminal=colour(), no_color=not colour(),
                      color_system="standard" if colour() else None, legacy_windows=False)
    console.print(Markdown(text, hyperlinks=False))
    emit(console.file.getvalue())  # type: ignore[attr-defined]


@click.command("explain", short_help="Say what a pattern means, and what looks alike.")
@click.argument("pattern_id", metavar="ID")
@options.formats("terminal", "markdown", "json")
def explain(pattern_id: str, form: str) -> None:
    """Say what a pattern means: the fault, why packets show it, what looks alike, settings, case and sources."""
    from netdiag import registry
    from netdiag.render import page
    entry = registry.get(pattern_id)
    if form == "json":
        emit(page.as_json(entry.pattern, entry.page))
    elif form == "markdown":
        emit(page.of_pattern(entry.pattern, entry.page))
    else:
        show_page(page.of_pattern(entry.pattern, entry.page))


@click.command("patterns")
@options.formats("terminal", "json", "csv")
def patterns(form: str) -> None:
    """List the failure patterns that netdiag looks for."""
    from netdiag import registry
    from netdiag.render import listing, page
    emit(listing.render(page.patterns(registry.patterns()), form, width() if on_terminal() else None))


@click.group("cases", invoke_without_command=True)
@click.pass_context
def cases(ctx: click.Context) -> None:
    """List, show and search the case studies."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_cases)


@cases.command("list")
@options.formats("terminal", "json", "csv")
def list_cases(form: str = "terminal") -> None:
    """List the case studies."""
    from netdiag import cases as studies
    from netdiag.render import listing, page
    emit(listing.render(page.cases(studies.all_cases().values()), form, width() if on_terminal() else None))


@cases.command("show")
@click.argument("slug")
def show_case(slug: str) -> None:
    """Show one case study."""
    from netdiag.render import page
    show_page(page.case(slug).readme.read_text(encoding="utf-8"))


@cases.command("search")
@click.argument("text", nargs=-1, required=True)
@options.formats("terminal", "json", "csv")
def search_cases(text: tuple[str, ...], form: str) -> None:
    """Find case studies that contain all the words of TEXT, in title, summary, tags, patterns or study."""
    from netdiag import cases as studies
    from netdiag.render import listing, page
    found = page.search(studies.all_cases().values(), " ".join(text).split())
    emit(listing.render(found, form, width() if on_terminal() else None))
