"""Which steps and guidance suit weights at so many forwards a clip, and how good they are with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reelign import config as configs
from reelign import contest, driver, glance, names, parts
from reelign.errors import BadConfig
from reelign.face.table import table
from reelign.face.typed import plain, sentences
from reelign.parts import PartConfig
from reelign.progress import Bar
from reelign.records import Search
from reelign.runtime import equip
from reelign.runtime.local import Local
from reelign.stages.evaluate import Config


def best(
    models: str | Sequence[str],
    recipe: str | Path | Mapping[str, Any] | driver.Recipe,
    forwards: int | Sequence[int] = 32,
    *,
    by: str = "",
    prompts: str | Path | None = None,
    guidances: Sequence[float] = contest.GUIDANCES,
    out: str | Path = "evaluation",
    set: Mapping[str, Any] | None = None,
) -> Search:
    """Search steps and guidance at equal forwards a clip, for one or more models, and hold them against each other.

    A step with guidance costs two forwards. Settings are chosen on one half of the prompts and judged on the other.
    What was judged before into the same folder is not judged again.

    Args:
        models: pipeline folders, such as a run's final/, or "playground"; the first is what others are held against.
        recipe: its `evaluate` says what is measured, its `model` how the models run.
        forwards: budgets of a clip, even numbers from 4 on.
        by: the measure that chooses; by default the first target of the recipe's first gate.
        prompts: a file of prompts; by default those of the recipe's `evaluate`.
        guidances: what is tried.
        out: folder for best.json; in a run's folder, its report tells of it.
        set: values of the recipe by their path.

    Raises:
        UserError: what is asked for cannot be, or what lies in `out` is of another search.
    """
    with sentences():
        asked = [models] if isinstance(models, str) else list(models)
        tree = configs.read(Path(recipe)) if isinstance(recipe, str | Path) else plain(recipe)
        checked = configs.validate(driver.Recipe, configs.assign(tree, plain(set or {})))
        for weights in asked:
            glance.weights(weights)
            settings = _settings(checked, weights)
            parts.find("model", settings.name).check(settings)
        config, by = _config(checked, prompts), by or _target(checked)
        budgets = [forwards] if isinstance(forwards, int) else list(forwards)
        plan = contest.plan(config, by, budgets, guidances)
        called = names.unique((names.of_model(weights) for weights in asked), [])
        if not called or len({*asked}) < len(asked):
            raise BadConfig("there is no model, or one is named twice; name each model once.")
        return _run(dict(zip(called, asked, strict=True)), checked, plan, Path(out).expanduser())


def _run(models: Mapping[str, str], recipe: driver.Recipe, plan: contest.Plan, out: Path) -> Search:
    found: list[contest.Found] = []
    with Bar() as bar:
        bar.begin("search (clips)", plan.clips(len(models)), done := 0)
        for name, weights in models.items():
            settings = _settings(recipe, weights)
            mark = contest.fingerprint(weights, configs.dump(settings))
            model = equip.build(settings, recipe.runtime, recipe.run.root)
            steps = contest.search(name, mark, Local(model), plan, out)
            while True:
                try:
                    done += next(steps)
                except StopIteration as end:
                    found += end.value
                    break
                bar.step(done, {})
    return contest.write(found, plan, out)


def _settings(recipe: driver.Recipe, weights: str) -> PartConfig:
    """Of a model: the recipe's, without an adapter, which an exported model has merged in."""
    own = {key: value for key, value in configs.dump(recipe.model).items() if key != "adapter"}
    return configs.part("model", own | {"weights": weights})


def _config(recipe: driver.Recipe, prompts: str | Path | None) -> Config:
    if recipe.evaluate is None:
        raise BadConfig("the recipe has no `evaluate`; add one that names a dataset and metrics.")
    if prompts is None:
        return recipe.evaluate
    dataset = configs.part("dataset", {"name": "prompt_file", "path": str(prompts)})
    return recipe.evaluate.model_copy(update={"dataset": dataset})


def _target(recipe: driver.Recipe) -> str:
    """The measure that a recipe is after."""
    targets = [target for stage in recipe.stages if stage.gate for target in stage.gate.targets]
    if not targets:
        raise BadConfig("the recipe has no gate whose target could choose; say `by` which measure to go.")
    return targets[0]


def told(found: Search) -> str:
    """What was found, for a terminal."""
    lines = [f"chosen by {found.by} on {found.chosen_on} prompts, judged on {found.judged_on} others"]
    for chosen in found.chosen:
        rows = [
            [
                each.sampler["name"],
                each.mean,
                each.low,
                each.high,
                each.n,
                "*" if each.sampler == chosen.sampler else "",
            ]
            for each in chosen.tried
        ]
        head = ("sampler", found.by, "low", "high", "clips", "chosen")
        judged = chosen.measures[found.by]
        lines += ["", f"{chosen.model} at {chosen.forwards} forwards a clip", table(head, rows)]
        lines += [f"judged: {judged.mean:.3f} [{judged.low:.3f}, {judged.high:.3f}]" if judged.mean is not None else ""]
    for held in found.contests:
        each = held.measures.get(found.by)
        if each:
            lines += ["", f"{held.other} minus {held.first}, each at its best with {held.forwards} forwards:"]
            lines += [f"{found.by} {each.difference:+.3f} [{each.low:+.3f}, {each.high:+.3f}]"]
    return "\n".join(lines)
