"""``netdiag calls``, ``registrations``, ``streams``, ``handshakes``, ``connections``, ``lookups`` and ``checks``."""

from __future__ import annotations

import click

from netdiag.commands import options
from netdiag.commands.output import Progress, emit, on_terminal, width

ABOUT = {
    "calls": "List the calls: who called whom, how it went, who ended it and why.",
    "registrations": "List what was registered: contact, lifetime, refreshes and state.",
    "streams": "List the RTP streams with codec, loss and jitter.",
    "handshakes": "List the TLS handshakes with name, version, result and alert.",
    "connections": "List the TCP connections with state, bytes and retransmissions.",
    "lookups": "List the DNS lookups with their answers.",
    "checks": "List the ICE candidate pairs with checks, answers, nomination and media.",
}


def _command(noun: str) -> click.Command:
    @click.command(noun, cls=options.CaptureCommand, help=ABOUT[noun], short_help=ABOUT[noun])
    @options.captures
    @options.formats("terminal", "json", "csv")
    @options.output
    def run(capture: tuple[str, ...], point: tuple[tuple[str, str], ...], keylog: str | None, ca_file: str | None,
            at_time: int | None, form: str, output: str | None) -> int:
        with Progress() as progress:
            tables = options.read(progress, capture, point, keylog, ca_file, at_time, checksums=False)
            progress.stage(f"listing {noun}")
            from netdiag.render import facts
            shown = facts.of(tables, noun)
        from netdiag.render import listing
        options.complain(tables.captures)
        emit(listing.render(shown, form, width(output) if on_terminal(output) else None), output,
             [*capture, *(path for _, path in point)])
        return 0 if all(c.complete for c in tables.captures) else options.INCOMPLETE

    return run


COMMANDS = tuple(_command(noun) for noun in ABOUT)
