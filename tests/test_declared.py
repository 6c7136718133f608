"""What datasets, methods and modules say of themselves; of rewards and metrics see `test_judges`."""

from typing import Any

import pytest

from reelign import declared, parts
from reelign.batches import Clips, Credited, Pairs
from reelign.engines import slots
from reelign.errors import BadConfig
from reelign.parts import PartConfig


def _config(**says: Any) -> PartConfig:
    """A Config that says something."""
    own = {"__module__": __name__, **{name: property(lambda _, value=value: value) for name, value in says.items()}}
    return type("Config", (PartConfig,), own)(name="mine.part")


@pytest.mark.parametrize(
    ("method", "consumes", "needs"),
    [
        ("sft", Clips, set()),
        ("dpo", Pairs, {"reference"}),
        ("grpo", Credited, set()),
        ({"name": "grpo", "kl": 0.1}, Credited, {"reference"}),
        ("nft", Credited, {"sampled"}),
        ({"name": "nft", "modules": [{"name": "kl", "form": "velocity"}]}, Credited, {"reference", "sampled"}),
    ],
)
def test_a_method_says_what_it_trains_on_and_which_frozen_weights_it_needs(
    method: Any, consumes: type, needs: set[str]
) -> None:
    config = parts.configure("method", method)
    assert declared.consumes(config) is consumes
    assert declared.needs(config) == needs


def test_a_dataset_says_what_it_gives_by_its_settings() -> None:
    gives = [declared.gives(parts.configure("dataset", {"name": "playground", "held_out": b})) for b in (False, True)]
    assert gives == [{"prompts", "clips"}, {"prompts"}]


@pytest.mark.parametrize("says", [{}, {"gives": ()}, {"gives": "clips"}, {"gives": ["clip"]}, {"gives": None}], ids=str)
def test_a_dataset_that_does_not_say_what_it_gives_is_refused(says: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=r"^the dataset 'mine\.part' does not say what it gives; let `gives` of its"):
        declared.gives(_config(**says))


@pytest.mark.parametrize("says", [{}, {"consumes": "pairs"}, {"consumes": int}, {"consumes": []}], ids=str)
def test_a_method_that_does_not_say_what_it_trains_on_is_refused(says: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=r"^the method 'mine\.part' does not say what it trains on; let `consumes` of"):
        declared.consumes(_config(**says))


@pytest.mark.parametrize("needs", ["reference", {"refrence"}, {"reference": 1}, 3], ids=str)
def test_a_method_that_needs_what_there_is_not_is_refused(needs: Any) -> None:
    with pytest.raises(BadConfig, match=r"^the method 'mine\.part' needs .*; let `needs` of its Config be a set of"):
        declared.needs(_config(needs=needs))
    assert declared.needs(_config()) == set()


@pytest.mark.parametrize("replaces", ["combine", [3], 3], ids=str)
def test_a_module_that_replaces_no_slots_by_name_is_refused(replaces: Any) -> None:
    with pytest.raises(BadConfig, match=r"^the module 'mine\.part' replaces .*; let `replaces` of its Config be a set"):
        slots.assemble(parts.configure("method", "grpo").slots(), [_config(replaces=replaces)])
