"""When to emphasise which reward: weights for each prompt that hand over from what it can do to what comes next."""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from reelign.batches import Scored
from reelign.core import pacing
from reelign.engines.slots import Demand, Notes, Slots, bases, user_weights
from reelign.errors import BadConfig
from reelign.parts import PartConfig

HISTORY = "self_paced/history"


class Config(PartConfig):
    """Self-paced rewards (TaRoS, arXiv 2511.19356). Add `{name: combine, form: sum}` to mix raw rewards, as it does."""

    name: str = "self_paced"
    replaces: ClassVar = frozenset({"weigh"})
    order: tuple[str, ...] = Field(min_length=2)
    """Rewards from the first to be learnt to the last; the rest of the stage's keep their weights."""
    mode: Literal["gated", "literal"] = "gated"
    """Gated weights provably move on; the printed ones hardly do (`core.pacing`)."""
    thresholds: tuple[float, ...] = ()
    """Group mean from which a reward counts as learnt, one for each; none are calibrated from the first `history`
    groups, during which all weigh alike."""
    history: int = Field(default=64, ge=4)
    """Groups from which thresholds are calibrated."""
    quantile: float = Field(default=0.6, gt=0, lt=1)
    """Of the history, for calibrated thresholds."""
    keep: float = Field(default=0.5, ge=0, le=1)
    """Share of mass that stays spread evenly, in gated mode: what a reward guards drifts once nothing pays for it."""
    slope: float | None = Field(default=None, gt=0, le=1e6)
    """Of the sigmoid around a threshold, per unit of reward; None is calibrated, or with given thresholds 20
    (1 in literal mode)."""
    sparsity: float = Field(default=0.3, ge=0, le=100)
    """Weight of the differences in sparsity, in literal mode."""
    temperature: float = Field(default=1.0, ge=0.01, le=1e4)
    """Of the softmax, in literal mode."""

    @model_validator(mode="after")
    def _one_each(self) -> "Config":
        if self.thresholds and len(self.thresholds) != len(self.order):
            raise ValueError(
                f"there are {len(self.thresholds)} thresholds for {len(self.order)} rewards; give one for each, or none"
            )
        return self


def fill(config: Config, slots: Slots) -> Slots:
    """Weights from how each prompt's group does."""

    def check(demand: Demand) -> None:
        missing = [name for name in config.order if name not in demand.rewards]
        if missing:
            raise BadConfig(
                f"modules: self_paced orders {missing[0]!r}, which is no reward of the stage; it has "
                f"{', '.join(sorted(demand.rewards))}."
            )
        for name in config.order:
            low, high = demand.rewards[name]
            if not (low >= 0 and high < float("inf")):
                raise BadConfig(
                    f"modules: self_paced needs rewards on a fixed scale from 0 up, but {name!r} is declared from "
                    f"{low:g} to {high:g}; use a reward with such a scale, not a standardised one."
                )

    def weigh(scored: Scored, notes: Notes) -> Float[Tensor, "k p"]:
        paced = torch.stack([scored.rewards[name] for name in config.order])
        weights = _paced(config, paced, notes)
        for name, row in zip(config.order, weights, strict=True):
            notes.metrics[f"pace/{name}"] = row.mean().item()
        full = user_weights(scored)
        at = [bases(scored).index(name) for name in config.order]
        # What these rewards weigh together stays as the user set it, and so does each one's own factor.
        own = full[at]
        mixed = own * weights
        full[at] = mixed * (own.sum(dim=0) / mixed.sum(dim=0).clamp_min(1e-12))
        return full

    return replace(slots, weigh=weigh, checks=(*slots.checks, check))


def _paced(config: Config, paced: Float[Tensor, "k p g"], notes: Notes) -> Float[Tensor, "k p"]:
    thresholds, slopes = _thresholds(config, paced, notes)
    if thresholds is None:
        return torch.full(paced.shape[:2], 1 / len(paced))
    assert slopes is not None
    if config.mode == "gated":
        # One slope for all: rewards are brought to a slope of 1 each around their own threshold.
        return pacing.gated(paced * slopes[:, None, None], thresholds * slopes, slope=1.0, keep=config.keep)
    settings = {"sparsity": config.sparsity, "temperature": config.temperature}
    return pacing.literal(paced, thresholds, slope=float(slopes.mean()), **settings)


def _thresholds(config: Config, paced: Tensor, notes: Notes) -> tuple[Tensor | None, Tensor | None]:
    """Given ones, calibrated ones, or none as long as there is not enough history."""
    if config.thresholds:
        given = torch.tensor(config.thresholds)
        return given, torch.full_like(given, config.slope or (20.0 if config.mode == "gated" else 1.0))
    past = notes.memory.get(HISTORY, torch.zeros(0, len(config.order)))
    if len(past) < config.history:
        notes.memory[HISTORY] = torch.cat([past, paced.mean(dim=-1).T])[: config.history]
        return None, None
    thresholds, slopes = pacing.calibrate(past, config.quantile)
    return thresholds, torch.full_like(slopes, config.slope) if config.slope else slopes
