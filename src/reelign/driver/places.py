"""Where a run may lie: not in what it reads."""

from collections.abc import Iterator
from pathlib import Path

from reelign.driver.recipe import Recipe, all_datasets
from reelign.errors import BadConfig, shown


def refuse_inside(recipe: Recipe) -> None:
    """Refuse a run folder that lies in a folder of data or in a part of the model.

    Its samples would be read as clips, and its files would be exported as the model's.

    Raises:
        BadConfig: naming the folder, and what reads it.
    """
    run = recipe.path.resolve()
    for where, folder in _read(recipe):
        if run.is_relative_to(folder.resolve()):
            raise BadConfig(
                f"run.root: the run would lie in {shown(str(folder))}, which {where} reads; choose a place outside it."
            )


def _read(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """Folders that are read as a whole. A pipeline is no such folder, but its parts are."""
    pipeline = _folder(getattr(recipe.model, "weights", ""))
    for part in pipeline.iterdir() if pipeline else ():
        if (part / "config.json").is_file() or part.name in ("tokenizer", "scheduler"):
            yield "model.weights", part
    for where, config in all_datasets(recipe):
        folder = _folder(getattr(config, "path", ""))
        if folder:
            yield where, folder


def _folder(path: object) -> Path | None:
    folder = Path(str(path)).expanduser() if path else None
    return folder if folder and folder.is_dir() else None
