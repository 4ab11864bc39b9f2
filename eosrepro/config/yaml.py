"""From a YAML file to mappings, lists and values; every mistake of the file is one message."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.nodes import ScalarNode

from eosrepro.config.words import Finding, quoted
from eosrepro.errors import ConfigError

MOST_VALUES = 100_000  # in one file; the committed one holds 3,000
LARGEST = 2**63 - 1  # whole number that PyTorch and NumPy can hold


IN_PROJECT = "run eosrepro in the folder of the project that holds it"


def read(path: Path, keys: Iterable[str], *, remedy: str = IN_PROJECT) -> dict[str, Any]:
    """The mapping in a YAML file, by the reader that DVC uses: YAML 1.2, so 1e-4 is a number and `on` is text.

    For messages: `keys` are what it should hold, and `remedy` is what to do where it does not exist.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    try:
        with warnings.catch_warnings(action="error", category=ReusedAnchorWarning):
            content = yaml.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: {remedy}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    except MarkedYAMLError as error:
        raise ConfigError(f"{path}{_place(error)}: not valid YAML: {error.problem}") from None
    except ReusedAnchorWarning as error:
        raise ConfigError(f"{path}: {str(error).strip().splitlines()[0]}: give each a name of its own") from None
    except ValueError as error:
        words = "a whole number has more digits than can be read" if "digits" in str(error) else str(error)
        raise ConfigError(f"{path}: not valid YAML: {words}") from None
    except (YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if _has_more_than(MOST_VALUES, content):
        raise ConfigError(
            f"{path}: holds more than {MOST_VALUES:,} values: an alias in it contains itself or multiplies"
        )
    if content is None:
        raise ConfigError(f"{path} is empty: it should hold {', '.join(keys)}")
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {quoted(content)}: it should be a mapping of {', '.join(keys)}")
    return content


def _has_more_than(most: int, content: Any) -> bool:
    """Whether it holds more values, each alias written out. A few lines of aliases of aliases make billions of them."""
    rest, count = [content], 0
    while rest and count <= most:
        value = rest.pop()
        rest.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        count += 1
    return count > most


def unusable(content: Any, place: tuple[str | int, ...] = ()) -> Iterator[Finding]:
    """Values that nothing could be done with, wherever they stand."""
    if isinstance(content, int) and abs(content) > LARGEST:
        yield place, f"found {quoted(content)}, should be at most {LARGEST}, and at least -{LARGEST}"
    if not isinstance(content, (str, int, float, list, dict, type(None))):
        yield place, f"found {quoted(content)}, should be text, a number, a list or a mapping: write it in quotes"
    if isinstance(content, str) and re.search("[\ud800-\udfff]", content):
        yield place, f"found {quoted(content)}, which holds half a character: write the character itself"
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield from unusable(key, (*place, key))
        yield from unusable(value, (*place, key))


class _Composer(Composer):
    """Refuses a key that stands twice in a mapping, which the reader lets pass where the mapping holds a `<<`."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                if key.value in seen:
                    raise ComposerError(problem=f"found duplicate key {key.value!r}", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


def _place(error: MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
