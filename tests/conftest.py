"""What all tests share: no network, one thread, closed-form models, and a tiny pipeline of the real Wan2.1 layout."""

import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["DIFFUSERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"

import pytest
import torch

torch.set_num_threads(1)

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults", "of tests/faults")
    group.addoption("--whole", action="store_true", help="inject all faults, not a sample; run what is marked whole")
    group.addoption("--mutants", type=int, default=0, help="how many mutants there are of each kind")
    group.addoption("--seed", type=int, default=0, help="of samples and mutants")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--whole"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("whole")])
        items[:] = [item for item in items if not item.get_closest_marker("whole")]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may reach for the network; Unix sockets stay."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"a test tried to connect to {address!r}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded)


@pytest.fixture
def gaussian() -> Callable[..., Any]:
    """`gaussian(side=2, bins=4, ...)`: a closed-form model of one's own."""
    from reelign.models import gaussian as family

    return lambda **settings: family.build(family.Config(**settings), CPU)


@pytest.fixture(scope="session")
def tiny_wan21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder of the Wan2.1 layout with random weights; tests read it and do not change it."""
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    from reelign.playground.make import tiny

    folder = tmp_path_factory.mktemp("wan21") / "tiny"
    words = tiny.tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        text = UMT5Config(
            vocab_size=len(words),
            d_model=32,
            d_kv=16,
            num_heads=2,
            d_ff=48,
            num_layers=2,
            pad_token_id=0,
            eos_token_id=1,
        )
        network = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=24,
            in_channels=16,
            out_channels=16,
            text_dim=32,
            freq_dim=32,
            ffn_dim=96,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=64,
        )
        vae = AutoencoderKLWan(base_dim=8, z_dim=16, num_res_blocks=1)
        encoder = UMT5EncoderModel(text)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
    )
    pipeline = WanPipeline(tokenizer=words, text_encoder=encoder, transformer=network, vae=vae, scheduler=scheduler)
    pipeline.save_pretrained(folder)
    return folder


SIZE = {"frames": 5, "height": 32, "width": 32, "fps": 8.0}
"""What the tiny Wan2.1 makes here: latents [16, 2, 4, 4]."""


@pytest.fixture
def wan(tiny_wan21: Path) -> Callable[..., Any]:
    """`wan(adapter={...}, ...)`: the tiny Wan2.1 as a model of one's own; `weights` picks another folder."""
    from reelign.models import wan as family

    def make(**settings: Any) -> Any:
        own = {"weights": str(tiny_wan21), "size": SIZE, "text_length": 16, **settings}
        return family.build(family.Config.model_validate(own), CPU)

    return make


@pytest.fixture
def in_child() -> Callable[[Callable[[], object]], int]:
    """Do work in a forked copy of this process; gives its exit code, minus the signal if one killed it."""

    def run(work: Callable[[], object]) -> int:
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; the child runs torch on one thread and ends without clean-up.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(99)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run


@pytest.fixture
def reelign(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """`reelign("config", path)`: the command line in this process; gives (exit code, stdout, stderr)."""
    import logging

    from reelign import cli

    handlers = list(logging.root.handlers)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reelign", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    yield call
    for handler in set(logging.root.handlers) - set(handlers):
        logging.root.removeHandler(handler)


def pytest_configure() -> None:
    """Let signals that ask for an end have their default effect, also where the tests run under nohup or behind `&`."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
