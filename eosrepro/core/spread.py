"""Examples that are spread over ranks: each holds whole chunks of them, and others come to it when they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from eosrepro.core.ranks import ALIGNMENT, broadcast, divide, receive, send, world
from eosrepro.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Spread:
    """Examples that are spread over the ranks, in order."""

    borders: tuple[int, ...]  # rank r holds those from borders[r] to borders[r + 1]

    @classmethod
    def of(cls, n_examples: int, chunk_size: int) -> Spread | None:
        """Each rank holds whole chunks; None where there is one rank.

        Raises:
            ConfigError: there are fewer chunks than ranks.
        """
        if world().size == 1:
            return None
        chunks = chunk_sizes(n_examples, chunk_size)
        if len(chunks) < world().size:
            smaller = -(-n_examples // world().size)
            raise ConfigError(
                f"{n_examples:,} examples in chunks of {chunk_size:,} are {len(chunks)} part{'s' * (len(chunks) > 1)}, "
                f"which {world().size} ranks cannot share. Set EOSREPRO_RANKS to at most {len(chunks)}, or "
                f"compute.chunk_size to at most {smaller:,} (other chunks are another run: its last bits differ)"
            )
        return cls.over(chunks)

    @classmethod
    def over(cls, sizes: Sequence[int]) -> Spread:
        """Each rank holds whole parts, of so many examples."""
        ends = [0, *accumulate(sizes)]
        return cls((0, *(ends[parts.stop] for parts in divide(len(sizes)))))

    @property
    def here(self) -> range:
        """The examples of this rank."""
        return range(*self.borders[world().rank : world().rank + 2])

    def parts(self, sizes: Sequence[int]) -> range:
        """Those of this rank, of parts of so many examples.

        Raises:
            ConfigError: a part lies on two ranks.
        """
        starts = {end: index for index, end in enumerate([0, *accumulate(sizes)])}
        if not starts.keys() >= {*self.borders}:
            few = len(sizes) < world().size
            other = "" if few else f", or compute.chunk_size to a multiple of the {sizes[0]:,} examples of a group"
            raise ConfigError(
                "the batch statistics of the model are of examples that lie on several ranks, so that none could "
                f"compute its share alone. Set EOSREPRO_RANKS to 1{other}"
            )
        return range(starts[self.here.start], starts[self.here.stop])

    def chosen(self, own: Tensor, indices: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Spread]:
        """The examples with these indices, spread over the ranks by parts of so many, and how they are.

        Args:
            own: the examples of this rank.
            indices: (n,), the same on all ranks.
        """
        spread = Spread.over(sizes)
        found = [self.rows(own, indices[low:high], to) for to, (low, high) in enumerate(pairwise(spread.borders))]
        return spread.placed(found[world().rank]), spread

    def rows(self, own: Tensor, indices: Tensor, to: int | None = None) -> Tensor:
        """The examples with these indices, (n, ...), on the rank `to` or on all; elsewhere none.

        Args:
            own: the examples of this rank.
            indices: (n,), the same on all ranks.
        """
        rank, at = world().rank, indices.cpu()
        wanted = to in (None, rank)
        found = own.new_empty((len(at) if wanted else 0, *own.shape[1:]))
        for source, (low, high) in enumerate(pairwise(self.borders)):
            places = ((low <= at) & (at < high)).nonzero().flatten()
            if not len(places) or not (wanted or source == rank):
                continue
            here = source == rank
            rows = own[(at[places] - low).to(own.device)] if here else own.new_empty((len(places), *own.shape[1:]))
            if to is None:
                broadcast(rows, source)
            elif here and to != rank:
                send(rows, to)
            elif not here:
                receive(rows, source)
            if wanted:
                found[places.to(own.device)] = rows
        return found

    def placed(self, own: Tensor) -> Tensor:
        """The examples of this rank, where they would lie in memory behind those of all ranks before."""
        return placed(own, self.here.start * own.shape[1:].numel() * own.element_size())


def chunk_sizes(n_examples: int, chunk_size: int) -> list[int]:
    """Of chunks of so many examples; the last one is what is left."""
    full, left = divmod(n_examples, chunk_size)
    return [chunk_size] * full + [left] * (left > 0)


def placed(tensor: Tensor, offset: int = 0) -> Tensor:
    """The same numbers where PyTorch would put them if `offset` bytes came before them.

    Where they begin decides on the last bits of their products.
    """
    if (tensor.data_ptr() - offset) % ALIGNMENT == 0:
        return tensor
    skipped, rest = divmod(offset % ALIGNMENT, tensor.element_size())
    assert not rest  # whole numbers come before them
    room = tensor.new_empty(skipped + tensor.numel())
    return room[skipped:].view(tensor.shape).copy_(tensor)
