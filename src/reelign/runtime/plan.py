"""The plan of an iteration: which pieces are rolled out, in which order. A pure function, the same on any machine."""

from dataclasses import dataclass, replace

from pydantic import Field

from reelign.batches import Prompts
from reelign.parts import Settings
from reelign.rollouts import Exploration
from reelign.sampling import runs


class PassesConfig(Settings):
    """How an iteration is cut into forward passes: what it costs in memory and time, not what is learnt."""

    micro_batch: int | None = Field(default=None, ge=1)
    """Samples in a forward pass of a rollout, which keeps no activations; the default is `learner.micro_batch`. With
    another one, ratios start at 1 up to rounding where a network's samples depend on their batch in the last bits."""
    overlap: bool = False
    """Decode and score a piece of the rollout in the background while the next one is on its way. For machines with
    cores (or a device) to spare; on two cores they only get in each other's way."""
    retain: bool = False
    """Keep the rollout's graphs for the update, which then needs no forward pass of its own: a seventh less to compute
    in the demo, at the price of holding the activations of all recorded steps. Only with one update a rollout."""
    merge: bool = False
    """Replay several recorded steps in one forward pass where they fit into `learner.micro_batch`. The batches are then
    not those of the rollout, as with another `micro_batch`."""


@dataclass(frozen=True, slots=True)
class Item:
    """A piece of an iteration's rollout: whole groups of one size."""

    prompts: Prompts
    exploration: Exploration
    seed: int
    """Of the iteration; noise is named by prompt and member below it."""


def rollout(prompts: Prompts, exploration: Exploration, seed: int, micro_batch: int) -> tuple[Item, ...]:
    """Cut an iteration into pieces of as many whole groups as fit into a forward pass, at least one.

    Args:
        prompts: of the iteration; they may be of several sizes.
        exploration: its `first` has an entry for each prompt.
        seed: of the iteration.
        micro_batch: samples in a forward pass.
    """
    cuts = runs(prompts.requests, max(1, micro_batch // prompts.group))
    return tuple(Item(prompts[cut], replace(exploration, first=exploration.first[cut]), seed) for cut in cuts)
