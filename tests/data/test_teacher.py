"""Regression on the outputs of a random network."""

from __future__ import annotations

import numpy as np
import torch

from eosrepro.data.teacher import teacher


def test_targets_are_those_of_a_tanh_network_and_noise_is_added() -> None:
    """Without noise, of few units: f is odd, and bounded by what the units can add up to."""
    clean = teacher(n_examples=400, dimension=3, width=2, seed=1)
    assert clean.inputs.shape == (400, 3)
    assert clean.targets.shape == (400, 1)
    generator = np.random.default_rng(1)
    inward, outward = generator.standard_normal((2, 3)) / 3**0.5, generator.standard_normal((2, 1)) / 2**0.5
    expected = np.tanh(clean.inputs.numpy() @ inward.T) @ outward
    np.testing.assert_allclose(clean.targets.numpy(), expected, rtol=1e-12)
    noisy = teacher(n_examples=400, dimension=3, width=2, noise=0.5, seed=1)
    assert torch.equal(noisy.inputs, clean.inputs)
    assert abs(float((noisy.targets - clean.targets).std()) - 0.5) < 0.06


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    one, other = (teacher(n_examples=5, dimension=2, n_test=3, seed=seed) for seed in (0, 1))
    again = teacher(n_examples=5, dimension=2, n_test=3, seed=0)
    assert torch.equal(one.inputs, again.inputs)
    assert torch.equal(one.targets, again.targets)
    assert not torch.equal(one.inputs, other.inputs)
    assert one.test is not None
    assert one.test[0].shape == (3, 2)
    assert one.test[1].shape == (3, 1)
    assert teacher(n_examples=5, dimension=2).test is None
