"""The baselines of `eosrepro bench` find what the fast ways find: otherwise they would be no baselines."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import baselines
from eosrepro.core import onednn
from eosrepro.core.objective import LinearFirst
from eosrepro.core.problem import network_problem
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.models.mlp import mlp
from tests.conftest import dense_hessian, small_dataset, small_problem

SMALL = partial(mlp, width=6, depth=2)


@pytest.mark.parametrize("library", [baselines.PYTORCH, baselines.FASTER], ids=["PyTorch", "faster"])
def test_the_floors_are_the_matrix_products(library: baselines.Library) -> None:
    alone = baselines.MatrixProducts(50, (3072, 200, 200, 10), "cpu", library)
    large, later = 2 * 50 * 3072 * 200, 2 * 50 * (200 * 200 + 200 * 10)
    expected = {"graph": large + 3 * later, "gradient": 2 * large + 3 * later, "hessian_product": 2 * large + 6 * later}
    for name, operations in expected.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(onednn, "_is_faster", lambda: False)  # what is not public is not counted
            getattr(alone, name)()
        assert counter.get_total_flops() == operations, name


def test_the_reference_code_takes_the_steps_of_gd_and_finds_the_largest_eigenvalue_of_the_dense_hessian() -> None:
    data = small_dataset()
    problem = partial(network_problem, SMALL, cross_entropy(), data, seed=0, dtype=torch.float64, device="cpu")
    objective, theta = problem(chunk_size=len(data))
    module = SMALL(tuple(data.inputs.shape[1:]), data.n_outputs).double()
    vector_to_parameters(theta.clone(), module.parameters())
    reference = baselines.Reference(module, data.inputs.double(), data.targets, step_size=0.4, batch_size=13)

    value, n_products = reference.sharpness()
    assert value == pytest.approx(float(torch.linalg.eigvalsh(dense_hessian(objective, theta))[-1]), rel=1e-5)
    assert n_products >= 20

    here = objective.value_and_grad(theta)
    assert reference.step() == (pytest.approx(here.loss), pytest.approx(here.accuracy))
    assert torch.allclose(parameters_to_vector(module.parameters()), theta - 0.4 * here.grad)


def test_without_its_first_layer_known_a_function_is_the_same() -> None:
    objective, theta = small_problem(chunk_size=13)
    general = baselines.without_first_layer(objective)
    assert all(isinstance(part, LinearFirst) for part in objective.parts)
    assert not any(isinstance(part, LinearFirst) for part in general.parts)
    assert torch.equal(general.value_and_grad(theta).grad, objective.value_and_grad(theta).grad)
