"""Wrong labels on purpose: a share of the training data gets other classes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eosrepro.core.later import torch
from eosrepro.core.types import Dataset, is_classes
from eosrepro.data._common import permutation, sha256
from eosrepro.errors import ConfigError


def with_label_noise(data: Dataset, *, share: float, seed: int) -> Dataset:
    """The same data, where so large a share of the training targets have a class drawn anew among the others.

    With the same seed, the targets changed by a smaller share are among those of a larger one, and change to the same.
    Where an example has several classes, each of them counts. The test split stays as it is.

    Raises:
        ConfigError: the targets are numbers, or all of one class.
    """
    if not is_classes(data.targets):
        raise ConfigError(f"data.label_noise is of classes, and the targets of {data.label} are numbers: leave it out")
    if data.n_outputs < 2:
        raise ConfigError(f"data.label_noise: {data.label} has one class, and there is no other")
    before = data.targets.flatten()
    count = round(share * len(before))
    changed = permutation(len(before), seed)[:count]
    further = np.random.default_rng([seed, 1]).integers(1, data.n_outputs, size=len(before))[:count]
    after, at = before.clone(), torch.from_numpy(changed)
    after[at] = (before[at] + torch.from_numpy(further)) % data.n_outputs
    record = {"share": share, "seed": seed, "changed": count, "indices_sha256": sha256(np.sort(changed))}
    return replace(
        data,
        targets=after.reshape(data.targets.shape),
        label=f"{data.label}, {100 * share:.3g} % of labels wrong",
        provenance={**data.provenance, "label_noise": record},
    )
