"""Mutated recipes, data files and model folders through `align --dry-run`: fine or one sentence, nothing touched."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from tests.faults import desk as layout
from tests.faults import fuzz
from tests.faults.conftest import Share
from tests.faults.counts import Counts
from tests.faults.warm import Warm

Start = Callable[[str], Counts]
Mutants = Callable[[int], range]
Mutated = Callable[[Path, int], AbstractContextManager[str]]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with data and a model folder; tests leave it as it was."""
    folder = tmp_path_factory.mktemp("desk")
    layout.lay_out(folder)
    return folder


@contextmanager
def _data(desk: Path, seed: int) -> Iterator[str]:
    """One data file changed, and a recipe that reads it."""
    rng = random.Random(seed)
    name = rng.choice(sorted(layout.STAGES))
    layout.write_recipe(desk, layout.STAGES[name])
    with fuzz.mutated(rng, desk / "data" / name) as what:
        yield f"mutant {seed}, {name}, {what}"


@contextmanager
def _model(desk: Path, seed: int) -> Iterator[str]:
    """One file of the model folder changed, and a recipe that loads it."""
    rng = random.Random(seed)
    layout.write_recipe(desk, layout.ON_MODEL, weights="model")
    path = rng.choice(sorted(path for path in (desk / "model").rglob("*") if path.is_file()))
    with fuzz.mutated(rng, path) as what:
        yield f"mutant {seed}, {path.relative_to(desk)}, {what}"


@pytest.mark.faults(sample=1, parts=1)
def test_what_mutants_are_made_of_is_fine(desk: Path, warm: Warm, share: Share) -> None:
    for recipe in share(fuzz.recipes()):
        (desk / "recipe.yaml").write_text(recipe)
        assert fuzz.dry_run(warm, desk) == "same"
    for stage in share([*layout.STAGES.values()]):
        layout.write_recipe(desk, stage)
        assert fuzz.run(warm, desk) == "same"
    layout.write_recipe(desk, layout.ON_MODEL, weights="model")
    assert fuzz.run(warm, desk) == "same"


@pytest.mark.faults(sample=12, parts=8)
def test_a_mutated_recipe_is_fine_or_refused_in_one_sentence(
    desk: Path, warm: Warm, counts: Start, share: Share, mutants: Mutants
) -> None:
    found = counts("mutated recipe, --dry-run")
    bases = fuzz.recipes()
    for seed in share(mutants(1000)):
        (desk / "recipe.yaml").write_bytes(fuzz.recipe(random.Random(seed), bases))
        found.note(f"mutant {seed}", fuzz.dry_run(warm, desk))
    found.settle()


@pytest.mark.faults(sample=12, parts=8)
def test_a_mutated_data_file_is_fine_or_refused_in_one_sentence(
    desk: Path, warm: Warm, counts: Start, share: Share, mutants: Mutants
) -> None:
    found = counts("mutated data file, --dry-run")
    for seed in share(mutants(1000)):
        with _data(desk, seed) as what:
            found.note(what, fuzz.dry_run(warm, desk))
    found.settle()


@pytest.mark.faults(sample=8, parts=8)
def test_a_mutated_model_folder_is_fine_or_refused_in_one_sentence(
    desk: Path, warm: Warm, counts: Start, share: Share, mutants: Mutants
) -> None:
    found = counts("mutated model folder, --dry-run")
    for seed in share(mutants(200)):
        with _model(desk, seed) as what:
            found.note(what, fuzz.dry_run(warm, desk))
    found.settle()


@pytest.mark.faults(sample=1, parts=8)
@pytest.mark.parametrize("mutated", [_data, _model], ids=["data file", "model folder"])
def test_what_passes_a_dry_run_runs_or_stops_in_one_sentence(
    desk: Path, warm: Warm, counts: Start, share: Share, mutants: Mutants, mutated: Mutated
) -> None:
    found = counts(f"mutated {'data file' if mutated is _data else 'model folder'} that passes, one step")
    for seed in share(mutants(200)):
        with mutated(desk, seed) as what:
            if fuzz.dry_run(warm, desk) == "same":
                found.note(what, fuzz.run(warm, desk))
    found.settle()
