"""Runs of a recipe: started, shown, taken up again, looked at afterwards."""

import html
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from reelign import config as configs
from reelign import driver, finished, glance
from reelign.config import Tree
from reelign.errors import BadConfig, shown
from reelign.events import Sink
from reelign.face.making import load
from reelign.face.typed import plain, said, sentences
from reelign.progress import Bar
from reelign.protocols import VideoModel
from reelign.records import Evaluation, Stage
from reelign.report import load as folders
from reelign.report import page
from reelign.report.series import Series

HEIGHT = 720
"""Pixels of a report in a notebook."""


class Run:
    """A run folder, finished or not; what it tells is read from its files each time."""

    def __init__(self, folder: str | Path) -> None:
        """Open the folder of a run.

        Raises:
            BadData: there is no such folder.
        """
        self.folder = Path(folder).expanduser()
        glance.a_run(self.folder)

    @property
    def read(self) -> "folders.Run":
        """All that it says.

        Raises:
            UserError: the folder is no run, or its files do not read.
        """
        return folders.load(self.folder)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is finished, a row of the ledger a stage; `stage` is its label, `gate` what its gate said."""
        return self.read.stages

    @property
    def evaluations(self) -> Mapping[str, Evaluation]:
        """By label of the stage whose weights were judged, "base" before the first: `.measures["moving"].mean`.

        They are under the main sampler; for others see `under`.
        """
        return self.read.evaluations

    def under(self, sampler: str) -> Mapping[str, Evaluation]:
        """The same as `evaluations` under a sampler of the recipe's `evaluate.samplers`, by its name, such as "s16g3".

        Raises:
            BadConfig: the run was not judged under one of that name.
        """
        read = self.read
        known = {read.main: read.evaluations, **read.others}
        if sampler not in known:
            raise BadConfig(f"no sampler {shown(sampler)} has judged this run; those that have: {', '.join(known)}.")
        return known[sampler]

    def metrics(self, stage: str) -> Mapping[str, Series]:
        """What each step of a stage reported, by quantity: `run.metrics("grpo")["online/reward"].values`.

        Raises:
            BadConfig: no stage of that label has reported any.
        """
        found = self.read.metrics
        if stage not in found:
            known = ", ".join(found) or "none yet"
            raise BadConfig(f"no stage {shown(stage)} has reported steps; those that have: {known}.")
        return found[stage]

    @property
    def model(self) -> VideoModel:
        """What the run has made, its final/, loaded anew each time.

        Raises:
            UserError: there is no final/ yet.
        """
        return load(self.folder / "final")

    def report(self) -> "Report":
        """Write the report and show it in a notebook.

        Raises:
            UserError: the folder is no run, or its files do not read.
        """
        return Report(page.write(self.folder))

    def __repr__(self) -> str:
        read = self.read
        done, planned = len(read.stages), len(read.stages) + len(read.planned)
        verdicts = [f"{row.stage}{f' ({row.gate.verdict})' if row.gate else ''}" for row in read.stages]
        return f"<run in {self.folder}, {done} of {planned} stages done: {', '.join(verdicts) or 'none'}>"


class Report:
    """A report in a notebook; elsewhere its path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"report  {self.path}"

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its style and scripts stay there, below its path."""
        content = html.escape(self.path.read_text(encoding="utf-8"))
        frame = f'<iframe srcdoc="{content}" width="100%" height="{HEIGHT}" style="border:1px solid #ccc"></iframe>'
        return f"<p>{html.escape(str(self.path))}</p>{frame}"


def align(
    recipe: str | Path | Mapping[str, Any] | driver.Recipe,
    *,
    set: Mapping[str, Any] | None = None,
    sinks: Sequence[Sink] | None = None,
    resume: bool = False,
    accept_changes: bool = False,
) -> Run:
    """Take a model through a recipe's stages, with gates between them, and write a report.

    Ctrl-C, or the button that interrupts a notebook, saves first; `resume=True` goes on.

    Args:
        recipe: the path of a YAML file, the same as a mapping, or one that is checked already. In a mapping a class of
            settings that builds a part may stand for its name.
        set: values by their path, as {"stages.0.steps": 2}.
        sinks: who is told what happens, beside those of the recipe; by default progress is shown.
        resume: go on with a run that was interrupted, or that has more steps in its last stage now.
        accept_changes: with `resume`, go on although data, base weights, rewards or metrics changed since.

    Raises:
        UserError: the recipe was wrong, or the run had to stop; the last checkpoint is intact.
        Interrupted: the run was stopped by hand and has been saved.
    """
    with sentences(driver.Interrupted):
        tree = configs.assign(_tree(recipe), plain(set or {}))
        glance.recipe(tree)
        folder = glance.run_folder(tree, resume)
        sentence = finished.told(folder, tree) if resume and folder else ""
        if sentence and folder:
            Bar().say(said(sentence))
            return Run(folder)
        glance.paths(tree)
        folder = run(tree, resume, accept_changes, sinks=sinks)
        page.write(folder)
        return Run(folder)


def run(
    tree: Tree,
    resume: bool,
    accept_changes: bool,
    command: str = "",
    sinks: Sequence[Sink] | None = None,
) -> Path:
    """Run a recipe, by default under a progress bar if it names none, and save first when it is interrupted.

    Returns:
        The run folder.

    Raises:
        BadConfig: `accept_changes` without `resume`.
        UserError: see `driver.run`, as of Interrupted.
    """
    if accept_changes and not resume:
        raise BadConfig("--accept-changes is about a run that is taken up again; give --resume too, or leave it out.")
    recipe = configs.validate(driver.Recipe, tree)
    about = {"given": finished.given(tree), **({"command": command} if command else {})}
    with ExitStack() as displays:
        if sinks is None:
            named = any(sink.name == "console" for sink in recipe.sinks)
            sinks = [] if named else [displays.enter_context(Bar())]
        return driver.run(recipe, list(sinks), resume, accept_changes, about, driver.saving_on_interrupt())


def _tree(recipe: str | Path | Mapping[str, Any] | driver.Recipe) -> Tree:
    return configs.read(Path(recipe)) if isinstance(recipe, str | Path) else plain(recipe)
