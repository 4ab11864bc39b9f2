"""What in stages/store nobody asks for any more."""

from __future__ import annotations

from eosrepro.config.params import Config
from eosrepro.errors import StoreError
from eosrepro.records import store
from eosrepro.records.runs import load_origin
from eosrepro.stages.estimate import in_words
from eosrepro.tools.sweeps import STUDIES


def collect(config: Config) -> str:
    """Remove all entries that belong to no run of params.yaml in any of its profiles, and say how much that was.

    Of a declared run the newest training stays, and what diagnostics found on it. So do the runs of studies.
    """
    declared = [run.settings for profile in config.profiles for run in config.runs_in(profile).values()]
    newest: dict[int, str] = {}
    for key in sorted(store.entries(), key=store.age):
        try:
            settings = load_origin(store.STORE / key).settings
        except StoreError:  # what a diagnostic found: its key begins with that of its run
            continue
        if settings in declared:
            newest[declared.index(dict(settings))] = key
    of_studies = {load_origin(file.parent).fingerprint for file in STUDIES.glob("*/runs/*/run.json")}
    trained = of_studies.union(newest.values())
    kept = {key for key in store.entries() if key.partition(".")[0] in trained}
    removed = [key for key in store.entries() if key not in kept]
    freed = sum(map(store.size, removed))
    for key in removed:
        store.remove(key)
    return f"removed {len(removed)} of {len(removed) + len(kept)} entries of {store.STORE}, {in_words(freed)}"
