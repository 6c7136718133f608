"""A model to sample from, and clips of it."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch

from reelign import config as configs
from reelign import glance, pretrained, sampling
from reelign.batches import Request, Videos, texts
from reelign.core import rng
from reelign.errors import BadConfig
from reelign.face.shots import Shots
from reelign.face.typed import plain, sentences
from reelign.playground import PIPELINE
from reelign.progress import Bar
from reelign.protocols import VideoModel
from reelign.runtime import equip
from reelign.runtime.local import RuntimeConfig
from reelign.sampling import SamplerConfig
from reelign.stages import evaluate


def load(
    model: str | Path | Mapping[str, Any] = glance.PLAYGROUND, *, device: str = "auto", **settings: Any
) -> VideoModel:
    """Load a model.

    Args:
        model: a local pipeline folder of the `wan` family, such as the final/ of a run; "playground" for the packaged
            tiny generator; or what stands under `model` in a recipe, for any family.
        device: "cpu", "cuda", "cuda:1"; "auto" is cuda where there is one.
        **settings: of the model part (docs/reference/model.md), such as `adapter="lora"` or `precision="bfloat16"`.

    Raises:
        UserError: there is no such folder, setting or device, or the folder is not whole.
    """
    tree = dict(model) if isinstance(model, Mapping) else {"name": "wan", "weights": str(model)}
    tree = plain({**tree, **settings})
    with sentences():
        if tree.get("name") == "wan":
            glance.weights(tree.get("weights", glance.PLAYGROUND))
        return equip.build(configs.part("model", tree), RuntimeConfig(device=device))


def sample(
    model: VideoModel | str | Path,
    prompts: str | Request | Sequence[str | Request],
    *,
    seed: int = 0,
    steps: int | None = None,
    shift: float | None = None,
    guidance: float | None = None,
) -> Shots:
    """Sample a clip of each prompt; the same seed gives the same clips as `reelign sample`.

    Args:
        model: from `load`, or any other; a name or a path is loaded.
        prompts: one or more. A `Request` may also say a negative text and give a frame to begin from; its size must be
            that of the others.
        seed: of the noise, which differs from prompt to prompt; the same prompt twice gives two clips.
        steps: of the solver; 16 by default, as `evaluate` in a recipe.
        shift: of the noise levels; by default the one on the model's card, else 5.
        guidance: classifier-free, 1 is none; 3 by default.

    Raises:
        BadConfig: no prompt, an empty one, several sizes, or a setting that the sampler cannot take.
    """
    several = [prompts] if isinstance(prompts, str | Request) else list(prompts)
    asked = [each if isinstance(each, Request) else Request(each) for each in several]
    if not asked or not all(request.text.strip() and "\0" not in request.text for request in asked):
        raise BadConfig("one of the prompts is empty, or there is none; say what each video should show.")
    if len({request.size for request in asked}) > 1:
        raise BadConfig("the requests are of several sizes; sample one size at a time.")
    if isinstance(model, str | Path):
        model = load(model)
    with sentences():
        own = sampler(getattr(model, "folder", None), {"steps": steps, "shift": shift, "guidance": guidance})
    with Bar() as bar:
        found = list(videos(model, asked, own, seed, bar))
    frames = torch.cat([each.frames for each in found])
    return Shots(frames, found[0].fps, texts(asked), asked)


def sampler(folder: Path | None, asked: Mapping[str, Any]) -> SamplerConfig:
    """A sampler's settings: as asked for, else as the model's folder says, else as a recipe's `evaluate` has it.

    Raises:
        BadConfig: a value that it cannot take.
    """
    main = evaluate.Config.model_fields["samplers"].default[0]
    default = main.model_dump(include=set(SamplerConfig.model_fields)) | _on_card(folder)
    return configs.validate(SamplerConfig, default | {key: value for key, value in asked.items() if value is not None})


def folder_of(weights: str) -> Path:
    """Where the weights of a name or a path lie."""
    return PIPELINE if weights == glance.PLAYGROUND else Path(weights).expanduser()


def _on_card(folder: Path | None) -> dict[str, Any]:
    """The shift that the model was trained with, where its folder says so."""
    card = folder / "card.json" if folder else None
    found = pretrained.read_json(card) if card and card.is_file() else {}
    return {"shift": found["shift"]} if "shift" in found else {}


def videos(model: VideoModel, asked: Sequence[Request], own: SamplerConfig, seed: int, bar: Bar) -> Iterator[Videos]:
    """A video of each request, one after the other; the bar counts the solver's steps."""
    passes = count(1)
    bar.begin("sample", own.steps * len(asked), 0)
    hooks = [
        network.register_forward_hook(lambda *_: bar.step(next(passes), {}))  # one pass a step
        for network in model.experts.values()
    ]
    try:
        for index, request in enumerate(asked):
            yield sampling.videos(model, [request], [rng.seed_for(seed, "sample", index)], own)
    finally:
        for hook in hooks:
            hook.remove()
