"""Digests of the code behind a result: of the modules that it names, and of all that these import.

Own code counts: this package, files of the project in the working folder, and packages that have members. Libraries do
not. Of a library that params.yaml names itself (`torchvision.models:resnet18`), the one module counts. Imports are read
in the sources, also within functions, and not behind `if TYPE_CHECKING`; nothing is imported.

A digest is one of text without comments, docstrings and blank lines. It is the same on every machine and with every
Python, and an edit of prose runs nothing anew. What stages do around a training (progress, checkpoints, MLflow) does
not count: all that decides a number belongs into `core` or into a member.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import tokenize
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

from eosrepro import catalog
from eosrepro.errors import ConfigError

Members = Mapping[str, Sequence[str]]  # kind → names


def training_code(members: Members, *, batched: bool = False) -> str:
    """Of the loop, the objective and the members of a run, which are names by kind; or of the loop of many runs."""
    return digest_of([f"eosrepro.core.{'together' if batched else 'training'}", *_modules(members)])


def diagnostic_code(name: str, members: Members) -> str:
    """Of a diagnostic, the objective and the members of the run that it looks at."""
    return digest_of(["eosrepro.core.objective", *_modules({"diagnostics": [name]}), *_modules(members)])


def figure_code(name: str) -> str:
    """Of a kind of figure, and of how figures are saved."""
    return digest_of(["eosrepro.figures._style", *_modules({"figures": [name]})])


def stage_code(stage: str, members: Members) -> str:
    """Of a stage as a whole, with its templates, and of the members that it looks up."""
    return digest_of([f"eosrepro.stages.{stage}", *_modules(members)])


def _modules(members: Members) -> list[str]:
    named = [(kind, name) for kind, names in members.items() for name in names]
    return [catalog.reference(kind, name).partition(":")[0] for kind, name in named]


def digest_of(modules: Iterable[str]) -> str:
    """SHA-256 of these modules, of all own ones that they import, and of the templates beside them.

    Raises:
        ConfigError: one of them is no valid Python.
    """
    found = closure(modules)
    digests = [(module, _source(file).digest) for module, file in found.items()]
    templates = {template for file in found.values() for template in file.parent.glob(f"{file.stem}.*.j2")}
    digests += [(template.name, hashlib.sha256(template.read_bytes()).hexdigest()) for template in templates]
    return hashlib.sha256(json.dumps(sorted(digests)).encode()).hexdigest()


def closure(modules: Iterable[str]) -> dict[str, Path]:
    """Module → file of these modules, of all own ones that they import, and of the packages around those."""
    waiting = [*modules]
    named = {_top(module) for module in waiting}
    ours = {"eosrepro"} | {_top(place) for kind in catalog.KINDS for _, place in catalog.plugins(kind)}
    is_own = cache(lambda package: package in ours or _is_of_project(package, named))
    found: dict[str, Path] = {}
    while waiting:
        module = waiting.pop()
        if module in found or (file := _file(module)) is None:
            continue
        found[module] = file
        if is_own(_top(module)):
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            waiting += [each for each in _imported(file, package) if is_own(_top(each))]
            waiting += [package] if package else []
    return found


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_of_project(package: str, named: Collection[str]) -> bool:
    """Whether a top-level package lies in the working folder, or is one of those named and no library."""
    spec = _spec(package)
    places = [] if spec is None else spec.submodule_search_locations or [spec.origin or ""]
    homes = [Path(place).parent for place in places]
    return any((package in named or home == Path.cwd()) and not catalog.LIBRARIES & {*home.parts} for home in homes)


def _file(module: str) -> Path | None:
    """The source of a module; None where there is none: the name may be one of a function, or of a library in C."""
    package, *rest = module.split(".")
    if (spec := _spec(package)) is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    places = [Path(folder, *rest) for folder in spec.submodule_search_locations or []]
    files = [file for place in places for file in (place / "__init__.py", place.with_suffix(".py"))]
    return next(filter(Path.is_file, files), None)


def _spec(package: str) -> ModuleSpec | None:
    with suppress(ImportError, ValueError):  # no such name, or a module that was made by hand
        return find_spec(package)
    return None


def _imported(file: Path, package: str) -> Iterator[str]:
    """Whatever may be a module of what a file of `package` imports, and the packages around it."""
    for written, names in _source(file).imports:
        with suppress(ImportError):  # more dots than packages: Python will say so
            module = resolve_name(written, package)
            yield from (module, *(f"{module}.{name}" for name in names))
            while module := module.rpartition(".")[0]:
                yield module


@dataclass(frozen=True)
class _Source:
    digest: str
    imports: list[tuple[str, list[str]]]  # a module, with leading dots where it is relative, and the names from it


def _source(file: Path) -> _Source:
    state = file.stat()
    return _read(file, state.st_mtime_ns, state.st_size)


@cache
def _read(file: Path, _mtime: int, _size: int) -> _Source:
    try:
        with tokenize.open(file) as opened:
            text = opened.read()
        imports = [*_imports(ast.parse(text))]
        return _Source(hashlib.sha256(_less_prose(text).encode()).hexdigest(), imports)
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise ConfigError(f"{file} is no valid Python: {error}") from None


def _imports(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), [alias.name for alias in node.names]
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += node.orelse
        else:
            for block in ("body", "orelse", "finalbody", "handlers", "cases"):
                waiting += getattr(node, block, [])


def _less_prose(text: str) -> str:
    """The text without comments, strings that stand alone, and blank lines outside of strings."""
    lines = ["", *text.split("\n")]
    tokens = [*tokenize.generate_tokens(io.StringIO(text).readline)]
    left_out = set()
    for token in tokens:
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row] = lines[row][:column].rstrip()
        elif token.type == tokenize.NL and not lines[row].strip():
            left_out.add(row)
    code = [token for token in tokens if token.type not in (tokenize.COMMENT, tokenize.NL)]
    begin = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for before, token, after in zip([None, *code], code, code[1:], strict=False):
        alone = (before is None or before.type in begin) and after.type == tokenize.NEWLINE
        # An f-string computes.
        if alone and token.type == tokenize.STRING and re.match(r"[rRuU]?['\"]", token.string):
            left_out.update(range(token.start[0], token.end[0] + 1))
    return "\n".join(line for row, line in enumerate(lines) if row not in left_out)
