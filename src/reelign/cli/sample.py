"""`reelign sample MODEL "a prompt" -o out.mp4`."""

from pathlib import Path
from typing import Any

import typer

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
        False, "--lossless", help="Exact colours at the model's own size, for `reelign score`."
    ),
    scale: int = typer.Option(0, min=0, help="Whole-number enlargement; 0 makes tiny clips about 256 pixels wide."),
) -> None:
    """Sample videos from a model, at the size it was trained at."""
    from reelign import glance
    from reelign.cli._console import say
    from reelign.errors import BadConfig, shown

    if out.suffix != SUFFIX or out.is_dir():
        raise BadConfig(f"--out {shown(str(out))} is no name of a video; videos are written as {SUFFIX}.")
    if not all(text.strip() and "\0" not in text for text in prompts):
        raise BadConfig("one of the prompts is empty; say what the video should show.")
    glance.weights(model)

    from reelign import parts, sampling, video
    from reelign.cli._process import device
    from reelign.cli._progress import Bar
    from reelign.core import rng
    from reelign.runtime.local import RuntimeConfig

    config, sampler = _settings(
        model,
        {"frames": frames, "height": height, "width": width, "fps": fps},
        {"steps": steps, "shift": shift, "guidance": guidance},
    )
    paths = [out if len(prompts) == 1 else out.with_stem(f"{out.stem}-{i + 1}") for i in range(len(prompts))]
    with Bar() as bar:
        bar.say(_plan(config, sampler, sum(path.exists() for path in paths)))
        built = parts.build("model", config, device(RuntimeConfig()))
        enlarge = 1 if lossless else scale or max(1, 256 // built.geometry.width)
        done = 0
        bar.begin("sample", sampler.steps * len(prompts), 0)

        def tick(*_: object) -> None:
            nonlocal done
            done += 1
            bar.step(done, {})

        built.network.register_forward_hook(tick)  # one pass a step
        for index, (text, path) in enumerate(zip(prompts, paths, strict=True)):
            x0 = sampling.sample(built, (text,), [rng.seed_for(seed, "sample", index)], sampler)
            shot = built.decode(x0)
            video.write(path, shot.frames[0].cpu(), shot.fps, scale=enlarge, lossless=lossless)
    for path in paths:
        say(str(path))


def _settings(model: str, size: dict[str, Any], sampler: dict[str, Any]) -> tuple[Any, Any]:
    """The configs of model and sampler: what was given, else the model's own, else what a recipe's `evaluate` takes."""
    from reelign import config as configs
    from reelign import parts
    from reelign.sampling import SamplerConfig
    from reelign.stages import evaluate

    tree = {"name": "wan", "weights": model}
    own = parts.find("model", "wan").describe(configs.part("model", tree))
    given = {key: value for key, value in size.items() if value is not None}
    if given:
        full = {key: getattr(own.geometry, key) for key in size} | given
        config = configs.part("model", {**tree, "size": full})
    else:
        config = configs.part("model", tree)
    default = evaluate.Config.model_fields["sampler"].default.model_dump() | _on_card(model)
    asked = {key: value for key, value in sampler.items() if value is not None}
    return config, configs.validate(SamplerConfig, {**default, **asked})


def _on_card(model: str) -> dict[str, Any]:
    """The shift that the model was trained with, where its folder says so."""
    from reelign import folders
    from reelign.playground import package

    card = (package.FOLDER if model == "playground" else Path(model)) / "card.json"
    found = folders.read_json(card) if card.is_file() else {}
    return {"shift": found["shift"]} if "shift" in found else {}


def _plan(config: Any, sampler: Any, old: int) -> str:
    from reelign import parts

    size = parts.find("model", config.name).describe(config).geometry
    replaced = f"; {old} existing video{'s are' if old > 1 else ' is'} replaced" if old else ""
    return (
        f"{size.frames} frames of {size.height} x {size.width} at {size.fps:g} fps, {sampler.steps} steps, shift "
        f"{sampler.shift:g}, guidance {sampler.guidance:g}{replaced}"
    )
