"""What an evaluation writes down of what it has measured."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from reelign.batches import Prompts
from reelign.core import stats
from reelign.declared import Declaration

Json = dict[str, Any]


def summary(name: str, values: Tensor, prompts: Prompts, metric: Declaration, trained_on: bool) -> Json:
    """A measure `[b]` of prompt-major samples, NaN where it does not apply: its mean, with an interval over prompts."""
    ids = [prompt for prompt in prompts.ids for _ in range(prompts.group)]
    known = [(value, prompt) for value, prompt in zip(values.tolist(), ids, strict=True) if not math.isnan(value)]
    base = {"n": len(known), "higher_is_better": metric.higher_is_better[name]}
    base |= {"description": metric.description[name], "version": metric.version, "trained_on": trained_on}
    if not known:
        return {"mean": None, "low": None, "high": None, **base}
    estimate = stats.over_prompts([value for value, _ in known], [prompt for _, prompt in known])
    return {"mean": estimate.estimate, "low": estimate.low, "high": estimate.high, **base}


def rows(
    prompts: Prompts, own_seeds: Sequence[int], measures: dict[str, Tensor], written: dict[int, str]
) -> list[Json]:
    """Every clip with its prompt, seed, measures and video, if that was kept."""
    columns = {name: values.tolist() for name, values in measures.items()}
    found = []
    for index, seed in enumerate(own_seeds):
        p, member = divmod(index, prompts.group)
        values = {name: None if math.isnan(column[index]) else column[index] for name, column in columns.items()}
        found.append(
            {
                "prompt": prompts.requests[p].text,
                "prompt_id": prompts.requests[p].id,
                "member": member,
                "seed": seed,
                "slices": dict(prompts.requests[p].slices),
                "measures": values,
                "video": written.get(index),
            }
        )
    return found
