"""`reelign playground pretrain | measure | info`: the packaged world and its tiny generator."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from reelign.cli import _process
from reelign.cli._console import emit, say
from reelign.face.table import table

if TYPE_CHECKING:
    from reelign.protocols import VideoModel

app = typer.Typer(help="The packaged world and its tiny generator.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def pretrain(
    out: Path = typer.Argument(..., help="Folder for the state, the curve and the finished pipeline."),
    cycle: list[int] = typer.Option(
        [], help="Step that ends a learning-rate cycle; repeatable; default: the recipe's."
    ),
    device: str = typer.Option("cpu", help="cpu or cuda."),
    threads: int = typer.Option(0, help="CPU threads; 0 leaves torch's choice."),
) -> None:
    """Make the tiny generator from nothing; goes on where it stopped."""
    import json

    import torch

    from reelign.playground.make.pretrain import PretrainConfig, run
    from reelign.progress import Bar

    if threads:
        torch.set_num_threads(threads)
    config = PretrainConfig(device=device, cycles=tuple(cycle)) if cycle else PretrainConfig(device=device)
    out.mkdir(parents=True, exist_ok=True)
    totals = {"autoencoder": config.autoencoder.cycles[-1], "transformer": config.cycles[-1]}
    with Bar() as bar, (out / "curve.jsonl").open("a", encoding="utf-8") as curve:
        shown = ""
        for phase, row in run(out, config):
            if phase != shown:
                bar.begin(phase, totals[phase], int(row["step"]) - 1)
                shown = phase
            curve.write(json.dumps({"phase": phase, **row}) + "\n")
            curve.flush()
            bar.step(int(row["step"]), {"offline/loss": row["loss"]})
    say(str(out / "pipeline"))


@app.command()
def measure(
    folder: Path = typer.Argument(..., help="A generator's pipeline folder; the rates go into its card.json."),
    prompts: int = typer.Option(160, help="Prompts, half of them with what training never prompts; two clips each."),
    guidance: float = typer.Option(1.0, help="Classifier-free guidance; 1 is none."),
) -> None:
    """Measure how often a generator of the playground fails, and write it on its card."""
    import json
    import tempfile

    from reelign import parts
    from reelign.files import write_text
    from reelign.playground import demo, writing
    from reelign.runtime.local import RuntimeConfig
    from reelign.stages import evaluate

    model = _process.model(parts.configure("model", {"name": "wan", "weights": str(folder)}), RuntimeConfig())
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        path = writing.write_prompts(out / "prompts.jsonl", demo.judged_prompts(prompts))
        config = evaluate.Config.model_validate(
            {
                "dataset": {"name": "prompt_file", "path": path},
                "samplers": [{"steps": 10, "shift": 3.0, "guidance": guidance}],
                "metrics": ["playground"],
                "videos": 0,
            }
        )
        (measures,) = _process.measures(model, config, "base", out, str(folder), "measure").values()
    failed = {
        "attributes": "attributes_right",
        "motion": "motion_right",
        "order": "order_right",
        "physics": "physics_ok",
        "symbol": "symbol_free",
    }
    found = {
        "failures": {name: round(1 - measures[measure]["mean"], 4) for name, measure in failed.items()},
        "measured": {"clips": 2 * prompts, "guidance": guidance, "steps": 10},
        "codec": _codec(model),
    }
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    write_text(folder / "card.json", json.dumps({**card, **found}, indent=2) + "\n")
    say(json.dumps(found))


def _codec(model: "VideoModel", clips: int = 64) -> dict[str, float]:
    """How well held-out clips, with defects and clean, come back from their latents, and what decoding costs."""
    import time

    from reelign.batches import Videos, requests
    from reelign.playground.judge.verdict import psnr
    from reelign.playground.world import corpora, tables

    found = {}
    for name, data in (("noisy_db", corpora.pretraining(clips, 2)), ("clean_db", corpora.instruction(clips, 3))):
        latents = model.encode_video(Videos(data.clips.to(model.device), float(tables.FPS)))
        condition = model.encode(requests(data.captions))
        model.decode(latents[:2], condition[:2])
        began = time.perf_counter()
        decoded = model.decode(latents, condition).frames.cpu()
        found["decode_ms"] = round(1000 * (time.perf_counter() - began) / clips, 1)
        found[name] = round(float(psnr(decoded, data.clips).mean()), 2)
    return found


@app.command()
def info(as_json: bool = typer.Option(False, "--json", help="As JSON.")) -> None:
    """Folder, geometry, weights of each part, and measured failure rates of the packaged generator."""
    import json

    from reelign.playground import PIPELINE

    card = json.loads((PIPELINE / "card.json").read_text(encoding="utf-8"))
    parts = {name: _weights(PIPELINE / name) for name in ("transformer", "text_encoder", "vae")}
    content = {"folder": str(PIPELINE), "parameters": sum(parts.values()), **parts, **card}
    told = {"parameters": "{:,} weights, of which:", **dict.fromkeys(parts, "{:,}")}
    rows = [(k, told[k].format(v) if k in told else json.dumps(v)) for k, v in content.items()]
    emit(content, as_json, table(("what", "value"), rows))


def _weights(folder: Path) -> int:
    """How many numbers the weights of a part of the packaged pipeline are, from the headers of its files."""
    import json
    import math

    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:  # by hand, as the reader of safetensors loads numpy
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        count += sum(math.prod(stored["shape"]) for name, stored in header.items() if name != "__metadata__")
    return count
