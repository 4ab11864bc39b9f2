"""Where numbers are computed: what makes a GPU exact and repeatable, what is read back, what a processor is fast at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from eosrepro.core.later import torch

if TYPE_CHECKING:
    from torch import Tensor


def prepare(device: str) -> None:
    """Exact products, and on a GPU the same bytes from every run; to be called before anything is computed there.

    Products in TF32 would move the sharpness by 1e-4, and the trajectory past the edge altogether. Operations without a
    repeatable version on a GPU warn.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if torch.device(device).type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is made
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)


def read(*numbers: Tensor) -> list[float]:
    """Scalars as floats, by one transfer from the device that they are on: each makes a GPU wait."""
    found: list[float] = torch.stack([number.double() for number in numbers]).tolist()
    return found


def has_fast_bfloat16(on: str) -> bool:
    """Whether products of matrices are faster in it: the processor has instructions for them."""
    if on == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # not public: a version may lack them
    return any(getattr(torch.cpu, each, lambda: False)() for each in asked)


def dtype_of(name: Literal["float32", "float64"]) -> torch.dtype:
    """PyTorch's of that name."""
    return torch.float32 if name == "float32" else torch.float64
