"""`reelign report RUN`."""

from pathlib import Path

import typer


def command(run: Path = typer.Argument(..., help="A run folder, finished or not.")) -> None:
    """Write a run's report.html: videos in sync, curves, measures with intervals, slices."""
    from reelign import glance
    from reelign.cli._console import say

    glance.a_run(run)

    from reelign.report import page

    say(str(page.write(run)))
