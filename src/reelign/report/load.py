"""Reading a run folder into frozen values; an unfinished run is a run with fewer stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reelign.errors import UserError
from reelign.records import Evaluation, Sample, Search, Stage, Started, Status, Summary, judged_as
from reelign.report import reading, series
from reelign.report.run import BASE, Run

LEFT_OUT_SHOWN = 40
"""Names of data that a run left out; the file has all of them."""


def load(folder: Path) -> Run:
    """Read a run folder.

    Only `config.json` has to be there. A last line that a killed run left half-written is dropped.

    Raises:
        UserError: the folder is no run folder, or one of its files does not read as this version writes it.
    """
    folder = Path(folder)
    about = _settings(folder)
    ledger = reading.rows(folder / "ledger.jsonl")
    stages = tuple(Stage.read(row, where) for row, where in ledger)
    samples = reading.rows(folder / "samples.jsonl")
    main, others = _evaluations(folder, [stage.stage for stage in stages])
    left_out, left_out_count = reading.lines(folder / "left_out.txt", LEFT_OUT_SHOWN)
    return Run(
        folder=folder,
        name=folder.resolve().name,
        about={key: value for key, value in about.items() if key != "config"},
        config=about["config"],
        stages=stages,
        metrics=series.read(folder / "metrics.jsonl"),
        evaluations=main,
        others=others,
        search=_search(folder),
        looks=_looks(folder),
        samples=tuple(Sample.read(row, where) for row, where in samples),
        status=status(folder),
        left_out=left_out,
        left_out_count=left_out_count,
    )


def status(folder: Path) -> Status | None:
    """Where a run stands, as it says itself; None where it says nothing.

    Raises:
        UserError: the file does not read.
    """
    found = reading.document(folder / "run.json")
    return None if found is None else Status.read(found, str(folder / "run.json"))


def _settings(folder: Path) -> dict[str, Any]:
    try:
        folder.stat()
    except FileNotFoundError as error:
        raise UserError(f"there is no folder {folder}; give the path of a run, for example runs/NAME.") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"{str(folder)[:200]} cannot be read ({reason}); give the path of a run folder.") from error
    path = folder / "config.json"
    settings = reading.document(path) if folder.is_dir() else None
    if settings is None and not path.is_file():
        inside = sorted(p.parent.name for p in folder.glob("*/config.json")) if folder.is_dir() else []
        hint = "give one that `reelign align` or `reelign demo` wrote, such as runs/NAME"
        if inside:
            hint = f"it holds runs, though: {', '.join(inside[:8])}; give one of them"
        raise UserError(f"{folder} is not a run folder, since it has no config.json; {hint}.")
    if not isinstance(settings, dict) or not isinstance(settings.get("config"), dict):
        raise UserError(
            f"{path} has no resolved recipe under 'config'; restore it, or give a folder that Reelign wrote."
        )
    return Started.read(settings, str(path)).model_dump()


def _evaluations(folder: Path, order: list[str]) -> tuple[dict[str, Evaluation], dict[str, dict[str, Evaluation]]]:
    """Those under the main sampler by label, and those under further ones by its name and the label."""
    main: dict[str, Evaluation] = {}
    others: dict[str, dict[str, Evaluation]] = {}
    for path in reading.names(folder / "evaluations", ".json"):
        each = Evaluation.read(reading.document(path), str(path))
        if each.under and each.label != path.stem == judged_as(each.label, each.under):
            others.setdefault(each.under, {})[each.label] = each
        else:  # the file's name is what the ledger refers to
            main[path.stem] = each.model_copy(update={"label": path.stem})
    return _ranked(main, order), {name: _ranked(found, order) for name, found in others.items()}


def _search(folder: Path) -> Search | None:
    found = reading.document(folder / "best.json")
    return None if found is None else Search.read(found, str(folder / "best.json"))


def _ranked(found: dict[str, Evaluation], order: list[str]) -> dict[str, Evaluation]:
    """The base, the stages in their order, and whatever else there is."""
    return {label: found[label] for label in dict.fromkeys((BASE, *order, *found)) if label in found}


def _looks(folder: Path) -> dict[str, dict[int, Mapping[str, Summary]]]:
    found: dict[str, dict[int, Mapping[str, Summary]]] = {}
    for path in reading.names(folder / "evaluations" / "steps", ".json"):
        stage, _, step = path.stem.rpartition("@")
        if stage and step.isdecimal():
            judged = Evaluation.read(reading.document(path), str(path))
            found.setdefault(stage, {})[int(step)] = judged.measures
    return {stage: dict(sorted(steps.items())) for stage, steps in found.items()}
