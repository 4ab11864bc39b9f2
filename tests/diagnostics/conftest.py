"""Every optimizer that there is."""

from __future__ import annotations

import pytest

from eosrepro import catalog
from eosrepro.core.types import Optimizer
from tests.members import identify, variants


@pytest.fixture(params=variants("optimizers"), ids=lambda case: "-".join(str(identify(part)) for part in case))
def optimizer(request: pytest.FixtureRequest) -> Optimizer:
    """With each choice of its options, and a step size at which all fall on the small problem."""
    name, options = request.param
    made: Optimizer = catalog.find("optimizers", name)(step_size=0.005, **options)
    return made
