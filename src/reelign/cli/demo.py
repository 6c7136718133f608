"""`reelign demo`: the main job on two CPU cores, from the packaged generator to a report."""

import os
from pathlib import Path

import typer

from reelign.cli import align
from reelign.cli._console import ACCEPT_CHANGES, OVERRIDES


def command(
    out: Path = typer.Option(Path("runs"), "--out", "-o", help="Where the run and its data go."),
    seed: int = typer.Option(0, help="Seed of the run."),
    overrides: list[str] = OVERRIDES,
    resume: bool = typer.Option(False, "--resume", help="Go on with a demo that was interrupted."),
    accept_changes: bool = ACCEPT_CHANGES,
) -> None:
    """Take the packaged tiny generator through SFT, GRPO and DPO, and write a report you can open in a browser."""
    from reelign import config as configs
    from reelign import glance
    from reelign.playground import demo

    # One path however `out` is spelled, as a resumed run must read what it began with.
    data = Path(os.path.abspath(os.path.expanduser(out))) / "demo-data"
    run = {"name": f"demo-{seed}" if seed else "demo", "root": str(out), "seed": seed}
    tree = configs.override({**demo.recipe(data), "run": run}, overrides)
    glance.recipe(tree)
    if align.already(tree, resume):
        return
    demo.write_data(data)
    align.finish(tree, resume, accept_changes)
