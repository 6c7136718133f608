"""The straight path and what a velocity says about it."""

import ast
import inspect
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import reelign.core
from reelign.core import flow


@settings(max_examples=25, deadline=None)
@given(level=st.floats(0.01, 0.99), seed=st.integers(0, 2**20))
def test_noise_comes_back_from_the_true_velocity(level: float, seed: int) -> None:
    x0, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(seed)).double()[:, None].unbind(0)
    sigma = torch.tensor([level], dtype=torch.float64)
    x, velocity = flow.interpolate(x0, noise, sigma), flow.velocity_target(x0, noise)
    assert_close(flow.noise_from(x, velocity, sigma), noise)


def test_the_path_starts_at_data_and_ends_at_noise() -> None:
    x0, noise = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(flow.interpolate(x0, noise, torch.zeros(2)), x0)
    assert torch.equal(flow.interpolate(x0, noise, torch.ones(2)), noise)


def test_a_scalar_sigma_serves_the_whole_batch() -> None:
    x0, noise = torch.randn(3, 2, 2), torch.randn(3, 2, 2)
    assert torch.equal(
        flow.interpolate(x0, noise, torch.tensor(0.3)), flow.interpolate(x0, noise, torch.full((3,), 0.3))
    )


def test_expand_to_touches_only_the_batch_axis() -> None:
    # A square latent would also accept a value along its last axis; that must never happen.
    value = torch.arange(3.0)
    assert flow.expand_to(value, torch.zeros(3, 3, 3)).shape == (3, 1, 1)
    assert flow.expand_to(torch.tensor(2.0), torch.zeros(3, 3)).shape == ()


def test_expand_to_refuses_another_batch_size() -> None:
    with pytest.raises(ValueError, match="one value per sample"):
        inspect.unwrap(flow.expand_to)(torch.zeros(1), torch.zeros(3, 2))


def test_velocity_error_is_a_mean_over_elements() -> None:
    error = flow.velocity_error(torch.full((2, 3, 4), 2.0), torch.zeros(2, 3, 4))
    assert_close(error, torch.full((2,), 4.0))


def test_core_imports_torch_and_the_standard_library_only() -> None:
    allowed = {"torch", "jaxtyping", *sys.stdlib_module_names}
    for path in Path(reelign.core.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path.name} uses a relative import"
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed or name.startswith("reelign.core"), f"{path.name} imports {name}"
