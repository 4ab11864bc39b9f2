"""Members outside of the package: those of a project, and those of installed packages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

Write = Callable[[str, str], Path]


def project_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Make it the working folder, and yield what writes files into it. Its modules are forgotten afterwards."""
    before = {*sys.modules}
    monkeypatch.chdir(folder)

    def write(name: str, text: str) -> Path:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return file

    yield write
    for name in {*sys.modules} - before:
        if str(folder) in str(getattr(sys.modules[name], "__spec__", "")):
            del sys.modules[name]


def install(
    site: Path, monkeypatch: pytest.MonkeyPatch, package: str, members: Mapping[str, Mapping[str, str]]
) -> None:
    """What pip leaves of a package with these members (kind → name → place), less its modules."""
    info = site / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    groups = [
        "\n".join([f"[eosrepro.{kind}]", *(f"{name} = {place}" for name, place in named.items())])
        for kind, named in members.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups) + "\n")
    monkeypatch.syspath_prepend(str(site))
