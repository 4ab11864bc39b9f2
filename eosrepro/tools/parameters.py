"""The parameters of a network where a run stood, by their names in the module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.config.params import Config
from eosrepro.core.later import torch
from eosrepro.core.networks import trained
from eosrepro.errors import ConfigError
from eosrepro.records.places import train_folder
from eosrepro.records.runs import load_origin
from eosrepro.records.snapshots import load_snapshot, snapshot_paths
from eosrepro.stages import outdated
from eosrepro.stages.build import module_shapes, problem
from eosrepro.stages.recorded import data_of, origin_now

if TYPE_CHECKING:
    from torch import Tensor


def parameters_at(config: Config, name: str, step: int | None) -> tuple[int, dict[str, Tensor]]:
    """An iteration, the last snapshot where `step` is None, and the parameters at it, by name.

    They are of the network itself, also where it was trained in the row space of its inputs.

    Raises:
        ConfigError: a problem has no network, or there is no snapshot of that iteration.
        StoreError: the run was trained with other settings than those of now, or not at all.
    """
    run = config.run(name)
    if not run.has_examples:
        raise ConfigError(f"{name} is a problem: its θ is in its trajectory's snapshots, and no network has it")
    folder = train_folder(run.experiment, run.name)
    data = data_of([run])
    assert data
    outdated.refuse_other(run, load_origin(folder), origin_now(run, data, ""))
    by_step = {int(path.stem): path for path in snapshot_paths(folder / "snapshots")}
    at = max(by_step) if step is None else step
    if at not in by_step:
        raise ConfigError(f"{name} has no snapshot at iteration {at}: there are those of {_listed(list(by_step))}")
    objective, start = problem(run, data)
    theta = load_snapshot(by_step[at]).theta.to(start)
    if objective.row_space:
        theta = objective.row_space.parameters(theta)
    shapes = {name: parameter.shape for name, parameter in trained(module_shapes(run, data)).items()}
    pieces = torch.split(theta, [shape.numel() for shape in shapes.values()])
    return at, {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) if len(steps) < 5 else f"{steps[0]}, {steps[1]}, ..., {steps[-1]}"
