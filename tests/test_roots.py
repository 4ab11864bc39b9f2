"""Roots of functions of one number, against functions whose roots are known."""

from __future__ import annotations

from math import isnan, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial

from eosrepro.core.roots import MOST_STEPS, root_between


@given(st.floats(0.01, 3), st.floats(-1, 1), st.sampled_from([1e-3, 1e-9]))
@settings(max_examples=100, deadline=None)
def test_a_root_of_a_cubic_is_found_to_its_tolerance(root: float, shift: float, rtol: float) -> None:
    cubic = Polynomial.fromroots([root, complex(shift, 1), complex(shift, -1)])
    evaluated = []

    def f(x: float) -> float:
        evaluated.append(x)
        return float(cubic(x).real)

    found = root_between(f, -5.0, 4.0, rtol=rtol)
    assert found == pytest.approx(root, rel=rtol, abs=1e-12)
    assert len(evaluated) <= 45


@pytest.mark.parametrize("power", [1, 3, 9])
@pytest.mark.parametrize("ends", [(-1.0, 2.0), (2.0, -1.0)])
def test_a_flat_root_is_found_from_either_side(power: int, ends: tuple[float, float]) -> None:
    calls = []

    def f(x: float) -> float:
        calls.append(x)
        return (x - 0.7) ** power

    assert root_between(f, *ends, rtol=1e-6) == pytest.approx(0.7, rel=1e-6)
    assert len(calls) < MOST_STEPS


def test_a_root_at_an_end_is_it_and_what_is_not_finite_has_none() -> None:
    assert root_between(lambda x: x - 1, 1.0, 4.0, rtol=1e-6) == 1.0
    assert root_between(lambda x: x - 4, 1.0, 4.0, rtol=1e-6) == 4.0
    assert isnan(root_between(lambda x: x if abs(x) > 0.9 else nan, -1.0, 1.5, rtol=1e-6))
