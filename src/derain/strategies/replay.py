"""Experience replay from a small buffer of crops, as ER of Chaudhry et al., "On Tiny Episodic Memories", 2019.

Each step learns from the task's own crops and from some drawn from the buffer, in one batch. The buffer holds `buffer`
crops at most, shared evenly among the tasks so far; a later task's crops take the place of some of each earlier one's.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from derain.compute.batch import Batch
from derain.params import Count, Section
from derain.training import strategy
from derain.training.crops import to_tensor
from derain.training.strategy import Done, Kept


class Params(Section):
    """`buffer` is the number of crops stored, `batch` how many of them join each step's own."""

    buffer: Count
    batch: Annotated[int, Field(ge=0)]


class Strategy(strategy.Strategy):
    """The memory is `rainy` and `clean`, uint8 (M, patch, patch, 3), and the position of the `task` of each, (M,)."""

    params: Params

    def join(self, batch: Batch, draw: np.random.Generator) -> Batch:
        if self.params.batch == 0 or not self.memory:
            return batch
        chosen = torch.from_numpy(draw.integers(0, len(self.memory["task"]), self.params.batch))
        rainy, clean = (to_tensor(self.memory[name][chosen.to(self.hardware.device)]) for name in ("rainy", "clean"))
        return batch.joined(Batch(rainy, clean))

    def consolidate(self, done: Done) -> Kept:
        tasks = done.task.position + 1
        quotas = [_quota(self.params.buffer, position, tasks) for position in range(tasks)]
        crops = done.samples(quotas[-1], one_by_one=False)
        rainy, clean = crops.pack.crops(crops.places, crops.patch)
        memory = {
            "rainy": torch.from_numpy(rainy),
            "clean": torch.from_numpy(clean),
            "task": torch.full((len(rainy),), done.task.position, dtype=torch.int16),
        }
        if self.memory:
            stay = self._stay(quotas)
            memory = {name: torch.cat((self.memory[name][stay].cpu(), part)) for name, part in memory.items()}
        return Kept(memory=memory)

    def _stay(self, quotas: list[int]) -> Tensor:
        """Which of the buffer's crops stay: the first ones of each earlier task, as many as it has places."""
        owners = self.memory["task"]
        return torch.cat([(owners == position).nonzero().flatten()[:quota] for position, quota in enumerate(quotas)])


def _quota(buffer: int, position: int, tasks: int) -> int:
    """How many of the buffer's places the task at that position has, among so many tasks; they add up to `buffer`."""
    return len(range(position, buffer, tasks))
