"""Labels that are wrong on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eosrepro.config.load import load
from eosrepro.core.types import Dataset
from eosrepro.data._common import sha256
from eosrepro.data._label_noise import with_label_noise
from eosrepro.errors import ConfigError
from eosrepro.records.dataset import load_dataset, save_dataset
from eosrepro.stages.build import dataset
from tests.project import alone, small_params, write_params


def data(n_examples: int = 50, n_classes: int = 4, *, positions: tuple[int, ...] = ()) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(n_classes, (n_examples, *positions), generator=generator)
    inputs = torch.randn(n_examples, 3, generator=generator)
    return Dataset(
        inputs, targets, n_classes, "mine", {"source": {"name": "mine"}}, test=(inputs[:2] + 1, targets[:2].clone())
    )


@given(st.integers(1, 60), st.integers(2, 10), st.floats(0, 1), st.integers(0, 9), st.sampled_from([(), (3,)]))
def test_exactly_the_share_is_wrong_and_all_are_classes(
    n_examples: int, n_classes: int, share: float, seed: int, positions: tuple[int, ...]
) -> None:
    before = data(n_examples, n_classes, positions=positions)
    after = with_label_noise(before, share=share, seed=seed)
    assert (after.targets != before.targets).sum() == round(share * before.targets.numel())
    assert after.targets.shape == before.targets.shape
    assert set(after.targets.flatten().tolist()) <= set(range(n_classes))


def test_the_other_classes_are_equally_likely() -> None:
    """3,000 labels that were all 1 among the three others: within five standard errors of a third each."""
    ones = replace(data(3000), targets=torch.ones(3000, dtype=torch.int64))
    counts = torch.bincount(with_label_noise(ones, share=1.0, seed=0).targets, minlength=4).tolist()
    assert counts[1] == 0
    assert all(abs(count - 1000) < 5 * (3000 * 2 / 9) ** 0.5 for count in (counts[0], *counts[2:]))


def test_more_noise_changes_what_less_noise_changed_to_the_same() -> None:
    before = data()
    few, many = (with_label_noise(before, share=share, seed=3).targets for share in (0.2, 0.6))
    wrong = few != before.targets
    assert torch.equal(few[wrong], many[wrong])


def test_the_seed_alone_decides() -> None:
    one, same, other = (with_label_noise(data(), share=0.5, seed=seed).targets for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_it_is_recorded_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    before = data()
    after = with_label_noise(before, share=0.2, seed=5)
    wrong = np.nonzero((after.targets != before.targets).numpy())[0]
    assert after.provenance["label_noise"] == {
        "share": 0.2,
        "seed": 5,
        "changed": 10,
        "indices_sha256": sha256(wrong),
    }
    assert after.provenance["source"] == before.provenance["source"]
    assert after.label == "mine, 20 % of labels wrong"
    assert torch.equal(after.inputs, before.inputs)
    assert after.test is not None
    assert before.test is not None
    assert torch.equal(after.test[1], before.test[1])
    save_dataset(tmp_path, after)
    assert torch.equal(load_dataset(tmp_path).targets, after.targets)


def test_what_has_no_other_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="label_noise is of classes, and the targets of mine are numbers"):
        with_label_noise(replace(data(), targets=torch.zeros(50, 1), test=None), share=0.1, seed=0)
    with pytest.raises(ConfigError, match="mine has one class"):
        with_label_noise(data(n_classes=1), share=0.1, seed=0)


def test_a_profile_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = alone(small_params(), "exp3")
    clean = {"name": "digits", "n_examples": 40}
    made = {}
    for name, source in (("clean", clean), ("noisy", {**clean, "label_noise": 0.25, "noise_seed": 2})):
        params["profiles"]["quick"]["data"] = source
        write_params(tmp_path, params)
        made[name] = dataset(load().active)
    assert (made["clean"].targets != made["noisy"].targets).sum() == 10
    assert torch.equal(made["clean"].inputs, made["noisy"].inputs)
