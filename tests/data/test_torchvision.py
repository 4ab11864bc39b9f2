"""Data sets of torchvision by name: its own reading of tiny files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import SVHN, FakeData

from eosrepro.data.torchvision import missing, torchvision
from eosrepro.errors import ConfigError, DataError
from tests.data.samples import md5, mnist_images, write_mnist


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(datasets.utils.urllib.request, "urlopen", unreachable)


@pytest.mark.parametrize("download", [False, True])
def test_mnist_is_read_as_torchvision_lays_it_out(tmp_path: Path, download: bool) -> None:
    raw = torchvision(dataset="MNIST", root=str(write_mnist(tmp_path)), n_examples=12, n_test=3, download=download)
    pixels, targets = mnist_images()
    assert np.array_equal(raw.pixels, pixels[:12, np.newaxis])
    assert raw.targets.tolist() == targets[:12].tolist()
    assert np.array_equal(raw.population, pixels[:, np.newaxis])
    assert raw.test is not None
    assert np.array_equal(raw.test[0], pixels[:-4:-1, np.newaxis])
    assert raw.test[1].tolist() == targets[:-4:-1].tolist()
    assert (raw.label, raw.n_classes) == ("MNIST", 10)
    assert [raw.source[key] for key in ("name", "dataset", "n_test")] == ["torchvision", "MNIST", 3]
    assert raw.source["rule"] == "first 12 training images"


def test_svhn_has_colours_a_split_and_no_names_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, size=(32, 32, 3, 20), dtype=np.uint8)
    targets = (np.arange(20) % 10 + 1).astype(np.uint8)  # where 10 is a zero
    savemat(tmp_path / "train_32x32.mat", {"X": pixels, "y": targets[:, np.newaxis]})
    entry = ["", "train_32x32.mat", md5(tmp_path / "train_32x32.mat")]
    monkeypatch.setattr(SVHN, "split_list", {"train": entry})
    raw = torchvision(dataset="SVHN", root=str(tmp_path), n_examples=6, classes=3, choose="first_per_class")
    assert raw.targets.tolist() == [0, 1, 2, 0, 1, 2]
    assert np.array_equal(raw.pixels, pixels.transpose(3, 2, 0, 1)[[9, 0, 1, 19, 10, 11]])
    assert torchvision(dataset="SVHN", root=str(tmp_path), n_examples=20).n_classes == 10


def test_what_is_missing_is_one_message_that_says_what_to_do(tmp_path: Path) -> None:
    place = tmp_path / "nowhere"
    with pytest.raises(DataError) as caught:
        torchvision(dataset="FashionMNIST", root=str(place), n_examples=1)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("FashionMNIST", "nowhere", "download: true", "data.root", "profile: quick"):
        assert part in message
    assert missing(dataset="FashionMNIST", root=str(place)) == message
    assert not place.exists()


def test_doctor_is_told_what_will_be_fetched_and_what_is_there(tmp_path: Path) -> None:
    said = missing(dataset="KMNIST", root=str(tmp_path), download=True, n_examples=3)
    assert said
    assert said.startswith("KMNIST is not in ")
    assert missing(dataset="MNIST", root=str(write_mnist(tmp_path)), n_examples=3) is None


def test_a_download_that_fails_is_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^KMNIST cannot be read from .*profile: quick"):
        torchvision(dataset="KMNIST", root=str(tmp_path), n_examples=1, download=True)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("FashionMnist", r"no data set 'FashionMnist' \(did you mean 'FashionMNIST'\?\)"),
        ("utils", r"torchvision has no data set 'utils'"),
        ("FakeData", "has no training and test part"),
        ("CocoDetection", "has no training and test part"),
    ],
)
def test_what_is_no_such_data_set_is_refused(tmp_path: Path, dataset: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        torchvision(dataset=dataset, root=str(tmp_path), n_examples=1)


class Several(FakeData):
    """Generated images, as a set that has a place and parts."""

    sizes: Any = ((3, 8, 8),)
    target: Any = 1

    def __init__(self, root: Path, train: bool, download: bool) -> None:
        super().__init__(size=4)
        self.asked = root, train, download

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.new("RGB", self.sizes[index % len(self.sizes)]), self.target


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sizes": ((8, 8), (8, 9))}, DataError, "the images of Several are of several sizes"),
        ({"sizes": ((8, 8),), "target": [1, 2]}, ConfigError, "not consist of images of 8 bits with one class each"),
    ],
)
def test_images_that_no_network_takes_are_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    monkeypatch.setattr(datasets, "Several", type("Several", (Several,), change), raising=False)
    monkeypatch.setattr(datasets, "__all__", ("Several",))
    with pytest.raises(error, match=message):
        torchvision(dataset="Several", root="", n_examples=1)
