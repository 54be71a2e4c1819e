"""The training crops in their order: a pure function of (seed, task, epoch), so that it needs no state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from derain.training import pixels
from derain.types import Batch

if TYPE_CHECKING:
    from derain.data.pack import Pack
    from derain.params import Train


@dataclass(frozen=True)
class Crops:
    """Batches of crops at given places; `places` has rows (pair, top, left), the last batch may be smaller."""

    pack: Pack
    places: np.ndarray
    patch: int
    batch: int
    device: torch.device

    def __len__(self) -> int:
        return -(-len(self.places) // self.batch)

    def __iter__(self) -> Iterator[Batch]:
        return self.after(0)

    def after(self, steps: int) -> Iterator[Batch]:
        """The batches that follow the first `steps`."""
        return map(self.at, range(steps, len(self)))

    def at(self, step: int) -> Batch:
        """The batch of a step."""
        rainy, clean = pixels.crops(self.pack, self._places(step), self.patch, self.device)
        return Batch(to_tensor(rainy), to_tensor(clean))

    def names(self, step: int) -> list[str]:
        """The names of the pairs in a batch, for messages."""
        return [self.pack.names[pair] for pair in self._places(step)[:, 0]]

    def _places(self, step: int) -> np.ndarray:
        return self.places[step * self.batch : (step + 1) * self.batch]


def of_epoch(pack: Pack, train: Train, seed: int, position: int, epoch: int, device: torch.device) -> Crops:
    """An epoch of a task: `steps_per_epoch` batches of random crops, or every patch of the grid once, shuffled."""
    rng = np.random.default_rng([seed, position, epoch])
    if train.steps_per_epoch is None:
        places = rng.permutation(pack.grid(train.patch))
    else:
        places = pack.random(rng, train.steps_per_epoch * train.batch, train.patch)
    return Crops(pack, places, train.patch, train.batch, device)


def for_importance(
    pack: Pack, patch: int, seed: int, position: int, count: int | None, batch: int, device: torch.device
) -> Crops:
    """`count` random crops of a task's data, or all of its grid where `count` is None."""
    # No epoch bears this number.
    rng = np.random.default_rng([seed, position, 2**32])
    places = pack.grid(patch) if count is None else pack.random(rng, count, patch)
    return Crops(pack, places, patch, batch, device)


def to_tensor(crops: torch.Tensor) -> torch.Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [0, 1]; the memory stays channels-last."""
    # By a tensor: a GPU divides by a number by multiplying with its reciprocal, whose last bits are others.
    return crops.permute(0, 3, 1, 2).float().div_(torch.full((), 255.0, device=crops.device))
