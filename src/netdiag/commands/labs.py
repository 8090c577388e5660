"""``netdiag lab``: make the failure of a case happen again, and check that it is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from netdiag.commands import options
from netdiag.commands.output import Progress, emit, on_terminal, width

if TYPE_CHECKING:
    from netdiag.cases import Case


@click.group("lab", short_help="Make the failure of a case study happen again.", invoke_without_command=True)
@click.pass_context
def lab(ctx: click.Context) -> None:
    """Reproduce the failures of the case studies with real components in network namespaces."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_labs)


@lab.command("list")
@options.formats("terminal", "json", "csv")
def list_labs(form: str = "terminal") -> None:
    """List the labs with their variants and the programs they need."""
    from netdiag import cases as studies
    from netdiag.render import listing, page
    emit(listing.render(page.labs(studies.all_cases().values()), form, width() if on_terminal() else None))


@lab.command("run")
@click.argument("slug")
@click.option("--variant", multiple=True, help="Only this variant, such as broken or fixed; may be repeated.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Keep captures and logs below this directory.")
@click.option("--recorded", is_flag=True, help="Use the captures kept with the case instead of running it.")
@click.option("--record", is_flag=True, help="Keep the new captures with the case (in a checkout).")
@options.formats("terminal", "json", "csv")
def run_lab(slug: str, variant: tuple[str, ...], keep: Path | None, recorded: bool, record: bool, form: str) -> int:
    """Run the lab of a case and show what is found in its captures.

    Exit status: 0 as the case expects, 1 otherwise, 2 no such case, 3 the lab could not run.
    """
    return _run(slug, variant, keep, recorded, record, form)


@lab.command("verify")
@click.argument("slug")
@options.formats("terminal", "json", "csv")
def verify_lab(slug: str, form: str) -> int:
    """Check every variant of a case: live where this host can, else on the recorded captures, and say which."""
    from netdiag.render import page
    case = page.case(slug)
    why = _cannot_run(case)
    if why:
        click.echo(f"netdiag: {slug} cannot run here ({why}): checking the recorded captures", err=True)
    return _run(slug, (), None, bool(why), False, form)


@lab.command("doctor")
@options.formats("terminal", "json", "csv")
def doctor(form: str) -> int:
    """Say what this host lacks for running labs."""
    from netdiag.lab.doctor import checks
    from netdiag.render import listing, page
    found = checks()
    emit(listing.render(page.checks(found), form, width() if on_terminal() else None))
    return 0 if all(c.ok for c in found) else options.FOUND


def _cannot_run(case: Case) -> str:
    """Why not, or ""."""
    from netdiag.lab.doctor import checks
    missing = [c.name for c in checks() if not c.ok and (c.name in case.requires or c.name == "network namespaces")]
    return f"missing: {', '.join(missing)}" if missing else ""


def _run(slug: str, variants: tuple[str, ...], keep: Path | None, recorded: bool, record: bool, form: str) -> int:
    from netdiag.lab.runner import run_case
    from netdiag.render import listing, page
    case = page.case(slug)
    with Progress() as progress:
        progress.stage(f"running {slug}")
        results = run_case(case, found_in(case), variants or None, keep, recorded, record)
    emit(listing.render(page.results(results), form, width() if on_terminal() else None))
    return 0 if all(r.ok for r in results) else options.FOUND


def found_in(case: Case) -> Callable[[Mapping[str, Path]], Iterable[str]]:
    """The analysis a lab runs: ids of the patterns found. CAP-* count only where the case speaks of them."""
    spoken = {p for v in case.variants.values() for p in (*v.expect, *v.absent)} | set(case.patterns)

    def analyse(captures: Mapping[str, Path]) -> Iterable[str]:
        from netdiag import engine, registry
        from netdiag.tables.reader import open_captures
        report = engine.analyze(open_captures([], [(point, str(path)) for point, path in captures.items()]))
        passed_over = {i for i, p in registry.patterns().items() if p.gate}
        return sorted({f.pattern for f in report.findings if f.pattern not in passed_over or f.pattern in spoken})

    return analyse
