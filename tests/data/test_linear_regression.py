"""Linear regression on white inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eosrepro.data.linear_regression import linear_regression
from eosrepro.errors import ConfigError


@given(st.integers(1, 12), st.integers(0, 8), st.integers(0, 5))
def test_inputs_are_white_and_targets_linear_in_them(dimension: int, more: int, seed: int) -> None:
    n = dimension + more
    made = linear_regression(n_examples=n, dimension=dimension, n_test=3, seed=seed)
    x, y = made.inputs.numpy(), made.targets.numpy()
    assert x.shape == y.shape == (n, dimension)
    np.testing.assert_allclose(x.T @ x / n, np.eye(dimension), atol=1e-12)
    matrix = y.T @ x / n  # least squares, as the inputs are white
    np.testing.assert_allclose(x @ matrix.T, y, atol=1e-10)
    assert made.test is not None
    np.testing.assert_allclose(made.test[0].numpy() @ matrix.T, made.test[1].numpy(), atol=1e-10)
    assert made.n_outputs == dimension


def test_the_matrix_is_standard_normal() -> None:
    """2,500 numbers of the paper's size: their mean and mean square within five standard errors."""
    made = linear_regression(n_examples=50, dimension=50)
    matrix = (made.targets.T @ made.inputs / 50).flatten()
    assert abs(matrix.mean()) < 5 / 50
    assert abs(matrix.square().mean() - 1) < 5 * 2**0.5 / 50


def test_the_sharpness_of_one_linear_layer_is_that_of_white_inputs() -> None:
    """The Hessian of ½‖Wx − y‖² in W is 1 ⊗ XᵀX/n = 1."""
    made = linear_regression(n_examples=6, dimension=3)

    def loss(weights: torch.Tensor) -> torch.Tensor:
        return (made.inputs @ weights.reshape(3, 3).T - made.targets).square().sum() / 12

    hessian = torch.autograd.functional.hessian(loss, torch.zeros(9, dtype=torch.float64))
    torch.testing.assert_close(hessian, torch.eye(9, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_seed_alone_decides_and_the_test_split_changes_nothing() -> None:
    one, same = linear_regression(n_examples=8, dimension=4), linear_regression(n_examples=8, dimension=4, n_test=5)
    assert torch.equal(one.inputs, same.inputs)
    assert torch.equal(one.targets, same.targets)
    assert not torch.equal(one.targets, linear_regression(n_examples=8, dimension=4, seed=1).targets)


def test_fewer_examples_than_dimensions_cannot_be_white() -> None:
    with pytest.raises(ConfigError, match=r"data\.n_examples is 3 and data\.dimension 4: take at least as many"):
        linear_regression(n_examples=3, dimension=4)
