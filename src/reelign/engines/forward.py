"""The forward-process loss: noise the clean samples of a rollout again, and weigh how well they are denoised by credit.

There is no trajectory and no log-probability, so any solver may roll out. Every sample is noised `draws` times; what a
group shares is up to the method.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.batches import Condition, Credited, Loss
from reelign.core import flow, forward_loss, rng
from reelign.engines import penalty
from reelign.engines.slots import Check, Demand, Losses, Slots
from reelign.errors import BadConfig
from reelign.forward_process import LevelConfig, levels
from reelign.protocols import VideoModel
from reelign.sampling import chunks


@dataclass(frozen=True, slots=True)
class Noised:
    """Re-noised samples of whole groups, and what is known of them; b = p * g rows."""

    velocity: Float[Tensor, "b *latent"]
    """Of the policy, with a gradient."""
    sampled: Float[Tensor, "b *latent"]
    """Of the weights that rolled out."""
    reference: Float[Tensor, "b *latent"] | None
    target: Float[Tensor, "b *latent"]
    sigma: Float[Tensor, " b"]
    advantage: Float[Tensor, " b"]
    group: int

    def error(self, velocity: Tensor) -> Float[Tensor, " b"]:
        """Mean squared error of a velocity."""
        return flow.velocity_error(velocity, self.target)

    def compared(self) -> tuple[Float[Tensor, "p g"], Float[Tensor, "p g"], Float[Tensor, "p g"]]:
        """Errors of the policy and of the weights that rolled out, and the advantages, one row a group."""
        columns = self.error(self.velocity), self.error(self.sampled), self.advantage
        policy, sampled, advantage = (column.reshape(-1, self.group) for column in columns)
        return policy, sampled, advantage


SampleLoss = Callable[[Noised], Float[Tensor, " b"]]
"""Re-noised samples -> loss of each."""


@dataclass(frozen=True, slots=True)
class VelocityGap:
    """How far the policy is from the reference where there are no steps, and so no divergence of steps."""

    noised: Noised

    def velocity(self) -> Float[Tensor, " b"]:
        """Mean squared difference, with a gradient."""
        assert self.noised.reference is not None
        return forward_loss.divergence(self.noised.velocity, self.noised.reference)


def losses(
    loss: SampleLoss, law: LevelConfig, draws: int = 1, *, shared: bool = False, whole_groups: bool = False
) -> Losses:
    """The losses of a forward-process method.

    Args:
        loss: of re-noised samples.
        law: how noise levels are drawn.
        draws: times each sample is noised, at a level and with a noise of its own each time.
        shared: one noise for a whole group, instead of one for each sample.
        whole_groups: the loss compares members, so a group shares its level and stays in one forward pass.
    """

    def of_rollout(
        slots: Slots, memory: Mapping[str, Tensor], model: VideoModel, batch: Credited, seed: int, micro_batch: int
    ) -> Iterator[Loss]:
        trajectories, group = batch.trajectories, batch.trajectories.prompts.group
        total = int(batch.teaches.sum()) * draws
        if total == 0:
            return
        x0, n, condition = trajectories.x0, len(trajectories.x0), trajectories.condition
        size = max(1, micro_batch // group) * group if whole_groups else micro_batch
        for draw in range(draws):
            names = [rng.seed_for(seed, "forward", draw, i // group if shared else i) for i in range(n)]
            # Members that are compared share their level; only their noises may differ.
            places = [i // group if whole_groups else i for i in range(n)]
            sigma = levels(law, [rng.seed_for(seed, "forward", draw, "level", place) for place in places]).to(x0)
            noise = rng.normals(names, x0.shape[1:]).to(x0)
            for cut in chunks(n, size):
                teaches = batch.teaches[cut]
                if not bool(teaches.any()):
                    yield Loss.idle()
                    continue
                at = (flow.interpolate(x0[cut], noise[cut], sigma[cut]), sigma[cut], condition[cut])
                noised = Noised(
                    velocity=model.velocity(*at),
                    sampled=_frozen(model, "sampled", at),
                    reference=_frozen(model, "reference", at) if slots.penalties else None,
                    target=flow.velocity_target(x0[cut], noise[cut]),
                    sigma=sigma[cut],
                    advantage=batch.advantage[cut],
                    group=group,
                )
                each = loss(noised)[teaches]
                metrics = {"loss": each.detach().mean(), "moved": _moved(noised, teaches)}
                each = penalty.added(each, VelocityGap(noised), slots, memory, batch, cut, metrics)
                yield Loss(each.sum() / total, int(teaches.sum()) / total, metrics)

    return of_rollout


def whole_groups_fit(demand: Demand) -> None:
    """Refuse micro-batches that would cut a group whose members are compared."""
    if demand.micro_batch < demand.group:
        raise BadConfig(
            f"learner.micro_batch is {demand.micro_batch}, but this method compares the {demand.group} members of a "
            "group in one forward pass; make it at least the group."
        )


def anchored(beta: float, limit: float) -> Check:
    """Refuse an anchor that some advantages could outweigh: the loss would then have no minimum."""

    def check(demand: Demand) -> None:
        if beta <= limit:
            raise BadConfig(
                f"method.beta is {beta:g}, but with advantages down to {-limit:g} the loss has a minimum only for a "
                f"beta above {limit:g}; raise beta or lower limit."
            )

    return check


def refuse_steps(slots: Slots, name: str) -> Slots:
    """The slots, unless one of them needs what a forward process does not have.

    Raises:
        BadConfig: for credit by places or penalties on steps.
    """
    if slots.demands:
        raise BadConfig(
            f"{name} trains on re-noised samples and has no recorded steps, but a module needs "
            f"{sorted(slots.demands)[0]}; use a policy-gradient method such as grpo, or leave the module out (velocity "
            "penalties work with both)."
        )
    return slots


def _frozen(model: VideoModel, role: str, at: tuple[Tensor, Tensor, Condition]) -> Tensor:
    with torch.no_grad(), model.reference.on(role):
        return model.velocity(*at)


def _moved(noised: Noised, teaches: Tensor) -> Float[Tensor, ""]:
    """How far the policy is from the weights that rolled out, as a mean squared velocity difference."""
    return forward_loss.divergence(noised.velocity.detach(), noised.sampled)[teaches].mean()
