"""What the settings of params.yaml stand for: data, objectives and optimizers, ready to be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from eosrepro import catalog
from eosrepro.config.members import Member
from eosrepro.config.runs import Run
from eosrepro.config.sections import Profile
from eosrepro.core.device import dtype_of, has_fast_bfloat16
from eosrepro.core.later import torch
from eosrepro.core.networks import trained
from eosrepro.core.objective import Objective
from eosrepro.core.problem import function_problem, network_problem
from eosrepro.core.row_space import size_in_row_space
from eosrepro.core.types import Dataset
from eosrepro.data._label_noise import with_label_noise
from eosrepro.data._preprocessing import preprocess
from eosrepro.errors import REDUCE_MEMORY, ConfigError, EosreproError, is_out_of_memory
from eosrepro.stages.processes import free_memory

if TYPE_CHECKING:
    from torch import Tensor, nn


def dataset(profile: Profile) -> Dataset:
    """The data of a profile, made afresh from its source; images are preprocessed, and labels made wrong.

    Raises:
        ConfigError: they are images and the profile does not say how, or they are not and it does; or the targets have
            no classes to be wrong.
    """
    made, chosen = _made(profile), profile.data
    return with_label_noise(made, share=chosen.label_noise, seed=chosen.noise_seed) if chosen.label_noise else made


def _made(profile: Profile) -> Dataset:
    made = member("data", profile.data)()
    if isinstance(made, Dataset):
        if profile.preprocessing:
            raise ConfigError(f"{profile.data.name} has no images: leave preprocessing out of the profile")
        return made
    if profile.preprocessing is None:
        raise ConfigError(f"{profile.data.name} has images: say how they are preprocessed, `preprocessing: {{...}}`")
    return preprocess(made, **profile.preprocessing.model_dump())


def test_split_of(data: Dataset | None) -> Dataset:
    """The test split as data.

    Raises:
        ConfigError: there is none.
    """
    if data is None or data.test is None:
        raise ConfigError("the data of the profile has no test split: write n_test beside its n_examples")
    inputs, targets = data.test
    return replace(data, inputs=inputs, targets=targets, test=None, spread=data.test_spread, test_spread=None)


def on_test_split(run: Run, data: Dataset | None, objective: Objective) -> Objective:
    """The objective of a run on the test split of its data, in the same θ."""
    there, _ = problem(run, test_split_of(data), reduced=False)
    return there if objective.row_space is None else there.through(objective.row_space.parameters)


def problem(run: Run, data: Dataset | None, *, reduced: bool = True) -> tuple[Objective, Tensor]:
    """The objective of a run and its start θ₀, with threads and precision set for it; a function needs no data.

    Args:
        reduced: in the row space of the inputs, where the run is; else in the parameters of the network.

    Raises:
        ConfigError: the device is not there.
        EosreproError: the model cannot be trained in the memory that is free.
    """
    setting, compute = run.setting, run.compute
    torch.set_num_threads(compute.threads)
    if setting.problem and setting.start:
        return function_problem(member("problems", setting.problem)(), setting.start)
    assert data is not None
    assert setting.model
    assert setting.loss
    assert setting.seed is not None
    _check_memory(run.name, n_parameters(run, data), dtype_of(compute.dtype), device(compute.device))
    return network_problem(
        member("models", setting.model),
        member("losses", setting.loss)(),
        data,
        seed=setting.seed,
        dtype=dtype_of(compute.dtype),
        device=device(compute.device),
        chunk_size=compute.chunk_size,
        reduce_inputs=reduced and reduces(run),
        rough=is_rough(compute.krylov, device(compute.device)),
    )


def reduces(run: Run) -> bool:
    """Whether it is trained in the row space of its inputs, if its network has one.

    What is observed must not hang on the coordinates of θ: who knows that of a member of others?
    """
    asked = run.compute.reduce_inputs and run.method.spans_gradients
    return asked and all(is_ours("observations", each.name) for each in run.setting.observe.values())


def is_ours(kind: str, name: str) -> bool:
    """Whether a member is one of this package: of θ they use inner products alone, which all coordinates agree in."""
    return str(catalog.find(kind, name).__module__).startswith("eosrepro.")


def is_rough(krylov: str, on: str) -> bool:
    """Whether eigensolves start in bfloat16."""
    return krylov == "bfloat16" or (krylov == "auto" and has_fast_bfloat16(on))


def device(setting: str) -> str:
    """`cpu` or `cuda`; `auto` means the GPU where there is one.

    Raises:
        ConfigError: `cuda` is asked for and there is none. Nothing else is taken in its place.
    """
    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if setting == "cuda" and not torch.cuda.is_available():
        raise ConfigError("compute.device is cuda, and PyTorch finds no GPU here: set it to cpu or auto")
    return setting


def member(kind: str, chosen: Member) -> Callable[..., Any]:
    """The function that a member stands for, with its options."""
    return partial(catalog.find(kind, chosen.name), **chosen.options)


def n_parameters(run: Run, data: Dataset) -> int:
    """Number of parameters P of the network of a run on these data; nothing is computed.

    Raises:
        EosreproError: it has more numbers than PyTorch can count.
    """
    return sum(parameter.numel() for parameter in trained(module_shapes(run, data)).values())


def n_coordinates(run: Run, data: Dataset) -> int:
    """How many numbers θ is: P, or fewer in the row space of the inputs."""
    reduced = size_in_row_space(module_shapes(run, data), len(data)) if reduces(run) else None
    return n_parameters(run, data) if reduced is None else reduced


def module_shapes(run: Run, data: Dataset) -> nn.Module:
    """The network without its numbers."""
    model = run.setting.model
    assert model
    try:
        with torch.device("meta"):
            module: nn.Module = member("models", model)(tuple(data.inputs.shape[1:]), data.n_outputs)
    except (RuntimeError, TypeError, OverflowError) as error:
        large = is_out_of_memory(error) or "overflow" in str(error).lower()
        if catalog.place_of(error) and not large:  # a bug of the member
            raise
        reason = str(error).splitlines()[0]
        raise EosreproError(
            f"PyTorch cannot make the model {model.name} of this size ({reason}): {REDUCE_MEMORY}"
        ) from None
    return module


def _check_memory(name: str, parameters: int, dtype: torch.dtype, on: str) -> None:
    # The module, two iterates, their gradients and the update; three of these in float64 for inner products.
    needed = parameters * (6 * dtype.itemsize + 3 * 8)
    if needed > (free := torch.cuda.mem_get_info()[0] if on == "cuda" else free_memory()):
        raise EosreproError(
            f"{name} has {parameters:,} parameters, and to train it takes at least {needed / 1e9:.1f} GB of memory; "
            f"{free / 1e9:.1f} GB are free. {REDUCE_MEMORY}"
        )
