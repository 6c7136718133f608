"""GRPO on a short window of stochastic steps: a deterministic rollout with one to three noisy steps a prompt.

All members of a group start from one initial noise and are noisy at the same steps (iso-temporal), so their rewards
differ because of exactly the noise that the update credits. Defaults follow what public runs found stable: few noisy
steps in the first half, advantages in units of the batch's spread, no guidance while training.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from reelign.batches import Credited, Loss, Prompts, Trajectories
from reelign.core import advantage as advantages
from reelign.core import policy_loss, rng, transition
from reelign.errors import BadConfig
from reelign.parts import PartConfig
from reelign.protocols import VideoModel
from reelign.sampling import Exploration, chunks, replay


class Config(PartConfig):
    """Flow-GRPO (arXiv 2505.05470) with a shared stochastic window (MixGRPO 2507.21802, Flash-GRPO 2605.15980)."""

    name: str = "grpo"
    kind: Literal["flow", "dance", "flash", "longcat", "cps"] = "flow"
    """Transition of the stochastic steps."""
    eta: float = Field(default=0.7, gt=0)
    """Strength of their noise."""
    window: int = Field(default=2, ge=1)
    """Neighbouring stochastic steps of each rollout."""
    among: int = Field(default=6, ge=1)
    """The window lies within this many first steps, at a place drawn for each prompt."""
    shared_noise: bool = True
    """One initial noise a group; its deterministic steps before the window then run once."""
    clip: float = Field(default=1e-4, gt=0)
    """Half-width of the trust region around ratio 1. Small, because log-ratios are means over elements."""
    scale: Literal["group", "global", "max_group"] = "global"
    """Whose spread is the unit of an advantage."""
    limit: float = Field(default=5.0, gt=0)
    """Advantages are cut to [-limit, limit]."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the exact step divergence to the reference (mean over elements, the kernel's own std)."""


class Grpo:
    """Make what beat its siblings more likely."""

    consumes = Credited

    def __init__(self, config: Config) -> None:
        """Keep the config."""
        self.config = config
        self.needs = frozenset({"reference"} if config.kl else ())

    def explore(self, steps: int, prompts: Prompts, seed: int) -> Exploration:
        """A window for each prompt, drawn by name.

        Raises:
            BadConfig: the window does not fit before the last step.
        """
        config = self.config
        places = min(config.among, steps - 1) - config.window + 1
        if places < 1:
            reach = min(config.among, steps - 1)
            raise BadConfig(
                f"method.window: {config.window} stochastic steps do not fit among the first {reach} of {steps}; the "
                "last step ends on data and cannot be stochastic. Lower window or raise among."
            )
        first = tuple(rng.integer(places, seed=rng.seed_for(seed, "window", i)) for i in prompts.ids)
        return Exploration(config.kind, config.eta, first, config.window, config.shared_noise)

    def credit(
        self, trajectories: Trajectories, rewards: Mapping[str, Float[Tensor, "p g"]], weights: Mapping[str, float]
    ) -> Credited:
        """Compare within groups reward by reward, add with the weights, and bring the sum to unit spread."""
        scale, limit = self.config.scale, self.config.limit
        parts = [weights[name] * advantages.group(r, scale=scale) for name, r in sorted(rewards.items())]
        total = torch.stack(parts).sum(dim=0)
        informative = torch.stack([advantages.informative(r) for r in rewards.values()]).any(dim=0)
        combined = advantages.clamp(advantages.group(total, scale=scale), limit)
        keep = informative & (combined != 0).any(dim=1)
        return Credited(
            trajectories,
            combined.flatten(),
            keep.repeat_interleave(combined.shape[1]),
            {"idle_groups": 1 - keep.float().mean().item()},
        )

    def losses(self, model: VideoModel, batch: Credited, seed: int, micro_batch: int) -> Iterator[Loss]:
        """One loss for each recorded step of each chunk; groups without spread are left out of sum and denominator."""
        config, trajectories = self.config, batch.trajectories
        total = int(batch.informative.sum()) * len(trajectories.x)
        condition = model.encode(trajectories.prompts.repeated)
        for k in range(len(trajectories.x)):
            for cut in chunks(len(batch.informative), micro_batch):
                keep = batch.informative[cut]
                if not bool(keep.any()):
                    continue
                # Whole chunks are replayed, idle samples too: the same batch composition gives the same bits.
                here = replay(model, trajectories, k, cut, condition)
                log_ratio = (transition.log_prob(here, trajectories.x_next[k, cut]) - trajectories.log_prob[k, cut])[
                    keep
                ]
                credit = batch.advantage[cut][keep]
                loss = policy_loss.clipped(log_ratio, credit, config.clip)
                metrics = policy_loss.diagnostics(log_ratio, credit, config.clip)
                metrics |= {"max_abs_log_ratio": log_ratio.detach().abs().max()}
                if config.kl:
                    divergence = self._divergence(model, trajectories, k, cut, condition, here)[keep]
                    loss = loss + config.kl * divergence
                    metrics["reference_kl"] = divergence.detach().mean()
                yield Loss(loss.sum() / total, int(keep.sum()) / total, metrics)

    def _divergence(
        self,
        model: VideoModel,
        trajectories: Trajectories,
        k: int,
        cut: slice,
        condition: Tensor,
        here: transition.Transition,
    ) -> Float[Tensor, " b"]:
        with torch.no_grad(), model.reference():
            there = replay(model, trajectories, k, cut, condition)
        return transition.step_kl(here, there)


def build(config: Config) -> Grpo:
    """GRPO on a stochastic window."""
    return Grpo(config)
