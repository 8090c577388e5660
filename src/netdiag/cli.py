"""The command line: names of commands, exit statuses, and what is said when something goes wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from netdiag import __version__
from netdiag.commands.analyze import analyze
from netdiag.commands.evidence import evidence, ladder
from netdiag.commands.guard import INCOMPLETE, guarded
from netdiag.commands.knowledge import cases, explain, patterns
from netdiag.commands.labs import lab
from netdiag.commands.listings import COMMANDS
from netdiag.commands.options import USAGE, CaptureCommand
from netdiag.errors import LabError, NetdiagError

INTERRUPTED = 130
"""128 + SIGINT."""


class _InOrder(click.Group):
    """Lists commands in the order they were added: the ones used first come first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="netdiag")
def cli() -> None:
    """Reads packet captures and says what broke: SIP/VoIP, TLS, NAT, firewalls and load balancers."""


for _command in (analyze, evidence, explain, patterns, cases, lab, *COMMANDS, ladder):
    cli.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Runs one command in this process; its exit status. Errors are one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows only ASCII gets \\u escapes, not a crash
            stream.reconfigure(errors="backslashreplace")
    try:
        result = cli.main(args=list(arguments), prog_name="netdiag", standalone_mode=False)
    except click.Abort:
        return _say("interrupted", INTERRUPTED)
    except click.UsageError as error:
        from netdiag.render.escape import plain
        # File names with escape sequences may stand in it.
        click.UsageError(plain(error.format_message()), error.ctx).show()
        return USAGE
    except click.ClickException as error:
        return _say(error.format_message(), USAGE, lines=False)
    except LabError as error:
        return _say(str(error), INCOMPLETE)
    except NetdiagError as error:
        return _say(str(error), USAGE, lines=False)
    except MemoryError:
        return _say("out of memory", INCOMPLETE)
    except Exception as error:
        if os.environ.get("NETDIAG_TRACEBACK"):
            raise
        return _say(f"internal error, please report it: {type(error).__name__}: {error} "
                    "(NETDIAG_TRACEBACK=1 shows where)", INCOMPLETE)
    return result if isinstance(result, int) else 0


def _say(text: str, code: int, lines: bool = True) -> int:
    """``lines``: the text may have several (the end of a program's log); else a line end is part of a file name."""
    from netdiag.render.escape import plain
    print("netdiag: " + ("\n".join(map(plain, text.splitlines())) if lines else plain(text)), file=sys.stderr)
    return code


def main() -> None:
    """The ``netdiag`` program. Commands that map captures run in a guarded child process."""
    arguments = sys.argv[1:]
    command = cli.commands.get(arguments[0]) if arguments else None
    if isinstance(command, CaptureCommand):
        sys.exit(guarded(lambda: run(arguments)))
    sys.exit(run(arguments))


if __name__ == "__main__":
    main()
