"""Stage `check`."""

from __future__ import annotations

from pathlib import Path

from eosrepro import catalog
from eosrepro.catalog import PACKAGE
from eosrepro.config.params import Config
from eosrepro.errors import ConfigError
from eosrepro.records.files import save_text
from eosrepro.records.places import FIGURES


def stamp(config: Config, path: Path) -> None:
    """Stage `check`: a file that says that params.yaml is valid, for other stages to depend on.

    Raises:
        ConfigError: a member of another package is used, and dvc.yaml looks for its file in this project.
    """
    for kind, name in sorted(config.members()):
        file, own = catalog.file(kind, name), Path("eosrepro", kind, f"{name.replace('-', '_')}.py")
        if file.parent != PACKAGE / kind and not own.exists():
            raise ConfigError(
                f"{name} of params.yaml lies in {file}, where DVC would not see it change: put a copy at {own}, or run "
                "without DVC (`eosrepro train RUN`, and so on; see `eosrepro --help`)"
            )
    FIGURES.mkdir(exist_ok=True)  # stages depend on it, also where params.yaml has no figures
    save_text(path, "params.yaml is valid\n")
