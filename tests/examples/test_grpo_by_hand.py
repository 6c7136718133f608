"""The reading copy of GRPO trains to the same bits as the online stage."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reelign import parts
from reelign.batches import Request, Videos
from reelign.core import rng
from reelign.runtime.local import Local
from reelign.stage import Context
from reelign.weights import trainable

Make = Callable[..., Any]
FILE = Path(__file__).parents[2] / "examples" / "grpo_by_hand.py"
PROMPTS, ITERATIONS, SEED, LR = 2, 2, 7, 3e-4


@pytest.fixture(scope="module")
def by_hand() -> Any:
    spec = importlib.util.spec_from_file_location("grpo_by_hand", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _stage(folder: Path, data: Any, rewards: list[Any]) -> Any:
    tree = {
        "name": "online",
        "steps": ITERATIONS,
        "prompts": PROMPTS,
        "group": 8,
        "dataset": data,
        "sampler": {"steps": 10, "shift": 3.0},
        "method": "grpo",
        "rewards": rewards,
        "learner": {"lr": LR, "micro_batch": 8},  # a group in each forward pass, as by hand
    }
    return parts.build("stage", parts.configure("stage", tree), Context(SEED, folder, "grpo"))


CASES = {
    "gaussian": ({"side": 2, "bins": 4}, "tests.parts.gaussian_data", ["tests.parts.linear_reward:build"]),
    "wan": (
        {"weights": "playground", "size": None, "text_length": None},
        {"name": "playground", "prompts": 12},
        ["playground_clarity", "playground_motion"],
    ),
}


@pytest.mark.parametrize("family", CASES)
def test_the_reading_copy_trains_to_the_bits_of_the_stage(
    by_hand: Any, request: pytest.FixtureRequest, tmp_path: Path, family: str
) -> None:
    settings, data, names = CASES[family]
    make: Make = request.getfixturevalue(family)
    model, other = make(**settings), make(**settings)
    stage = _stage(tmp_path, data, names)
    with Local(model).stage(stage.spec) as work:
        reports = list(stage.run(work, 0))
        panel = work.panel
    optimizer = torch.optim.AdamW(trainable(other.network).values(), lr=LR, weight_decay=0.0, fused=True)
    first = rng.integer(1 << 20, seed=rng.seed_for(SEED, "prompts"))
    for step in range(ITERATIONS):
        prompts = stage.dataset.prompts(PROMPTS, 8, first + step)

        def score(videos: Videos, request: Request) -> dict[str, torch.Tensor]:
            return panel.score(videos, [request] * len(videos))

        found = by_hand.iteration(other, optimizer, prompts.requests, score, SEED, step)
        assert found["max_abs_log_ratio"] == reports[step].metrics["online/max_abs_log_ratio"] == 0
    start = trainable(make(**settings).network)
    for name, value in trainable(model.network).items():
        assert torch.equal(value, trainable(other.network)[name]), name
        assert not torch.equal(value, start[name])


def test_the_example_runs_and_its_reward_rises(by_hand: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["grpo_by_hand.py", "--steps", "12"])
    by_hand.main()
    rows = [float(line.split()[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 12
    assert rows[-1] > rows[0] + 0.1


def test_it_stays_short_enough_to_be_read() -> None:
    assert len(FILE.read_text(encoding="utf-8").splitlines()) <= 120
