"""The only optimizer loop: every method of every stage trains here."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from reelign import soundness
from reelign.batches import Loss
from reelign.errors import RunStopped
from reelign.parts import Settings
from reelign.weights import expert_of

Beta = Annotated[float, Field(ge=0, lt=1)]


class LearnerConfig(Settings):
    """AdamW and what surrounds it."""

    lr: float = Field(default=1e-5, gt=0, le=10)
    """About how far each weight moves in an update."""
    warmup: int = Field(default=0, ge=0)
    """Updates over which the rate rises linearly."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay of the moving averages of the gradient and of its square."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Share of each weight that an update takes away, per unit of `lr`."""
    max_grad_norm: float = Field(default=1.0, ge=1e-6, le=1e6)
    """Longer gradients are cut to this length."""
    micro_batch: int = Field(default=32, ge=1)
    """Samples in one forward pass; changes memory and speed, not the update."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the averaged weights that a stage leaves behind; 0 keeps the last weights."""
    ema_warmup: bool = False
    """Let the decay rise to `ema`: after n updates it is at most (1 + n) / (10 + n), so that averages follow the first
    updates closely."""

    @model_validator(mode="after")
    def _goes_together(self) -> "LearnerConfig":
        if self.lr * self.weight_decay >= 1:
            raise ValueError(
                f"weight_decay {self.weight_decay:g} at lr {self.lr:g} takes away all of a weight in one update; their "
                "product must be less than 1"
            )
        if self.ema_warmup and not self.ema:
            raise ValueError("ema_warmup is set, but ema is 0, so nothing is averaged; give ema, such as 0.97, too")
        return self

    def decay(self, updates: int) -> float:
        """Of the averages at the update that makes so many, in [0, 1)."""
        return min(self.ema, (1 + updates) / (10 + updates)) if self.ema_warmup else self.ema


class Learner:
    """Owns the optimizer and the averaged weights of one stage; `update` is what changes a model.

    Experts learn apart: each has gradients of a length of its own, and a count of its updates. One that an update gave
    no gradient stands still, its weights, moments, averages and warm-up.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], config: LearnerConfig) -> None:
        """Start a fresh optimizer.

        Raises:
            RunStopped: there is nothing to train.
        """
        self.config, self.weights = config, dict(weights)
        if not self.weights:
            raise RunStopped(
                "no parameter of the model is trainable; check model.adapter, or leave it out to train all weights."
            )
        self._experts = _by_expert(self.weights)
        self.optimizer = torch.optim.AdamW(
            [{"params": list(own.values())} for own in self._experts.values()],
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.average = {n: p.detach().clone() for n, p in self.weights.items()} if config.ema else {}
        self.updates = 0
        self._updates = dict.fromkeys(self._experts, 0)
        """Of each expert."""
        self.broken = False
        """Whether an update left weights that are not finite: they must not be saved."""

    def update(
        self, losses: Iterable[Loss], where: str, batch: Any = None, broken: Callable[[], str | None] | None = None
    ) -> dict[str, float]:
        """One optimizer step on the sum of some losses; no step at all where all of them are idle or there are none.

        Args:
            losses: one by one, so that each graph is freed before the next is built.
            where: "step 12 of stage grpo", for messages.
            batch: what the losses are made of; named in messages where it is not finite.
            broken: names a weight behind the losses that is not finite; the default looks at those that train.

        Returns:
            The losses' metrics, the gradient norm, and `updated` (0 or 1).

        Raises:
            RunStopped: a loss or gradient that is not finite, and nothing has been changed; or the weights no longer
                are, and `broken` is set.
        """
        broken = broken or self._broken_weight
        self.optimizer.zero_grad(set_to_none=True)
        parts: list[tuple[float, dict[str, Tensor]]] = []
        total: Tensor | float = 0.0
        # Whatever else runs in this process may have switched autograd off.
        with torch.enable_grad():
            for loss in losses:
                loss.value.backward()
                total = total + loss.value.detach()
                parts.append((loss.share, loss.metrics))
        if not any(share for share, _ in parts):
            return {"updated": 0.0}
        gradients = {n: p.grad for n, p in self.weights.items() if p.grad is not None}
        norms = {expert: nn.utils.get_total_norm(own.values()) for expert, own in _by_expert(gradients).items()}
        # One synchronisation for the whole batch: gradients of a bad loss are thrown away before the step.
        values = [torch.as_tensor(total), *norms.values()]
        loss_value, *norm_values = torch.stack([value.double() for value in values]).tolist()
        self._check(loss_value, batch, where, broken)
        if not all(map(math.isfinite, norm_values)):
            _refuse_broken_before(f"{where}: the gradient is not finite", broken)
            bad = next((n for n, g in gradients.items() if not soundness.finite(g)), "all weights together")
            raise RunStopped(f"{where}: the gradient of {bad!r} is not finite; the weights were not changed.")
        self._step(norms)
        self._refuse_broken(where, broken)
        # A single norm stays as it is.
        return {**_reduce(parts), "grad_norm": math.hypot(*norm_values), "updated": 1.0}

    def _step(self, norms: Mapping[str, Tensor]) -> None:
        """Move the experts that have gradients of such norms, and their averages."""
        for group, (expert, own) in zip(self.optimizer.param_groups, self._experts.items(), strict=True):
            if expert in norms:
                nn.utils.clip_grads_with_norm_(own.values(), self.config.max_grad_norm, norms[expert])
                group["lr"] = self.config.lr * min(1.0, (self._updates[expert] + 1) / max(1, self.config.warmup))
                self._updates[expert] += 1
        self.optimizer.step()
        self.updates += 1
        if not self.average:
            return
        with torch.no_grad():
            for expert in norms:
                own = self._experts[expert]
                average: list[Tensor] = [self.average[name] for name in own]
                get_ema_multi_avg_fn(self.config.decay(self._updates[expert]))(average, list(own.values()), None)

    def _broken_weight(self) -> str | None:
        return next((f"{soundness.kind(w)} in {n!r}" for n, w in self.weights.items() if not soundness.finite(w)), None)

    def _refuse_broken(self, where: str, broken: Callable[[], str | None]) -> None:
        """See that the update left finite weights; one synchronisation."""
        # Averages are means of weights that were finite, and are so themselves. A norm may overflow by itself.
        if not math.isfinite(nn.utils.get_total_norm(self.weights.values()).item()) and (named := broken()):
            self.broken = True
            raise RunStopped(
                f"{where}: its update left {named} in the weights; they are not saved, and what was saved before "
                "stays; lower learner.lr."
            )

    def _check(self, loss: float, batch: Any, where: str, broken: Callable[[], str | None]) -> None:
        if math.isfinite(loss):
            return
        _refuse_broken_before(f"{where}: the loss is {loss}", broken)
        bad = soundness.first_broken(batch, "batch") or "the network's output"
        raise RunStopped(
            f"{where}: the loss is {loss}; the first tensor that is not finite is {bad}. The weights were not changed; "
            "lower the learning rate or look at that input."
        )

    def settle(self) -> None:
        """Make the averaged weights the model's own: how a stage ends."""
        _copy(self.weights, self.average)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context the weights are those that the stage would leave behind now."""
        kept = {name: p.detach().clone() for name, p in self.weights.items()} if self.average else {}
        self.settle()
        try:
            yield
        finally:
            _copy(self.weights, kept)

    def state(self) -> dict[str, Tensor]:
        """Weights, optimizer moments and averages as flat tensors: all that an update depends on."""
        tensors = {f"weights/{n}": p.detach() for n, p in self.weights.items()}
        tensors |= {f"average/{n}": v for n, v in self.average.items()}
        for name, parameter in self.weights.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{key}/{name}"] = value
        return tensors

    def load(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Restore what `state` gave."""
        self.updates = updates
        self._updates = dict.fromkeys(self._experts, 0)
        state: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for index, (name, parameter) in enumerate(self.weights.items()):
                parameter.copy_(tensors[f"weights/{name}"])
                if self.average:
                    self.average[name].copy_(tensors[f"average/{name}"])
                keys = [k for k in ("step", "exp_avg", "exp_avg_sq") if f"optimizer/{k}/{name}" in tensors]
                if keys:
                    state[index] = {k: tensors[f"optimizer/{k}/{name}"].clone() for k in keys}
                    count = int(state[index]["step"])
                    self._updates[expert_of(name)] = max(self._updates[expert_of(name)], count)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


def _by_expert(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Weights by name, or what belongs to them, of each expert; in their order."""
    grouped: dict[str, dict[str, Any]] = {}
    for name, value in tensors.items():
        grouped.setdefault(expert_of(name), {})[name] = value
    return grouped


def _refuse_broken_before(what: str, broken: Callable[[], str | None]) -> None:
    if named := broken():
        raise RunStopped(f"{what}, as the model's weights hold {named}; give it sound weights.")


def _copy(target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in source.items():
            target[name].copy_(value)


def _reduce(parts: list[tuple[float, dict[str, Tensor]]]) -> dict[str, float]:
    """Share-weighted means over the parts that have a metric, or maxima for names that start with "max_"."""
    values: dict[str, list[tuple[float, Tensor]]] = {}
    for share, metrics in parts:
        for name, value in metrics.items():
            values.setdefault(name, []).append((share, value))
    result = {}
    for name, weighted in values.items():
        if name.startswith("max_"):
            result[name] = max(v.item() for _, v in weighted)
        else:
            result[name] = sum(s * v.item() for s, v in weighted) / sum(s for s, _ in weighted)
    return result
