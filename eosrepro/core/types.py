"""The nouns of the project: frozen records that one floor hands to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import nan
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np

from eosrepro.core.later import torch
from eosrepro.core.spread import Spread
from eosrepro.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

# Per-example losses ℓ(outputs, targets): (n, ..., n_outputs), (n, ...) → (n,).
Loss: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"

# A function f(θ) of a vector of few numbers: (P,) → ().
Function: TypeAlias = "Callable[[Tensor], Tensor]"


@dataclass(frozen=True)
class AtLeast:
    """What params.yaml may give a number of a member: `width: Annotated[int, AtLeast(1)]`.

    Pydantic asks the annotation itself, so that members need not import it.
    """

    least: float

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(source), "ge": self.least}


@dataclass(frozen=True)
class AtMost:
    """The same at the other end: `depth: Annotated[int, AtLeast(0), AtMost(10_000)]`."""

    most: float

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(source), "le": self.most}


@dataclass(frozen=True)
class Above:
    """A number greater than this one."""

    bound: float

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(source), "gt": self.bound}


@dataclass(frozen=True)
class Below:
    """A number less than this one."""

    bound: float

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(source), "lt": self.bound}


# Of what is kept of a moving mean at each step.
Share = Annotated[float, AtLeast(0), Below(1)]

# Of random numbers: what both PyTorch and NumPy take.
Seed = Annotated[int, AtLeast(0), AtMost(2**63 - 1)]

# Which examples a layer such as batch normalisation sees together: all of them, or fixed groups of so many.
BatchStatistics = Literal["whole"] | Annotated[int, AtLeast(1)]

# Largest residual of an eigenvalue, as a share of it. How small it may be depends on the precision: see `lanczos.py`.
Rtol = Annotated[float, AtLeast(0), AtMost(1)]


@dataclass(frozen=True)
class RawImages:
    """What a data source delivers, before preprocessing.

    Raises:
        DataError: an array has another type, shape or length than is said here, or a target is none of the classes.
    """

    pixels: np.ndarray  # (n, channels, height, width), uint8
    population: (
        np.ndarray
    )  # (n_all, channels, height, width), uint8: all images of the source, for `statistics: source`
    targets: np.ndarray  # (n,), integers in 0..n_classes-1
    n_classes: int
    label: str  # names the data on every figure, e.g. "CIFAR-10"
    source: Mapping[str, Any] = field(default_factory=dict)  # provenance: where the images come from
    test: tuple[np.ndarray, np.ndarray] | None = None  # pixels and targets of images that are not trained on

    def __post_init__(self) -> None:
        for name, images in (("pixels", self.pixels), ("population", self.population)):
            if images.dtype != np.uint8:
                raise DataError(f"{self.label}: {name} are {images.dtype}, should be uint8: scale to 0..255 and round")
            if images.ndim != 4 or not images.size:
                should = "should be (n, channels, height, width), none of them 0"
                raise DataError(f"{self.label}: {name} have the shape {images.shape}, {should}")
        if self.pixels.shape[1:] != self.population.shape[1:]:
            shapes = f"{self.pixels.shape} and {self.population.shape}"
            raise DataError(f"{self.label}: pixels and population have the shapes {shapes}, of images of several sizes")
        if not np.issubdtype(self.targets.dtype, np.integer):
            raise DataError(
                f"{self.label}: targets are {self.targets.dtype}, should be integers, the number of each image's class "
                "from 0 (a source of numbers returns a `Dataset` with float targets)"
            )
        if (shape := self.targets.shape) != (len(self.pixels),):
            one_hot = ": of one-hot targets take argmax(-1)" if len(shape) == 2 and shape[1] > 1 else ""
            found = f"have the shape {shape}, should have ({len(self.pixels)},), one for each image"
            raise DataError(f"{self.label}: targets {found}{one_hot}")
        _check_classes(self.targets, self.n_classes, self.label)


def _check_classes(targets: np.ndarray, n_classes: int, label: str) -> None:
    """Refuse targets, (n, ...), that are none of the classes."""
    wrong = (targets < 0) | (targets >= n_classes)
    if wrong.any():
        outside = np.unique(np.nonzero(wrong)[0])
        others = f" and {len(outside) - 1} more" if len(outside) > 1 else ""
        raise DataError(
            f"{label}: example {outside[0]}{others} has the target {targets[wrong][0]}, "
            f"and the classes are 0..{n_classes - 1} (n_classes = {n_classes})"
        )


def is_classes(targets: Tensor) -> bool:
    """Whether the targets are numbers of classes, so that there is an accuracy."""
    return not targets.is_floating_point()


@dataclass(frozen=True)
class Dataset:
    """Training data as the objective reads it.

    Raises:
        DataError: a number is NaN or infinite, targets are neither classes nor numbers, or examples lack one.
    """

    inputs: Tensor  # (n, ...), floats; of images (n, channels, height, width)
    # (n, ...); classes: int64 in 0..n_outputs-1; numbers: floats. Of sequences, those at the last positions may do
    targets: Tensor
    n_outputs: int  # of a network for these data; the number of classes
    label: str  # names the data on every figure
    provenance: Mapping[str, Any] = field(default_factory=dict)
    test: tuple[Tensor, Tensor] | None = None  # inputs and targets that are not trained on
    spread: Spread | None = None  # over ranks: `inputs` are then those of this one, and targets all
    test_spread: Spread | None = None

    def __post_init__(self) -> None:
        splits = ((self.inputs, self.targets, self.spread), *([(*self.test, self.test_spread)] if self.test else []))
        for inputs, targets, spread in splits:
            if not (targets.is_floating_point() or targets.dtype == torch.int64):
                raise DataError(f"{self.label}: targets are {targets.dtype}, should be int64 (classes) or floats")
            if len(inputs) != (len(spread.here) if spread else len(targets)):
                raise DataError(f"{self.label}: there are {len(inputs)} inputs and {len(targets)} targets")
            for ours, own, what in ((inputs, self.inputs, "inputs"), (targets, self.targets, "targets")):
                if (ours.shape[1:], ours.dtype) != (own.shape[1:], own.dtype):
                    raise DataError(f"{self.label}: {what} of the test split are not like those that are trained on")
            if is_classes(targets):
                _check_classes(targets.numpy(), self.n_outputs, self.label)
            self._check_finite(inputs, "inputs", spread.here.start if spread else 0)
            self._check_finite(targets, "targets")

    def _check_finite(self, numbers: Tensor, what: str, first: int = 0) -> None:
        finite = torch.cat([torch.isfinite(piece[:, None]).flatten(1).all(1) for piece in torch.split(numbers, 1000)])
        if not finite.all():
            examples = (~finite).nonzero().flatten().tolist()
            others = f" and {len(examples) - 1} more" if len(examples) > 1 else ""
            raise DataError(f"{self.label}: example {first + examples[0]}{others} has {what} that are NaN or infinite")

    def __len__(self) -> int:
        return len(self.targets)

    def __str__(self) -> str:
        return f"{self.label}, N = {len(self):,}"


class Evaluation(NamedTuple):
    """f, its gradient and the metric of the targets at one θ."""

    loss: float  # summed in float64
    grad: Tensor  # (P,)
    accuracy: float = nan  # of classes; NaN where the targets are numbers, or there are none
    r2: float = nan  # R² of numbers


class HessianProduct(Protocol):
    """The map v ↦ ∇²f(θ) v at one θ."""

    @property
    def grad(self) -> Tensor: ...  # (P,), ∇f(θ), from the pass that all products share

    def __call__(self, vector: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class EigenPair:
    """One eigenpair of a symmetric matrix, with the evidence for it."""

    value: float
    vector: Tensor  # (P,), unit norm
    residual: float  # ‖A v − λ v‖, same unit as the value
    products: int  # matrix-vector products spent on the whole computation


class HasGradient(Protocol):
    """The mean of the loss over some examples."""

    def value_and_grad(self, theta: Tensor) -> Evaluation: ...


class Examples(HasGradient, Protocol):
    """What an optimizer may see of the objective beside ∇f(θ_t): f elsewhere, its Hessian, and some of its examples."""

    @property
    def n_examples(self) -> int: ...

    def batch(self, indices: Tensor) -> HasGradient:
        """The same on the examples with these indices, (n,)."""
        ...

    def hvp(self, theta: Tensor) -> HessianProduct:
        """The map v ↦ ∇²f(θ) v."""
        ...

    def curvature_grads(self, theta: Tensor, vectors: Tensor) -> Tensor:
        """∇_θ ⟨v_i, ∇²f(θ) v_j⟩ for all pairs of the vectors (k, P), (k, k, P)."""
        ...


class Iterate(NamedTuple):
    """Where an optimizer stands."""

    theta: Tensor  # θ_t, (P,)
    grad: Tensor  # ∇f(θ_t), over all examples
    examples: Examples
    loss: float  # f(θ_t)


class Geometry(NamedTuple):
    """Where a method stands against its edge: on a quadratic it is stable while λ_max(P⁻¹∇²f) < threshold.

    λ_max(P^-½ ∇²f P^-½), which is the same, is the effective sharpness.
    """

    threshold: float
    preconditioner: Tensor | float | None = None  # P, a diagonal (P,) or a multiple of the identity; None: the identity


OF_GRADIENT_STEPS = "2/η"


class Optimizer(NamedTuple):
    """A first-order method as pure functions. From one recorded iterate to the next it takes a step, or an epoch."""

    init: Callable[[Tensor], Any]  # θ_0 → state, see `Position`
    update: Callable[[Iterate, Any], tuple[Tensor, Any]]  # (θ_t, state) → (u_t = θ_t − θ_{t+1}, state)
    geometry: Callable[[Iterate, Any], Geometry]  # (θ_t, state) → that of the step which `update` would take
    threshold_formula: str  # of the threshold, on figures: 2/η; "" and a threshold of NaN: there is none
    # (number of examples, t) → indices of the minibatches between θ_t and θ_{t+1}; None: it uses all examples at once
    minibatches: Callable[[int, int], Sequence[Tensor]] | None = None
    preconditioned: bool = False  # its geometry has a preconditioner: the threshold is one of the effective sharpness
    spans_gradients: bool = False  # its steps are sums of gradients, the same in all orthonormal coordinates of θ
    predicts_loss: bool = False  # of gradient descent: what the diagnostic `predicted_loss` tells is in its state

    @property
    def takes_gradient_steps(self) -> bool:
        """Whether its steps are η times a gradient, with η constant: those of GD and SGD, whose threshold is 2/η."""
        return self.threshold_formula == OF_GRADIENT_STEPS and not self.preconditioned


class Position(NamedTuple):
    """Where a run stands, and all that it needs to go on from there."""

    step: int
    theta: Tensor  # θ_t, (P,)
    state: Any  # of the optimizer: numbers and tensors, in lists, tuples or dicts


class Visited(NamedTuple):
    """One iterate, as what is observed at every iteration sees it."""

    step: int
    theta: Tensor  # θ_t, (P,)
    grad: Tensor  # ∇f(θ_t)
    loss: float
    start: Tensor  # θ_0


# (an iterate, the next one) → numbers by name, as a dataclass or a mapping
Observation = Callable[[Visited, Visited], Any]


@dataclass(frozen=True)
class Stop:
    """When a run ends: at whichever comes first."""

    max_steps: int
    accuracy: float | None = None  # training accuracy to reach, in 0..1
    loss_above: float | None = None  # a loss above this counts as divergence; None: only a non-finite loss does


@dataclass(frozen=True)
class Row:
    """What is recorded of one iteration: all that RP and L of any optimiser need.

    The three quantities of the step u_t = θ_t − θ_{t+1} are NaN in the last row of a run, which takes no step.
    """

    step: int
    loss: float  # f(θ_t)
    accuracy: float
    grad_norm: float  # ‖∇f(θ_t)‖
    update_dot_grad: float  # ⟨u_t, ∇f(θ_t)⟩
    update_dot_next_grad: float  # ⟨u_t, ∇f(θ_{t+1})⟩
    update_sq_norm: float  # ‖u_t‖²
    relative_progress: float  # [f(θ_{t+1}) − f(θ_t)] / ⟨u_t, ∇f(θ_t)⟩; for GD Definition 1 of Ahn et al. 2022
    directional_smoothness: float  # ⟨u_t, ∇f(θ_t) − ∇f(θ_{t+1})⟩ / ‖u_t‖²; Definition 2 with v = u_t
    stability_threshold: float  # of the method at θ_t: 2/η for GD
    observed: Mapping[str, float] = field(default_factory=dict)  # of this iterate and the next; NaN in the last row

    @classmethod
    def of(cls, columns: Mapping[str, float]) -> Row:
        """The row that has these columns."""
        own = {each.name: columns[each.name] for each in fields(cls) if each.name != "observed"}
        observed = {name: value for name, value in columns.items() if name not in own}
        return cls(**own | {"step": int(own["step"])}, observed=observed)  # type: ignore[arg-type]  # a mapping has one type

    @property
    def columns(self) -> dict[str, float]:
        """By name, as in trajectory.csv: its own numbers, and then those that were observed."""
        return {name: value for name, value in vars(self).items() if name != "observed"} | {**self.observed}


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    reason: str  # "accuracy", "max_steps" or "diverged"
    steps: int  # gradient steps taken up to the last recorded iteration
    loss: float
    accuracy: float
