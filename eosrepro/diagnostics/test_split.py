"""Loss and accuracy on examples that are not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from eosrepro.core.objective import Objective
from eosrepro.core.types import Position


@dataclass(frozen=True)
class TestSplit:
    """The test split at one θ."""

    step: int
    test_loss: float
    test_accuracy: float  # NaN where the targets are no classes


def test_split(_objective: Objective, snapshots: Iterable[Position], *, test: Objective) -> Iterator[TestSplit]:
    """Loss and accuracy of the test split at each snapshot.

    Args:
        test: the same objective on the test split of the data.
    """
    for step, theta, _state in snapshots:
        at = test.value_and_grad(theta)
        yield TestSplit(step, at.loss, at.accuracy)
