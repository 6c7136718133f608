"""`reelign bakeoff SPEC`: training methods compared at equal compute."""

from pathlib import Path

import typer

from reelign.cli._console import INSIDE_ONLY, complain, emit
from reelign.errors import BadConfig, cut, shown
from reelign.face.table import table

KEYS = "name, budget, model, evaluate, stage, entries and target"


def command(
    spec: Path = typer.Argument(..., help="A YAML file that says what is compared."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check everything and stop before any compute."),
    only: list[str] = typer.Option([], "--only", help="Run this entry only; repeatable."),
    as_json: bool = typer.Option(False, "--json", help="Results as JSON."),
    no_outside_parts: bool = INSIDE_ONLY,
) -> None:
    """Compare training methods at equal compute over several seeds, and write a page of what differs beyond noise."""
    from reelign import config as configs
    from reelign import glance

    tree = configs.read(spec, KEYS)
    glance.spec(tree)
    glance.paths(tree)

    from reelign import driver
    from reelign.bakeoff import headline, page, run
    from reelign.bakeoff import spec as specs
    from reelign.cli._process import bind_threads
    from reelign.progress import Bar

    checked = configs.validate(specs.Spec, tree)
    unknown = [label for label in only if label not in checked.labels]
    if unknown:
        raise BadConfig(
            f"--only: there is no entry {shown(unknown[0])}; entries: {cut(', '.join(checked.labels), 300)}."
        )
    specs.check(checked)
    if dry_run:
        runs = len(checked.entries) * len(checked.seeds)
        plan = {"spec": str(spec), "entries": list(checked.labels), "seeds": list(checked.seeds), "runs": runs}
        sentence = (
            f"{spec}: fine; {len(checked.entries)} entries ({', '.join(checked.labels)}), {len(checked.seeds)} seeds, "
            f"{runs} runs of {checked.budget:,} forward-units, settings {configs.digest(checked)}."
        )
        emit({**plan, "budget": checked.budget, "settings": configs.digest(checked)}, as_json, sentence)
        return
    bind_threads(checked.runtime)
    try:
        with Bar() as bar:
            run.run(checked, bar, only)
    except (KeyboardInterrupt, driver.Interrupted):
        done = sum(each.finished for each in run.all_runs(checked))
        complain(f"stopped; {done} runs are finished, and the same command goes on.")
        raise typer.Exit(130) from None
    written = page.write(checked)
    sentences = "\n".join(headline.headline(written.analysis)).replace("\N{NO-BREAK SPACE}", " ")
    text = f"{sentences}\n\n{table(*headline.table(written.analysis))}\n\npage    {written.page}"
    emit(written.content, as_json, text)
