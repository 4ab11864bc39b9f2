"""Many runs of gradient descent on one objective, a step of all of them at once.

A step is then one evaluation with a dimension more, by `torch.func.vmap`, instead of one a run: it pays where a step is
calls rather than arithmetic. It computes what `training.minimise` does of each run, in another order: the results agree
to about 1e-7 in float32 and not bit for bit, and past the edge of stability they part. So it is another program, and
what it finds is never taken for a run by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

from eosrepro.core.later import torch
from eosrepro.core.networks import near, near_by
from eosrepro.core.objective import Objective
from eosrepro.core.training import Products, is_finite, is_over, last_row, refuse_start, row_of
from eosrepro.core.types import Evaluation, Row, Stop
from eosrepro.errors import ConfigError, is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor


def minimise_together(
    objective: Objective,
    starts: Tensor,
    step_sizes: Sequence[float],
    *,
    stop: Stop,
    on_step: Callable[[int, int], None] = lambda _step, _n_runs: None,
) -> list[list[Row]]:
    """The rows of R runs of gradient descent, of each those of `minimise`.

    A run that has ended leaves the batch, and the others go on. Nothing is kept on the way: what is interrupted begins
    anew.

    Args:
        starts: θ₀ of each run, (R, P).
        step_sizes: η of each.
        on_step: is told each iteration, and how many runs come to it.

    Raises:
        ConfigError, DataError: as `minimise`, of any of the runs; or the objective is shared by several ranks.
    """
    if objective.over is not None:
        raise ConfigError("runs are not trained together over several ranks: take one")
    rows: list[list[Row]] = [[] for _ in starts]
    step, at = 0, _begun(objective, starts, step_sizes)
    for here, grad_norm in zip(at.here, at.grad_norms, strict=True):
        refuse_start(step, here, grad_norm, stop)
    while at.runs:
        on_step(step, len(at.runs))
        over = [k for k, here in enumerate(at.here) if is_over(step, here, stop)]
        for k in over:
            rows[at.runs[k]].append(at.last_row(step, k))
        at = at.without(over)
        if not at.runs:
            break
        after, products = _stepped(objective, at)
        lost = []
        for k, (run, here, following) in enumerate(zip(at.runs, at.here, after.here, strict=True)):
            if is_finite(following, after.grad_norms[k]):
                row = row_of(objective, step, here, following, at.grad_norms[k], products[k], at.thresholds[k], {})
            else:
                row = at.last_row(step, k)
                lost.append(k)
            rows[run].append(row)
        step, at = step + 1, after.without(lost)
    return rows


def refuse_unless_batched(objective: Objective) -> None:
    """Try an evaluation of two points together.

    Raises:
        ConfigError: it cannot be made, or finds something else than one at a time.
    """
    theta = torch.stack([near_by(objective.start), objective.start])
    try:
        grads, losses, _ = _evaluated(objective, theta)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise ConfigError(f"runs of this model cannot be evaluated together by torch.func.vmap: {reason}") from error
    alone = objective.value_and_grad(theta[0])
    if not (near(losses[0], losses.new_tensor(alone.loss), theta.dtype) and near(grads[0], alone.grad, theta.dtype)):
        raise ConfigError("runs of this model find other losses or gradients together, by torch.func.vmap, than alone")


class _Batch(NamedTuple):
    """Where the runs stand that are not over, one an entry, or a row."""

    runs: list[int]  # which of all they are
    theta: Tensor  # (k, P)
    grads: Tensor  # (k, P)
    wide: Tensor  # the same in float64, for inner products
    step_sizes: Tensor  # (k, 1)
    thresholds: list[float]
    here: list[Evaluation]
    grad_norms: list[float]

    def without(self, left: Sequence[int]) -> _Batch:
        """The others, those at these places having ended."""
        if not left:
            return self
        stay = [k for k in range(len(self.runs)) if k not in {*left}]
        rows = torch.tensor(stay, dtype=torch.int64).to(self.theta.device)
        return _Batch(
            *(each[rows] if isinstance(each, torch.Tensor) else [each[k] for k in stay] for each in self)  # type: ignore[arg-type]  # in their order
        )

    def last_row(self, step: int, k: int) -> Row:
        """That of the run at place k, which takes no step."""
        return last_row(step, self.here[k], self.grad_norms[k], self.thresholds[k], {})


def _begun(objective: Objective, starts: Tensor, step_sizes: Sequence[float]) -> _Batch:
    grads, losses, scores = _evaluated(objective, starts)
    wide = grads.double()
    here, grad_norms, _ = _read(objective, grads, losses, scores, _dots(wide, wide))
    etas = torch.tensor(step_sizes, dtype=starts.dtype)[:, None].to(starts.device)
    return _Batch([*range(len(starts))], starts, grads, wide, etas, [2 / eta for eta in step_sizes], here, grad_norms)


def _stepped(objective: Objective, at: _Batch) -> tuple[_Batch, list[Products]]:
    """All of them a step further, and the inner products with their steps."""
    update = at.step_sizes * at.grads
    theta = at.theta - update
    grads, losses, scores = _evaluated(objective, theta)
    wide, wide_update = grads.double(), update.double()
    # Of a step much smaller than θ, rounding takes a part, or all.
    taken = _dots(at.theta.double() - theta, wide_update)
    along = (_dots(wide_update, at.wide), _dots(wide_update, wide), _dots(wide_update, wide_update), taken)
    here, grad_norms, products = _read(objective, grads, losses, scores, _dots(wide, wide), *along)
    after = at._replace(theta=theta, grads=grads, wide=wide, here=here, grad_norms=grad_norms)
    return after, [Products(*each) for each in products]


def _evaluated(objective: Objective, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """∇f, f and the sum of the scores at each of the points (k, P): (k, P), (k,) and (k,)."""
    total: tuple[Tensor, ...] = ()
    for part in objective.parts:
        grads, (losses, scores) = torch.func.vmap(torch.func.grad_and_value(part, has_aux=True))(theta)
        found = (grads, losses, scores)
        total = tuple(one + more for one, more in zip(total, found, strict=True)) if total else found
    grads, losses, scores = total
    return grads, losses, scores


def _read(
    objective: Objective, grads: Tensor, losses: Tensor, scores: Tensor, sq_norms: Tensor, *products: Tensor
) -> tuple[list[Evaluation], list[float], list[list[float]]]:
    """What was found of each run, the norms of the gradients, and the other numbers; by one transfer."""
    numbers = torch.stack([each.double() for each in (losses, scores, sq_norms, *products)], dim=1).tolist()
    metric, n_examples = objective.metric, objective.n_examples
    here = [
        Evaluation(loss, grad, **{metric: score / n_examples})
        for (loss, score, *_), grad in zip(numbers, grads.unbind(), strict=True)
    ]
    return here, [sqrt(each[2]) for each in numbers], [each[3:] for each in numbers]


def _dots(ones: Tensor, others: Tensor) -> Tensor:
    """Inner products of the rows of two (k, P), (k,)."""
    return torch.bmm(ones[:, None], others[:, :, None]).flatten()
