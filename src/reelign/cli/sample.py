"""`reelign sample MODEL "a prompt" -o out.mp4`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from reelign.cli import _process
from reelign.cli._console import say
from reelign.errors import BadConfig, shown

SUFFIX = ".mp4"


def command(
    model: str = typer.Argument(..., help='A Wan pipeline folder, or "playground" for the packaged tiny generator.'),
    prompts: list[str] = typer.Argument(..., help="One or more prompts."),
    out: Path = typer.Option(
        Path("out.mp4"), "--out", "-o", help="Where the video goes (mp4); several get -1, -2, ... before .mp4."
    ),
    frames: int | None = typer.Option(None, help="Frames; default: the model's own, as of height, width and fps."),
    height: int | None = typer.Option(None, help="Pixels."),
    width: int | None = typer.Option(None, help="Pixels."),
    fps: float | None = typer.Option(None, help="Frames a second."),
    steps: int | None = typer.Option(None, help="Steps of the solver; default: 16, as `evaluate` in a recipe."),
    shift: float | None = typer.Option(
        None, help="Time shift of the noise levels; default: the one on the model's card, else 5, as in a recipe."
    ),
    guidance: float | None = typer.Option(
        None, help="Classifier-free guidance, 1 is none; default: 3, as `evaluate` in a recipe."
    ),
    seed: int = typer.Option(0, help="Seed of the noise."),
    lossless: bool = typer.Option(
        False, "--lossless", help="Exact colours, for `reelign score`; at the model's own size if no --scale is given."
    ),
    scale: int | None = typer.Option(
        None,
        min=1,
        max=64,
        help="Whole-number enlargement; default: tiny clips to about 256 pixels, unless --lossless.",
    ),
) -> None:
    """Sample videos from a model, at the size it was trained at."""
    from reelign import glance

    paths = _targets(out, prompts)
    glance.weights(model)

    from reelign import video
    from reelign.batches import requests
    from reelign.face import making
    from reelign.progress import Bar
    from reelign.runtime.local import RuntimeConfig

    size = {"frames": frames, "height": height, "width": width, "fps": fps}
    config, sampler = _settings(model, size, {"steps": steps, "shift": shift, "guidance": guidance})
    with Bar() as bar:
        bar.say(_plan(config, sampler, sum(path.exists() for path in paths)))
        built = _process.model(config, RuntimeConfig())
        for path, shot in zip(paths, making.videos(built, requests(prompts), sampler, seed, bar), strict=True):
            video.write(path, shot.frames[0], shot.fps, scale, lossless=lossless)
    for path in paths:
        say(str(path))


def _targets(out: Path, prompts: Sequence[str]) -> list[Path]:
    """Where each prompt's video goes.

    Raises:
        BadConfig: `out` is no name of a video, or a prompt says nothing.
    """
    if out.suffix != SUFFIX or out.is_dir():
        raise BadConfig(f"--out {shown(str(out))} is no name of a video; videos are written as {SUFFIX}.")
    if not all(text.strip() and "\0" not in text for text in prompts):
        raise BadConfig("one of the prompts is empty; say what the video should show.")
    return [out if len(prompts) == 1 else out.with_stem(f"{out.stem}-{i + 1}") for i in range(len(prompts))]


def _settings(model: str, size: dict[str, Any], sampler: dict[str, Any]) -> tuple[Any, Any]:
    """The configs of model and sampler: what was given, else the model's own, else what a recipe's `evaluate` takes.

    Raises:
        BadConfig: a value that the model or the sampler cannot take, by the name of its option.
    """
    from reelign import config as configs
    from reelign import parts
    from reelign.face import making

    tree: dict[str, Any] = {"name": "wan", "weights": model}
    family = parts.find("model", "wan")
    own = family.describe(configs.part("model", tree)).geometry
    given = {key: value for key, value in size.items() if value is not None}
    try:
        if given:
            tree["size"] = {key: getattr(own, key) for key in size} | given
        config = configs.part("model", tree)
        family.describe(config)
        return config, making.sampler(making.folder_of(model), sampler)
    except BadConfig as error:
        raise BadConfig(
            re.sub(rf"^(model\.)?(size\.)?(?=({'|'.join((*size, *sampler))}):)", "--", str(error))
        ) from error


def _plan(config: Any, sampler: Any, old: int) -> str:
    from reelign import parts

    size = parts.find("model", config.name).describe(config).geometry
    replaced = f"; {old} existing video{'s are' if old > 1 else ' is'} replaced" if old else ""
    return (
        f"{size.frames} frames of {size.height} x {size.width} at {size.fps:g} fps, {sampler.steps} steps, shift "
        f"{sampler.shift:g}, guidance {sampler.guidance:g}{replaced}"
    )
