"""`reelign sample MODEL "a prompt" -o out.mp4`."""

from pathlib import Path

import typer


def command(
    model: str = typer.Argument(..., help='A Wan pipeline folder, or "playground" for the packaged tiny generator.'),
    prompts: list[str] = typer.Argument(..., help="One or more prompts."),
    out: Path = typer.Option(
        Path("out.mp4"), "--out", "-o", help="Where the video goes; several get -1, -2, ... before .mp4."
    ),
    steps: int = typer.Option(16, help="Steps of the solver."),
    shift: float = typer.Option(3.0, help="Time shift of the noise levels."),
    guidance: float = typer.Option(3.0, help="Classifier-free guidance; 1 is none."),
    seed: int = typer.Option(0, help="Seed of the noise."),
    lossless: bool = typer.Option(
        False, "--lossless", help="Exact colours at the model's own size, for `reelign score`."
    ),
    scale: int = typer.Option(0, help="Whole-number enlargement; 0 makes tiny clips about 256 pixels wide."),
) -> None:
    """Sample videos from a model."""
    from reelign import config as configs
    from reelign import parts, sampling, video
    from reelign.core import rng
    from reelign.runtime.local import RuntimeConfig, device

    sampler = configs.validate(sampling.SamplerConfig, {"steps": steps, "shift": shift, "guidance": guidance})
    built = parts.build("model", configs.part("model", {"name": "wan", "weights": model}), device(RuntimeConfig()))
    seeds = [rng.seed_for(seed, "sample", i) for i in range(len(prompts))]
    videos = built.decode(sampling.sample(built, tuple(prompts), seeds, sampler))
    enlarge = 1 if lossless else scale or max(1, 256 // videos.frames.shape[-1])
    for index, frames in enumerate(videos.frames.cpu()):
        path = out if len(prompts) == 1 else out.with_name(f"{out.stem}-{index + 1}{out.suffix}")
        video.write(path, frames, videos.fps, scale=enlarge, lossless=lossless)
        typer.echo(str(path))
