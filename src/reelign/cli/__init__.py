"""The command line.

Results go to stdout, logs and progress to stderr; exit codes: 0 done, 1 failed, 2 your input, 130 Ctrl-C.
"""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from reelign import __version__
from reelign.cli import (
    _console,
    _process,
    align,
    bakeoff,
    compare,
    config,
    demo,
    evaluate,
    parts,
    plan,
    playground,
    report,
    sample,
    score,
    verify,
)
from reelign.errors import UserError, sentence, shown


class Commands(TyperGroup):
    """Typer's own would leave on Ctrl-C without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _console.complain("stopped.")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    name="reelign",
    help="Realign pretrained video generators: supervised shaping, reward-driven RL, preference refinement.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (demo, align, bakeoff, verify, sample, score, evaluate, compare, report, plan, parts, config):
    app.command(name=module.__name__.rpartition(".")[2])(module.command)
app.add_typer(playground.app, name="playground")


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"reelign {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an input error."),
) -> None:
    """Options that stand before the command."""
    _console.setup(debug)


def main() -> None:
    """Run a command; an input error is one sentence on stderr and exit code 2."""
    _process.wait_shortly()
    _console.open_streams()
    try:
        app(standalone_mode=True)
    except UserError as error:
        if _console.DEBUG:
            raise
        _console.complain(sentence(error))
        sys.exit(2)
    except OSError as error:
        # No right to a folder, a full disk, too many files: the machine's, wherever it was met.
        if _console.DEBUG or error.errno is None:
            raise
        what = f"use {shown(str(error.filename))}" if error.filename else "read or write"
        _console.complain(f"cannot {what}: {error.strerror}; `reelign --debug` shows where.")
        _console.Forgiving(sys.stdout).lose()
        sys.exit(2)
    except KeyboardInterrupt:
        _console.complain("stopped.")
        sys.exit(130)
