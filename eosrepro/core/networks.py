"""A module as a function of its parameters in one flat vector θ, and the trial that shows whether it is one.

The function is what `module(x)` returns. It must depend on θ and on each example alone: else f would be another one
at every evaluation, or with every chunk size. Two examples show this before anything is trained. Only a model that says
which examples its batch statistics are of (`types.BatchStatistics`) may depend on others: on those of the same group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import TYPE_CHECKING

from eosrepro.core.later import functional, torch
from eosrepro.core.metrics import unlike
from eosrepro.core.sequences import Outputs, first_and_rest, in_a_row
from eosrepro.core.types import Loss
from eosrepro.errors import ConfigError, is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor, nn

    from eosrepro.core.objective import Objective


OF_THETA = "f must be a function of the parameters alone"
BUGS = (NameError, AttributeError)  # of the code, whatever it is given: to be raised as they are
COUPLED = (
    "The loss of an example depends on the examples that are evaluated with it, so f would depend on chunk_size, and "
    f"{OF_THETA}. Batch normalisation does this, and so does a loss that compares examples. Say which examples belong "
    "together (batch_statistics), use nn.LayerNorm or nn.GroupNorm, or fix the statistics (module.eval())"
)


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that θ holds: those that require a gradient, each once where layers share it.

    Raises:
        ConfigError: there are none, or some are complex.
    """
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise ConfigError("the model has no parameters that require a gradient: there is nothing to train")
    if complex_ones := [name for name, parameter in parameters.items() if parameter.is_complex()]:
        raise ConfigError(f"the model's parameter {complex_ones[0]} is complex: make it two real ones")
    return parameters


def flattened(module: nn.Module) -> Tensor:
    """Where the trained parameters stand, (P,).

    Raises:
        ConfigError: they are of several dtypes.
    """
    parameters = trained(module).values()
    if len(dtypes := {str(parameter.dtype) for parameter in parameters}) > 1:
        raise ConfigError(f"the model's parameters are of {' and '.join(sorted(dtypes))}: make it one, module.to(...)")
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


def as_function(module: nn.Module) -> Outputs:
    """What `module(inputs)` returns if the trained parameters are those in θ; all others stay as they are.

    In the dtype of θ, which inputs share: all that is in the module follows it. Buffers are copied, so that what an
    evaluation writes there, as the running statistics of batch normalisation, is in none that follows.
    """
    if plain := in_a_row(module):
        return plain
    from eosrepro.core.onednn import OneDNN

    shapes = {name: parameter.shape for name, parameter in module.named_parameters() if parameter.requires_grad}
    sizes = [shape.numel() for shape in shapes.values()]
    fixed = {name: value for name, value in module.named_parameters() if name not in shapes}
    buffers = dict(module.named_buffers())

    def evaluate(inputs: Tensor, theta: Tensor) -> Tensor:
        pieces = torch.split(theta, sizes)
        parameters = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
        parameters |= {name: value.to(theta.dtype) for name, value in fixed.items() if value.is_floating_point()}
        for name, value in buffers.items():
            parameters[name] = value.to(theta.dtype, copy=True) if value.is_floating_point() else value.clone()
        with _twice_differentiable(), OneDNN():
            outputs: Tensor = torch.func.functional_call(module, parameters, (inputs,))
        return outputs

    return evaluate


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Attention by kernels that have second derivatives; the same ones for losses, gradients and Hessian products."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # without gradients, layers of a transformer would go another way
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def leading_layer(module: nn.Module) -> tuple[int, Outputs] | None:
    """Width of the linear layer with biases that a network begins with, and the layers after it; None where none is."""
    parts = first_and_rest(module)
    if parts is None or parts[0].bias is None or not parts[0].bias.requires_grad:
        return None
    return parts[0].out_features, as_function(parts[1])


@dataclass(frozen=True)
class LinearFirst:
    """A part whose network begins with a linear layer: the first entries of θ, W and b, enter by Z = X Wᵀ + b alone.

    Along a straight line θ + t·d, Z is affine in t: whoever follows the line need not multiply by X at every point.
    """

    inputs: Tensor  # X: (n, n_inputs)
    width: int  # columns of Z
    rest: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (Z, the other entries of θ) → as a part

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        return self.rest(*self.apart(theta))

    def apart(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Z for the layer in θ, or in a direction, and the entries that belong to the layers after it.

        (P,) → (n, width), (P − width·(n_inputs + 1),)
        """
        from eosrepro.core.onednn import linear

        size = self.width * self.inputs.shape[1]
        # The gradient of one split is one vector; each slice would make one of P numbers, most of them 0.
        weights, biases, others = torch.split(theta, [size, self.width, len(theta) - size - self.width])
        return linear(self.inputs, weights.view(self.width, -1), biases), others

    def joined(self, first: Tensor, others: Tensor) -> Tensor:
        """The adjoint of `apart`: ∇ in θ from that in Z and in the other entries.

        (n, width), (P − width·(n_inputs + 1),) → (P,)
        """
        from eosrepro.core.onednn import outer

        size = self.width * self.inputs.shape[1]
        found = first.new_empty(size + self.width + len(others))
        weights, biases, rest = torch.split(found, [size, self.width, len(others)])
        weights.view(self.width, -1).copy_(outer(first, self.inputs))
        torch.sum(first, 0, out=biases)
        rest.copy_(others)
        return found

    @cached_property
    def inner_products(self) -> Tensor:
        """X Xᵀ, (n, n), kept once it has been asked for."""
        from eosrepro.core.onednn import product

        return product(self.inputs, self.inputs)


# --- the trial --------------------------------------------------------------------------------------------------------


def near_by(start: Tensor) -> Tensor:
    """A point near the start, (P,), at no kink, where no parameter is 0 and so hides what comes before it."""
    return start + 0.01 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0)).to(start)


def refuse_unless_function(
    module: nn.Module, outputs: Outputs, loss: Loss, inputs: Tensor, targets: Tensor, theta: Tensor, *, coupled: bool
) -> Tensor:
    """f(θ) on a few examples as `module(x)` gives it, (), found to depend on θ and on each example alone.

    Args:
        outputs: the module as a function.
        inputs: of these examples, (n, ...).
        targets: (n, ...).
        theta: where it is tried, (P,).
        coupled: its batch statistics are declared, so that it may depend on all of the examples, and write to buffers.

    Raises:
        ConfigError: it depends on something else, or the loss does; or they return something of another shape.
    """
    with torch.no_grad(), _holding(module, theta):
        found = _repeated(module, inputs, coupled=coupled)
        together = _losses(loss, found, targets)
        try:
            alone = [] if coupled else [_evaluated(module, example[None]) for example in inputs]
        except ConfigError as error:
            raise ConfigError(f"{error}. {COUPLED}") from error
    losses = [_losses(loss, *one) for one in zip(alone, torch.split(targets, 1), strict=False)]
    if losses and not near(together, torch.cat(losses), found.dtype):
        spread = targets.is_floating_point() and targets.shape != found.shape  # by broadcasting, over all examples
        raise ConfigError(unlike(found, targets) if spread else COUPLED)
    leaf = theta.clone().requires_grad_()
    by_theta = outputs(inputs, leaf)
    if not by_theta.requires_grad or not near(by_theta.detach(), found, found.dtype):
        raise ConfigError(
            "the model does not follow its parameters: with others in their place (torch.func.functional_call) it "
            f"returns something else than with the same ones of its own, and {OF_THETA}. Read them in `forward` as "
            "attributes of the module, and copy them nowhere"
        )
    if not _losses(loss, by_theta, targets).requires_grad:
        raise ConfigError("the loss has no gradient: compute it from the outputs by differentiable operations")
    return together.mean()


def refuse_other_width(outputs: Tensor, targets: Tensor, n_outputs: int) -> None:
    """Refuse outputs, of a few examples, that are not as many as the classes of the data, or as their numbers.

    Raises:
        ConfigError: a model of 1,000 outputs would learn that 990 of them are never right.
    """
    numbers = targets.is_floating_point()
    found, wanted = (outputs[0].numel(), targets[0].numel()) if numbers else (outputs.shape[-1], n_outputs)
    if found != wanted:
        of = "numbers an example" if numbers else "classes"
        raise ConfigError(f"the model has {found} outputs an example, and the data have {wanted} {of}")


def refuse_without_derivatives(objective: Objective, theta: Tensor) -> None:
    try:
        objective.hvp(theta)(theta)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"the Hessian of f cannot be computed: {error}. Use operations that PyTorch differentiates twice"
        ) from error


def refuse_wrong_products(objective: Objective, theta: Tensor) -> None:
    """Hold Hessian products in float64 to central differences of the gradient, half as far apart the second time.

    By truncation the closer one is off by a third of what they differ by, and by a kink of f by twice that. A product
    that is further from it is wrong, unless it is that of differences closer still: a deep network with ReLU and batch
    normalisation may have kinks enough that all others are of a smoothed f.
    """
    hvp, eps = objective.hvp(theta), torch.finfo(theta.dtype).eps
    seeded = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0), dtype=theta.dtype).to(theta)
    direction = (
        functional.normalize(hvp.grad, dim=0) + functional.normalize(theta, dim=0) + functional.normalize(seeded, dim=0)
    )

    def difference(distance: float) -> Tensor:
        ahead, behind = (objective.value_and_grad(theta + t * direction).grad for t in (distance, -distance))
        return (ahead - behind) / (2 * distance)

    step = eps ** (1 / 3)
    product, wide, close = hvp(direction), difference(step), difference(step / 2)
    size = max(product.norm().item(), close.norm().item())
    error, truncation = (product - close).norm().item(), (wide - close).norm().item()
    if error > 0.01 * size and error > 3 * truncation and size * step > 1e3 * eps * hvp.grad.norm().item():
        closer = (difference(step / 10**n) for n in range(1, 6))
        if any((product - each).norm().item() < 0.01 * size for each in closer):
            return
        raise ConfigError(
            "the Hessian of f cannot be computed: PyTorch's second derivatives of it are not those of its gradient. "
            "Some operation has a wrong one, as those of weight_norm are, or a backward of an autograd.Function of "
            "your own that cannot be differentiated: write it out of simpler operations"
        )


def near(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Whether two ways to the same numbers differ by rounding at most: half of the digits of `dtype` agree."""
    tolerance = sqrt(torch.finfo(dtype).eps) * float(one.nan_to_num().abs().max())
    return torch.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True)


@contextmanager
def _holding(module: nn.Module, theta: Tensor) -> Iterator[None]:
    """The module with the parameters in θ, in place, as an optimiser of PyTorch would leave it; all is put back."""
    parameters = list(trained(module).values())
    before = [(tensor, tensor.detach().clone()) for tensor in (*parameters, *module.buffers())]
    pieces = torch.split(theta, [parameter.numel() for parameter in parameters])
    try:
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.copy_(piece.view(parameter.shape))
        yield
    finally:
        for tensor, value in before:
            tensor.copy_(value)


def _repeated(module: nn.Module, inputs: Tensor, *, coupled: bool) -> Tensor:
    """The outputs, the same twice, with no random number drawn and, unless `coupled`, no buffer changed."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    drawn = _random_state(inputs)
    outputs, again = (_evaluated(module, inputs) for _ in range(2))
    changed = [name for name, buffer in module.named_buffers() if not torch.equal(buffer, buffers[name])]
    if changed and not coupled:
        raise ConfigError(
            f"an evaluation of the model changes its buffer {changed[0]}, so the next one could differ, and "
            f"{OF_THETA}. Of batch normalisation, say which examples belong together (batch_statistics), take out its "
            "running statistics, or fix them (module.eval())"
        )
    if not torch.equal(drawn, _random_state(inputs)) or not torch.equal(outputs.nan_to_num(), again.nan_to_num()):
        raise ConfigError(
            f"two evaluations of the model at the same parameters differ, and {OF_THETA}. Take out dropout and all "
            "else that is random, or switch it off (module.eval())"
        )
    return outputs


def _random_state(like: Tensor) -> Tensor:
    on_device = [torch.cuda.get_rng_state(like.device)] if like.is_cuda else []
    return torch.cat([torch.random.get_rng_state(), *on_device])


def _evaluated(module: nn.Module, inputs: Tensor) -> Tensor:
    of = f"{len(inputs)} example{'s' if len(inputs) > 1 else ''} of shape {tuple(inputs.shape[1:])}"
    try:
        outputs: object = module(inputs)
    except Exception as error:
        if is_out_of_memory(error) or isinstance(error, BUGS):
            raise
        raise ConfigError(f"the model cannot be evaluated on {of}: {_first_line(error)}") from error
    if not isinstance(outputs, torch.Tensor):
        raise ConfigError(f"the model returns a {type(outputs).__name__} for {of}, and should return a tensor")
    if outputs.ndim < 2 or len(outputs) != len(inputs) or not outputs.is_floating_point():
        found = f"shape {tuple(outputs.shape)} and {outputs.dtype}"
        raise ConfigError(f"the model returns {found} for {of}, and should return real numbers, (n, ..., n_outputs)")
    return outputs


def _losses(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    try:
        values = loss(outputs.double(), targets)
    except (ConfigError, *BUGS):
        raise
    except Exception as error:
        found = f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)}"
        raise ConfigError(f"the loss cannot be evaluated on {found}: {_first_line(error)}") from error
    if values.shape != targets.shape[:1] or not values.is_floating_point():
        several = values.shape[:1] == targets.shape[:1] and values.ndim > 1
        how = "Take their sum or mean over each example" if several else "Those of PyTorch do so with reduction='none'"
        raise ConfigError(
            f"the loss returns shape {tuple(values.shape)} and {values.dtype} for {len(targets)} example(s); it should "
            f"return one real number each, shape (n,). {how}"
        )
    return values


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
