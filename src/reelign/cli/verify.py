"""`reelign verify`: check the maths against closed forms and reference numbers."""

import typer

from reelign.cli._console import emit


def command(as_json: bool = typer.Option(False, "--json", help="Results as JSON.")) -> None:
    """Run the closed-form suite; exit 1 if any check fails."""
    import torch

    from reelign import verify

    torch.set_num_threads(1)
    results = verify.run()
    failed = [r for r in results if not r.passed]
    emit([r.to_dict() for r in results], as_json, verify.table(results))
    raise typer.Exit(1 if failed else 0)
