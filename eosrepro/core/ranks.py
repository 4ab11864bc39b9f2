"""One computation over several processes, the ranks, which give the same bytes as one process alone.

All ranks run the same program on the same θ. What is divided is a sum over parts: each rank holds some of them, in
their order, and the sum is added in that order, as one process would: it goes from rank to rank, and the last one tells
it to all. So every number that a decision hangs on is the same on all ranks. A collective of a library adds in an order
of its own, and past the edge of stability the last bit decides on a trajectory.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from eosrepro.core.later import torch
from eosrepro.errors import EosreproError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store  # type: ignore[attr-defined]

# A rank that dies closes its connections, and the others know at once. This is for a host that vanishes, and should be
# longer than a rank ever waits for the others: for the parts of all before it, or for the first one between two tasks.
TIMEOUT = timedelta(hours=2)
ALIGNMENT = 64  # bytes: where PyTorch puts a tensor

Made = TypeVar("Made")


class World(NamedTuple):
    """Which of the ranks this process is, and how many there are."""

    rank: int = 0
    size: int = 1


class LostRankError(EosreproError):
    """Another rank has ended."""


_world = World()


def world() -> World:
    """Of this process; one rank of one where there are no others."""
    return _world


def declare(rank: int, size: int) -> None:
    """Say what `world` is, before there is a connection."""
    global _world
    _world = World(rank, size)


def join(store: Store, *, backend: str) -> None:
    """Connect the ranks of the declared world.

    Args:
        store: where they find each other.
        backend: of PyTorch: `gloo`, or `cpu:gloo,cuda:nccl` where each rank has a GPU of its own.

    Raises:
        LostRankError: they do not find each other.
    """
    with _telling_losses():
        torch.distributed.init_process_group(
            backend, store=store, rank=_world.rank, world_size=_world.size, timeout=TIMEOUT
        )


def leave() -> None:
    """Be alone again."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    declare(0, 1)


def on_first() -> bool:
    """Whether this is the rank that writes files and speaks."""
    return _world.rank == 0


def from_first(make: Callable[[], Made]) -> Made:
    """What the first rank makes, on all of them; on the others nothing is made. Its tensors are on the CPU."""
    if _world.size == 1:
        return make()
    content = pickle.dumps(make()) if on_first() else b""
    length = torch.tensor([len(content)])
    broadcast(length, 0)
    message = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else _bytes(int(length))
    broadcast(message, 0)
    made: Made = pickle.loads(message.numpy().tobytes())
    return made


# --- parts and their sum ----------------------------------------------------------------------------------------------


def divide(n_parts: int) -> list[range]:
    """The parts of each rank, in order and as even as can be; of fewer parts than ranks the last ranks have none."""
    each, more = divmod(n_parts, _world.size)
    ends = [each * rank + min(rank, more) for rank in range(_world.size + 1)]
    return [range(*pair) for pair in pairwise(ends)]


class Piece(NamedTuple):
    """A part of a sum: of vectors, and of numbers beside them."""

    vector: Tensor | None
    numbers: Sequence[float] = ()


def ordered_sum(pieces: Iterable[Piece], *, like: Tensor | None, n_numbers: int, over: int | None) -> Piece:
    """The sum of the pieces of all parts in their order, the same on all ranks: numbers from 0, vectors from the first.

    Args:
        pieces: of the parts of this rank, in order.
        like: a tensor of the shape, dtype and device of their vectors; None: they have none.
        n_numbers: how many numbers a piece has.
        over: the number of parts of all ranks together; None: those of this process are all.
    """
    if over is None or _world.size == 1:
        return _added(None, pieces, n_numbers)
    last = min(over, _world.size) - 1  # that has a part
    rank = _world.rank
    carried = _Carried(like, n_numbers)
    if rank <= last:
        if rank == 0:
            total = _added(None, pieces, n_numbers)
        else:
            # All of its own wait for what comes before them, so that the ranks compute at the same time.
            waiting = [*pieces]
            receive(carried.content, rank - 1)
            total = _added(carried.read(), waiting, n_numbers)
        carried.write(total)
        if rank < last:
            send(carried.content, rank + 1)
    broadcast(carried.content, last)
    return carried.read()


def _added(before: Piece | None, pieces: Iterable[Piece], n_numbers: int) -> Piece:
    vector, numbers = (None, [0.0] * n_numbers) if before is None else (before.vector, [*before.numbers])
    is_ours = before is not None  # so that it may be written to
    for piece in pieces:
        if vector is None or piece.vector is None:
            vector = piece.vector
        elif is_ours:
            vector += piece.vector
        else:
            vector, is_ours = vector + piece.vector, True
        numbers = [number + more for number, more in zip(numbers, piece.numbers, strict=True)]
    return Piece(vector, numbers)


class _Carried:
    """A sum as one message: its numbers in float64, then room, so that the vector lies where PyTorch would put it."""

    def __init__(self, like: Tensor | None, n_numbers: int) -> None:
        room = -(-8 * n_numbers // ALIGNMENT) * ALIGNMENT
        size = 0 if like is None else like.numel() * like.element_size()
        self.content = _bytes(room + size, on=like)
        self._numbers = self.content[: 8 * n_numbers].view(torch.float64)
        self._vector = None if like is None else self.content[room:].view(like.dtype).view(like.shape)

    def write(self, total: Piece) -> None:
        self._numbers.copy_(torch.tensor(total.numbers, dtype=torch.float64))
        if self._vector is not None and total.vector is not None:
            self._vector.copy_(total.vector)

    def read(self) -> Piece:
        return Piece(self._vector, self._numbers.tolist())


def _bytes(size: int, on: Tensor | None = None) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device=None if on is None else on.device)


# --- messages ---------------------------------------------------------------------------------------------------------


@contextmanager
def _telling_losses() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of which those of `distributed` are
        raise LostRankError(
            f"rank {_world.rank} of {_world.size} has lost the others ({str(error).splitlines()[0]})"
        ) from None


@contextmanager
def _in_reach(tensor: Tensor) -> Iterator[Tensor]:
    """The tensor, or a copy on the CPU where messages go from there alone; what has become of it comes back."""
    contiguous = tensor.contiguous()
    away = contiguous.is_cuda and "nccl" not in str(torch.distributed.get_backend_config())
    carrier = contiguous.cpu() if away else contiguous
    with _telling_losses():
        yield carrier.flatten().view(torch.uint8)
    if away or contiguous is not tensor:
        tensor.copy_(carrier)


def send(tensor: Tensor, to: int) -> None:
    with _in_reach(tensor) as message:
        torch.distributed.send(message, to)


def receive(tensor: Tensor, source: int) -> None:
    with _in_reach(tensor) as message:
        torch.distributed.recv(message, source)


def broadcast(tensor: Tensor, source: int) -> None:
    with _in_reach(tensor) as message:
        torch.distributed.broadcast(message, source)
