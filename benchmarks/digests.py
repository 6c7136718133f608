"""Digests of the weights that a few steps of each kind leave behind, to see that nothing moved by accident.

SFT, GRPO, DPO on pairs collected from the policy, and every online method with its own defaults, each from the packaged
generator, in float32 on one thread. The digits depend on the processor and on torch; on one machine they change only if
what is computed does.

    python benchmarks/digests.py [--sft 20] [--grpo 5] [--dpo 20] [--online 2]
"""

import argparse
import hashlib
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open

from reelign import config as configs
from reelign import declared, driver, parts
from reelign.batches import Credited
from reelign.playground import demo


class Silent:
    """A watcher that shows nothing."""

    def begin(self, label, total, done):
        pass

    def step(self, done, metrics):
        pass

    def say(self, sentence):
        pass


def digest(file: Path) -> str:
    """Sixteen hex digits of the weights in a checkpoint: names, types, shapes, bytes."""
    total = hashlib.sha256()
    with safe_open(file, framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            value = tensors.get_tensor(name)
            total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            total.update(value.contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def online() -> list[str]:
    """Names of the methods that train on what they sample."""
    named = {name: parts.configure("method", name) for name in parts.available("method")}
    return [name for name, config in named.items() if declared.consumes(config) is Credited]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, steps in (("sft", 20), ("grpo", 5), ("dpo", 20), ("online", 2)):
        parser.add_argument(f"--{name}", type=int, default=steps)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        demo.write_data(data, clips=96, prompts=64, judged=8)
        tree = demo.recipe(data)
        sft, grpo, collect, dpo = tree["stages"]
        collect = {**collect, "prompts": 32, "members": 4}
        chains = {
            "sft": [{**sft, "steps": options.sft}],
            "grpo": [{**grpo, "steps": options.grpo}],
            "dpo": [collect, {**dpo, "steps": options.dpo}],
        }
        few = {**grpo, "label": "few", "prompts": 4, "passes": {}, "steps": options.online}
        chains |= {f"online {name}": [{**few, "method": name}] for name in online()} if options.online else {}
        for name, stages in chains.items():
            chain = {
                **tree,
                "run": {"name": name.replace(" ", "-"), "root": folder},
                "model": {"name": "wan", "weights": "playground", "precision": "float32"},
                "runtime": {"threads": 1},
                "evaluate": None,
                "stages": [{k: v for k, v in stage.items() if k != "gate"} for stage in stages],
            }
            run = driver.run(configs.validate(driver.Recipe, chain), Silent())
            last = stages[-1].get("label", name)
            print(f"{name:18} {digest(run / 'checkpoints' / f'{last}-end' / 'learner.safetensors')}", flush=True)


if __name__ == "__main__":
    main()
