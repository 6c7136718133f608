"""`reelign report RUN`."""

from pathlib import Path

import typer


def command(run: Path = typer.Argument(..., help="A run folder, finished or not.")) -> None:
    """Write a run's report.html: videos in sync, curves, measures with intervals, slices."""
    from reelign.report import page

    typer.echo(str(page.write(run)))
