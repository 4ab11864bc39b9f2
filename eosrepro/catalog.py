"""From a name in params.yaml to the function that it stands for.

`model: {name: mlp, width: 200}` means a function `mlp`, and its keyword-only parameters are what may be written beside
the name. A name is that of

- a file of this package: `eosrepro/models/mlp.py` with a function `mlp`;
- a file of the project, below the working folder: `members/models/mlp.py`;
- an entry point of an installed package, in the group `eosrepro.models`;
- `package.module:function`, written out; the module may be a file of the project.

There is no list to keep. Names of data sources are written with hyphens (`photo-patches` is `photo_patches.py`).
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, cast

from eosrepro.core.columns import computed_by
from eosrepro.errors import ConfigError, in_brief, place, wants_traceback

PACKAGE = Path(__file__).parent
KINDS = ("models", "losses", "data", "optimizers", "problems", "observations", "diagnostics", "figures")
BATCH_STATISTICS = "batch_statistics"  # see `core/types.py`
LIBRARIES = {"site-packages", "dist-packages"}
MEMBERS = Path("members")  # of the project in the working folder


def names(kind: str) -> list[str]:
    """Names of all members of one kind, e.g. `names("models")`, as they are written in params.yaml."""
    return sorted(_references(kind))


def reference(kind: str, name: str) -> str:
    """Where the function of that name is: `module:function`. Nothing is imported.

    Raises:
        LookupError: no such member; the message names the nearest one and lists all.
        ConfigError: two have this name.
    """
    if ":" in name:
        _see_project()
        if not re.fullmatch(r"\w+(\.\w+)*:\w+", name):
            raise LookupError(f"{name!r} should read package.module:function")
        return name
    known = _references(kind)
    if name not in known:
        raise LookupError(
            f"no {name!r} in {kind}{did_you_mean(name, [*known])} (there are: {', '.join(sorted(known))})"
        )
    if len(found := known[name]) > 1:
        raise ConfigError(f"{name} of {kind} is there twice, as {' and '.join(found)}: write out the one that you mean")
    return found[0]


def find(kind: str, name: str) -> Callable[..., Any]:
    """The function that `name` stands for.

    Raises:
        LookupError: no such member; the message names the nearest one.
        ConfigError: its module cannot be imported or lacks the function, or two have this name.
    """
    module_name, _, function = reference(kind, name).partition(":")
    module = _imported(module_name)
    if callable(member := getattr(module, function, None)):
        return _adapted(kind, member) if ":" in name else cast(Callable[..., Any], member)
    if ":" in name:
        near = did_you_mean(function, [each for each, value in vars(module).items() if callable(value)])
        raise LookupError(f"no function or class {function!r} in {module_name}{near}")
    raise ConfigError(f"{module.__file__} defines no function {function}, which would be the member {name}")


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


def refusal(diagnostic: str, optimizer: Any) -> str | None:
    """Why a diagnostic is not for an optimizer, as the function `refusal` in its file says, if there is one."""
    file = importlib.import_module(find("diagnostics", diagnostic).__module__)
    look: Callable[[Any], str | None] = getattr(file, "refusal", lambda _optimizer: None)
    return look(optimizer)


def takes(problem: str, options: Mapping[str, Any], numbers: int) -> bool | None:
    """Whether a problem is a function of so many numbers, as the function `takes` in its file says; None: who knows."""
    file = importlib.import_module(find("problems", problem).__module__)
    look: Callable[..., bool | None] = getattr(file, "takes", lambda _numbers, **_options: None)
    return look(numbers, **options)


def did_you_mean(name: str, known: list[str]) -> str:
    """`; did you mean 'mlp'?` where a known name is near, or begins with this one and _, else nothing."""
    longer = [each for each in known if name and each.startswith(f"{name}_")]
    near = longer or difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def place_of(error: BaseException) -> str | None:
    """`members/models/mine.py, line 12`: the last place in a file of the project, or of a package with members.

    None: the error is one of this package, or of a library.
    """
    packages = {re.split("[.:]", where)[0] for kind in KINDS for _, where in plugins(kind)}
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file, package = frame.f_code.co_filename, str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in packages or _is_of_project(Path(file)):
            found = place(file, line)
    return found


def _is_of_project(file: Path) -> bool:
    """Whether it lies in the working folder, and is not of what is installed there."""
    installed = LIBRARIES & {*file.parts} or any(map(file.is_relative_to, (PACKAGE, Path(os.__file__).parent)))
    return file.is_relative_to(Path.cwd()) and not installed


def plugins(kind: str) -> frozenset[tuple[str, str]]:
    """(name, `module:function`) of the members of one kind that installed packages have."""
    _see_project()
    return _entry_points(f"eosrepro.{kind}", tuple(sys.path))


@functools.cache
def _entry_points(group: str, _path: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    return frozenset((point.name, f"{point.module}:{point.attr}") for point in entry_points(group=group))


def _references(kind: str) -> dict[str, list[str]]:
    """Name → `module:function` of each member that has it."""
    found: dict[str, list[str]] = {}
    for folder, package in ((PACKAGE / kind, f"eosrepro.{kind}"), (MEMBERS / kind, f"members.{kind}")):
        for stem in _modules_in(folder):
            name = stem.replace("_", "-") if kind == "data" else stem
            found.setdefault(name, []).append(f"{package}.{stem}:{stem}")
    for name, where in sorted(plugins(kind)):
        found.setdefault(name, []).append(where)
    return found


def _modules_in(folder: Path) -> list[str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - asked hundreds of times a command, and `iterdir` takes ten times as long
    except OSError:  # a project need have none
        return []
    return [name.removesuffix(".py") for name in names if name.endswith(".py") and not name.startswith("_")]


_projects: set[str] = set()  # folders that `_see_project` put on the path


def _see_project() -> None:
    """Let modules in the working folder be imported: after all others, so that they stand in for none."""
    here = str(Path.cwd())
    for left in (_projects - {here}).intersection(sys.path):  # a new process would not have seen it
        sys.path.remove(left)
        for module in [each for each in sys.modules if f"{each}.".startswith("members.")]:
            del sys.modules[module]
    if here not in sys.path:
        sys.path.append(here)
        _projects.add(here)


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise LookupError(f"no module {error.name!r} is installed or lies in this folder") from None
        if wants_traceback():
            raise
        where = f" ({found})" if (found := place_of(error)) else ""
        raise ConfigError(f"the module {module} cannot be imported: {in_brief(error)}{where}") from error


@functools.cache
def _adapted(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function or class that was not written as a member, as one: all that it takes are options, given by name.

    A model is given `input_shape` and `n_outputs` where it has parameters of these names, and has one more option,
    `batch_statistics`, which becomes the attribute of the module that says which examples it sees together.
    """
    if kind in ("diagnostics", "figures", "observations"):  # they live on what they are given
        return function
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some classes that are written in C
        raise ConfigError(
            f"{function.__module__}:{function.__qualname__} does not say which parameters it has"
        ) from None
    given = ("input_shape", "n_outputs") if kind == "models" else ()
    declares = kind == "models" and BATCH_STATISTICS not in signature.parameters

    @functools.wraps(function, updated=())
    def member(*values: Any, **options: Any) -> Any:
        taken = {key: value for key, value in zip(given, values, strict=True) if key in signature.parameters}
        declared = options.pop(BATCH_STATISTICS, None) if declares else None
        made = function(**taken, **options)
        if declared is not None:
            setattr(made, BATCH_STATISTICS, declared)
        return made

    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    options = [
        parameter.replace(kind=parameter.KEYWORD_ONLY) if parameter.kind in by_name else parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (*by_name, parameter.VAR_KEYWORD)
        and parameter.name not in given
        and not parameter.name.startswith("_")
    ]
    if declares:
        options.insert(0, inspect.Parameter(BATCH_STATISTICS, inspect.Parameter.KEYWORD_ONLY, default=None))
    member.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
    return member
