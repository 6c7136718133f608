"""`reelign compare RUN_A RUN_B`."""

from pathlib import Path

import typer

from reelign.cli._console import emit


def command(
    run_a: Path = typer.Argument(..., help="A run folder."),
    run_b: Path = typer.Argument(..., help="Another run folder, compared with the first."),
    as_json: bool = typer.Option(False, "--json", help="Results as JSON."),
) -> None:
    """Compare two runs on their held-out measures, paired where the prompts are the same."""
    from reelign import glance

    for run in (run_a, run_b):
        glance.a_run(run)

    from reelign.report.compare import compare

    found = compare(run_a, run_b)
    emit(found.to_dict(), as_json, found.table())
