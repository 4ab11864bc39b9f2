"""Cross-entropy of the softmax of the outputs."""

from __future__ import annotations

from torch.nn import functional

from eosrepro.core.types import Loss


def cross_entropy() -> Loss:
    """ℓ(z, y) = log Σ_c exp(z_c) − z_y, in nats."""
    return lambda outputs, targets: functional.cross_entropy(outputs, targets, reduction="none")
