"""A run and the files of its model: those that it only begins with, and those that it copies at its end."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.driver.toys import Watcher, go, interrupt

from reelign import config as configs
from reelign import driver, video
from reelign.core import rng
from reelign.driver import started
from reelign.driver.run_folder import RunFolder
from reelign.errors import BadCheckpoint

QUERY = "transformer.blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def parts(tiny_wan21: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the model, clips for it, and an adapter to start from; tests read it and do not change it."""
    root = tmp_path_factory.mktemp("parts")
    shutil.copytree(tiny_wan21, root / "wan")
    video.write(root / "clips" / "a.mp4", torch.rand(5, 3, 32, 32), 8, lossless=True)
    (root / "clips" / "a.txt").write_text("a red circle")
    matrices = {"A": rng.normal((4, 48), seed=1), "B": rng.normal((48, 4), seed=2)}
    notes = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": 2.0})}
    save_file({f"{QUERY}.lora_{k}.weight": m for k, m in matrices.items()}, root / "start.safetensors", metadata=notes)
    return root


@pytest.fixture
def own(parts: Path, tmp_path: Path) -> Path:
    """A copy of it of one's own."""
    return Path(shutil.copytree(parts, tmp_path / "own"))


def _recipe(root: Path, adapted: bool) -> driver.Recipe:
    model: dict[str, Any] = {"name": "wan", "weights": str(root / "wan"), "text_length": 16}
    model["size"] = {"frames": 5, "height": 32, "width": 32, "fps": 8}
    stage: dict[str, Any] = {"name": "offline", "steps": 2, "batch": 1, "method": "sft", "learner": {"lr": 0.01}}
    stage["dataset"] = {"name": "clip_folder", "path": str(root / "clips")}
    tree: dict[str, Any] = {"run": {"name": "toy", "root": str(root / "runs"), "save_every": 1}, "stages": [stage]}
    adapter = {"name": "lora", "start": str(root / "start.safetensors")} if adapted else None
    tree["model"] = {**model, "adapter": adapter}
    return configs.validate(driver.Recipe, tree)


def _final(root: Path) -> dict[str, str]:
    final = root / "runs" / "toy" / "final"
    files = [path for path in sorted(final.rglob("*")) if path.is_file()]
    return {str(path.relative_to(final)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_run_that_has_begun_needs_the_adapter_it_started_from_no_more(parts: Path, own: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(parts, tmp_path / "whole"))
    go(_recipe(whole, adapted=True), Watcher())
    recipe = _recipe(own, adapted=True)
    with pytest.raises(driver.Interrupted):
        go(recipe, Watcher("sft 1", interrupt))
    (own / "start.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"model\.adapter\.start: '.*start\.safetensors' is not there"):
        driver.check(recipe)
    driver.check_again(recipe)
    watcher = Watcher()
    go(recipe, watcher, resume=True)
    assert not [sentence for sentence in watcher.said if "changes" in sentence]
    assert _final(own) == _final(whole)
    go(recipe, Watcher(), resume=True)
    assert _final(own) == _final(whole)


def test_a_run_that_has_saved_nothing_still_needs_it(own: Path) -> None:
    recipe = _recipe(own, adapted=True)
    RunFolder(recipe.path).prepare(recipe, resume=False, about=started.settled(recipe.model))
    (own / "start.safetensors").unlink()
    with pytest.raises(BadCheckpoint, match=r"start\.safetensors' is not there"):
        go(recipe, Watcher(), resume=True)


def test_a_base_that_changes_while_a_run_goes_on_is_not_exported_and_when_it_is_back_it_is(own: Path) -> None:
    file = own / "wan" / "vae" / "diffusion_pytorch_model.safetensors"
    whole, recipe = file.read_bytes(), _recipe(own, adapted=False)
    with pytest.raises(
        BadCheckpoint, match=rf"{file}' has changed since the model was loaded, so nothing is exported;"
    ):
        go(recipe, Watcher("sft 2", lambda: file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))))
    run = own / "runs" / "toy"
    assert not (run / "final").exists()
    assert not list(run.glob(".final*"))
    with pytest.raises(BadCheckpoint, match=r"the base weights \(.* then, .* now\); bring it back"):
        go(recipe, Watcher(), resume=True)
    file.write_bytes(whole)
    go(recipe, Watcher(), resume=True)
    assert _final(own)["vae/diffusion_pytorch_model.safetensors"] == hashlib.sha256(whole).hexdigest()
