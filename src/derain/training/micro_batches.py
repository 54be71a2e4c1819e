"""A batch in parts, for less memory: the gradients of the parts add up to the whole batch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from derain.compute.batch import Batch
from derain.console import warn
from derain.types import ParamsError, ran_out_of_memory

T = TypeVar("T")


@dataclass
class MicroBatches:
    """At most `size` samples go through the network at once, and fewer once memory ran out.

    Where `size` is None, as many as have `pixels` together, at least one; where both are, the whole batch. A batch
    whose samples are `coupled` (batch normalization) is never split. The buffers of `modules` are what a forward pass
    changes: a step that begins anew finds them as they were.
    """

    size: int | None = None
    pixels: int | None = None
    coupled: bool = False
    modules: Sequence[nn.Module] = ()

    def within_memory(self, batch: Batch, work: Callable[[Iterator[Batch]], T]) -> T:
        """What `work` returns for the parts of a batch; where memory runs out, `work` begins anew with smaller parts.

        Raises:
            ParamsError: a single sample does not fit.
        """
        size = at_first = self._size(batch)
        buffers = [buffer for module in self.modules for buffer in module.buffers()]
        before = [buffer.clone() for buffer in buffers]
        while True:
            try:
                result = work(parts_of(batch, size))
            except (MemoryError, RuntimeError) as error:
                if not ran_out_of_memory(error):
                    raise
            else:
                break
            # Outside of the handler, whose error holds what the failed attempt has allocated.
            if size == 1 or self.coupled:
                raise ParamsError(_too_large(batch, self.coupled))
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
            size = min(size, len(batch.rainy)) // 2 or 1
        if size < at_first:
            warn(f"memory ran out: from here on micro-batches of {size} (train.micro_batch); the batch stays as it is")
            self.size = size
        return result

    def _size(self, batch: Batch) -> int:
        count, _, height, width = batch.rainy.shape
        if self.coupled:
            return count
        if self.size or self.pixels is None:
            return self.size or count
        return min(count, max(1, self.pixels // (height * width)))


def parts_of(batch: Batch, size: int) -> Iterator[Batch]:
    """A batch in parts of at most `size` samples, each with its share of the step's batch."""
    for start in range(0, len(batch.rainy), size):
        yield batch.part(slice(start, start + size))


def _too_large(batch: Batch, coupled: bool) -> str:
    count, _, height, width = batch.rainy.shape
    if coupled:
        return (
            f"params.yaml: train.batch: a step on {count} crops of {width}x{height} pixels does not fit into memory, "
            "and cannot be split: its samples are coupled (batch normalization). Choose a smaller batch or patch."
        )
    return (
        f"params.yaml: train.patch: a step on one crop of {width}x{height} pixels does not fit into memory. "
        "Choose a smaller patch or a smaller backbone."
    )
