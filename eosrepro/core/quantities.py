"""The named series of a run: what each is called on an axis, and what it is compared with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


@dataclass(frozen=True)
class Quantity:
    """A named series."""

    name: str
    label: str  # on an axis
    compared_with: Literal["threshold", "zero", "nothing"] = "nothing"
    oscillates: bool = False  # past the edge, from one iteration to the next
    shown_with: str = ""  # the quantity whose axes it shares, where it is a prediction or a statistic of that one


_TABLE = (
    Quantity("loss", "training loss", oscillates=True),
    Quantity("accuracy", "training accuracy"),
    Quantity("r2", "training R²"),
    Quantity("test_loss", "test loss", shown_with="loss"),
    Quantity("test_accuracy", "test accuracy", shown_with="accuracy"),
    Quantity("test_r2", "test R²", shown_with="r2"),
    Quantity("predicted_loss", "mean loss by the central flow", shown_with="loss"),
    Quantity("grad_norm", "gradient norm"),
    Quantity("relative_progress", "relative progress", "zero", oscillates=True),
    Quantity("predicted_relative_progress", "predicted relative progress", "zero", shown_with="relative_progress"),
    Quantity("directional_smoothness", "directional smoothness", "threshold", oscillates=True),
    *(
        Quantity(
            f"directional_smoothness_{statistic}",
            f"directional smoothness {statistic.replace('_', ' ')}",
            "threshold",
            shown_with="directional_smoothness",
        )
        for statistic in ("mean", "low_1", "high_1", "low_2", "high_2")
    ),
    Quantity("sharpness", "sharpness", "threshold"),
    Quantity("effective_sharpness", "effective sharpness", "threshold"),
    Quantity("sharpness_by_sqrt_loss", "sharpness by √f of two steps", shown_with="sharpness"),
    Quantity("sharpness_by_grad_norm", "sharpness by ‖∇f‖ of two steps", shown_with="sharpness"),
    Quantity("midpoint_sharpness", "sharpness between iterates", "threshold"),
    Quantity("batch_sharpness", "batch sharpness", "threshold"),
    Quantity("critical_sharpness", "critical sharpness", "threshold"),
    Quantity("critical_step_factor", "critical / next step"),
    Quantity("gradient_alignment", "|cos(∇f, v₁)|"),
    Quantity("update_alignment", "|cos(step, v₁)|", shown_with="gradient_alignment"),
    Quantity("taylor_loss", "loss of the Taylor model after its steps"),
    Quantity("true_loss", "loss after as many steps", shown_with="taylor_loss"),
    Quantity("taylor_growth", "growth on the Taylor model"),
    Quantity("true_growth", "growth of the loss", shown_with="taylor_growth"),
    Quantity("top_slope_inner", "slope along v₁, near"),
    Quantity("top_slope_outer", "slope along v₁, far", shown_with="top_slope_inner"),
    Quantity("gradient_slope_inner", "slope along ∇f, near"),
    Quantity("gradient_slope_outer", "slope along ∇f, far", shown_with="gradient_slope_inner"),
    Quantity("distance", "distance to the other run"),
    Quantity("expected_relative_progress", "expected relative progress", "zero"),
    Quantity(
        "predicted_expected_progress", "predicted expected progress", "zero", shown_with="expected_relative_progress"
    ),
)
QUANTITIES: Mapping[str, Quantity] = {quantity.name: quantity for quantity in _TABLE}
EFFECTIVE = {"effective_sharpness", "midpoint_sharpness"}  # measured in the geometry of the optimizer


def quantity(name: str) -> Quantity:
    """What is known of the series of that name; `theta_1` is θ₁, and any other is called as it is spelt."""
    if name in QUANTITIES:
        return QUANTITIES[name]
    coordinate = re.fullmatch(r"theta_(\d+)", name)
    label = "θ" + coordinate[1].translate(_SUBSCRIPTS) if coordinate else name.replace("_", " ")
    return Quantity(name, label)


def compared_with_threshold(name: str, *, preconditioned: bool = False) -> bool:
    """Whether the stability threshold of a run stands beside it: that of a preconditioned method is of another unit."""
    return quantity(name).compared_with == "threshold" and (name in EFFECTIVE or not preconditioned)
