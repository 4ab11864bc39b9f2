"""pandas, imported when it is first asked for: as PyTorch in `core/later.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eosrepro.core.later import Later

__all__ = ["pandas"]

if TYPE_CHECKING:
    import pandas
else:
    pandas = Later("pandas")
