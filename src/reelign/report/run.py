"""A run as the report sees it: frozen values, and a view of them for each sampler that judged."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from reelign import names
from reelign.errors import UserError
from reelign.records import Clip, Evaluation, Sample, Search, Stage, Status, Summary
from reelign.report import words
from reelign.report.series import Series

BASE = "base"
"""Label of the evaluation made before any stage."""


@dataclass(frozen=True)
class Run:
    """A run folder, read.

    Attributes:
        folder: where it lies.
        name: of the folder.
        about: what config.json says beside the recipe.
        config: the resolved recipe.
        stages: the ledger.
        metrics: by stage and quantity.
        evaluations: under the main sampler, in the order of the stages, the base first; absent ones are left out.
        others: likewise under each further sampler, by its name.
        looks: means of measures on the way, by stage and the steps that were done.
        samples: what stages have kept of what they trained on.
        status: where it stands, as it says itself.
        left_out: the first names of data that the run did not use.
        left_out_count: how many there are.
    """

    folder: Path
    name: str
    about: Mapping[str, Any]
    config: Mapping[str, Any]
    stages: tuple[Stage, ...]
    metrics: Mapping[str, Mapping[str, Series]]
    evaluations: Mapping[str, Evaluation]
    looks: Mapping[str, Mapping[int, Mapping[str, Summary]]] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    status: Status | None = None
    left_out: tuple[str, ...] = ()
    left_out_count: int = 0
    others: Mapping[str, Mapping[str, Evaluation]] = field(default_factory=dict)
    sampler: str = ""
    """Of a view: the name of the sampler whose evaluations these are; empty for the main one."""
    title: str = ""
    """Of a view, where there are several: how its clips were sampled, for people."""
    search: Search | None = None
    """What `reelign evaluate --best` has found, where best.json lies in the folder."""

    @cached_property
    def views(self) -> tuple["Run", ...]:
        """The run as it is under each sampler, the main one first; where there is one only, the run as it is."""
        if not self.others:
            return (self,)
        views = [replace(self, others={}, title=self.titles.get(self.main, ""))]
        for name, found in self.others.items():
            views.append(replace(self, others={}, evaluations=found, looks={}, sampler=name, title=self.titles[name]))
        return tuple(views)

    @property
    def main(self) -> str:
        """Name of the main sampler, where it is known."""
        return next((each.under for each in self.evaluations.values() if each.under), "")

    @cached_property
    def titles(self) -> dict[str, str]:
        """How clips were sampled under each sampler, by its name; empty where there is one only."""
        if not self.others:
            return {}
        some = {self.main: self.evaluations, **self.others}
        told = {name: words.sampled(next(iter(found.values())).sampler) for name, found in some.items() if found}
        alike = Counter(told.values())
        return {name: f"{title} ({name})" if alike[title] > 1 else title for name, title in told.items()}

    @property
    def base(self) -> Evaluation | None:
        """The evaluation before any stage."""
        return self.evaluations.get(BASE)

    @cached_property
    def failed(self) -> frozenset[str]:
        """Stages whose gate failed; the weights that entered them were kept, and theirs were dropped."""
        return frozenset(s.stage for s in self.stages if s.gate is not None and s.gate.verdict == "failed")

    @cached_property
    def aside(self) -> frozenset[str]:
        """Evaluations that are stages of their own: a look at weights with settings of their own, between others."""
        return frozenset(s.stage for s in self.stages if s.kind == "evaluate")

    def standing(self, label: str) -> str:
        """What must be said wherever a stage is shown; empty for a part of the result."""
        return "not kept" if label in self.failed else "aside" if label in self.aside else ""

    @property
    def kept(self) -> tuple[str, ...]:
        """Evaluated stages that the result went through."""
        return tuple(label for label in self.evaluations if label != BASE and not self.standing(label))

    @property
    def final(self) -> Evaluation | None:
        """The evaluation of the weights the run ends with so far: the last whose gate did not fail."""
        return self.before(None)

    def before(self, label: str | None) -> Evaluation | None:
        """The evaluation of the weights that entered a stage (None: that leave the last one)."""
        found = None
        for name, evaluation in self.evaluations.items():
            if name == label:
                return found
            if not self.standing(name):
                found = evaluation
        return found

    @property
    def only_aside(self) -> bool:
        """Whether only evaluations that are stages of their own have used this sampler."""
        return bool(self.sampler) and not self.evaluations.keys() - self.aside

    @property
    def missing(self) -> tuple[str, ...]:
        """Stages whose weights were evaluated, by a file that is no longer there."""
        if self.only_aside:
            return ()
        return tuple(s.stage for s in self.stages if (s.decided or s.judged) and s.stage not in self.evaluations)

    @property
    def planned(self) -> tuple[str, ...]:
        """Names of the stages that the recipe asks for and the ledger does not have yet."""
        return labels(self.config)[len(self.stages) :]

    @property
    def begun(self) -> tuple[int, int]:
        """Of the first planned stage the steps that are done, and those it will take; 0 where nothing says."""
        if not self.planned:
            return 0, 0
        columns = self.metrics.get(self.planned[0], {}).values()
        stage = self.config["stages"][len(self.stages)]
        asked = stage.get("steps") if isinstance(stage, dict) else None
        return 1 + max((column.steps[-1] for column in columns), default=-1), asked if isinstance(asked, int) else 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What the run itself says about its data and how it was started."""
        found = self.about.get("notes")
        return tuple(str(note) for note in found) if isinstance(found, list) else ()

    @cached_property
    def measures(self) -> dict[str, Summary]:
        """Each measure of any evaluation, with the latest evaluation's summary."""
        return {name: summary for e in self.evaluations.values() for name, summary in e.measures.items()}

    @cached_property
    def rates(self) -> frozenset[str]:
        """Measures that are 0 or 1 on every clip, so that their mean is a share."""
        seen: dict[str, set[float]] = {}
        for evaluation in self.evaluations.values():
            for clip in evaluation.clips:
                for name, value in clip.measures.items():
                    if value is not None:
                        seen.setdefault(name, set()).add(value)
        return frozenset(name for name, values in seen.items() if values <= {0.0, 1.0})

    def video(self, clip: Clip | Sample) -> Path | None:
        """Where a clip's video lies; None when it has none or the file is gone.

        Raises:
            UserError: for a path that leads out of the run folder.
        """
        if clip.video is None:
            return None
        try:
            path = (self.folder / clip.video).resolve()
            inside, there = path.is_relative_to(self.folder.resolve()), path.is_file()
        except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links in a circle
            return None
        if not inside:
            raise UserError(
                f"{self.folder}: the video {clip.video[:200]!r} of prompt {clip.prompt_id} lies outside the run "
                "folder, where evaluations/*.json must not point."
            )
        return path if there else None


def labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names that the driver gives to the stages of a resolved recipe, made unique as it does."""
    stages = config.get("stages")
    return tuple(names.unique((_asked(stage) for stage in (stages if isinstance(stages, list) else ())), [BASE]))


def _asked(stage: Any) -> str:
    own = stage if isinstance(stage, dict) else {}
    method = own.get("method")
    named = method.get("name") if isinstance(method, dict) else method
    return next((str(name) for name in (own.get("label"), named, own.get("name")) if name), "stage")
