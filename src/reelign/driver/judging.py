"""Having weights judged: the base, what each stage leaves, and what it would leave on its way."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property

from reelign import records
from reelign.driver.held import Held
from reelign.driver.interrupts import Interrupted
from reelign.driver.pace import Look, Pace
from reelign.driver.recipe import Recipe
from reelign.driver.run_folder import RunFolder
from reelign.driver.watching import Company
from reelign.events import Event
from reelign.opened import Datasets
from reelign.runtime.local import Local
from reelign.stages import evaluate


class Over(Exception):
    """The run ends here as its pace has it."""


class Judging:
    """Evaluates the held weights into the run's folder, where the pace or the driver asks for it."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        runtime: Local,
        held: Held,
        opened: Datasets,
        company: Company,
        pace: Pace,
    ) -> None:
        self._recipe, self._folder, self._runtime, self._held = recipe, folder, runtime, held
        self._opened, self._company, self._pace = opened, company, pace
        self.wish: Sequence[int] = ()
        """Holds anything once the run shall save and stop."""

    @cached_property
    def _prepared(self) -> evaluate.Evaluation:
        """The recipe's, with its metrics; they are built for the first one and kept for the others."""
        assert self._recipe.evaluate is not None, "a look is at what the recipe evaluates"
        return evaluate.prepare(self._recipe.evaluate, self._opened)

    def told(self, event: Event) -> Event:
        """End the run if the pace has it so after an event.

        Raises:
            Over: it has.
        """
        if self._pace.over(event):
            raise Over
        return event

    def again(self, event: Event) -> None:
        """Make the evaluation after a step that an interruption fell into."""
        look = self._pace.look(event) if event.step else None
        if look is not None and look.label not in self._folder.evaluations:
            self.on_the_way(look, event)

    def on_the_way(self, look: Look | None, event: Event) -> None:
        """Judge the weights that the running stage would leave now, and go on with those it trains."""
        if look is None:
            return
        wanted = self._recipe.evaluate.best if self._recipe.evaluate and event.stage != "base" else ""
        with self._runtime.work.averaged() if self._runtime.work else nullcontext():
            judged = self.evaluate(look, event.stage, event.step, event.of)
            if wanted and judged.better_than(self._held.best, wanted):
                value = judged.measures[wanted].mean or 0.0
                self._held.note_best(records.Best(measure=wanted, step=event.step, value=value))

    def evaluate(self, look: Look, stage: str, step: int = 0, of: int = 0) -> records.Evaluation:
        """Judge the present weights; what is told of it has the position within the stage.

        Returns:
            What was found under the main sampler.

        Raises:
            Interrupted: there is a wish to stop.
            Over: the run ends with it.
        """
        self._folder.see_it_there()
        judged = self._prepared
        if not look.whole:
            judged = judged.glimpse
        self._company.send("phase", stage, 0, judged.clips, {"phase": "evaluating"})
        trained = frozenset[str]().union(*(stage.trains_on for stage in self._recipe.stages))
        where = look.label, self._folder.path, look.label, trained
        for done in evaluate.run(self._runtime, judged, *where):
            self._company.send("phase", stage, done, judged.clips, {"phase": "evaluating"})
            if self.wish:
                raise Interrupted(f"saved before evaluating {stage}; go on with --resume.")
        for key in (keys := judged.config.files(look.label)):
            self._folder.judged(key)
        main, *others = [self._folder.evaluation(key) for key in keys]
        told = {"label": look.label, "means": main.means, "others": {each.under: each.means for each in others}}
        self.told(self._company.send("evaluation", stage, step, of, told))
        return main

    def ends(self, label: str) -> list[records.Evaluation]:
        """What evaluating the weights `label` has found under each sampler of the recipe."""
        assert self._recipe.evaluate is not None, "gates need an evaluation, as was checked"
        return [self._folder.evaluation(key) for key in self._recipe.evaluate.files(label)]
