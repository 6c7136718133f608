"""GARDO: hold back only the samples on which the reward that trains and other rewards disagree most."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from reelign.batches import Scored
from reelign.engines import follow, penalty
from reelign.engines.slots import Demand, Given, Notes, Slots
from reelign.errors import BadConfig
from reelign.parts import PartConfig
from reelign.weights import Reference

SHARE = "gardo/share"


class Config(PartConfig):
    """Gated, adaptive regularisation (arXiv 2512.24138); the diversity bonus of the paper is not part of it."""

    name: str = "gardo"
    replaces: ClassVar = frozenset({"reference"})
    main: str
    """The reward that may be gamed; all others of the stage are its witnesses."""
    weight: float = Field(default=0.04, ge=0, le=1e6)
    """Of the penalty on the samples that are held back."""
    form: Literal["step", "velocity"] = "step"
    """The exact divergence of stochastic steps, or the mean squared velocity difference, which every method has."""
    share: float = Field(default=0.1, gt=0, le=1)
    """Share of samples that are held back, at the start."""
    least: float = Field(default=0.02, gt=0, le=1)
    """Least share as it adapts."""
    most: float = Field(default=0.2, gt=0, le=1)
    """Bounds of the share as it adapts to how large the disagreement is."""
    every: int = Field(default=15, ge=1)
    """Iterations after which the policy becomes the reference."""
    above: float = Field(default=3e-4, gt=0)
    """Mean divergence of all samples that train from which it does so at once."""

    @model_validator(mode="after")
    def _in_order(self) -> "Config":
        if not self.least <= self.share <= self.most:
            raise ValueError(
                f"share is {self.share:g}, but it adapts between least {self.least:g} and most {self.most:g}"
            )
        return self


def disagreement(rewards: Mapping[str, Tensor], main: str) -> Tensor:
    """Rank in the batch under the main reward minus the mean rank under the others, as shares in [-1, 1]; [b]."""
    n = next(iter(rewards.values())).numel()
    ranks = {name: r.flatten().argsort(stable=True).argsort().float() / max(1, n - 1) for name, r in rewards.items()}
    others = [r for name, r in ranks.items() if name != main]
    return ranks[main] - torch.stack(others).mean(dim=0)


def fill(config: Config, slots: Slots) -> Slots:
    """A penalty for the samples whose reward is least trusted."""

    def check(demand: Demand) -> None:
        if config.main not in demand.rewards or len(demand.rewards) < 2:
            raise BadConfig(
                f"modules: gardo's main reward is {config.main!r} and needs at least one other as its witness; the "
                f"stage has {', '.join(sorted(demand.rewards))}."
            )

    def begin(texts: object, score: object, notes: Notes) -> None:
        notes.memory[SHARE] = torch.tensor(config.share)
        notes.memory["gardo/since"] = torch.zeros(())

    def allocate(given: Given, scored: Scored, notes: Notes) -> Given:
        base = {name: r for name, r in scored.rewards.items() if "/" not in name}
        apart = disagreement(base, config.main)
        share = notes.memory[SHARE]
        notes.metrics["gardo_disagreement"] = apart.clamp_min(0).mean().item()
        count = max(1, round(float(share) * len(apart)))
        chosen = torch.zeros_like(apart)
        chosen[apart.topk(count).indices] = 1
        # More disagreement than a running mean of it holds back more samples, less fewer.
        usual = notes.memory.get("gardo/usual", apart.clamp_min(0).mean())
        factor = 1.1 if apart.clamp_min(0).mean() > usual else 1 / 1.1
        notes.memory[SHARE] = (share * factor).clamp(config.least, config.most)
        notes.memory["gardo/usual"] = torch.lerp(usual, apart.clamp_min(0).mean(), 0.1)
        notes.metrics["gardo_share"] = count / len(apart)
        before = given.restraint if given.restraint is not None else torch.ones_like(chosen)
        return replace(given, restraint=before * chosen.to(given.advantage.device))

    def reset(reference: Reference, metrics: Mapping[str, float], notes: Notes) -> None:
        far = metrics.get(penalty.NAMES[config.form], 0.0) > config.above
        if follow.is_due(notes, "gardo/since", config.every, far):
            reference.start()

    slots = penalty.add(slots, config.form, config.weight)
    return replace(
        slots,
        checks=(*slots.checks, check),
        begin=(*slots.begin, begin),
        allocate=(*slots.allocate, allocate),
        after=(*slots.after, reset),
    )
