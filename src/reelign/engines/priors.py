"""Priors of rewards by prompt: what a clear, typical sample of it earns."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.batches import Scored, Videos
from reelign.core import rng
from reelign.engines.slots import Notes, Score
from reelign.errors import BadConfig, BadData

KEY = "prior/"


class Priors:
    """Where priors come from. What is known is kept in the method's memory, one row a prompt of the dataset."""

    def __init__(self, source: str, file: Path | None, samples: int, momentum: float) -> None:
        """`source` is moving, own, first_frame or given; see `modules.bpgo.Config`."""
        self.source, self.file, self.samples, self.momentum = source, file, samples, momentum

    def check(self, texts: Sequence[str]) -> None:
        """Refuse, before any compute, a file that lacks a prompt.

        Raises:
            BadConfig: a prompt of the stage has no prior.
            BadData: the file is no such JSON.
        """
        if self.file is not None:
            _read(self.file, texts)

    def begin(self, texts: Sequence[str], score: Score, notes: Notes) -> None:
        """Sample or read what must be known before the first rollout.

        Raises:
            BadConfig: a prompt of the stage has no prior.
            BadData: the file is no such JSON.
        """
        if self.source == "own":
            seeds = [rng.seed_for(0, "prior", i, k) for i in range(len(texts)) for k in range(self.samples)]
            scores = score([text for text in texts for _ in range(self.samples)], seeds)
            for name, values in scores.items():
                notes.memory[KEY + name] = values.reshape(-1, self.samples).mean(dim=1)
        elif self.source == "given":
            assert self.file is not None
            for name, values in _read(self.file, texts).items():
                notes.memory[KEY + name] = values

    def of(self, scored: Scored, notes: Notes) -> dict[str, Float[Tensor, " p"]]:
        """The priors of a batch, by reward."""
        if self.source == "first_frame":
            return _first_frame(scored)
        ids = torch.tensor(scored.trajectories.prompts.ids)
        found = {}
        for name, rewards in scored.rewards.items():
            key = KEY + name if KEY + name in notes.memory else KEY
            usual = rewards.mean()
            known = notes.memory.get(key)
            if known is None or len(known) <= int(ids.max()):
                # A moving average starts, for prompts not seen before, from what the batch earns.
                known = _longer(known, int(ids.max()) + 1)
            found[name] = torch.where(known[ids].isnan(), usual, known[ids])
        return found

    def learn(self, scored: Scored, notes: Notes) -> Scored:
        """Move the averages of the prompts just seen; gives the rewards back as they are."""
        if self.source != "moving":
            return scored
        ids = torch.tensor(scored.trajectories.prompts.ids)
        for name, rewards in scored.rewards.items():
            if "/" in name:
                continue
            known = _longer(notes.memory.get(KEY + name), int(ids.max()) + 1)
            before, now = known[ids], rewards.mean(dim=1)
            known[ids] = torch.where(before.isnan(), now, torch.lerp(now, before, self.momentum))
            notes.memory[KEY + name] = known
        return scored


def _longer(known: Tensor | None, n: int) -> Tensor:
    """A copy with at least `n` entries; what is not known is NaN."""
    old = torch.zeros(0) if known is None else known
    return torch.cat([old, torch.full((max(0, n - len(old)),), torch.nan)])


def _first_frame(scored: Scored) -> dict[str, Tensor]:
    assert scored.videos is not None
    frames = scored.videos.frames
    still = Videos(frames[:, :1].expand_as(frames), scored.videos.fps)
    group = scored.trajectories.prompts.group
    return {name: r.reshape(-1, group).mean(dim=1) for name, r in scored.rescore(still).items()}


def _read(file: Path, texts: Sequence[str]) -> dict[str, Tensor]:
    """Priors by reward name, or under the empty name where one number serves all rewards."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadData(f"modules: bpgo's file {str(file)!r} does not exist; give a JSON of priors by prompt.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadData(f"modules: bpgo's file {str(file)!r} is no JSON ({error}); give priors by prompt.") from error
    if not isinstance(content, dict):
        raise BadData(f"modules: bpgo's file {str(file)!r} must hold an object of priors by prompt.")
    missing = [text for text in texts if text not in content]
    if missing:
        raise BadConfig(
            f"modules: bpgo's file {str(file)!r} has no prior for {missing[0]!r} ({len(missing)} of {len(texts)} "
            "prompts are missing); add them, or use another source of priors."
        )
    rows: dict[str, list[float]] = {}
    for text in texts:
        value = content[text]
        for name, number in (value if isinstance(value, dict) else {"": value}).items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
                raise BadData(f"modules: bpgo's prior of {text!r} is {number!r}, but it must be a number.")
            rows.setdefault(name, []).append(float(number))
    short = [name for name, values in rows.items() if len(values) != len(texts)]
    if short:
        raise BadConfig(f"modules: bpgo's file {str(file)!r} has priors of {short[0]!r} for some prompts only.")
    return {name: torch.tensor(values) for name, values in rows.items()}
