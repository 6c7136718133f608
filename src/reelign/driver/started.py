"""config.json: which run a folder holds, and whether a recipe goes on with it."""

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reelign import config as configs
from reelign import parts
from reelign.driver.recipe import Recipe, essential
from reelign.errors import BadConfig, cut, shown
from reelign.files import is_sealed, seal, write_text
from reelign.parts import PartConfig
from reelign.records import Started

_ANOTHER = "choose another name with --set run.name=...."
_OWN = ("schema", "id", "hash", "version", "config", "seal")
_OF_A_RUN = ("checkpoints", "ledger.jsonl", "metrics.jsonl")


def prepare(folder: Path, recipe: Recipe, resume: bool, about: dict[str, Any]) -> str:
    """Start a run in a folder, or see that it holds the one to go on with; gives the run's id.

    The last stage may have more steps than before, as a run may be extended. `about` is what config.json of a new run
    says beside its settings.

    Raises:
        BadConfig: the folder holds a run and `resume` was not asked for, holds none although it was, or was started
            with other settings.
    """
    path = folder / "config.json"
    if not os.path.lexists(path):
        _refuse_remains(folder)
        if resume:
            raise BadConfig(f"{str(folder)!r} holds no run to resume; start it without --resume.")
        return _write(path, recipe, uuid.uuid4().hex, about)
    if not resume:
        raise BadConfig(f"{str(folder)!r} already holds a run; go on with --resume, or {_ANOTHER}")
    started = _read(path)
    then, now = started["config"], configs.dump(recipe)
    if essential(then) != essential(now) or _last_steps(then) > _last_steps(now):
        change = _first_change(essential(then), essential(now)) or _first_change(
            then["stages"], now["stages"], "stages"
        )
        by = f": it was started by `{cut(started['command'], 300)}`" if started.get("command") else ""
        raise BadConfig(
            f"{str(folder)!r} was started with other settings ({change}); resume with the same recipe, and with each "
            f"--set that was given then{by}."
        )
    return started["id"]


def settled(config: PartConfig) -> dict[str, Any]:
    """What config.json says of a model that begins with a file, so that once it has begun it needs that no more."""
    family = parts.find("model", config.name)
    own = family.settled(config) if hasattr(family, "settled") else config
    return {} if own == config else {"settled": configs.dump(own)}


def model(folder: Path, recipe: Recipe) -> PartConfig:
    """The model of a run, as `settled` has noted it."""
    tree = _read(folder / "config.json").get("settled")
    return parts.configure("model", tree) if tree else recipe.model


def take_over(folder: Path, recipe: Recipe, about: Mapping[str, Any]) -> None:
    """Let config.json say the steps that the run is extended to and where its data lies; once it goes on with them.

    `about` is what `prepare` was given; of it the digest of the recipe is taken over.
    """
    started, now = _read(folder / "config.json"), configs.dump(recipe)
    if any(started["config"].get(key) != now[key] for key in ("stages", "evaluate")):
        about_start = {key: value for key, value in started.items() if key not in _OWN}
        _write(folder / "config.json", recipe, started["id"], {**about_start, "given": about.get("given", "")})


def _write(path: Path, recipe: Recipe, run: str, about: dict[str, Any]) -> str:
    tree = {**about, "id": run, "hash": configs.digest(recipe), "config": configs.dump(recipe)}
    content = Started.model_validate(tree).dump()
    write_text(path, json.dumps({**content, "seal": seal(content)}, indent=1))
    return run


def _read(path: Path) -> dict[str, Any]:
    """What config.json holds, if it is whole."""
    damaged = BadConfig(
        f"{str(path)!r} is damaged and does not say what was started here; restore it from a copy, or {_ANOTHER}"
    )
    try:
        tree = json.loads(path.read_bytes()) if path.is_file() else {}
        # Taken apart once as it will be, so that whatever is missing in it is found here.
        essential(tree["config"])
        _last_steps(tree["config"])
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise damaged from error
    if "id" not in tree and isinstance(tree.get("hash"), str):
        raise BadConfig(
            f"{str(path.parent)!r} was started by an older version of Reelign, whose checkpoints this one does not "
            f"read; finish it there, or {_ANOTHER}"
        )
    if not isinstance(tree.get("id"), str) or not is_sealed(tree):
        raise damaged
    Started.read(tree, str(path))
    return tree


def _refuse_remains(folder: Path) -> None:
    remains = [name for name in _OF_A_RUN if os.path.lexists(folder / name)]
    if remains:
        raise BadConfig(
            f"{str(folder)!r} holds {remains[0]} of a run, but its config.json is lost; put it back, or {_ANOTHER}"
        )


def _last_steps(tree: dict[str, Any]) -> int:
    """Of the last stage; 0 where it has no such number."""
    return int(tree["stages"][-1].get("steps") or 0)


def _first_change(old: Any, new: Any, path: str = "") -> str:
    """Where two trees differ first, with both values; nothing if they do not."""
    if old == new:
        return ""
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(key, old.get(key), new.get(key)) for key in sorted({*old, *new})]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(str(i), a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return f"{path}: {shown(old)} then, {shown(new)} now"
    return next((_first_change(a, b, f"{path}.{key}".strip(".")) for key, a, b in pairs if a != b), path)
