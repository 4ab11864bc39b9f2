"""From a name in params.yaml to the function in the file of that name.

`model: {name: mlp, width: 200}` means the function `mlp` in `eosrepro/models/mlp.py`, and its keyword-only parameters
are what may be written beside the name. A member is added by adding a file; there is no list to keep. Data sources are
written with hyphens (`photo-patches` is `eosrepro/data/photo_patches.py`).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from eosrepro.core.quantities import computed_by
from eosrepro.errors import ConfigError

PACKAGE = Path(__file__).parent
KINDS = ("models", "losses", "data", "optimizers", "problems", "observations", "diagnostics", "figures")


def names(kind: str) -> list[str]:
    """Names of all members of one kind, e.g. `names("models")`, as they are written in params.yaml."""
    members = [module.name for module in pkgutil.iter_modules(map(str, folders(kind))) if module.name[0] != "_"]
    return sorted(name.replace("_", "-") if kind == "data" else name for name in members)


def find(kind: str, name: str) -> Callable[..., Any]:
    """The function that `name` stands for.

    Raises:
        LookupError: no such member; the message names the nearest one and lists all.
        ConfigError: the file of that name has no function of that name.
    """
    known = names(kind)
    if name not in known:
        raise LookupError(f"no {name!r} in eosrepro/{kind}{did_you_mean(name, known)} (there are: {', '.join(known)})")
    identifier = name.replace("-", "_")
    module = importlib.import_module(f"eosrepro.{kind}.{identifier}")
    if not callable(member := getattr(module, identifier, None)):
        raise ConfigError(f"eosrepro/{kind}/{identifier}.py defines no function {identifier}, and that is its member")
    return cast(Callable[..., Any], member)


def folders(kind: str) -> list[Path]:
    """The folders that hold the members of one kind: that of this package, and those that others put on its path."""
    return [Path(folder) for folder in importlib.import_module(f"eosrepro.{kind}").__path__]


def file(kind: str, name: str) -> Path:
    """The file of a member, in this package or in another.

    Raises:
        LookupError: no such member.
    """
    spec = find_spec(f"eosrepro.{kind}.{name.replace('-', '_')}")
    if spec is None or spec.origin is None:
        raise LookupError(f"no {name!r} in eosrepro/{kind}")
    return Path(spec.origin)


def missing(source: str, options: Mapping[str, Any]) -> str | None:
    """What a data source with these options lacks, as the function `missing` in its file says, if there is one.

    Raises:
        DataError: it cannot work here, whatever lies on disk.
    """
    file = importlib.import_module(find("data", source).__module__)
    look: Callable[..., str | None] = getattr(file, "missing", lambda **_options: None)
    return look(**options)


def quantities(name: str, options: Mapping[str, Any] = MappingProxyType({}), kind: str = "diagnostics") -> list[str]:
    """What a diagnostic or an observation finds: the fields of the rows that it yields or returns, without the step.

    Where its columns depend on its options, the function `columns` in its file says which they are.
    """
    member = find(kind, name)
    if columns := getattr(importlib.import_module(member.__module__), "columns", None):
        return [*columns(**options)]
    return computed_by(member)


def did_you_mean(name: str, known: list[str]) -> str:
    """`; did you mean 'mlp'?` where a known name is near, else nothing."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
