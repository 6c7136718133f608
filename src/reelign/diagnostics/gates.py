"""Gates: a stage hands its weights on only if its targets rose and no slice fell, beyond noise and by enough to matter.

Targets have to rise under one sampler, over the weights that entered. Guards hold under every sampler, against those
and against the base, or three stages could lose a little each. What is compared saw the same prompts, noise and
sampler, so differences are paired by clip, and prompts are resampled whole.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from reelign.core import stats
from reelign.core.stats import Interval
from reelign.errors import RunStopped
from reelign.records import Evaluation, FallenSlice, Gate, Target
from reelign.stage import GateConfig

BASE = "base"
"""Label of the weights before the first stage."""
SHARE, SPREAD, MEAN, ROUNDING = 0.005, 0.02, 0.001, 1e-6
"""The smallest difference that matters: of shares, in standard deviations, in means, and in any unit."""


def judge(
    before: Sequence[Evaluation],
    after: Sequence[Evaluation],
    gate: GateConfig,
    base: Sequence[Evaluation] = (),
    unjudged: str = "",
) -> Gate:
    """Compare weights under a gate: "passed" or "failed", and one sentence why.

    Args:
        before: the weights that entered, under each sampler, the main one first.
        after: those that the stage would leave, in the same order.
        gate: what is asked of them.
        base: those before the first stage, which guards are compared with too; nothing else where they entered.
        unjudged: the stage that the weights that entered are from, if no gate judged it; the sentence then says so.

    Raises:
        RunStopped: the evaluations are of other prompts, noise, sampler or measures, so that nothing can be paired.
    """
    for evaluation in (*before, *after, *base):
        _refuse_unmeasured(evaluation, (*gate.targets, *gate.guards))
    chosen = [each.under for each in after].index(gate.sampler) if gate.sampler else 0
    rounds = [_Round(new, _paired(old, new), "") for old, new in zip(before, after, strict=True)]
    if base and before[0].label != base[0].label:
        rounds += [_Round(new, _paired(old, new), BASE) for old, new in zip(base, after, strict=True)]
    main = rounds[chosen]
    targets = [_target(name, before[chosen], main.after, main.pairs, gate) for name in gate.targets]
    fallen = _fallen(rounds, gate)
    for each in rounds:
        fallen += _vanished(each, (*gate.targets, *gate.guards) if each is main else gate.guards)
    fallen.sort(key=lambda fell: fell.difference)
    flat = [t for t in targets if not t.rose]
    verdict = "failed" if flat or fallen else "passed"
    sentence = _sentence(targets, flat, fallen, len(after) > 1, unjudged)
    found = {"targets": tuple(targets), "fallen_slices": tuple(fallen)}
    return Gate(verdict=verdict, sentence=sentence, sampler=main.after.under, unjudged=unjudged, **found)


def ungated(reason: str) -> Gate:
    """What stands in place of a verdict where there is no gate."""
    return Gate(verdict="ungated", sentence=reason)


def said(gate: Gate) -> str:
    """A verdict for people, such as "passed; rose: ..." or "done; no gate judged it."."""
    return f"{'done' if gate.verdict == 'ungated' else gate.verdict}; {gate.sentence}"


@dataclass(frozen=True, slots=True)
class _Pair:
    """A clip before and after."""

    prompt: int
    slices: Mapping[str, str]
    before: Mapping[str, float | None]
    after: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class _Round:
    """A comparison under one sampler."""

    after: Evaluation
    pairs: list[_Pair]
    against: str
    """ "base", or nothing: what entered."""

    def judged(self, least: int) -> dict[str, list[_Pair]]:
        """The whole set, and each slice, that have at least so many clips."""
        slices = {"all": self.pairs}
        for key, value in sorted({item for pair in self.pairs for item in pair.slices.items()}):
            slices[f"{key}={value}"] = [pair for pair in self.pairs if pair.slices.get(key) == value]
        return {name: members for name, members in slices.items() if len(members) >= least}

    def fell(self, where: str, what: str, apart: Interval, level: float) -> FallenSlice:
        """That something is worse."""
        numbers = {"difference": apart.estimate, "low": apart.low, "high": apart.high, "level": level}
        return FallenSlice(slice=where, metric=what, sampler=self.after.under, against=self.against, **numbers)


def _paired(before: Evaluation, after: Evaluation) -> list[_Pair]:
    """Clips by prompt and member, whatever their order."""
    keys = ("prompt_id", "member", "prompt", "seed")
    old, new = before.by_key, after.by_key
    names = f"{before.label!r} and {after.label!r}"
    theirs, ours = before.sampler, after.sampler
    if any(theirs[k] != ours[k] for k in theirs.keys() & ours.keys()):
        raise RunStopped(f"the evaluations {names} were sampled with other settings; a gate needs the same for both.")
    for key in sorted({*old, *new}):
        one, other = ({k: getattr(clips[key], k) for k in keys} if key in clips else {} for clips in (old, new))
        differs = next((k for k in keys if one.get(k) != other.get(k)), None)
        if differs:
            raise RunStopped(
                f"the evaluations {names} differ in the {differs} of prompt {key[0]}, member {key[1]} "
                f"({one.get(differs, 'none')} and {other.get(differs, 'none')}); a gate needs the same clips for both."
            )
    return [_Pair(c.prompt_id, c.slices, old[key].measures, c.measures) for key, c in new.items()]


def _refuse_unmeasured(evaluation: Evaluation, names: Sequence[str]) -> None:
    for name in names:
        if name not in evaluation.measures:
            measured = ", ".join(sorted(evaluation.measures))
            raise RunStopped(f"the evaluation {evaluation.label!r} has no {name!r}, but {measured}; measure it anew.")


def _both(name: str, pairs: list[_Pair]) -> list[tuple[int, float, float]]:
    """Prompt, value before and value after of the clips that a measure applies to both times."""
    values = [(p.prompt, p.before.get(name), p.after.get(name)) for p in pairs]
    return [(prompt, old, new) for prompt, old, new in values if old is not None and new is not None]


def _matters(name: str, pairs: list[_Pair]) -> float:
    """The smallest difference of a measure that a person would care for, where the recipe does not say."""
    both = _both(name, pairs)
    if both and {value for _, old, new in both for value in (old, new)} <= {0.0, 1.0}:
        return SHARE
    old = torch.tensor([value for _, value, _ in both], dtype=torch.float64)
    spread = old.std().item() if len(old) > 1 else 0.0
    return max(SPREAD * spread, MEAN * abs(old.mean().item()) if len(old) else 0.0, ROUNDING)


def _difference(name: str, pairs: list[_Pair], higher: bool, level: float = 0.95) -> Interval | None:
    """Paired difference, positive is better; None where nothing can be compared."""
    both = _both(name, pairs)
    if len(both) < 2:
        return None
    sign = 1.0 if higher else -1.0
    return stats.over_prompts([sign * (new - old) for _, old, new in both], [prompt for prompt, *_ in both], level)


def _target(name: str, before: Evaluation, after: Evaluation, pairs: list[_Pair], gate: GateConfig) -> Target:
    found = _difference(name, pairs, after.measures[name].higher_is_better)
    low, high, middle = (found.low, found.high, found.estimate) if found else (0.0, 0.0, 0.0)
    least = gate.min_gain.get(name, _matters(name, pairs))
    return Target(
        metric=name,
        before=before.measures[name].mean,
        after=after.measures[name].mean,
        difference=middle,
        low=low,
        high=high,
        min_gain=least,
        rose=low > 0 and middle >= least,
    )


def _fallen(rounds: Sequence[_Round], gate: GateConfig) -> list[FallenSlice]:
    """Slices, and the whole set, on which a guard got worse, beyond noise and by more than is tolerated.

    The number of all that is looked at widens the interval (Bonferroni): with thirty slices one would fall by chance
    in most runs.
    """
    judged = [(each, each.judged(gate.min_slice)) for each in rounds]
    level = 1 - 0.05 / max(1, sum(len(slices) for _, slices in judged) * len(gate.guards))
    fallen = []
    for each, slices in judged:
        for metric in gate.guards:
            higher, tolerated = each.after.measures[metric].higher_is_better, gate.tolerance.get(metric)
            if tolerated is None:
                tolerated = _matters(metric, each.pairs)
            for name, members in slices.items():
                found = _difference(metric, members, higher, level)
                if found and found.high < 0 and found.estimate < -tolerated:
                    fallen.append(each.fell(name, metric, found, level))
    return fallen


def _vanished(each: _Round, metrics: Sequence[str]) -> list[FallenSlice]:
    """Measures that apply to fewer clips than before, beyond noise: what cannot be measured any more has not held.

    Else a blank clip, which no measure of motion applies to, would pass every guard.
    """
    found, prompts = [], [p.prompt for p in each.pairs]
    for metric in dict.fromkeys(metrics):
        change = [float(p.after.get(metric) is not None) - float(p.before.get(metric) is not None) for p in each.pairs]
        apart = stats.over_prompts(change, prompts)
        if apart.high < 0 and apart.estimate < -SHARE:
            found.append(each.fell("all", f"clips that {metric} applies to", apart, 0.95))
    return found


def _sentence(
    targets: list[Target], flat: list[Target], fallen: list[FallenSlice], several: bool, unjudged: str
) -> str:
    """Why, in words; of `several` samplers each is named, and so is the stage whose weights nobody had judged."""
    note = f" What entered is from {unjudged}, which no gate judged." if unjudged else ""
    if not flat and not fallen:
        rises = [f"{t.metric} {' to '.join(_apart(t.before or 0.0, t.after or 0.0))}" for t in targets]
        return f"rose: {', '.join(rises)}; no slice fell{' under any sampler' if several else ''}.{note}"
    parts = []
    noise = [t.metric for t in flat if t.low <= 0]
    small = [f"{t.metric} ({_signed(t.difference)}; what counts is {t.min_gain or 0.0:.2g})" for t in flat if t.low > 0]
    if noise:
        parts.append(f"no gain beyond noise in {', '.join(noise)}")
    if small:
        parts.append(f"too small a gain in {', '.join(small)}")
    for against in ("", BASE):
        worst = [_fell(f, several) for f in fallen if f.against == against]
        if worst:
            parts.append(f"worse {'than the base ' if against else ''}beyond noise: {', '.join(worst[:4])}")
    return "; ".join(parts) + f". The weights that entered the stage are kept.{note}"


def _fell(fallen: FallenSlice, several: bool) -> str:
    under = f" under {fallen.sampler}" if several else ""
    return f"{fallen.metric} on {fallen.slice}{under} ({_signed(fallen.difference)})"


def _apart(before: float, after: float) -> tuple[str, str]:
    """Two numbers with as many decimals as it takes to see their difference; at least three."""
    digits = _decimals(after - before, 1)
    return f"{before:.{digits}f}", f"{after:.{digits}f}"


def _signed(difference: float) -> str:
    return f"{difference:+.{_decimals(difference, 2)}f}"


def _decimals(value: float, shown: int) -> int:
    """How many show so many digits of a value; at least three."""
    return max(3, shown - 1 - math.floor(math.log10(abs(value)))) if value else 3
