"""`reelign plan` says what lies on a device that need not be there; a dry run says what is told at once."""

import re
from collections.abc import Callable
from pathlib import Path

import yaml

Call = Callable[..., tuple[int, str, str]]
SFT = {"name": "offline", "steps": 1, "batch": 4, "dataset": {"name": "playground", "size": 4}, "method": "sft"}


def _recipe(folder: Path, **more: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"run": {"name": "x"}, "model": {"name": "wan"}, "stages": [SFT], **more}))
    return path


def test_it_says_what_the_model_and_each_stage_hold(reelign: Call, tmp_path: Path) -> None:
    code, out, _ = reelign("plan", _recipe(tmp_path), "--device", "cuda")
    model, sft = out.splitlines()
    assert code == 0
    parts = r"network 15\.0 MiB, text encoder 0\.\d MiB, autoencoder 3\.\d MiB"
    assert re.fullmatch(rf"memory of the model on cuda: 18\.\d MiB \({parts}\)\.", model)
    parts = r"moments 30\.1 MiB, latents 0\.\d MiB, texts 0\.\d MiB, pass [\d.]+ MiB"
    assert re.fullmatch(rf"memory of sft beside it: [\d.]+ MiB \({parts}\)\.", sft)
    # Settings count, and no data is needed.
    adapted = reelign(
        "plan", _recipe(tmp_path), "--set", "model.adapter={name: lora, rank: 4}", "--set", "stages.0.dataset.size=9"
    )[1]
    assert "adapter" in adapted
    assert "moments 30.1" not in adapted


def test_a_dry_run_says_it_without_the_passes(reelign: Call, tmp_path: Path) -> None:
    out = reelign("align", _recipe(tmp_path), "--dry-run", "--set", f"run.root={tmp_path}")[1]
    assert "memory of the model on cpu: 22." in out
    assert "memory of sft beside it, without its forward passes: " in out
    assert " pass " not in out


def test_a_family_without_an_outline_is_said_to_have_none(reelign: Call, tmp_path: Path) -> None:
    code, out, _ = reelign("plan", _recipe(tmp_path, model={"name": "gaussian", "side": 2}))
    assert (code, out) == (0, "this family of models says nothing of its memory.\n")


def test_a_device_of_another_kind_is_refused(reelign: Call, tmp_path: Path) -> None:
    code, _, err = reelign("plan", _recipe(tmp_path), "--device", "tpu")
    assert (code, err) == (2, "reelign: --device is 'tpu'; give cpu or cuda.\n")
