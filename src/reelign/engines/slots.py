"""The slots of an online method: which functions they take, and how modules fill them on top of a method.

    rewards --shape--> rewards --weigh, combine--> advantage [p g] --allocate--> credit [b] or [b f h w]

A method fills the slots that its paper is about; the rest keep their defaults. A module is a function from slots to
slots. It may add to what it finds (a further `shape`, `allocate`, `penalty`), or replace it (`combine`, `weigh`), which
only one module may do for each slot.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float
from pydantic import BeforeValidator, SerializeAsAny
from torch import Tensor

from reelign import declared, parts
from reelign.batches import Credited, Loss, Prompts, Request, Scored, Videos
from reelign.core import transition
from reelign.core.flow import expand_to, per_sample_mean
from reelign.core.transition import Transition
from reelign.errors import BadConfig
from reelign.parts import PartConfig
from reelign.protocols import Dataset, VideoModel
from reelign.rollouts import Exploration
from reelign.sampling import SamplerConfig
from reelign.weights import Reference


@dataclass(slots=True)
class Notes:
    """What a method remembers: between iterations, within one, and what it says about it."""

    memory: dict[str, Tensor] = field(default_factory=dict)
    """Kept in checkpoints."""
    scratch: dict[str, Tensor] = field(default_factory=dict)
    """From one slot to a later one of the same rollout."""
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Given:
    """Credit on its way to places and samples.

    `advantage` is [b] or [b f h w]; samples that do not teach are idle; `restraint` [b] is the weight of each
    in penalties.
    """

    advantage: Float[Tensor, "b *dense"]
    teaches: Bool[Tensor, " b"]
    restraint: Float[Tensor, " b"] | None = None


@dataclass(frozen=True, slots=True)
class StepGap:
    """How far the policy is from the reference: two transitions of one kind, level and eta; one has a gradient."""

    here: Transition
    there: Transition
    gain: Float[Tensor, " b"]
    """d mean / d velocity of these transitions."""

    def velocity(self) -> Float[Tensor, " b"]:
        """Mean squared difference of the velocities: from the means, without another forward pass."""
        apart = (self.here.mean - self.there.mean) / expand_to(self.gain, self.here.mean)
        return per_sample_mean(apart.square())

    def step(self) -> Float[Tensor, " b"]:
        """Exact divergence of the transitions (`core.transition.step_kl`), with the std of the step itself."""
        return transition.step_kl(self.here, self.there)


STEPS = frozenset({"a divergence of recorded steps"})
PLACES = frozenset({"a credit for each place"})
NOISE = frozenset({"noise in recorded steps"})


@dataclass(frozen=True, slots=True)
class Penalty:
    """A measure of the gap to the reference, and its weight: a number, or where in memory one is kept that adapts."""

    name: str
    weight: float | str
    measure: Callable[[Any], Float[Tensor, " b"]]
    """Of a `StepGap`, or of a `forward.VelocityGap`, which has no steps."""

    def now(self, memory: Mapping[str, Tensor]) -> float | Float[Tensor, ""]:
        """The present weight."""
        return memory[self.weight] if isinstance(self.weight, str) else self.weight


@dataclass(frozen=True, slots=True)
class Select:
    """Which steps are stochastic."""

    draw: Callable[[int, Prompts, int, int], Exploration]
    """(sampler steps, prompts, seed, iteration) -> the choice for one rollout."""
    windows: Callable[[int], tuple[range, ...]]
    """Sampler steps -> every run of stochastic steps that `draw` may choose; refuses a sampler that has none."""


Shape = Callable[[Scored, Notes], Scored]
"""Rewards to rewards."""
Weigh = Callable[[Scored, Notes], Float[Tensor, "k p"]]
"""Weights of the base rewards (in the order of `bases`), one column a prompt."""
Combine = Callable[[Scored, Float[Tensor, "k p"], Notes], Float[Tensor, "p g"]]
"""Rewards and their weights to one advantage."""
Allocate = Callable[[Given, Scored, Notes], Given]
"""Advantage to advantage, for each sample or each place."""
Opened = Callable[[PartConfig], Dataset]
"""A dataset by its settings, opened once in a run."""
Term = Callable[[VideoModel, int, int, Opened], Iterator[Loss]]
"""(model, seed, micro_batch, opened) -> losses beside those of the rollout."""
After = Callable[[Reference, Mapping[str, float], Notes], None]
"""Once an iteration has been learnt."""
Score = Callable[[Sequence[Request], Sequence[int]], Mapping[str, Float[Tensor, " b"]]]
"""(requests, seeds) -> scores of the starting policy's own samples."""
Begin = Callable[[Sequence[Request], Score, Notes], None]
"""Before the first rollout: (requests of the stage, score, notes)."""


@dataclass(frozen=True, slots=True)
class Glance:
    """Some decoded samples of a rollout, whole groups, while they are there."""

    videos: Videos
    prompts: Prompts
    x0: Float[Tensor, "b *latent"]
    score: Callable[[Videos], Mapping[str, Float[Tensor, " b"]]]
    """Scores other videos of the same requests."""


See = Callable[[Glance], Mapping[str, Tensor]]
"""What it takes from them, `[b ...]` by name; a later slot finds it in `Scored.seen`."""


@dataclass(frozen=True, slots=True)
class Slots:
    """All that one online method does; the engine does nothing beside it."""

    select: Select
    combine: Combine
    weigh: Weigh | None = None
    """None: the user's weights."""
    sees: tuple[See, ...] = ()
    shape: tuple[Shape, ...] = ()
    allocate: tuple[Allocate, ...] = ()
    limit: float = 5.0
    """Advantages are cut to [-limit, limit]."""
    clip: float = 1e-4
    """Half-width of the trust region of log-ratios that are means over elements."""
    dense_clip: float = 0.1
    """The same for log-ratios of single places, which are sums over channels and vary far more."""
    penalties: tuple[Penalty, ...] = ()
    terms: tuple[Term, ...] = ()
    after: tuple[After, ...] = ()
    begin: tuple[Begin, ...] = ()
    checks: tuple["Check", ...] = ()
    needs: frozenset[str] = frozenset()
    """See `declared.needs`."""
    demands: frozenset[str] = frozenset()
    """What only policy-gradient methods have: `STEPS`, `PLACES`, `NOISE`."""


Losses = Callable[[Slots, Mapping[str, Tensor], VideoModel, Credited, int, int], Iterator[Loss]]
"""(slots, memory, model, batch, seed, micro_batch) -> those of a rollout with its credit; see `protocols.Method`."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a stage is about to ask of a method, for checks before any compute."""

    sampler: SamplerConfig
    prompts: int
    group: int
    updates: int
    micro_batch: int
    rewards: dict[str, tuple[float, float]]
    """Scores by name, with their declared scales."""
    texts: tuple[str, ...] | None = None
    """Every prompt that the stage may draw, once its dataset has been opened."""
    boundary: float | None = None
    """Noise level below which the model's second expert takes over, once its card has been read; None without one."""


Check = Callable[[Demand], None]
"""Raises BadConfig for a stage that the method cannot serve."""


AnyModule = Annotated[SerializeAsAny[PartConfig], BeforeValidator(lambda value: parts.configure("module", value))]


def assemble(slots: Slots, modules: Sequence[PartConfig]) -> Slots:
    """Let each module fill slots, in the order given; the single-valued slots that it `replaces` are its alone.

    Raises:
        BadConfig: two modules for one slot, or one module twice.
    """
    owner: dict[str, str] = {}
    for config in modules:
        for slot in sorted({*declared.replaces(config), f"module {config.name}"}):
            if slot in owner:
                other = owner[slot]
                raise BadConfig(
                    f"modules: {config.name!r} is given twice; once is enough."
                    if other == config.name
                    else f"modules: {other!r} and {config.name!r} both decide {slot!r}; keep one of them."
                )
            owner[slot] = config.name
        slots = parts.build("module", config, slots)
    return slots


def bases(scored: Scored) -> tuple[str, ...]:
    """Names of the rewards that count by themselves, sorted; "base/extra" belongs to "base"."""
    return tuple(sorted({name.partition("/")[0] for name in scored.rewards}))


def user_weights(scored: Scored) -> Float[Tensor, "k p"]:
    """The weights of the recipe, the same for every prompt."""
    p = len(next(iter(scored.rewards.values())))
    return torch.tensor([[scored.weights[name]] * p for name in bases(scored)])
