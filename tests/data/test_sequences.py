"""Sequences: sorting, and the characters of a text; from the source to loss and accuracy."""

from __future__ import annotations

import codecs
import hashlib
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from eosrepro import catalog
from eosrepro.core.metrics import on_last_positions
from eosrepro.core.objective import network_objective
from eosrepro.core.problem import network_problem
from eosrepro.core.training import minimise
from eosrepro.core.types import Dataset, Stop
from eosrepro.data.sorting import sorting
from eosrepro.data.text import missing, text, zen
from eosrepro.errors import DataError
from eosrepro.losses.cross_entropy import cross_entropy
from eosrepro.losses.mse import mse
from eosrepro.optimizers.gd import gd
from eosrepro.records.dataset import load_dataset, save_dataset

TEXT = "to be or not to be, that is the question: "


@pytest.mark.parametrize(
    ("name", "options"), [("sorting", {"letters": 3, "length": 5}), ("text", {"length": 7}), ("text", {"length": 1})]
)
def test_what_a_model_of_sequences_is_given(name: str, options: dict[str, int], tmp_path: Path) -> None:
    """Whole numbers as floats, and a class a position that is asked about."""
    made: Dataset = catalog.find("data", name)(n_examples=9, n_test=4, **options)
    assert made.test is not None
    for inputs, targets in ((made.inputs, made.targets), made.test):
        assert inputs.dtype == torch.float32
        assert targets.dtype == torch.int64
        assert torch.equal(inputs, inputs.round())
        assert 0 <= inputs.min() <= inputs.max() < made.n_outputs
        assert targets.shape == (len(inputs), options["length"])
    assert (len(made), len(made.test[0])) == (9, 4)
    again: Dataset = catalog.find("data", name)(n_examples=9, n_test=4, **options)
    assert made.inputs.numpy().tobytes() == again.inputs.numpy().tobytes()
    assert made.provenance == again.provenance
    without: Dataset = catalog.find("data", name)(n_examples=9, **options)
    assert torch.equal(without.targets, made.targets)
    save_dataset(tmp_path, made)
    loaded = load_dataset(tmp_path)
    assert torch.equal(loaded.inputs, made.inputs)
    assert loaded.test is not None
    assert torch.equal(loaded.test[1], made.test[1])


# --- sorting ----------------------------------------------------------------------------------------------------------


def test_each_target_is_the_next_letter_and_the_letters_are_sorted() -> None:
    made = sorting(n_examples=50, letters=4, length=8, n_test=3, seed=2)
    assert made.test is not None
    for inputs, targets in ((made.inputs.long(), made.targets), (made.test[0].long(), made.test[1])):
        assert inputs.shape[1] == 15
        assert torch.equal(inputs[:, :8].sort(1).values, targets)
        assert torch.equal(inputs[:, 8:], targets[:, :-1])
    assert made.n_outputs == 4
    assert set(made.targets.flatten().tolist()) == {0, 1, 2, 3}


def test_the_seed_decides_on_the_sequences_and_more_begin_with_the_same() -> None:
    one, many, other = sorting(n_examples=20), sorting(n_examples=30), sorting(n_examples=20, seed=1)
    assert torch.equal(one.inputs, many.inputs[:20])
    assert not torch.equal(one.inputs, other.inputs)


# --- text -------------------------------------------------------------------------------------------------------------


def write(folder: Path, content: str = TEXT) -> str:
    path = folder / "hamlet.txt"
    path.write_text(content, encoding="utf-8")
    return str(path)


def read_back(numbers: Tensor, vocabulary: str) -> list[str]:
    return ["".join(vocabulary[int(number)] for number in piece) for piece in numbers]


def test_pieces_follow_each_other_and_targets_are_the_next_characters(tmp_path: Path) -> None:
    made = text(path=write(tmp_path), n_examples=3, length=6, n_test=2)
    vocabulary = made.provenance["source"]["vocabulary"]
    assert vocabulary == "".join(sorted(set(TEXT)))
    assert made.n_outputs == len(vocabulary)
    assert read_back(made.inputs, vocabulary) == [TEXT[:6], TEXT[6:12], TEXT[12:18]]
    assert read_back(made.targets, vocabulary) == [TEXT[1:7], TEXT[7:13], TEXT[13:19]]
    assert made.test is not None
    assert read_back(made.test[0], vocabulary) == [TEXT[19:25], TEXT[25:31]]  # TEXT[18] is a target
    assert made.provenance["source"]["text_sha256"] == hashlib.sha256(TEXT.encode()).hexdigest()
    assert made.label == "hamlet.txt"
    assert text(path=write(tmp_path), n_examples=1, length=6, label="Hamlet").label == "Hamlet"


@pytest.mark.parametrize("stride", [1, 4, 9])
def test_pieces_may_overlap_or_leave_gaps_and_the_test_split_is_of_unseen_characters(
    tmp_path: Path, stride: int
) -> None:
    numbered = "".join(chr(0x4E00 + index) for index in range(100))  # each character once
    made = text(path=write(tmp_path, numbered), n_examples=5, length=4, stride=stride, n_test=3)
    assert made.inputs[:, 0].tolist() == [stride * index for index in range(5)]
    assert made.test is not None
    seen = {*made.inputs.flatten().tolist(), *made.targets.flatten().tolist()}
    assert max(seen) < made.test[0].min().item()


def test_the_zen_of_python_is_what_python_prints() -> None:
    printed = subprocess.run([sys.executable, "-c", "import this"], capture_output=True, text=True, check=True).stdout
    assert f"{zen()}\n" == printed
    made = text(n_examples=20, length=32)
    assert made.label == "The Zen of Python"
    assert made.provenance["source"]["text_sha256"] == hashlib.sha256(zen().encode()).hexdigest()
    assert made.provenance["source"]["characters"] == 856


def test_the_zen_is_read_without_a_word(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    assert zen().startswith("The Zen of Python, by Tim Peters")
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(sys.modules, "this", SimpleNamespace(s=codecs.encode("beautiful", "rot13")))
    assert zen() == "beautiful"


def test_a_text_that_is_too_short_is_said_to_be(tmp_path: Path) -> None:
    fits = {"path": write(tmp_path), "length": 6, "n_test": 2}
    text(n_examples=4, **fits)  # type: ignore[arg-type]  # one mapping, several types
    with pytest.raises(DataError, match=r"hamlet\.txt has 42 characters, and .* ask for 44: make one"):
        text(n_examples=5, **fits)  # type: ignore[arg-type]


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere.txt")
    with pytest.raises(DataError, match=r"data\.path: there is no file .*nowhere\.txt: put a text in UTF-8 there"):
        text(path=nowhere, n_examples=1, length=1)
    assert missing(path=nowhere, n_examples=1)
    assert missing(path=write(tmp_path)) is None
    assert missing() is None
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"data\.path: .*bytes is no text in UTF-8 "):
        text(path=str(tmp_path / "bytes"), n_examples=1, length=1)


# --- loss and accuracy ------------------------------------------------------------------------------------------------


class Causal(nn.Module):
    """Outputs at every position from the mean of the embeddings up to it and its own: (n, T) to (n, T, k)."""

    def __init__(self, length: int, n_tokens: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(n_tokens, 6), nn.Parameter(torch.randn(length, 6))
        self.head = nn.Linear(6, n_tokens)

    def forward(self, inputs: Tensor) -> Tensor:
        embedded = self.tokens(inputs.long())
        counts = torch.arange(1, inputs.shape[1] + 1, device=inputs.device)[:, None]
        hidden: Tensor = self.head((embedded.cumsum(1) / counts + self.places).tanh())
        return hidden


def build(input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    return Causal(*input_shape, n_outputs)


@pytest.mark.parametrize("chunk_size", [4, 100])
def test_only_the_sorted_half_counts(chunk_size: int) -> None:
    data = sorting(n_examples=10, length=5)
    objective, theta = network_problem(
        build, cross_entropy(), data, seed=0, dtype=torch.float64, device="cpu", chunk_size=chunk_size
    )
    torch.manual_seed(0)
    outputs = build((9,), 4).double()(data.inputs)[:, 4:]
    found = objective.value_and_grad(theta)
    expected = nn.functional.cross_entropy(outputs.reshape(-1, 4), data.targets.reshape(-1))
    assert found.loss == pytest.approx(expected.item(), rel=1e-12)
    assert found.accuracy == pytest.approx((outputs.argmax(-1) == data.targets).double().mean().item(), rel=1e-12)
    minibatch = objective.batch(torch.tensor([3, 7]))
    expected = nn.functional.cross_entropy(outputs[[3, 7]].reshape(-1, 4), data.targets[[3, 7]].reshape(-1))
    assert minibatch.loss(theta) == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("loss", [cross_entropy(), mse()])
def test_as_many_outputs_as_targets_are_taken_as_they_are(loss: object) -> None:
    data = text(n_examples=6, length=10)
    problem = partial(network_problem, build, seed=0, dtype=torch.float64, device="cpu", chunk_size=100)
    objective, theta = problem(loss, data)  # type: ignore[arg-type]
    module = build((10,), data.n_outputs).double()
    nn.utils.vector_to_parameters(theta, module.parameters())
    plain = network_objective(module, loss, data.inputs, data.targets, chunk_size=100)  # type: ignore[arg-type]
    assert objective.loss(theta) == plain.loss(theta)


def test_numbers_are_never_cut() -> None:
    """Outputs (n, 4, 1) for numbers (n, 2): left for the loss to refuse."""
    shapes = on_last_positions(lambda outputs, _targets: torch.tensor(outputs.shape))
    assert shapes(torch.zeros(3, 4, 1), torch.zeros(3, 2)).tolist() == [3, 4, 1]
    assert shapes(torch.zeros(3, 4, 5), torch.zeros(3, 2, dtype=torch.int64)).tolist() == [3, 2, 5]
    assert shapes(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)).tolist() == [3, 4]


def test_sorting_is_learnt() -> None:
    """The model sees how many of each letter there are: its accuracy rises well above that of the most frequent one."""
    data = sorting(n_examples=60, letters=3, length=4)
    objective, theta = network_problem(
        build, cross_entropy(), data, seed=0, dtype=torch.float32, device="cpu", chunk_size=100
    )
    rows = list(minimise(objective, theta, gd(step_size=0.5), stop=Stop(150)))
    assert rows[-1].loss < rows[0].loss / 2
    assert rows[-1].accuracy > 0.75
