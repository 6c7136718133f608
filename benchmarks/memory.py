"""Peak memory of a process: it must not grow with prompts, with texts, or with what a backbone sees.

A random Wan of a real size (33 frames of 240 x 416) and a random DINOv2, both with next to no weights, so that what is
held of clips shows. Each case runs in a process of its own with few and with many prompts; the peaks may differ by 5 %
at most. Main memory is the kernel's high-water mark, a device's is torch's own count.

| case | few, many | what lies apart |
|---|---|---|
| evaluation | 16, 160 prompts | nothing |
| online | 2, 16 prompts, the same micro-batch | latents of the rollout, `COPIES` a sample |
| vipo | the same, with maps from DINOv2 | the same, and the maps, of the size of one latent |
| captions | 20, 20,000 texts | what the store may hold in main memory |

Prints a table, and exits with 1 where a case grows.

    python benchmarks/memory.py [evaluation] [online] [vipo] [captions]
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GIB = 2**30
GROWTH = 0.05
SIZE = {"frames": 33, "height": 240, "width": 416, "fps": 16.0}
LATENT = (4, 17, 30, 52)
GROUP, MICRO_BATCH = 2, 2
COPIES = 4
"""Latents of a sample that a rollout holds: x0, and x, x_next and mean of its one recorded step."""
RAM_GIB = 0.05
"""What the store of the captions may hold in main memory."""
TEXT_LENGTH, TEXT_WIDTH = 64, 4096
METRIC, REWARD = "tests.parts.mean_level", "tests.parts.linear_reward:build"


@dataclass(frozen=True)
class Case:
    """One thing that must not grow."""

    few: int
    many: int
    apart: Callable[[int], float]
    """GiB that `n` may cost."""
    recipe: Callable[[Path], dict[str, Any]] | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="all of them where none is named")
    parser.add_argument("--models", help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=3, metavar=("CASE", "N", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.models:
        write_models(Path(options.models))
    elif options.child:
        case, n, folder = options.child
        measure(case, int(n), Path(folder))
    else:
        with tempfile.TemporaryDirectory() as folder:
            _process("--models", folder)
            growths = [compare(name, Path(folder)) for name in options.cases or CASES]
        sys.exit(max(growths) > GROWTH)


def compare(name: str, folder: Path) -> float:
    """Run a case with few and with many, print its row, and give the share by which the peak grows."""
    case, peaks = CASES[name], []
    for n in (case.few, case.many):
        _process("--child", name, str(n), str(folder))
        peaks.append(json.loads((folder / "peak.json").read_text()))
    few, many = peaks
    apart = case.apart(case.many) - case.apart(case.few)
    growth = max((many[where] - apart) / few[where] - 1 for where in few if few[where])
    shown = "   ".join(f"{where} {few[where]:.2f} {many[where]:.2f} GiB" for where in few if few[where])
    print(f"{name:12}{case.few:>4} {case.many:>6}   {shown}   apart {apart:.2f} GiB   growth {growth:+.1%}", flush=True)
    return growth


def _process(*words: str) -> None:
    """This file in a process of its own: a peak is that of a whole process."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": paths}
    subprocess.run([sys.executable, __file__, *words], check=True, env=environment, stdout=subprocess.DEVNULL)


def measure(name: str, n: int, folder: Path) -> None:
    """Run a case in this process, and write its peaks in GiB."""
    case = CASES[name]
    if case.recipe is None:
        encode_captions(folder, n)
    else:
        (folder / "prompts.txt").write_text("".join(f"a thing that is number {k}\n" for k in range(n)))
        recipe = folder / "recipe.yaml"
        recipe.write_text(json.dumps({**case.recipe(folder), "run": {"name": f"{name}-{n}", "root": str(folder)}}))
        _align(recipe)
    import torch

    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    high = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    peak = {"main": int(high.split()[1]) * 1024 / GIB, "device": device / GIB}
    (folder / "peak.json").write_text(json.dumps(peak))


def _align(recipe: Path) -> None:
    """What `reelign align` does, in this process."""
    from reelign import cli

    sys.argv = ["reelign", "align", str(recipe)]
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            raise


def encode_captions(folder: Path, n: int) -> None:
    """Features of many texts, a few at a time, as an epoch of training asks for them."""
    from reelign import config as configs
    from reelign.runtime import equip
    from reelign.runtime.local import RuntimeConfig

    runtime = RuntimeConfig.model_validate({"threads": 1, "store": {"ram_gib": RAM_GIB}})
    model: Any = equip.build(configs.part("model", _model(folder)), runtime, folder)
    for start in range(0, n, 20):
        model.text([f"a thing that is number {k}" for k in range(start, start + 20)], model.store)


def _model(folder: Path) -> dict[str, Any]:
    return {"name": "wan", "weights": str(folder / "wan"), "size": SIZE, "text_length": TEXT_LENGTH}


def _run(folder: Path, stage: dict[str, Any]) -> dict[str, Any]:
    dataset = {"name": "prompt_file", "path": str(folder / "prompts.txt")}
    sampler = {"steps": 2, "guidance": 1}
    return {
        "model": _model(folder),
        "runtime": {"threads": 1, "store": {"ram_gib": 0}},  # what it may hold is a bound of its own, not growth
        "stages": [{"dataset": dataset, "sampler": sampler, **stage}],
    }


def _evaluation(folder: Path) -> dict[str, Any]:
    return _run(folder, {"name": "evaluate", "members": 1, "metrics": [METRIC], "batch": 4, "videos": 0})


def _online(folder: Path, **method: Any) -> dict[str, Any]:
    n = len((folder / "prompts.txt").read_text().splitlines())
    stage = {"name": "online", "steps": 1, "prompts": n, "group": GROUP, "rewards": [REWARD]}
    stage |= {"learner": {"micro_batch": MICRO_BATCH}, "method": {"name": "flow_grpo", **method}}
    return _run(folder, stage)


def _vipo(folder: Path) -> dict[str, Any]:
    backbone = {"name": "dinov2", "weights": str(folder / "dinov2"), "side": 112}
    return _online(folder, modules=[{"name": "vipo", "backbone": backbone}])


def _latents(n: int, copies: int = COPIES) -> float:
    return n * GROUP * copies * math.prod(LATENT) * 4 / GIB


CASES = {
    "evaluation": Case(16, 160, lambda n: 0.0, _evaluation),
    "online": Case(2, 16, _latents, _online),
    "vipo": Case(2, 16, lambda n: _latents(n, COPIES + 1), _vipo),
    "captions": Case(20, 20_000, lambda n: RAM_GIB if n > 20 else 0.0, None),
}


def write_models(folder: Path) -> None:
    """A random Wan of the real layout, and a random DINOv2."""
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import Dinov2Config, Dinov2Model, UMT5Config, UMT5EncoderModel

    from reelign.playground.make import tiny

    words = tiny.tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = UMT5Config(
            vocab_size=len(words), d_model=TEXT_WIDTH, d_kv=16, num_heads=2, d_ff=16, num_layers=1, pad_token_id=0,
            eos_token_id=1,
        )  # fmt: skip
        network = WanTransformer3DModel(
            patch_size=(17, 5, 4), num_attention_heads=2, attention_head_dim=24, in_channels=LATENT[0],
            out_channels=LATENT[0], text_dim=TEXT_WIDTH, freq_dim=32, ffn_dim=64, num_layers=1, cross_attn_norm=True,
            qk_norm="rms_norm_across_heads", rope_max_seq_len=64,
        )  # fmt: skip
        vae = AutoencoderKLWan(
            base_dim=4, decoder_base_dim=4, z_dim=LATENT[0], dim_mult=[1, 1], num_res_blocks=1, attn_scales=[],
            temperal_downsample=[True], latents_mean=[0.0] * LATENT[0], latents_std=[1.0] * LATENT[0],
            is_residual=True, in_channels=48, out_channels=48, patch_size=4, scale_factor_temporal=2,
            scale_factor_spatial=8,
        )  # fmt: skip
        encoder = UMT5EncoderModel(text)
        seen = Dinov2Model(
            Dinov2Config(
                image_size=112, patch_size=14, hidden_size=768, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1
            )
        )
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    pipeline = WanPipeline(tokenizer=words, text_encoder=encoder, transformer=network, vae=vae, scheduler=scheduler)
    pipeline.save_pretrained(folder / "wan")
    seen.save_pretrained(folder / "dinov2")
    pixels = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (folder / "dinov2" / "preprocessor_config.json").write_text(json.dumps(pixels))


if __name__ == "__main__":
    main()
