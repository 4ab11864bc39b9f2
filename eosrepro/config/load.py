"""From params.yaml to a valid `Config`, or to one message with a line a finding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eosrepro.config.checks import claim_contradictions, contradictions
from eosrepro.config.params import PARAMS, Config
from eosrepro.config.values import SectionType, keys_of
from eosrepro.config.words import places, refusal
from eosrepro.config.yaml import read, unusable
from eosrepro.errors import ConfigError

FIRST_EDITION = {  # top-level keys that are no more
    "toys": "they are experiments now, with `problem: {name: quadratic, ...}` and `start`",
    "measurements": "they are `diagnose: {tau_scan: {every: 5, ...}}` of an experiment, with `of` for some of its runs",
    "sharpness": "it is a diagnostic: `diagnose: {sharpness: {k: 1, ...}}`",
    "claims": "they stand in papers/<paper>/claims.yaml, as tables; `paper:` names the folder",
    "templates": "experiments say once what their runs share, and `vary: {step_size: [2/30, 2/60]}` what differs",
}


def load(path: Path = PARAMS) -> Config:
    """Read and validate params.yaml, and the claims that it names.

    Raises:
        ConfigError: it cannot be read or asks for something that is not possible. One line a finding: file, key path,
            what was found, what is allowed.
    """
    return validate(read_params(path), path)


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """The content of params.yaml as it is written.

    Raises:
        ConfigError: it is not YAML, or no mapping.
    """
    return read(path, keys_of(Config))


def validate(content: dict[str, Any], path: Path) -> Config:
    """The content of a params.yaml as a `Config`; `path` names it in errors."""
    if old := FIRST_EDITION.keys() & content.keys():
        changes = "\n".join(f"  {key}: {FIRST_EDITION[key]}" for key in FIRST_EDITION if key in old)
        raise ConfigError(f"{path} is written for the first edition of eosrepro. What has changed:\n{changes}")
    if findings := [*unusable(content)]:
        raise refusal(path, findings)
    config = parse(Config, content, path)
    if findings := [*contradictions(config)]:
        raise refusal(path, findings)
    if findings := [*dict.fromkeys(claim_contradictions(config))]:
        raise refusal(config.claims_file or path, findings)
    return config


def parse(section: type[SectionType], content: dict[str, Any], path: Path) -> SectionType:
    """The content of a YAML file as an object; `path` names it in errors."""
    try:
        return section.model_validate(content)
    except ValidationError as error:
        raise refusal(path, places(error)) from None


def schema() -> dict[str, Any]:
    """JSON Schema of params.yaml, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(by_alias=True),
        "title": "params.yaml of eosrepro",
    }
