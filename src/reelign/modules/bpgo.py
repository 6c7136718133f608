"""What to trust: groups count by where they stand against a prior, and members are set apart around it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from reelign.batches import Scored
from reelign.core import trust
from reelign.engines import priors
from reelign.engines.slots import Demand, Given, Notes, Slots
from reelign.errors import BadConfig
from reelign.parts import PartConfig


class Config(PartConfig):
    """Bayesian-prior-guided optimisation (BPGO, arXiv 2511.18919)."""

    name: str = "bpgo"
    form: Literal["paper", "released"] = "paper"
    """The paper's formulas, or those of the authors' code, which are others (docs/methods/bpgo.md)."""
    prior: Literal["moving", "own", "first_frame", "given"] = "moving"
    """What a clear, typical sample of a prompt earns: a moving average of its groups; the starting policy's own
    samples; the group's first frames held still (for image-to-video); or `file`."""
    file: Path | None = None
    """JSON of priors by prompt, `{"a red ball": 0.4}` or `{"a red ball": {"motion": 0.4}}`, for prior: given."""
    samples: int = Field(default=4, ge=1)
    """Of the starting policy for each prompt, for prior: own."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of the moving average."""
    alpha: float = Field(default=0.5, ge=0, lt=1)
    """Strength of the scaling of groups in the paper's form; 0 turns it off."""
    slope: float = Field(default=5.0, gt=0, le=1e4)
    """Of that scaling, per unit of reward."""
    share: float = Field(default=0.2, ge=0, le=1e4)
    """Weight of the contrasted rewards beside the plain ones in the paper's form; 0 turns them off."""

    @model_validator(mode="after")
    def _file_where_given(self) -> "Config":
        if (self.prior == "given") != (self.file is not None):
            raise ValueError("prior: given and file belong together; give both or neither")
        return self


def fill(config: Config, slots: Slots) -> Slots:
    """Reliability-adaptive scaling and contrastive rewards around a prior."""
    source = priors.Priors(config.prior, config.file, config.samples, config.momentum)
    released = config.form == "released"

    def check(demand: Demand) -> None:
        if demand.texts is not None:
            source.check(demand.texts, demand.rewards)
        for name, (low, high) in sorted(demand.rewards.items()):
            if released and low < 0:
                raise BadConfig(
                    f"modules: bpgo's released form turns the order of negative rewards around, and {name!r} is "
                    f"declared from {low:g} to {high:g}; use form: paper, or rewards from 0 up."
                )
            if not released and config.share and high - low > 1:
                raise BadConfig(
                    f"modules: bpgo's contrast keeps the order of rewards only as far as 1 below their prior, and "
                    f"{name!r} is declared from {low:g} to {high:g}; use a reward on a scale of length 1, or share: 0."
                )

    def shape(scored: Scored, notes: Notes) -> Scored:
        prior = source.of(scored, notes)
        notes.scratch["bpgo/scale"] = _reliability(config, scored, prior)
        source.learn(scored, notes)
        if released:
            contrasted = {name: trust.contrast_released(r, prior[name]) for name, r in scored.rewards.items()}
            return replace(scored, rewards=contrasted)
        if not config.share:
            return scored
        extra = {f"{name}/contrast": trust.contrast(r, prior[name]) for name, r in scored.rewards.items()}
        weights = {**scored.weights, **dict.fromkeys(extra, config.share)}
        return replace(scored, rewards={**scored.rewards, **extra}, weights=weights)

    def allocate(given: Given, scored: Scored, notes: Notes) -> Given:
        own = notes.scratch["bpgo/scale"]
        notes.metrics["reliability"], notes.metrics["reliability_std"] = own.mean().item(), own.std(correction=0).item()
        scale = own.repeat_interleave(scored.trajectories.prompts.group)
        lifted = scale.reshape(-1, *[1] * (given.advantage.ndim - 1)).to(given.advantage)
        return replace(given, advantage=given.advantage * lifted)

    return replace(
        slots,
        shape=(*slots.shape, shape),
        allocate=(*slots.allocate, allocate),
        begin=(*slots.begin, source.begin),
        checks=(*slots.checks, check),
        sees=(*slots.sees, priors.held_still) if config.prior == "first_frame" else slots.sees,
    )


def _reliability(config: Config, scored: Scored, prior: Mapping[str, Tensor]) -> Float[Tensor, " p"]:
    """The scale of each group: the mean over rewards, by their weights, as they were scored."""
    total = sum(scored.weights.values())
    scale = torch.zeros(len(next(iter(scored.rewards.values()))))
    for name, r in scored.rewards.items():
        if config.form == "released":
            own = trust.reliability_released(r, prior[name])
        else:
            own = trust.reliability(r, prior[name], strength=config.alpha, slope=config.slope)
        scale = scale + own * (scored.weights[name] / total)
    return scale
