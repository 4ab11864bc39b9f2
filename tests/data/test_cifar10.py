"""CIFAR-10, by means of a tiny archive in its format."""

from __future__ import annotations

import shutil
import sys
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, utils

from eosrepro.data.cifar10 import cifar10
from eosrepro.errors import DataError
from tests.data.samples import cifar10_images, md5, write_cifar10


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the tiny archive; the network is out of reach."""
    _no_network(monkeypatch)
    return write_cifar10(tmp_path, monkeypatch)


def _no_network(patch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in tests")

    patch.setattr(utils.urllib.request, "urlopen", unreachable)


@pytest.mark.parametrize("download", [False, True])
def test_an_archive_in_root_is_read_without_a_network(root: Path, download: bool) -> None:
    raw = cifar10(root=str(root), n_examples=12, download=download)
    pixels, targets = cifar10_images()

    assert np.array_equal(raw.pixels, pixels[:12])
    assert np.array_equal(raw.targets, targets[:12])
    assert np.array_equal(raw.population, pixels)
    assert (raw.n_classes, raw.label) == (10, "CIFAR-10")


def test_an_unpacked_folder_is_read_without_the_archive(root: Path) -> None:
    packed = cifar10(root=str(root), n_examples=25)
    (root / CIFAR10.filename).unlink()
    unpacked = cifar10(root=str(root), n_examples=25)

    assert np.array_equal(packed.pixels, unpacked.pixels)
    assert packed.source == unpacked.source


def test_a_damaged_folder_is_repaired_from_the_archive(root: Path) -> None:
    cifar10(root=str(root), n_examples=1)
    (root / CIFAR10.base_folder / "data_batch_2").write_bytes(b"damaged")

    assert np.array_equal(cifar10(root=str(root), n_examples=25).pixels, cifar10_images()[0])


def test_an_archive_that_is_not_there_is_explained_with_all_ways_out(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        cifar10(root=str(tmp_path / "nowhere"), n_examples=1)
    message = str(caught.value)

    assert "\n" not in message
    for part in ("nowhere", "cifar-10-python.tar.gz", "https://", "download: true", "profile: quick"):
        assert part in message
    assert not (tmp_path / "nowhere").exists()


def test_a_truncated_archive_is_named_and_left_alone(root: Path) -> None:
    archive = root / CIFAR10.filename
    truncated = archive.read_bytes()[:-100]
    archive.write_bytes(truncated)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz is incomplete or altered.*delete it"):
        cifar10(root=str(root), n_examples=1)

    assert archive.read_bytes() == truncated


@pytest.mark.parametrize("member", ["../outside", "/{root}/outside", "link/outside"])
def test_no_member_of_an_archive_leaves_its_folder(member: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = root.parent / "elsewhere"
    outside.mkdir()
    path = root / CIFAR10.filename
    with tarfile.open(path, "w:gz") as archive:
        if member.startswith("link"):
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, str(outside)
            archive.addfile(link)
        archive.addfile(tarfile.TarInfo(member.format(root=root.parent)))
    before = set(root.parent.rglob("*"))
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(path))  # as if it were the one that is expected
    with pytest.raises(DataError, match="CIFAR-10 could not be downloaded or unpacked"):
        cifar10(root=str(root), n_examples=5)
    assert [made for made in set(root.parent.rglob("*")) - before if not made.is_relative_to(root)] == []


@pytest.mark.parametrize("download", [False, True])
def test_a_python_that_cannot_unpack_safely_does_not(
    download: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = cifar10(root=str(root), n_examples=5)
    folder = root / CIFAR10.base_folder
    folder.rename(root / "aside")
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(DataError, match=r"cannot unpack cifar-10-python\.tar\.gz safely.*unpack https://.* yourself"):
        cifar10(root=str(root), n_examples=5, download=download)
    assert not folder.exists()
    (root / "aside").rename(folder)
    assert np.array_equal(cifar10(root=str(root), n_examples=5, download=download).pixels, unpacked.pixels)


def test_a_damaged_folder_without_an_archive_is_named(root: Path) -> None:
    cifar10(root=str(root), n_examples=1)
    (root / CIFAR10.filename).unlink()
    (root / CIFAR10.base_folder / "data_batch_5").unlink()
    with pytest.raises(DataError, match="cifar-10-batches-py is incomplete or altered"):
        cifar10(root=str(root), n_examples=1)


def test_a_download_that_fails_is_explained(root: Path) -> None:
    (root / CIFAR10.filename).unlink()
    with pytest.raises(DataError, match=r"could not be downloaded or unpacked.*no network in tests.*profile: quick"):
        cifar10(root=str(root), n_examples=1, download=True)


def test_a_root_that_cannot_be_written_is_explained(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", full)
    with pytest.raises(DataError, match=r"could not be downloaded or unpacked.*No space left on device"):
        cifar10(root=str(root), n_examples=1)


def test_an_unreadable_archive_is_explained(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(utils, "check_integrity", denied)
    with pytest.raises(DataError, match=r"cannot be read from .*Permission denied"):
        cifar10(root=str(root), n_examples=1)


def test_more_images_than_there_are_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"CIFAR-10 has 25 images, and data\.n_examples asks for 26"):
        cifar10(root=str(root), n_examples=26)


@pytest.mark.parametrize(
    "line",
    ["raise RuntimeError('operator torchvision::nms does not exist')", "import no_such_module_at_all"],
    ids=["built-for-another-torch", "missing"],
)
def test_a_torchvision_that_cannot_be_imported_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"needs torchvision, which cannot be imported \(.*(nms|no_such_module).*quick"):
        cifar10(root=str(tmp_path), n_examples=1)


def test_the_archive_stays_verified_after_it_is_unpacked(root: Path) -> None:
    """An altered batch is not read just because it is there."""
    cifar10(root=str(root), n_examples=1)
    shutil.copy(root / CIFAR10.base_folder / "data_batch_1", root / CIFAR10.base_folder / "data_batch_3")
    (root / CIFAR10.filename).unlink()
    with pytest.raises(DataError, match="incomplete or altered"):
        cifar10(root=str(root), n_examples=1)
