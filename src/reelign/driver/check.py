"""What can be known to be wrong with a recipe before any compute, and what is worth saying about it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from reelign import declared, names, parts
from reelign.batches import Geometry, Prompts, Request, texts
from reelign.driver import places
from reelign.driver.recipe import HeldOut, Recipe, datasets_in
from reelign.errors import BadConfig, BadData, cut, shown
from reelign.judges import Named
from reelign.opened import Datasets
from reelign.parts import PartConfig
from reelign.protocols import Card
from reelign.runtime.local import present, resolve
from reelign.settings import RUN, in_run
from reelign.stage import Draw, StageConfig

HELD_OUT = "evaluate.dataset"


@dataclass(slots=True)
class _Data:
    """What a recipe's data turned out to be, on the way through its stages."""

    card: Card | None
    """Of the model, where its family gives one."""
    opened: Datasets
    written: dict[str, str] = field(default_factory=dict)
    """What the stages up to here write into the run folder, and what is in it."""
    requests: dict[str, tuple[Request, ...]] = field(default_factory=dict)
    """By the dataset's place in the recipe."""
    told: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def texts(self) -> dict[str, tuple[str, ...]]:
        """Of the requests."""
        return {where: texts(own) for where, own in self.requests.items()}

    @property
    def geometry(self) -> Geometry | None:
        """Of the videos that the model makes."""
        return self.card.geometry if self.card else None

    def take(self, where: str, prompts: Prompts) -> None:
        """Keep a dataset's requests, if the model can begin from what goes with them.

        Raises:
            BadData: it cannot.
        """
        self.requests[where] = prompts.requests
        takes = self.card.takes if self.card else frozenset[str]()
        for request in prompts.requests if self.card else ():
            if odd := sorted(request.given.keys() - takes):
                able = f"begins from {' and '.join(sorted(takes))} only" if takes else "makes videos from text alone"
                raise BadData(f"the prompt {cut(request.text, 60)!r} gives a {odd[0]}, but the model {able}; drop it.")


@dataclass(frozen=True, slots=True)
class Findings:
    """What is worth saying of a recipe that can run, in sentences."""

    told: tuple[str, ...] = ()
    """All of them: how much of the data is read, in the recipe's order, then what is to be cautious of as a whole."""
    cautions: tuple[str, ...] = ()
    """Clips left out, texts that are cut, prompts that both train and judge: a reader of results should know."""
    left_out: tuple[str, ...] = ()
    """Every file that is left out, and why."""


def check(recipe: Recipe, opened: Datasets | None = None) -> Findings:
    """Refuse what can be known to fail before any compute; nothing but data is opened, into `opened`.

    That is all that JSON, headers of weights and clips, texts, file names and what parts say of themselves can tell: a
    model folder that is incomplete or of another kind, sizes that it cannot make, missing or unreadable data, clips of
    any stage that do not fit the model, a dataset that cannot make what its stage needs or enough of it, pairs that no
    stage collects, rewards and metrics that are none or cannot read a prompt, gates without evaluation or with measures
    that nothing measures.

    Raises:
        UserError: one sentence.
    """
    resolve(recipe.runtime)
    model = parts.find("model", recipe.model.name)
    model.check(recipe.model)
    places.refuse_inside(recipe)
    for config in recipe.sinks:
        getattr(parts.find("sink", config.name), "check", lambda _: None)(config)
    card = model.describe(recipe.model) if hasattr(model, "describe") else None
    data = _Data(card, opened or Datasets())
    measured = _measures(recipe, data)
    for index, stage in enumerate(recipe.stages):
        _check_stage(index, stage, data)
        _check_gate(index, stage, recipe.evaluate, measured)
    whole = (*_cut(model, recipe.model, data.texts), *_overlap(data.texts))
    return Findings((*data.told, *whole), (*data.cautions, *whole), tuple(data.left_out))


def _measures(recipe: Recipe, data: _Data) -> set[str]:
    """Names of all that the evaluation measures, after reading its prompts."""
    if recipe.evaluate is None:
        return set()
    for where, config in datasets_in(recipe.evaluate, "evaluate"):
        _refuse_run(where, config)
    with _of(HELD_OUT):
        data.take(HELD_OUT, data.opened(recipe.evaluate.dataset).all_prompts())
    metrics, best = recipe.evaluate.asks, recipe.evaluate.best
    _check_judges(metrics, HELD_OUT, data)
    measured = {name for metric in metrics for name in metric.names}
    if best and best not in measured:
        raise BadConfig(f"evaluate.best: nothing measures {best!r}; measured: {', '.join(sorted(measured))}.")
    return measured


def _check_judges(asked: Sequence[Named], where: str, data: _Data) -> None:
    """Let rewards or metrics refuse what they will be shown: the model's videos, and prompts where they are there."""
    made = data.geometry and (data.geometry.frames, data.geometry.height, data.geometry.width)
    for judge in asked:
        device, reads = getattr(judge.config, "device", None), judge.says.reads
        if isinstance(device, str) and device != "auto":
            present(f"device of the {judge.kind} {judge.name!r}", device)
        if made and reads and reads != made:
            size, own = (f"{frames} x {height} x {width}" for frames, height, width in (made, reads))
            raise BadConfig(
                f"the {judge.kind} {judge.name!r} reads clips of {own} only, but the model makes {size}; leave it "
                "out, or use one for other videos."
            )
        with _of(where):
            judge.check_requests(data.requests.get(where, ()))


def _check_gate(index: int, stage: StageConfig, evaluate: HeldOut | None, measured: set[str]) -> None:
    if stage.gate is None:
        return
    where = f"stages.{index}.gate"
    if evaluate is None:
        raise BadConfig(
            f"{where}: gates compare evaluations, but the recipe has no `evaluate`; add it or drop the gate."
        )
    for name in (*stage.gate.targets, *stage.gate.guards):
        if name not in measured:
            known = ", ".join(sorted(measured))
            raise BadConfig(f"{where}: no metric of `evaluate` measures {name!r}; measured: {known}.")
    samplers = [sampler.called for sampler in evaluate.samplers]
    if stage.gate.sampler and stage.gate.sampler not in samplers:
        raise BadConfig(
            f"{where}.sampler: no sampler of `evaluate` is called {shown(stage.gate.sampler)}; there are "
            f"{cut(', '.join(samplers), 300)}."
        )


def _check_stage(index: int, stage: StageConfig, data: _Data) -> None:
    """A stage's data and what it asks of its parts; what it will write is noted for the stages after it."""
    own, prompts = f"stages.{index}.dataset", None
    for where, config in datasets_in(stage, f"stages.{index}"):
        if where == own and stage.draws:
            prompts = _check_own(where, stage.draws, config, data)
        else:
            _refuse_run(where, config)
            _opened(where, config, data, fit=True)
    if prompts is not None:
        # Once its modules' own data has been looked at, so that an error there is told with its place.
        stage.check(prompts, data.card)
    _check_judges(stage.asks, own, data)
    data.written |= {f"{RUN}/{path}": what for path, what in stage.writes.items()}


def _check_own(where: str, draw: Draw, config: PartConfig, data: _Data) -> tuple[str, ...] | None:
    """Open the stage's dataset, unless a stage before it writes it, and see that it can make what the stage draws.

    Returns:
        All its prompts, where it is there.
    """
    if in_run(config):
        _check_written(where, config, draw.what, data.written)
        return None
    gives = declared.gives(config)
    if draw.what not in gives:
        raise BadConfig(f"{where}: {config.name} gives {' and '.join(sorted(gives))}, but the stage needs {draw.what}.")
    dataset = _opened(where, config, data, fit=draw.what != "prompts")
    if draw.what == "prompts" and draw.n:
        with _of(where):
            dataset.prompts(draw.n, draw.group, 0)
    return data.texts[where]


def _check_written(where: str, config: PartConfig, needs: str, written: Mapping[str, str]) -> None:
    """A dataset in the run folder must be one that a stage before it writes."""
    path = str(getattr(config, "path", ""))
    if path not in written:
        there = f"the stages before it write {', '.join(written)}" if written else "no stage before it collects pairs"
        raise BadConfig(f"{where}: {path!r} will not be there, since {there}; name one of these, or data of your own.")
    if needs != written[path]:
        raise BadConfig(f"{where}: {path!r} holds {written[path]}, but the stage needs {needs}.")


def _refuse_run(where: str, config: PartConfig) -> None:
    """Refuse "{run}" where it would be taken for the name of a folder."""
    if in_run(config):
        raise BadConfig(
            f"{where}: {{run}} stands for the run folder in a stage's own dataset only, which may be the pairs that a "
            "stage before it collects; give data that is there from the start."
        )


@contextmanager
def _of(where: str) -> Iterator[None]:
    """Say of which dataset of the recipe an error is."""
    try:
        yield
    except BadData as error:
        raise BadData(f"{where}: {error}") from error


def _opened(where: str, config: PartConfig, data: _Data, fit: bool) -> Any:
    """A dataset; with `fit`, one whose clips fit the model as far as their headers tell.

    One from outside may say less of itself than a `Dataset` does.
    """
    with _of(where):
        dataset = data.opened(config)
        if fit and data.geometry is not None and hasattr(dataset, "fit"):
            dataset.fit(data.geometry)
    left_out = [f"{where}: {reason}" for reason in getattr(dataset, "left_out", {}).values()]
    said = [f"{where}: {note}" for note in getattr(dataset, "notes", ())]
    data.told += said
    data.cautions += said if left_out else ()
    data.left_out += left_out
    with _of(where):
        data.take(where, dataset.all_prompts())
    return dataset


def _cut(model: ModuleType, config: PartConfig, texts: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Which datasets have prompts that are longer than what the model sees of them."""
    if not hasattr(model, "overlong"):
        return
    for where, own in texts.items():
        count, longest = model.overlong(config, tuple(dict.fromkeys(own)))
        if count:
            length = model.describe(config).text_length
            yield (
                f"{where}: {count} of {len(own)} texts are longer than the {length} tokens that the model sees, the "
                f"longest has {longest}; the rest of them is cut off."
            )


def _overlap(texts: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """How many held-out prompts are training prompts too."""
    plain = {where: {names.same(" ".join(text.split())) for text in own} for where, own in texts.items()}
    held_out = plain.pop(HELD_OUT, set[str]())
    for where, own in plain.items():
        if both := held_out & own:
            yield (
                f"{len(both)} of {len(held_out)} held-out prompts are also in {where}: what is measured on them is not "
                "held out; judge by other prompts."
            )
