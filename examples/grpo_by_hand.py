"""GRPO on a flow model by hand: plain tensors and one loop, to the same bits as the `online` stage with method `grpo`.

A group of videos of one prompt starts from one noise and is noisy at the same few steps; rewards say which of the
noises did better than their siblings, and the update makes those likelier.

    python examples/grpo_by_hand.py                 # data of known mean and variance, in seconds
    python examples/grpo_by_hand.py --model wan     # the packaged video generator, in a minute
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from reelign import config, parts, sampling
from reelign.batches import Request, Videos, requests
from reelign.core import advantage, policy_loss, rng, schedule, transition
from reelign.protocols import VideoModel

STEPS, SHIFT = 10, 3.0  # of the sampler
WINDOW, AMONG, ETA = 2, 6, 0.7  # noisy steps, somewhere within the first so many, and how noisy they are
CLIP, LIMIT = 1e-4, 5.0  # half-width of the trust region, largest advantage
GROUP = 8

Reward = Callable[[Videos, Request], dict[str, Tensor]]  # of a group: name to [g]
Recorded = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # x, x_next, sigma, sigma_next, log-probability


@torch.no_grad()
def rollout(model: VideoModel, request: Request, first: int, seed: int) -> tuple[Tensor, list[Recorded]]:
    """A prompt's group: deterministic up to step `first`, noisy for `WINDOW` steps, then deterministic again."""
    table, condition = schedule.sigmas(STEPS, SHIFT), model.encode([request])
    x = rng.normals([rng.seed_for(seed, "initial", request.id)], model.geometry.latent)
    recorded: list[Recorded] = []
    for k in range(STEPS):
        if k == first:  # up to here all members are one
            x, condition = x.repeat_interleave(GROUP, dim=0), condition.repeated(GROUP)
        sigma, sigma_next = table[k].expand(len(x)), table[k + 1].expand(len(x))
        velocity = model.velocity(x, sigma, condition)
        if first <= k < first + WINDOW:
            here = transition.step("flow", x, velocity, sigma, sigma_next, ETA)
            names = [rng.seed_for(seed, "transition", request.id, member, k - first) for member in range(GROUP)]
            x_next = transition.draw(here, rng.normals(names, x.shape[1:]))
            recorded.append((x, x_next, sigma, sigma_next, transition.log_prob(here, x_next)))
        else:
            x_next = transition.ode_step(x, velocity, sigma, sigma_next).mean
        x = x_next
    return x, recorded


def credit(rewards: dict[str, Tensor]) -> Tensor:
    """Advantages [p g]: each reward compared within its groups, then added, then brought to unit spread (GDPO)."""
    compared = [advantage.group(reward, scale="global") for _, reward in sorted(rewards.items())]
    return advantage.clamp(advantage.group(torch.stack(compared).sum(dim=0), scale="global"), LIMIT)


def iteration(
    model: VideoModel,
    optimizer: torch.optim.Optimizer,
    prompts: Sequence[Request],
    reward: Reward,
    seed: int,
    step: int,
) -> dict[str, float]:
    """Sample, score, compare, update once."""
    explore, named = rng.seed_for(seed, "explore", step), rng.seed_for(seed, "rollout", step)
    groups: list[list[Recorded]] = []
    scores: list[dict[str, Tensor]] = []
    for request in prompts:
        first = rng.integer(AMONG - WINDOW + 1, seed=rng.seed_for(explore, "window", request.id))
        x0, recorded = rollout(model, request, first, named)
        scores.append(reward(sampling.decode(model, x0, model.encode([request] * GROUP), GROUP), request))
        groups.append(recorded)
    rewards = {name: torch.stack([score[name] for score in scores]) for name in scores[0]}
    gain = credit(rewards)
    teaches = (gain != 0).any(dim=1)  # a group whose members are all alike ranks nothing
    total, worst = int(teaches.sum()) * GROUP * WINDOW, 0.0
    optimizer.zero_grad()
    for k in range(WINDOW):
        for p in teaches.nonzero().flatten().tolist():
            x, x_next, sigma, sigma_next, before = groups[p][k]
            velocity = model.velocity(x, sigma, model.encode([prompts[p]] * GROUP))
            here = transition.step("flow", x, velocity, sigma, sigma_next, ETA)
            log_ratio = transition.log_prob(here, x_next) - before  # exactly 0: nothing was updated in between
            loss = policy_loss.clipped(log_ratio, gain[p], CLIP).sum() / total
            loss.backward()
            worst = max(worst, float(log_ratio.detach().abs().max()))
    if total:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
        optimizer.step()
    return {**{name: float(values.mean()) for name, values in rewards.items()}, "max_abs_log_ratio": worst}


def brightness(videos: Videos, request: Request) -> dict[str, Tensor]:
    """A reward to climb: the brighter, the better."""
    return {"brightness": videos.frames.flatten(1).mean(dim=1)}


def main() -> None:
    """Train a little, and print the reward."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gaussian", choices=("gaussian", "wan"))
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    model: VideoModel = parts.build("model", config.part("model", {"name": options.model}), torch.device("cpu"))
    trained = [p for p in model.network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=3e-2 if options.model == "gaussian" else 3e-4, weight_decay=0.0, fused=True
    )
    prompts = requests(f"A large {color} circle moves right slowly on a teal background." for color in ("red", "blue"))
    for step in range(options.steps):
        found = iteration(model, optimizer, prompts, brightness, seed=0, step=step)
        print(f"{step:3}  " + "  ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
