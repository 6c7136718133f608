"""Priors of rewards by prompt: what a clear, typical sample of it earns."""

import json
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from reelign.batches import Request, Scored, Videos
from reelign.core import rng
from reelign.engines.slots import Glance, Notes, Score
from reelign.errors import BadConfig, BadData, shown

KEY = "prior/of/"
TEXTS = "prior/texts"
STILL = "prior/still/"


class Priors:
    """Where priors come from. What is known is kept in the method's memory, one row a prompt, found by its text."""

    def __init__(self, source: str, file: Path | None, samples: int, momentum: float) -> None:
        """`source` is moving, own, first_frame or given; see `modules.bpgo.Config`."""
        self.source, self.file, self.samples, self.momentum = source, file, samples, momentum

    def check(self, texts: Sequence[str], scales: Mapping[str, tuple[float, float]]) -> None:
        """Refuse, before any compute, a file that lacks a prompt or a reward, or leaves a reward's scale.

        Raises:
            BadConfig: naming the first prompt or reward.
            BadData: the file is no such JSON.
        """
        if self.file is None:
            return
        known = _read(self.file, texts)
        for name, (low, high) in sorted(scales.items()):
            values = known.get(name, known.get(""))
            if values is None:
                raise BadConfig(
                    f"modules: bpgo's file {str(self.file)!r} has no priors of the reward {name!r}; it has "
                    f"{', '.join(sorted(known))}."
                )
            if float(values.min()) < low or float(values.max()) > high:
                raise BadConfig(
                    f"modules: bpgo's file {str(self.file)!r} has priors of {name!r} outside its scale "
                    f"{low:g} to {high:g}; give them on the reward's own scale."
                )

    def begin(self, requests: Sequence[Request], score: Score, notes: Notes) -> None:
        """Sample or read what must be known before the first rollout.

        Raises:
            BadConfig: a prompt of the stage has no prior.
            BadData: the file is no such JSON.
        """
        first = {request.text: request for request in reversed(requests)}
        texts = list(dict.fromkeys(request.text for request in requests))
        if self.source == "own":
            seeds = [rng.seed_for(0, "prior", text, k) for text in texts for k in range(self.samples)]
            scores = score([first[text] for text in texts for _ in range(self.samples)], seeds)
            known = {name: values.reshape(-1, self.samples).mean(dim=1) for name, values in scores.items()}
        elif self.source == "given":
            assert self.file is not None
            known = _read(self.file, texts)
        else:
            return
        notes.memory[TEXTS] = _names(texts)
        notes.memory |= {KEY + name: values for name, values in known.items()}

    def of(self, scored: Scored, notes: Notes) -> dict[str, Float[Tensor, " p"]]:
        """The priors of a batch, by reward."""
        if self.source == "first_frame":
            group = scored.trajectories.prompts.group
            return {name: scored.seen[STILL + name].reshape(-1, group).mean(dim=1) for name in scored.rewards}
        rows = _rows(scored, notes)
        priors = {}
        for name, rewards in scored.rewards.items():
            known = notes.memory.get(KEY + name, notes.memory.get(KEY))
            prior = _padded(known, int(rows.max()) + 1)[rows]
            # A moving average starts, for prompts not seen before, from what the batch earns.
            priors[name] = torch.where(prior.isnan(), rewards.mean(), prior)
        return priors

    def learn(self, scored: Scored, notes: Notes) -> None:
        """Move the averages of the prompts just seen."""
        if self.source != "moving":
            return
        rows = _rows(scored, notes)
        for name, rewards in scored.rewards.items():
            known = _padded(notes.memory.get(KEY + name), len(notes.memory[TEXTS]))
            before, now = known[rows], rewards.mean(dim=1)
            known[rows] = torch.where(before.isnan(), now, torch.lerp(now, before, self.momentum))
            notes.memory[KEY + name] = known


def _names(texts: Sequence[str]) -> Tensor:
    return torch.tensor([rng.seed_for(0, "prior", text) for text in texts], dtype=torch.int64)


def _rows(scored: Scored, notes: Notes) -> Tensor:
    """The row of each prompt of a batch; prompts not seen before get new ones."""
    known = notes.memory.get(TEXTS, torch.zeros(0, dtype=torch.int64)).tolist()
    place = {name: row for row, name in enumerate(known)}
    rows = [place.setdefault(name, len(place)) for name in _names(scored.trajectories.prompts.texts).tolist()]
    notes.memory[TEXTS] = torch.tensor(list(place), dtype=torch.int64)
    return torch.tensor(rows)


def _padded(known: Tensor | None, n: int) -> Tensor:
    """A copy with at least `n` entries; what is not known is NaN."""
    old = torch.zeros(0) if known is None else known
    return torch.cat([old, torch.full((max(0, n - len(old)),), torch.nan)])


def held_still(glance: Glance) -> dict[str, Tensor]:
    """What samples earn if their first frame is held still."""
    frames = glance.videos.frames
    still = Videos(frames[:, :1].expand_as(frames), glance.videos.fps)
    return {STILL + name: r for name, r in glance.score(still).items()}


def _read(file: Path, texts: Sequence[str]) -> dict[str, Tensor]:
    """Priors by reward name, or under the empty name where one number serves all rewards."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would never end
            raise BadData(f"modules: bpgo's file {str(file)!r} is not a file; give a JSON of priors by prompt.")
        content = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise BadData(f"modules: bpgo's file {str(file)!r} does not exist; give a JSON of priors by prompt.") from error
    except OSError as error:
        raise BadData(f"modules: bpgo's file {str(file)!r} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise BadData(f"modules: bpgo's file {str(file)!r} is no JSON ({error}); give priors by prompt.") from error
    if not isinstance(content, dict):
        raise BadData(f"modules: bpgo's file {str(file)!r} must hold an object of priors by prompt.")
    missing = [text for text in texts if text not in content]
    if missing:
        raise BadConfig(
            f"modules: bpgo's file {str(file)!r} has no prior for {shown(missing[0])} ({len(missing)} of {len(texts)} "
            "prompts are missing); add them, or use another source of priors."
        )
    rows: dict[str, list[float]] = {}
    for text in texts:
        value = content[text]
        for name, number in (value if isinstance(value, dict) else {"": value}).items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not abs(number) < 1e38:
                raise BadData(f"modules: bpgo's prior of {shown(text)} is {shown(number)}, but it must be a number.")
            rows.setdefault(name, []).append(float(number))
    short = [name for name, values in rows.items() if len(values) != len(texts)]
    if short:
        raise BadConfig(f"modules: bpgo's file {str(file)!r} has priors of {short[0]!r} for some prompts only.")
    return {name: torch.tensor(values) for name, values in rows.items()}
