"""One quantity of a recorded run as a series."""

from __future__ import annotations

import re

import numpy as np

from eosrepro import catalog
from eosrepro.catalog import did_you_mean
from eosrepro.errors import ConfigError, StoreError
from eosrepro.records.later import pandas as pd
from eosrepro.records.runs import Record
from eosrepro.records.snapshots import load_thetas


def series(record: Record, quantity: str) -> pd.DataFrame:
    """One recorded quantity as columns `step` and `value`, without the steps at which it is not defined.

    `quantity` is a column of the trajectory or of what a diagnostic measured (which has its own, fewer steps);
    `theta_1`, `abs_theta_1`, ...: a coordinate of θ, or its size, from the snapshots; or
    `relative_progress_by_next_gradient`: [f(θ_{t+1}) - f(θ_t)] / (η‖∇f(θ_{t+1})‖²), what the paper plots in Exp 3.

    Raises:
        ConfigError: there is no such quantity.
        StoreError: it is one that was not measured on this run.
    """
    coordinate = re.fullmatch(r"(abs_)?theta_([1-9]\d*)", quantity)
    if quantity == "relative_progress_by_next_gradient" and "grad_norm" in record.trajectory:
        table = _as_series(record.trajectory.assign(**{quantity: _by_next_gradient(record)}), quantity)
    elif coordinate:
        table = _coordinate(record, int(coordinate[2]))
        table = table.abs() if coordinate[1] else table
    elif quantity in record.trajectory:
        table = _as_series(record.trajectory, quantity)
        if quantity == "accuracy" and table["value"].isna().all():
            raise ConfigError(f"{record.name} has no accuracy: its targets are no classes")
    elif holding := [measured.table for measured in record.measured.values() if quantity in measured.table]:
        table = _as_series(holding[0], quantity)
    elif command := _measured_by(quantity, record):
        raise StoreError(f"{quantity} of {record.name} has not been measured since it was trained: run `{command}`")
    else:
        columns = [column for measured in record.measured.values() for column in measured.table]
        known = [*record.trajectory, *columns, "theta_1", "abs_theta_1"]
        raise ConfigError(f"no quantity {quantity!r}{did_you_mean(quantity, known)} (there are: {', '.join(known)})")
    return table.dropna(ignore_index=True)


def _measured_by(quantity: str, record: Record) -> str | None:
    """The command that measures a quantity which the record lacks."""
    if "sharpness" not in record.measured and re.fullmatch(r"sharpness|eigenvalue_\d+", quantity):
        return f"eosrepro diagnose {record.name}"
    absent = set(catalog.names("diagnostics")) - record.measured.keys()
    measured = any(quantity in catalog.quantities(diagnostic) for diagnostic in absent)
    return "dvc repro" if measured else None


def _by_next_gradient(record: Record) -> pd.Series:
    table = record.trajectory
    change = table["loss"].shift(-1) - table["loss"]
    promised = float(record.step_size) * table["grad_norm"].shift(-1) ** 2
    return (change / promised.replace(0.0, np.nan)).where(table["relative_progress"].notna())


def _as_series(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    return pd.DataFrame({"step": table["step"], "value": table[quantity]})


def _coordinate(record: Record, number: int) -> pd.DataFrame:
    rows = [*load_thetas(record.snapshots)]
    if number > len(rows[0][1]):
        raise ConfigError(f"theta_{number} of {record.name}: θ has {len(rows[0][1])} coordinates")
    return pd.DataFrame({"step": [step for step, _ in rows], "value": [float(theta[number - 1]) for _, theta in rows]})
