"""Whole bake-offs: equal budgets, the order, being killed and started again, and what cannot be mixed."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reelign import config as configs
from reelign import driver
from reelign.bakeoff import rank, results
from reelign.bakeoff import run as runs
from reelign.bakeoff import spec as specs
from reelign.bakeoff.spec import Spec
from reelign.errors import BadConfig, RunStopped
from reelign.stages.online import Online

Make = Callable[..., Any]
InChild = Callable[[Callable[[], object]], int]
TIMES = ("seconds", "rollout_s", "decode_s", "reward_s", "update_s")


def _checks(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / runs.RESULT).read_text().splitlines()]


def _outcome(root: Path) -> dict[str, Any]:
    """All that a bake-off leaves behind, except how long it took."""
    found: dict[str, Any] = {}
    for folder in sorted((root / "toy").glob("*-seed*")):
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in _checks(folder)]
        evaluations = {p.name: json.loads(p.read_text()) for p in sorted((folder / "evaluations").iterdir())}
        found[folder.name] = rows, evaluations
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds an uninterrupted bake-off; tests read it and do not change it."""
    from tests.bakeoff.toys import Watcher, tree

    root = tmp_path_factory.mktemp("whole")
    runs.run(configs.validate(Spec, tree(root)), Watcher())
    return root


def _spec(root: Path, **changes: Any) -> Spec:
    from tests.bakeoff.toys import tree

    return configs.validate(Spec, tree(root, **changes))


def test_every_run_spends_its_budget_and_is_judged_on_the_way(whole: Path) -> None:
    names = [f"{label}-seed{seed}" for label in ("fast", "slow") for seed in range(3)]
    assert sorted(_outcome(whole)) == names
    for name in names:
        checks = _checks(whole / "toy" / name)
        assert [c["check"] for c in checks] == [0, 1, 2]
        spent = [c["units"] for c in checks]
        # an iteration costs at most 120 (tests of counting), and checks come with the first one at or after their due
        assert spent[0] == 0
        assert 350 <= spent[1] < 350 + 120
        assert 700 <= spent[2] < 700 + 120
        assert checks[2]["step"] > checks[1]["step"] > checks[0]["step"] == 0
        parts = sum(checks[2][part] for part in TIMES[1:])
        assert 0 < parts <= checks[2]["seconds"] * 1.001
        steps = [json.loads(line) for line in (whole / "toy" / name / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in steps] == list(range(checks[2]["step"]))
        assert steps[-1]["bakeoff/units"] == spent[2]


def test_all_start_from_the_same_place_and_are_judged_by_the_same_clips(whole: Path) -> None:
    starts = {(folder / "evaluations" / "base.json").read_text() for folder in (whole / "toy").glob("*-seed*")}
    assert len(starts) == 1
    sheet = results.load(_spec(whole))
    assert sheet.seeds == (0, 1, 2)
    assert (sheet.prompts, sheet.members) == (6, 2)
    for series in sheet.series.values():
        assert series.values["level"].shape == (3, 3, 12)
        assert torch.equal(series.values["level"][0, 0], series.values["level"][0, 1])
        assert not torch.equal(series.values["level"][2, 0], series.values["level"][2, 1])


def test_the_faster_learner_is_found(whole: Path) -> None:
    spec = _spec(whole)
    found = rank.analyse(spec, results.load(spec))
    assert [p.change.verdict for p in found.boards[0].pairs] == ["better"]
    fast, slow = found.reaches
    assert fast.units.estimate < slow.units.estimate


def test_runs_are_made_seed_by_seed(spec: Make, watcher: Make) -> None:
    found, seen = spec(), watcher()
    runs.run(found, seen)
    order = [sentence.partition(":")[0] for sentence in seen.said]
    assert order == [f"{label}, seed {seed}" for seed in range(3) for label in ("fast", "slow")]
    assert "(6 of 6 runs)" in seen.said[-1]
    ((label, total),) = seen.begun
    assert label == "toy"
    # 12 clips of 4 steps an evaluation, two a run, and one at the start
    assert total == 48 + 6 * (700 + 2 * 48)
    assert seen.done == sorted(seen.done)
    assert seen.done[-1] == total


def test_a_run_is_what_align_would_have_done(whole: Path, tmp_path: Path, watcher: Make) -> None:
    spec = _spec(tmp_path)
    done = _checks(whole / "toy" / "fast-seed1")[-1]
    recipe = specs.recipe(spec, spec.entries[0], 1)
    stage = recipe.stages[0].model_copy(update={"steps": done["step"]})
    folder = driver.run(recipe.model_copy(update={"stages": (stage,)}), watcher())
    aligned = json.loads((folder / "evaluations" / "grpo.json").read_text())
    ours = json.loads((whole / "toy" / "fast-seed1" / done["evaluation"]).read_text())
    assert ours["clips"] == aligned["clips"]


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_looking_more_often_changes_nothing(tmp_path: Path, watcher: Make, average: float) -> None:
    finals = []
    for checks in (2, 4):
        tree = {"checks": checks, "seeds": [0], "exploratory": True}
        entries = [{"label": "a", "stage": {"learner": {"ema": average}}}]
        spec = _spec(tmp_path / str(checks), **tree, entries=entries, target={"measure": "level", "value": 0})
        runs.run(spec, watcher())
        folder = runs.folder_of(spec) / "a-seed0"
        last = _checks(folder)[-1]
        finals.append((last["step"], last["units"], json.loads((folder / last["evaluation"]).read_text())["clips"]))
    assert finals[0] == finals[1]


@pytest.mark.parametrize("moment", [1, 3, 9, 16, 30])
def test_a_killed_bake_off_ends_as_if_it_had_not_been(
    whole: Path, tmp_path: Path, watcher: Make, in_child: InChild, moment: int
) -> None:
    spec = _spec(tmp_path)
    kill = watcher(moment, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert in_child(lambda: runs.run(spec, kill)) == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(runs.RESULT)}
    assert len(finished) < 6
    runs.run(spec, watcher())
    assert _outcome(tmp_path) == _outcome(whole)
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())


def test_a_finished_bake_off_computes_nothing(whole: Path, watcher: Make) -> None:
    seen = watcher()
    runs.run(_spec(whole), seen)
    assert (seen.begun, seen.done) == ([], [])


def test_more_seeds_and_entries_add_runs_and_other_settings_are_refused(
    tmp_path: Path, watcher: Make, spec_tree: Make
) -> None:
    few = {"seeds": [0], "exploratory": True}
    runs.run(_spec(tmp_path, **few), watcher())
    seen = watcher()
    entries = [*spec_tree()["entries"], {"label": "held", "stage": {"method": {"kl": 1.0}}}]
    runs.run(_spec(tmp_path, seeds=[0, 1], exploratory=True, entries=entries), seen)
    order = [sentence.partition(":")[0] for sentence in seen.said]
    assert order == ["held, seed 0", "fast, seed 1", "slow, seed 1", "held, seed 1"]
    tree = spec_tree(**few)
    tree["stage"]["learner"]["lr"] = 0.02
    with pytest.raises(BadConfig, match=r"stages.*0\.05.* then, .*0\.02.* now"):
        runs.run(configs.validate(Spec, tree), seen)
    with pytest.raises(BadConfig, match=r"bakeoff\.budget: 700 then, 900 now"):
        runs.run(_spec(tmp_path, **few, budget=900), seen)


def test_only_runs_what_it_is_asked_to(tmp_path: Path, watcher: Make) -> None:
    spec = _spec(tmp_path)
    runs.run(spec, watcher(), only=("slow",))
    assert sorted(path.parent.name for path in tmp_path.rglob(runs.RESULT)) == [f"slow-seed{s}" for s in range(3)]
    sheet = results.load(spec)
    assert (list(sheet.series), sheet.missing) == (["slow"], ("fast",))


def test_entries_are_compared_on_the_seeds_that_all_have_finished(whole: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(whole / "toy", tmp_path / "toy")
    (tmp_path / "toy" / "slow-seed2" / runs.RESULT).unlink()
    sheet = results.load(_spec(tmp_path))
    assert (sheet.seeds, sheet.spare) == ((0, 1), 1)


def test_a_run_that_cannot_go_on_is_judged_as_it_stands(
    tmp_path: Path, watcher: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_run = Online.run

    def failing(self: Online, work: Any, start: int) -> Any:
        for report in whole_run(self, work, start):
            yield report
            if report.step == 1 and self.config.learner.lr < 0.01:
                raise RunStopped("the loss is nan.")

    monkeypatch.setattr(Online, "run", failing)
    spec, seen = _spec(tmp_path), watcher()
    runs.run(spec, seen)
    assert "stopped: the loss is nan." in seen.said[1]
    checks = _checks(tmp_path / "toy" / "slow-seed0")
    assert [c["step"] for c in checks] == [0, 2, 2]
    assert [c["stopped"] for c in checks] == ["", "the loss is nan.", "the loss is nan."]
    assert checks[1]["evaluation"] == checks[2]["evaluation"]
    found = results.load(spec)
    assert found.series["slow"].units[:, 0].tolist() == [0, 350, 700]
    assert found.series["slow"].seconds[2, 0] == pytest.approx(checks[2]["seconds"] * 700 / checks[2]["units"])
    stops = rank.analyse(spec, found).stops
    assert [(s.label, s.seed, s.step) for s in stops] == [("slow", seed, 2) for seed in range(3)]


def test_a_run_whose_weights_broke_keeps_what_was_judged_before(
    tmp_path: Path, watcher: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_run = Online.run

    def breaking(self: Online, work: Any, start: int) -> Any:
        for report in whole_run(self, work, start):
            yield report
            if report.step == 1 and self.config.learner.lr < 0.01:
                work.model.network.offset.data.fill_(float("nan"))
                work.learner.broken = True
                raise RunStopped("its update left NaN.")

    monkeypatch.setattr(Online, "run", breaking)
    runs.run(_spec(tmp_path), watcher())
    checks = _checks(tmp_path / "toy" / "slow-seed0")
    assert [c["stopped"] for c in checks] == ["", "its update left NaN.", "its update left NaN."]
    assert {c["evaluation"] for c in checks} == {checks[0]["evaluation"]}


def test_a_run_that_never_begins_stops_the_bake_off(
    tmp_path: Path, watcher: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: Online, work: Any, start: int) -> Any:
        raise RunStopped("the reward gave 7, outside its scale.")
        yield

    monkeypatch.setattr(Online, "run", failing)
    with pytest.raises(RunStopped, match="outside its scale"):
        runs.run(_spec(tmp_path), watcher())


def test_iterations_larger_than_the_gap_between_checks_are_refused(tmp_path: Path, watcher: Make) -> None:
    with pytest.raises(RunStopped, match=r"takes up to \d+ forward-units, but checks are 50 apart; raise `budget`"):
        runs.run(_spec(tmp_path, budget=100), watcher())


def test_two_processes_do_not_share_a_bake_off(whole: Path, watcher: Make) -> None:
    from reelign.driver.run_folder import RunFolder

    with RunFolder(whole / "toy").locked(), pytest.raises(BadConfig, match="choose another `name`"):
        runs.run(_spec(whole), watcher())


def test_damaged_results_are_named(whole: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(whole / "toy", tmp_path / "toy")
    (tmp_path / "toy" / "fast-seed0" / "evaluations" / "check-01.json").write_text("{")
    with pytest.raises(Exception, match="fast-seed0' do not read; remove that folder"):
        results.load(_spec(tmp_path))


def test_a_run_folder_reads_as_any_other(whole: Path) -> None:
    from reelign.report import load

    run = load.load(whole / "toy" / "fast-seed0")
    assert list(run.evaluations) == ["base", "check-01", "check-02"]
    assert list(run.metrics) == ["fast"]


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no seed of the bake-off 'toy' is finished yet"):
        results.load(_spec(tmp_path))


@pytest.mark.parametrize("name", ["..", ".", ".x", "-x"])
def test_names_that_are_no_folders_of_their_own_are_refused(spec: Callable[..., Spec], name: str) -> None:
    with pytest.raises(BadConfig, match="name: a name is letters, digits"):
        spec(name=name)


def test_files_of_others_are_not_cleared_away(spec: Callable[..., Spec], watcher: Callable[[], Any]) -> None:
    there = runs.folder_of(spec()) / "start"
    there.mkdir(parents=True)
    (there / "precious.txt").write_text("mine")
    with pytest.raises(
        BadConfig, match=r"precious\.txt' is not the bake-off's; move it away, or choose another `name`"
    ):
        runs.run(spec(), watcher())
    assert (there / "precious.txt").read_text() == "mine"
