"""The central flow of gradient descent: the path that GD oscillates about."""

from __future__ import annotations

from math import isnan, nan
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypedDict

from eosrepro.core.complementarity import UnsolvableError, complement, symmetric_basis
from eosrepro.core.lanczos import random_unit, top_eigenpairs
from eosrepro.core.later import torch
from eosrepro.core.types import Above, AtLeast, Below, EigenPair, Examples, Geometry, HessianProduct, Iterate, Optimizer
from eosrepro.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

RTOL = 1e-4  # of the top eigenpairs
FAR = 0.75  # of 2/η: while no eigenvalue is above it, they are looked at once an iteration
WEIGHT_OF_RANDOM = 0.1  # beside each eigenvector of before, where a solve starts


class Oscillation(TypedDict):
    """The state: what GD does about the flow at the iterate before, and where the next solve starts."""

    vectors: Tensor  # (m, P): eigenvectors of the m largest eigenvalues, one more than are above FAR
    predicted_loss: float  # f + ½ tr(∇²f Σ): the mean of the loss of GD; NaN at the start
    oscillation_variance: float  # tr Σ, the mean of the squared distance of GD from the flow
    at_edge: int  # how many eigenvalues Σ may be supported on


class _Slope(NamedTuple):
    direction: Tensor  # −dθ/dt, (P,)
    predicted_gain: float  # ½ tr(∇²f Σ)
    variance: float
    at_edge: int


def central_flow(
    step_size: float,
    *,
    substeps: Annotated[int, AtLeast(1)] = 4,
    near: Annotated[float, Above(0), Below(1)] = 0.975,
) -> Optimizer:
    """dθ/dt = −∇(f + ½ tr(∇²f Σ)) with Σ held, over a time η an iteration (Cohen et al. 2025, arXiv 2410.24206).

    Σ is the covariance of the oscillations. It is supported on the eigenvectors whose eigenvalue is at 2/η, and as
    large as it takes to keep them there: Σ = U X Uᵀ, X ⪰ 0, 2/η − Uᵀ∇²f U ⪰ 0, and their product is 0. Where none is
    there, this is gradient flow. An iteration is cut into Euler steps, at the end of which the linearised conditions
    hold. It has no stability threshold.

    Args:
        substeps: Euler steps an iteration.
        near: U are the eigenvectors of the eigenvalues above this share of 2/η; all others should stay below 2/η over
            an Euler step.
    """
    time, edge = step_size / substeps, 2 / step_size

    def init(theta: Tensor) -> Oscillation:
        start = random_unit(theta, torch.Generator().manual_seed(0))[None]
        return Oscillation(vectors=start, predicted_loss=nan, oscillation_variance=nan, at_edge=0)

    def update(at: Iterate, state: Oscillation) -> tuple[Tensor, Oscillation]:
        product = at.examples.hvp(at.theta)
        pairs = _top(product, state["vectors"], FAR * edge)
        first = _slope(at.examples, at.theta, product.grad, pairs)
        theta = at.theta - time * first.direction
        for _ in range(substeps - 1):
            if pairs[0].value > FAR * edge:
                product = at.examples.hvp(theta)
                pairs = _top(product, _stacked(pairs), FAR * edge)
                slope = _slope(at.examples, theta, product.grad, pairs).direction
            else:
                slope = at.examples.value_and_grad(theta).grad
            theta = theta - time * slope
        found = Oscillation(
            vectors=_stacked(pairs),
            predicted_loss=at.loss + first.predicted_gain,
            oscillation_variance=first.variance,
            at_edge=first.at_edge,
        )
        return at.theta - theta, found

    def _slope(examples: Examples, theta: Tensor, grad: Tensor, pairs: list[EigenPair]) -> _Slope:
        critical = [pair for pair in pairs if pair.value > near * edge]
        if not critical:
            return _Slope(grad, 0.0, 0.0, 0)
        basis = symmetric_basis(len(critical))
        values = torch.tensor([pair.value for pair in critical], dtype=torch.float64)
        changes = examples.curvature_grads(theta, _stacked(critical)).double().cpu()  # of Uᵀ∇²f U, (k, k, P)
        along = torch.einsum("aij,ijp->ap", basis, changes)
        residual = torch.diag(edge - values) + time * changes @ grad.double().cpu()
        covariance = _covariance(residual, time / 2 * along @ along.T)
        pull = torch.einsum("ij,ijp->p", covariance, changes).to(grad) / 2
        gain = covariance.diagonal() @ values / 2
        return _Slope(grad + pull, gain.item(), covariance.trace().item(), len(critical))

    def geometry(_at: Iterate, _state: Oscillation) -> Geometry:
        return Geometry(nan)

    return Optimizer(init, update, geometry, threshold_formula="", spans_gradients=True, predicts_loss=True)


def _covariance(residual: Tensor, operator: Tensor) -> Tensor:
    """X.

    Raises:
        ConfigError: there is none.
    """
    try:
        return complement(residual, operator)
    except UnsolvableError as error:
        raise ConfigError(
            f"central_flow: nothing holds gradient descent at its edge, and it would diverge ({error}). Its top "
            "eigenvalues do not fall, however large it oscillates: as on a quadratic"
        ) from error


def _stacked(pairs: list[EigenPair]) -> Tensor:
    return torch.stack([pair.vector for pair in pairs])


def _top(product: HessianProduct, starts: Tensor, level: float) -> list[EigenPair]:
    """The eigenpairs above the level, and one below it, the largest first; all of them where there is none below."""
    generator, size = torch.Generator().manual_seed(1), starts.shape[1]
    starts = torch.stack([start + WEIGHT_OF_RANDOM * random_unit(start, generator) for start in starts])
    while True:
        count = len(starts)
        pairs = top_eigenpairs(product, starts, k=count, rtol=RTOL, max_products=1000)
        above = sum(pair.value > level for pair in pairs)
        if above < count or count == size or isnan(pairs[0].value):
            return pairs[: above + 1]
        starts = torch.cat([_stacked(pairs), random_unit(starts[0], generator)[None]])
