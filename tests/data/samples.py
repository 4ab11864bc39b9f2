"""Small data sets on disk, in the layouts that the sources read."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def write_image_folder(root: Path, *, classes: int = 2, per_class: int = 15, size: tuple[int, int] = (6, 4)) -> Path:
    """PNG images of noise, `size` is (height, width); `<root>/class<c>/<i>.png`."""
    generator = np.random.default_rng(0)
    for number in range(classes):
        folder = root / f"class{number}"
        folder.mkdir(parents=True)
        for index in range(per_class):
            pixels = generator.integers(0, 256, size=(*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:04d}.png")
    return root


def cifar10_images() -> tuple[np.ndarray, np.ndarray]:
    """The pixels (25, 3, 32, 32) and classes (25,) of the training set that `write_cifar10` writes."""
    generator = np.random.default_rng(1)
    return generator.integers(0, 256, size=(25, 3, 32, 32), dtype=np.uint8), generator.integers(0, 10, size=25)


def write_cifar10(root: Path, patch: pytest.MonkeyPatch) -> Path:
    """A tiny cifar-10-python.tar.gz with five batches of five images, and torchvision told its checksums."""
    from torchvision.datasets import CIFAR10

    pixels, targets = cifar10_images()
    content = root / "packed" / CIFAR10.base_folder
    content.mkdir(parents=True)
    for index, name in enumerate(BATCHES):
        chosen = slice(5 * (index % 5), 5 * (index % 5) + 5)
        batch = {"data": pixels[chosen].reshape(5, -1), "labels": targets[chosen].tolist()}
        (content / name).write_bytes(_as_an_old_numpy(pickle.dumps(batch, protocol=2)))
    (content / CIFAR10.meta["filename"]).write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))

    data = root / "data"
    data.mkdir()
    with tarfile.open(data / CIFAR10.filename, "w:gz") as archive:
        archive.add(content, arcname=CIFAR10.base_folder)
    patch.setattr(CIFAR10, "tgz_md5", md5(data / CIFAR10.filename))
    patch.setattr(CIFAR10, "train_list", [[name, md5(content / name)] for name in BATCHES[:5]])
    patch.setattr(CIFAR10, "test_list", [[name, md5(content / name)] for name in BATCHES[5:]])
    patch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(content / CIFAR10.meta["filename"])})
    return data


def mnist_images(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (count, 28, 28) and classes (count,), every one of ten often enough."""
    generator = np.random.default_rng(2)
    return generator.integers(0, 256, size=(count, 28, 28), dtype=np.uint8), np.arange(count) % 10


def write_mnist(root: Path) -> Path:
    """Tiny files in MNIST's format where torchvision looks for them; the test set are the same, from last to first."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels, targets = mnist_images()
    for part, turned in (("train", slice(None)), ("t10k", slice(None, None, -1))):
        for name, array in (("images-idx3", pixels[turned]), ("labels-idx1", targets[turned].astype(np.uint8))):
            header = np.array([0x0800 + array.ndim, *array.shape], dtype=">i4").tobytes()
            (raw / f"{part}-{name}-ubyte").write_bytes(header + array.tobytes())
    return root


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def _as_an_old_numpy(pickled: bytes) -> bytes:
    """The dtype's flags as 0 and 1, as in the files of 2009, where a NumPy of today writes False and True."""
    start = pickled.index(b"u1")
    flags = pickled.index(b"\x89\x88\x87", start)
    return pickled[:flags] + b"K\x00K\x01\x87" + pickled[flags + 3 :]
