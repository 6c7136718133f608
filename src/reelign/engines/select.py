"""Which steps of a rollout are stochastic, and which of them train. Every choice is drawn by name."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from reelign.batches import Prompts
from reelign.core import rng, schedule
from reelign.engines.slots import Select
from reelign.errors import BadConfig
from reelign.rollouts import Exploration


def window(
    kind: str, eta: float, width: int, among: int, *, shared_noise: bool = True, tail: int | None = None
) -> Select:
    """`width` neighbouring steps within the first `among`, at a place drawn for each prompt and shared by its group.

    With a width of 1 this is Flash-GRPO's iso-temporal grouping (arXiv 2605.15980).

    Raises:
        BadConfig: when used, if the window does not fit before the last step.
    """

    def windows(steps: int) -> tuple[range, ...]:
        return tuple(range(k, k + width) for k in range(_places(steps, width, among)))

    def draw(steps: int, prompts: Prompts, seed: int, iteration: int) -> Exploration:
        places = len(windows(steps))
        first = tuple(rng.integer(places, seed=rng.seed_for(seed, "window", i)) for i in prompts.ids)
        return Exploration(kind, eta, first, width, shared_noise, tail=tail)

    return Select(draw, windows)


def sliding(kind: str, eta: float, width: int, every: int) -> Select:
    """One window for all prompts that moves a step towards the data every so many iterations (MixGRPO, 2507.21802)."""

    def windows(steps: int) -> tuple[range, ...]:
        return tuple(range(k, k + width) for k in range(_places(steps, width, steps - 1)))

    def draw(steps: int, prompts: Prompts, seed: int, iteration: int) -> Exploration:
        windows(steps)
        first = schedule.sliding_window(steps, width, iteration, every)[0]
        return Exploration(kind, eta, (first,) * len(prompts.ids), width)

    return Select(draw, windows)


def everywhere(kind: str, eta: float, fraction: float = 1.0, *, shared_noise: bool = False) -> Select:
    """All steps but the last are stochastic; a share of them, drawn anew for each rollout, trains.

    Flow-GRPO (arXiv 2505.05470) trains all of them, DanceGRPO (2505.07818) 0.6.
    """

    def windows(steps: int) -> tuple[range, ...]:
        _places(steps, 1, steps - 1)
        return (range(steps - 1),)

    def draw(steps: int, prompts: Prompts, seed: int, iteration: int) -> Exploration:
        windows(steps)
        record = schedule.random_steps(steps, fraction, rng.seed_for(seed, "steps")) if fraction < 1 else None
        return Exploration(kind, eta, (0,) * len(prompts.ids), steps - 1, shared_noise, record)

    return Select(draw, windows)


def nowhere() -> Select:
    """A deterministic rollout with an initial noise for each sample, for methods of the forward process."""

    def draw(steps: int, prompts: Prompts, seed: int, iteration: int) -> Exploration:
        return Exploration("ode", 0.0, (0,) * len(prompts.ids), 0, shared_noise=False)

    return Select(draw, lambda steps: ())


def refuse_boundary(windows: Sequence[range], table: Float[Tensor, " levels"], boundary: float) -> None:
    """Refuse windows that change experts half way: one rollout's credit would go to two networks.

    Args:
        windows: that may be chosen.
        table: the sampler's noise levels; step k starts from level k.
        boundary: noise level below which the second expert takes the steps, such as 0.875 for Wan2.2.

    Raises:
        BadConfig: naming the first such window.
    """
    for window in windows:
        levels = [float(table[k]) for k in window]
        if max(levels) >= boundary > min(levels):
            raise BadConfig(
                f"method.window: steps {window.start} to {window.stop - 1} lie on both sides of the experts' boundary "
                f"at {boundary:g}; lower window or among so that every window keeps to one expert."
            )


def _places(steps: int, width: int, among: int) -> int:
    reach = min(among, steps - 1)
    if reach - width + 1 < 1:
        raise BadConfig(
            f"method.window: {width} stochastic steps do not fit among the first {reach} of {steps}; the "
            "last step ends on data and cannot be stochastic. Lower window or raise among."
        )
    return reach - width + 1
