"""The characters of a text, for next-token prediction."""

from __future__ import annotations

import codecs
import hashlib
import importlib
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen

from eosrepro.core.later import torch
from eosrepro.core.types import AtLeast, Dataset
from eosrepro.errors import DataError

ZEN = "The Zen of Python"


def text(
    *,
    n_examples: Annotated[int, AtLeast(1)],
    length: Annotated[int, AtLeast(1)],
    path: Annotated[str, MinLen(1)] | None = None,
    stride: Annotated[int, AtLeast(1)] | None = None,
    n_test: Annotated[int, AtLeast(0)] = 0,
    label: Annotated[str, MinLen(1)] | None = None,
) -> Dataset:
    """Pieces of `length` characters; the target at each is the character after it.

    Example i begins at character i · `stride`, by default `length`, so that pieces do not overlap. The test split
    are the next `n_test`, and the first of them begins after the last character that is trained on. Inputs and targets
    have the shape (n, length): numbers 0..k−1 of the k characters of the whole text in the order of Unicode, inputs as
    floats.

    `path`, relative to the folder of params.yaml, is a file in UTF-8, named by `label` on figures. None: the Zen of
    Python (PEP 20), 856 characters, which every Python brings along.

    Raises:
        DataError: the file cannot be read, or the text is too short.
    """
    content = zen() if path is None else _read(Path(path).expanduser())
    step = stride or length
    start_of_test = (n_examples - 1) * step + length + 1
    starts = [i * step for i in range(n_examples)]
    starts_of_test = [start_of_test + i * step for i in range(n_test)]
    needed = [*starts, *starts_of_test][-1] + length + 1
    name = label or (ZEN if path is None else Path(path).name)
    if len(content) < needed:
        raise DataError(
            f"{name} has {len(content):,} characters, and data.n_examples, n_test, length and stride ask for "
            f"{needed:,}: make one of them smaller, or take a longer text (data.path)"
        )
    vocabulary = sorted(set(content))
    number = {character: index for index, character in enumerate(vocabulary)}
    tokens = torch.tensor([number[character] for character in content[:needed]])

    def pieces(at: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        windows = torch.stack([tokens[start : start + length + 1] for start in at])
        return windows[:, :-1].float(), windows[:, 1:].contiguous()

    source: dict[str, Any] = {
        "name": "text",
        "text": f"{ZEN}, of the module `this` of the standard library" if path is None else Path(path).name,
        "text_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "characters": len(content),
        "vocabulary": "".join(vocabulary),
        "rule": f"{n_examples} pieces of {length} characters, one every {step}",
    }
    test = pieces(starts_of_test) if n_test else None
    return Dataset(*pieces(starts), len(vocabulary), name, {"source": source}, test)


def missing(*, path: str | None = None, **_others: Any) -> str | None:
    """What has to be put where before `text` can be called; None: nothing."""
    if path is None or Path(path).expanduser().is_file():
        return None
    return f"data.path: there is no file {path}: put a text in UTF-8 there, or leave data.path out for {ZEN}"


def zen() -> str:
    """PEP 20 as `import this` prints it, in any locale; less the line break at its end."""
    with redirect_stdout(io.StringIO()):
        module = importlib.import_module("this")
    return codecs.decode(module.s, "rot13")


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(missing(path=str(path)) or f"data.path: {path} is no text in UTF-8 ({error})") from None
