"""Networks that lie in main memory while another one computes."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from reelign.batches import Request, Videos, requests
from reelign.models._guest import Guest

CPU = torch.device("cpu")


class Tied(nn.Module):
    """Two names of one weight, and a buffer, as text encoders have them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("table", torch.arange(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x)) + self.table


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], set[str]]:
    """Lets a CPU stand for a device: what comes is copied. Says where the weights of a network lie."""
    copies: dict[int, torch.Tensor] = {}

    def copy(self: Guest[Any], tensor: torch.Tensor) -> torch.Tensor:
        made = tensor.clone()
        copies[made.data_ptr()] = made  # held, so that no other tensor gets its place
        return made

    def where(network: nn.Module) -> set[str]:
        tensors = (*network.parameters(), *network.buffers())
        return {"device" if tensor.data_ptr() in copies else "host" for tensor in tensors}

    monkeypatch.setattr(Guest, "_copy", copy)
    return where


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What comes and goes, in order."""
    seen: list[str] = []
    arrive, leave = Guest._arrive, Guest._leave

    def came(self: Guest[Any]) -> None:
        seen.append("comes")
        arrive(self)

    def went(self: Guest[Any]) -> None:
        was = self._is_here
        leave(self)
        if was and not self._is_here:
            seen.append("goes")

    monkeypatch.setattr(Guest, "_arrive", came)
    monkeypatch.setattr(Guest, "_leave", went)
    return seen


def test_a_guest_comes_when_it_is_used_and_stays_if_it_need_not_leave(elsewhere: Callable[..., set[str]]) -> None:
    network = Tied()
    guest = Guest(network, CPU)
    assert elsewhere(network) == {"host"}
    with guest.at_work() as own:
        assert own is network
        assert elsewhere(network) == {"device"}
    nn.Linear(2, 2)(torch.zeros(1, 2))
    assert elsewhere(network) == {"device"}
    assert not any(p.requires_grad for p in network.parameters())
    assert not network.training


def test_it_is_away_whenever_the_other_computes_and_comes_back_with_its_weights(
    elsewhere: Callable[..., set[str]],
) -> None:
    network, other = Tied(), nn.Linear(2, 2)
    guest, before = Guest(network, CPU), {name: value.clone() for name, value in network.state_dict().items()}
    guest.leave_before(other)
    seen: list[set[str]] = []
    other.register_forward_pre_hook(lambda *_: seen.append(elsewhere(network)))
    for _ in range(2):
        with guest.at_work():
            assert elsewhere(network) == {"device"}
        other(torch.zeros(1, 2))
    assert seen == [{"host"}, {"host"}]
    for _ in range(2):
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert network.first.weight is network.second.weight
        guest._arrive()


def test_what_it_computes_is_the_same_before_and_after(moves: list[str]) -> None:
    network, other, x = Tied(), nn.Linear(2, 2), torch.ones(1, 3)
    guest = Guest(network, CPU)
    guest.leave_before(other)
    found = []
    for _ in range(3):
        with guest.at_work() as own:
            found.append(own(x))
        other(torch.zeros(1, 2))
    assert moves == ["comes", "goes"] * 3
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_any_number_of_uses_between_two_passes_of_the_other_is_one_move(moves: list[str]) -> None:
    other = nn.Linear(2, 2)
    guest = Guest(Tied(), CPU)
    guest.leave_before(other)
    for _ in range(2):
        for _ in range(5):
            with guest.at_work():
                pass
        for _ in range(4):
            other(torch.zeros(1, 2))
    assert moves == ["comes", "goes", "comes", "goes"]


def test_it_stays_for_a_thread_that_uses_it_and_goes_before_the_next_pass(moves: list[str]) -> None:
    other = nn.Linear(2, 2)
    guest = Guest(Tied(), CPU)
    guest.leave_before(other)
    inside, done = threading.Event(), threading.Event()

    def use() -> None:
        with guest.at_work():
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=use)
    thread.start()
    assert inside.wait(10)
    other(torch.zeros(1, 2))
    assert moves == ["comes"]
    done.set()
    thread.join()
    other(torch.zeros(1, 2))
    assert moves == ["comes", "goes"]


def test_text_and_pixels_of_a_model_move_once_between_two_passes_of_its_network(
    wan: Callable[..., Any], moves: list[str]
) -> None:
    model, plain = wan(), wan()
    for guest in model.guests:
        guest.leave_before(model.network)
    assert sum(guest.nbytes for guest in model.guests) > 10_000
    texts = ("a red circle", "a blue square", "two stars")
    x = torch.linspace(-1, 1, 3 * 16 * 2 * 4 * 4).reshape(3, *model.geometry.latent)
    sigma = torch.tensor([0.9, 0.5, 0.1])
    moves.clear()
    for again in range(2):
        asked = requests([f"{text} {again}" for text in texts])
        found = [_used(each, asked, x, sigma) for each in (model, plain)]
        assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
    # The text encoder and the codec, twice; `plain` has nothing that leaves.
    assert moves.count("goes") == 4


def _used(model: Any, asked: tuple[Request, ...], x: torch.Tensor, sigma: torch.Tensor) -> list[torch.Tensor]:
    """What texts, latents and clips become, and what the network says of them, twice."""
    condition = model.encode(asked)
    frames = model.decode(x, condition).frames
    latents = [model.encode_video(Videos(clip[None], 8.0)) for clip in frames]
    with torch.no_grad():
        velocities = [model.velocity(x, sigma, condition, 3.0) for _ in range(2)]
    return [*condition.values["text"], frames, *latents, *velocities]
