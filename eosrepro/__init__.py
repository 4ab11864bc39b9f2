"""eosrepro: reproduce, trust and vary edge-of-stability experiments.

The names below are its API; docs/library.md shows them at work. Every optimizer of `eosrepro/optimizers` is one, too.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eosrepro.api import Run, load, minimise, plot
    from eosrepro.core.objective import Objective
    from eosrepro.core.types import Visited
    from eosrepro.optimizers.gd import gd
    from eosrepro.optimizers.sgd import sgd

__version__ = "0.1.0"
__all__ = ["Objective", "Run", "Visited", "gd", "load", "minimise", "plot", "sgd"]

_PLACES = {
    "Objective": "eosrepro.core.objective",
    "Visited": "eosrepro.core.types",
    **dict.fromkeys(("Run", "load", "minimise", "plot"), "eosrepro.api"),
}


def __getattr__(name: str) -> Any:
    # At the first use: the command line imports this package too, and shall not wait for PyTorch.
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    catalog = import_module("eosrepro.catalog")  # `from` would ask for it here again
    if not name.startswith("_") and name in catalog.names("optimizers"):
        return catalog.find("optimizers", name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
