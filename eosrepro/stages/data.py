"""Stage `data`."""

from __future__ import annotations

import shutil

from eosrepro.config.params import Config
from eosrepro.core.types import Dataset
from eosrepro.records.dataset import DATA, DATA_SETTINGS, save_dataset
from eosrepro.records.files import save_json
from eosrepro.stages.build import dataset


def make_data(config: Config) -> Dataset:
    """Stage `data`: the images of the profile, preprocessed, as one verified file."""
    made = dataset(config.active)
    DATA_SETTINGS.unlink(missing_ok=True)  # the last to come
    shutil.rmtree(DATA, ignore_errors=True)
    save_dataset(DATA, made)
    save_json(DATA_SETTINGS, config.active.made_with)
    return made
