"""Whether a run is finished, told from its files alone: torch, which takes many seconds to load, is not needed.

What is said takes as long as reading `final/` once.

Only what is whole is called finished. Wherever something is missing, damaged or not as expected, nothing is said here,
and the driver looks with all it has.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import reelign
from reelign.config import Tree
from reelign.errors import UserError
from reelign.files import digest, is_left, is_sealed, seal
from reelign.runtime import header
from reelign.runtime.collected import Collected
from reelign.runtime.final import Final
from reelign.runtime.header import Header
from reelign.runtime.journal import Journal, Seal

REPORT = "report.html"


def given(tree: Tree) -> str:
    """A digest of a recipe as it is given, without what a resumed run may change: its place, how it is saved, on what.

    The same version of Reelign makes the same settings of two recipes with one digest.
    """
    return seal(decisive(tree))


def decisive(tree: Tree) -> Tree:
    """A recipe's tree without what moves no bits: where it lies, when it is saved, on what it runs, who looks on."""
    run = {key: value for key, value in tree.get("run", {}).items() if key not in ("name", "root", "save_every")}
    return {**{key: value for key, value in tree.items() if key not in ("runtime", "sinks")}, "run": run}


def sentence(folder: Path, last: Mapping[str, Any], extends: bool) -> str:
    """What to say of a finished run; `last` is the ledger's last row, and `extends` whether its stage has `steps`."""
    more = (
        f"to train on, resume it with more steps than {last['steps']} in its last stage, {last['stage']}, as in "
        f"--set stages.{last['index']}.steps={2 * last['steps']}"
        if extends
        else "to train on, start a new run from its final/ as model.weights"
    )
    return f"{folder} is finished already; {more}."


def told(folder: Path, tree: Tree) -> str:
    """The sentence for a folder that holds a recipe's run, finished and whole, with its report; else nothing."""
    try:
        return _look(folder, tree)
    except (UserError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""  # damage of any kind


def _look(folder: Path, tree: Tree) -> str:
    path = folder / "config.json"
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    asked = (config["given"], config["version"]) == (given(tree), reelign.__version__)
    # A report that is older than the export was written on the way.
    told = (folder / REPORT).stat().st_mtime_ns >= (folder / "final.json").stat().st_mtime_ns
    if not (asked and told and is_sealed(config)):
        return ""
    checkpoints, stages = _checkpoints(folder / "checkpoints", config["id"]), config["config"]["stages"]
    newest = max(checkpoints, key=lambda each: each.number)
    position = newest.position
    if position["stage"] != len(stages) or _is_untidy(folder, checkpoints, stages):
        return ""
    last = position["ledger"][-1]
    if last["steps"] < stages[-1].get("steps", 0) or not _is_whole(folder, config["id"], newest, stages):
        return ""
    return sentence(folder, last, "steps" in stages[-1])


def _checkpoints(root: Path, run: str) -> list[Header]:
    """The header of each, where all are whole."""
    return [header.read(folder, run) for folder in root.iterdir() if not folder.name.startswith(".")]


def _is_untidy(folder: Path, checkpoints: list[Header], stages: list[dict[str, Any]]) -> bool:
    """Whether something lies there that a start takes away."""
    pairs = [folder / stage["path"] for stage in stages if stage["name"] == "collect"]
    places = [folder, *(folder / name for name in ("checkpoints", "evaluations", "evaluations/steps"))]
    places += (folder / "samples").glob("*")
    places += [place for each in pairs for place in (each.parent, each, each / "clips")]
    left = any(is_left(path.name) for place in places if place.is_dir() for path in place.iterdir())
    return left or {each.name for each in checkpoints} != header.kept(checkpoints)


def _is_whole(folder: Path, run: str, newest: Header, stages: list[dict[str, Any]]) -> bool:
    """Whether all files of a run are as the checkpoint at its end has sealed them.

    Raises:
        BadData: collected pairs are not.
    """
    position = newest.position
    for stage, row in zip(stages, position["ledger"], strict=True):
        if stage["name"] == "collect":
            Collected(folder, stage["path"], run, row["steps"]).verify(row["steps"])
    judged = position["evaluations"].items()
    return (
        Journal(folder / "ledger.jsonl").holds(position["ledger"])
        and all(
            Journal(folder / f"{name}.jsonl").ends_with(Seal.model_validate(position[name]))
            for name in ("metrics", "samples")
        )
        and all(digest(folder / "evaluations" / f"{label}.json") == sealed for label, sealed in judged)
        and Final(folder).is_of(newest.seal)
    )
