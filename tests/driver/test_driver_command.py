"""The command `align` on a run that is taken up again, or whose end goes wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.driver.toys import tree_of
from tests.parts import gaussian_data

from reelign.report import page

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe file of one short stage."""
    tree: dict[str, Any] = tree_of(tmp_path / "runs")
    del tree["stages"][0]["gate"]
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**tree, "stages": tree["stages"][:1], "evaluate": None}))
    return path


def test_changes_are_accepted_on_resuming_only(reelign: Cli, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_data.GaussianData, "identity", lambda self: {"clips": 3}, raising=False)
    code, _, err = reelign("align", recipe, "--accept-changes")
    assert code == 2
    assert "--accept-changes is about a run that is taken up again; give --resume too" in err
    assert reelign("align", recipe)[0] == 0
    monkeypatch.setattr(gaussian_data.GaussianData, "identity", lambda self: {"clips": 2}, raising=False)
    code, _, err = reelign("align", recipe, "--resume", "--set", "stages.0.steps=7")
    assert code == 2
    assert "the data of stages.0.dataset (clips 3 then, 2 now); bring it back, or go on all the same with" in err
    assert reelign("align", recipe, "--resume", "--set", "stages.0.steps=7", "--accept-changes")[0] == 0


def test_a_report_that_cannot_be_written_takes_nothing_from_the_model(
    reelign: Cli, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> Path:
        (folder / "report.html").mkdir()
        return real(folder)

    real = page.write
    monkeypatch.setattr(page, "write", full)
    code, out, err = reelign("align", recipe)
    assert code == 2
    assert f"model   {tmp_path}/runs/toy/final" in out
    assert "report.html: Is a directory; move away what stands there" in err
    assert "Traceback" not in err
    assert (tmp_path / "runs" / "toy" / "final" / "offsets.safetensors").exists()


def test_a_run_that_was_started_with_other_settings_is_refused_with_its_command(reelign: Cli, recipe: Path) -> None:
    assert reelign("align", recipe, "--set", "stages.0.batch=3", "--set", "run.seed=4")[0] == 0
    code, out, err = reelign("align", recipe, "--resume", "--set", "run.seed=4")
    assert (code, out) == (2, "")
    assert err.endswith(
        "was started with other settings (stages.0.batch: 3 then, 8 now); resume with the same recipe, and with each "
        f"--set that was given then: it was started by `reelign align {recipe} --set stages.0.batch=3 --set run.seed=4`"
        ".\n"
    )
