"""What the trackers that keep one table a run are told: rows with names of their own for each stage."""

from typing import Any

from reelign.events import Event


def row(event: Event) -> dict[str, Any]:
    """An event's numbers by name, with the step of its stage beside them; nothing where it has none.

    Example:
        >>> row(Event(0.0, "evaluation", "sft", 20, 40, {"label": "steps/sft@20", "means": {"clip_right": 0.5}}))
        {'sft/held-out/clip_right': 0.5, 'sft/step': 20}
    """
    if event.kind == "step":
        values = dict(event.data)
    elif event.kind == "evaluation":
        values = {f"held-out/{name}": mean for name, mean in event.data["means"].items() if mean is not None}
    else:
        return {}
    return {**{f"{event.stage}/{name}": value for name, value in values.items()}, f"{event.stage}/step": event.step}
