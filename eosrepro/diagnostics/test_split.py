"""Loss and metric on examples that are not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import nan

from eosrepro.core.objective import Objective
from eosrepro.core.types import Position


@dataclass(frozen=True)
class TestSplit:
    """The test split at one θ."""

    step: int
    test_loss: float
    test_accuracy: float  # NaN where the targets are no classes
    test_r2: float  # NaN where the targets are no numbers


def test_split(
    _objective: Objective,  # noqa: PT019 (this is no test)
    snapshots: Iterable[Position],
    *,
    test: Objective,
) -> Iterator[TestSplit]:
    """Loss and metric of the test split at each snapshot.

    Args:
        test: the same objective on the test split of the data.
    """
    for step, theta, _state in snapshots:
        loss, score = test.value(theta)
        accuracy, r2 = (score if test.metric == named else nan for named in ("accuracy", "r2"))
        yield TestSplit(step, loss, accuracy, r2)
