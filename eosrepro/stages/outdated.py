"""In what a recorded run differs from the one that params.yaml, data and code would make now."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from eosrepro.config.params import Config
from eosrepro.config.runs import Run
from eosrepro.config.sections import Profile
from eosrepro.errors import StoreError
from eosrepro.records.dataset import DATA, DATA_SETTINGS
from eosrepro.records.files import load_json
from eosrepro.records.flat import differences
from eosrepro.records.identity import fingerprint
from eosrepro.records.runs import Origin, Record

MOST_SHOWN = 3  # settings, in one message

Differences = Mapping[str, Mapping[str, Any]]  # setting, with dots → `recorded` and `now` → value


def outdated(run: Run, record: Record) -> str:
    """In what a record is not that of the run as it is declared now, as a phrase; "" where it is."""
    if found := other_settings_or_data(run, record):
        return found
    checksum = record.origin.data_sha256
    by_now = fingerprint(run.settings, None if checksum is None else {"sha256": checksum})
    return "" if record.origin.fingerprint == by_now else "trained by other code than today's"


def other_settings_or_data(run: Run, record: Record) -> str:
    """The same, but for the code, which may change without changing what the run is of."""
    origin, now = record.origin, run.settings
    if changed := _differences(_less_data(origin.settings), _less_data(now)):
        return f"trained with {in_words(changed)}"
    if origin.data_sha256 is None:  # a problem
        return ""
    if origin.data_sha256 != _data_sha256():
        return "trained on other data than stages/data holds"
    return f"trained on data made with {in_words(changed)}" if (changed := data_differences(run.profile)) else ""


def data_differences(profile: Profile) -> Differences:
    """The settings with which stages/data were made, where params.yaml has others.

    Raises:
        StoreError: they do not say.
    """
    return _differences(load_json(DATA_SETTINGS), profile.made_with)


def by_reason(config: Config, records: Iterable[Record]) -> dict[str, list[str]]:
    """The runs that are not those of now, by what they differ in."""
    found: dict[str, list[str]] = {}
    for record in records:
        if reason := outdated(config.run(record.name), record):
            found.setdefault(reason, []).append(record.name)
    return found


def warn(config: Config, records: Iterable[Record]) -> None:
    """Name those on stderr."""
    for reason, runs in by_reason(config, records).items():
        found = f"{', '.join(runs)}: {reason}"
        print(f"Warning: {found}. This is as it was recorded; `dvc repro` trains anew", file=sys.stderr)


def refuse_other(run: Run, recorded: Origin, now: Origin) -> None:
    """End what would look at the snapshots of one run with the settings of another.

    Raises:
        StoreError: it would.
    """
    changed = _differences(recorded.problem_and_step, now.problem_and_step)
    found = f"with {in_words(changed)}" if changed else "on other data than stages/data holds"
    if changed or recorded.data_sha256 != now.data_sha256:
        stage = f"train@{run.experiment}"
        raise StoreError(f"{run.name} was trained {found}: `dvc repro {stage}` trains it anew, or set params.yaml back")


def in_words(changed: Differences) -> str:
    """`step_size 2/40, now 2/20`."""
    shown = [f"{key} {_said(by['recorded'])}, now {_said(by['now'])}" for key, by in changed.items()]
    more = [f"{len(shown) - MOST_SHOWN} more"] if len(shown) > MOST_SHOWN else []
    return "; ".join(shown[:MOST_SHOWN] + more)


def _said(value: Any) -> str:
    return "not set" if value is None else str(value)


def _differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Differences:
    return differences({"recorded": recorded, "now": now})


def _less_data(settings: Mapping[str, Any]) -> dict[str, Any]:
    # A checksum says more: the same bytes from another place are the same data.
    return {key: value for key, value in settings.items() if key not in ("data", "preprocessing")}


def _data_sha256() -> str | None:
    path = DATA / "provenance.json"
    return load_json(path).get("sha256") if path.exists() else None
