"""Conditions: what samples share is held once, whatever is picked of them or joined."""

import torch

from reelign.batches import Condition, Geometry, joined

WHERE = Geometry(1, 1, 1, 1.0, (1,))
A, B = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])


def test_what_is_picked_repeated_or_joined_keeps_its_order_and_copies_nothing() -> None:
    both = Condition(WHERE, {"text": (A, B)})
    found = joined([both.repeated(2)[1:], both[torch.tensor([1, 0])]])
    assert len(found) == 5
    assert all(value is each for value, each in zip(found.values["text"], (A, B, B, B, A), strict=True))
    assert found.of("text").tolist() == [[1, 2], [3, 4], [3, 4], [3, 4], [1, 2]]
