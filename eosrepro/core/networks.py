"""A module as a function of its parameters in one flat vector θ, and the trial that shows whether it is one.

The function is what `module(x)` returns. It must depend on θ and on each example alone: else f would be another one
at every evaluation, or with every `compute.chunk_size`. Two examples show this before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import sqrt
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from eosrepro.core.types import Loss
from eosrepro.errors import ConfigError, is_out_of_memory

# (inputs (n, ...), θ (P,)) → outputs (n, n_outputs)
Outputs = Callable[[Tensor, Tensor], Tensor]
Layer = TypeVar("Layer", bound=nn.Module)

OF_THETA = "f must be a function of the parameters alone"
COUPLED = (
    "The loss of an example depends on the examples that are evaluated with it, so f would depend on "
    f"compute.chunk_size, and {OF_THETA}. Batch normalisation does this, and so does a loss that compares examples: "
    "use nn.LayerNorm or nn.GroupNorm, or statistics that are fixed (module.eval())"
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

    In the dtype of θ, which inputs share: all that is in the module follows it.
    """
    shapes = {name: parameter.shape for name, parameter in module.named_parameters() if parameter.requires_grad}
    sizes = [shape.numel() for shape in shapes.values()]
    others = {name: value for name, value in _tensors(module) if name not in shapes and value.is_floating_point()}

    def evaluate(inputs: Tensor, theta: Tensor) -> Tensor:
        pieces = torch.split(theta, sizes)
        parameters = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
        parameters |= {name: value.to(theta.dtype) for name, value in others.items() if value.dtype != theta.dtype}
        with _twice_differentiable():
            outputs: Tensor = functional_call(module, parameters, (inputs,))
        return outputs

    return evaluate


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Attention by kernels that have second derivatives; the same ones for losses, gradients and Hessian products."""
    fast = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)  # without gradients, layers of a transformer would go another way
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(fast)


def leading_layer(module: nn.Module) -> tuple[int, Outputs] | None:
    """Width of the linear layer that a network begins with, and the layers after it; None where this is not certain.

    It is where the module is a plain sequence, nothing is hooked to its first layers or put in their place, and θ
    begins with the weights and biases of that layer, which no other layer shares.
    """
    if not _is_plain(module, nn.Sequential) or len(module) < 2:
        return None
    flatten, first, *others = module
    if not _is_plain(flatten, nn.Flatten) or (flatten.start_dim, flatten.end_dim) != (1, -1):
        return None
    if not _is_plain(first, nn.Linear):
        return None
    rest = nn.Sequential(*others)
    of_layers = [first.weight, first.bias, *(parameter for parameter in rest.parameters() if parameter.requires_grad)]
    in_theta = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if [id(parameter) for parameter in of_layers] != [id(parameter) for parameter in in_theta]:
        return None
    return first.out_features, as_function(rest)


def _is_plain(layer: nn.Module, kind: type[Layer]) -> TypeGuard[Layer]:
    """Whether to call the layer is to call the forward of this very class, and nothing else."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is kind and "forward" not in vars(layer) and not any(hooks)


# --- the trial --------------------------------------------------------------------------------------------------------


def near_by(start: Tensor) -> Tensor:
    """A point near the start, (P,), at no kink, where no parameter is 0 and so hides what comes before it."""
    return start + 0.01 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0)).to(start)


def refuse_unless_function(
    module: nn.Module, outputs: Outputs, loss: Loss, inputs: Tensor, targets: Tensor, theta: Tensor
) -> Tensor:
    """f(θ) on two examples as `module(x)` gives it, (), found to depend on θ and on each example alone.

    Args:
        outputs: the module as a function.
        inputs: of two examples, (2, ...).
        targets: (2,).
        theta: where it is tried, (P,).

    Raises:
        ConfigError: it depends on something else, or the loss does; or they return something of another shape.
    """
    with torch.no_grad(), _holding(module, theta):
        found = _repeated(module, inputs)
        together = _losses(loss, found, targets)
        try:
            alone = [_evaluated(module, example[None]) for example in inputs]
        except ConfigError as error:
            raise ConfigError(f"{error}. {COUPLED}") from error
    separate = torch.cat([_losses(loss, *one) for one in zip(alone, torch.split(targets, 1), strict=True)])
    if not near(together, separate, found.dtype):
        raise ConfigError(COUPLED)
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


def near(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Whether two ways to the same numbers differ by rounding at most: half of the digits of `dtype` agree."""
    tolerance = sqrt(torch.finfo(dtype).eps) * float(one.nan_to_num().abs().max())
    return torch.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True)


@contextmanager
def _holding(module: nn.Module, theta: Tensor) -> Iterator[None]:
    """The module with the parameters in θ, in place, as an optimiser of PyTorch would leave it."""
    parameters = list(trained(module).values())
    before = [parameter.detach().clone() for parameter in parameters]
    pieces = torch.split(theta, [parameter.numel() for parameter in parameters])
    try:
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.copy_(piece.view(parameter.shape))
        yield
    finally:
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)


def _repeated(module: nn.Module, inputs: Tensor) -> Tensor:
    """The outputs, the same twice, with no random number drawn and no buffer changed."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    drawn = _random_state(inputs)
    outputs, again = (_evaluated(module, inputs) for _ in range(2))
    changed = [name for name, buffer in module.named_buffers() if not torch.equal(buffer, buffers[name])]
    if changed:
        raise ConfigError(
            f"an evaluation of the model changes its buffer {changed[0]}, so the next one could differ, and "
            f"{OF_THETA}. Take out running statistics, as batch normalisation has them, or fix them (module.eval())"
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
        if is_out_of_memory(error):
            raise
        raise ConfigError(f"the model cannot be evaluated on {of}: {_first_line(error)}") from error
    if not isinstance(outputs, Tensor):
        raise ConfigError(f"the model returns a {type(outputs).__name__} for {of}, and should return a tensor")
    if outputs.ndim != 2 or len(outputs) != len(inputs) or not outputs.is_floating_point():
        found = f"shape {tuple(outputs.shape)} and {outputs.dtype}"
        raise ConfigError(f"the model returns {found} for {of}, and should return real numbers, (n, n_outputs)")
    return outputs


def _losses(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    try:
        values = loss(outputs.double(), targets)
    except Exception as error:
        found = f"outputs of shape {tuple(outputs.shape)} and targets of shape {tuple(targets.shape)}"
        raise ConfigError(f"the loss cannot be evaluated on {found}: {_first_line(error)}") from error
    if values.shape != targets.shape or not values.is_floating_point():
        raise ConfigError(
            f"the loss returns shape {tuple(values.shape)} and {values.dtype} for {len(targets)} example(s); it should "
            "return one real number each, shape (n,). Those of PyTorch do so with reduction='none'"
        )
    return values


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
