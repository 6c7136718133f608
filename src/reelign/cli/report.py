"""`reelign report RUN`."""

from pathlib import Path

import typer

from reelign.cli._console import say


def command(
    run: Path = typer.Argument(..., help="A run folder, finished or not."),
    follow: bool = typer.Option(
        False, "--follow", help="Serve the report of a run under way to browsers on this machine, until Ctrl-C."
    ),
    port: int = typer.Option(0, min=0, max=65535, help="With --follow: where to serve it; default: any that is free."),
) -> None:
    """Write a run's report.html: videos in sync, curves, measures with intervals, slices."""
    from reelign import glance

    glance.a_run(run)

    from reelign.report import live, page

    if not follow:
        say(str(page.write(run)))
        return
    serving = live.Live(run, port)
    say(serving.url)
    try:
        serving.serve()
    except KeyboardInterrupt:
        serving.close()
