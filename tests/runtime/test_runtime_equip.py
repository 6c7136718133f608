"""A model where it runs: which store it gets, and whether what encodes leaves the device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reelign import parts, store
from reelign.batches import Request, requests
from reelign.models._guest import Guest
from reelign.runtime import equip
from reelign.runtime.local import RuntimeConfig
from reelign.store import DiskStore, Memory

CUDA = torch.device("cuda")
GIB = 2**30


@pytest.fixture
def built(tiny_wan21: Path) -> Callable[..., Any]:
    """A tiny Wan, equipped for `runtime` settings below a folder of runs."""
    size = {"frames": 5, "height": 32, "width": 32, "fps": 8.0}
    config = parts.configure("model", {"name": "wan", "weights": str(tiny_wan21), "size": size, "text_length": 16})
    return lambda root, **runtime: equip.build(config, RuntimeConfig.model_validate(runtime), root)


def test_a_small_model_keeps_what_it_encodes_in_memory_unless_a_place_is_named(
    built: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(built(tmp_path).store, Memory)
    assert isinstance(built(None, store={"path": str(tmp_path / "named")}).store, DiskStore)
    monkeypatch.setattr(equip, "SMALL", 0)
    assert isinstance(built(tmp_path).store, DiskStore)
    assert isinstance(built(None).store, Memory)
    assert list(tmp_path.iterdir()) == []


def _features(model: Any, texts: tuple[Request, ...]) -> Tensor:
    return model.text.padded(model.encode(texts).values["text"])


def test_runs_below_one_root_share_what_is_encoded_to_the_bit(
    built: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equip, "SMALL", 0)
    texts = requests(("a red circle", "two stars", "a red circle"))
    made = _features(built(tmp_path), texts)
    assert (tmp_path / ".store").is_dir()
    again = built(tmp_path)
    monkeypatch.setattr(again.text, "_encode", lambda text: pytest.fail(f"{text!r} is encoded again"))
    assert torch.equal(_features(again, texts), made)
    assert torch.equal(_features(built(None), texts), made)


def test_a_model_that_keeps_nothing_is_built_as_it_is(tmp_path: Path) -> None:
    model = equip.build(parts.configure("model", "gaussian"), RuntimeConfig(), tmp_path)
    assert model.geometry.latent == (3, 1, 1, 1)
    assert not hasattr(model, "store")


def test_on_a_cpu_there_is_nothing_to_leave(built: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Guest, "leave_before", lambda *_: pytest.fail("it leaves"))
    built(None, offload=True)
    assert not equip.leaves(True, torch.device("cpu"), GIB)


@pytest.mark.parametrize(
    ("wish", "device", "host", "expected"),
    [
        ("auto", 24, 64, True),
        ("auto", 140, 64, False),  # a tenth of the device is no matter
        ("auto", 24, 16, False),  # main memory has no room either
        (True, 140, 16, True),
        (False, 24, 64, False),
    ],
)
def test_auto_asks_both_memories(
    monkeypatch: pytest.MonkeyPatch, wish: Any, device: int, host: int, expected: bool
) -> None:
    monkeypatch.setattr(equip, "_device_bytes", lambda where: device * GIB)
    monkeypatch.setattr(equip, "_host_bytes", lambda: host * GIB)
    assert equip.leaves(wish, CUDA, 11 * GIB) is expected


def test_the_bytes_of_main_memory_are_those_that_linux_tells() -> None:
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert abs(equip._host_bytes() / 1024 / int(total.split()[1]) - 1) < 0.01


@pytest.mark.parametrize("wish", ["yes please", 2, None])
def test_another_wish_is_refused(wish: object) -> None:
    with pytest.raises(ValueError, match="offload"):
        RuntimeConfig.model_validate({"offload": wish})


def test_settings_of_the_store_have_defaults_beside_each_other() -> None:
    found = RuntimeConfig.model_validate({"store": {"ram_gib": 0.5}}).store
    assert found == store.StoreConfig(ram_gib=0.5)
