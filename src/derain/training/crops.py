"""The training crops in their order: a pure function of (seed, task, epoch), so that it needs no state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from derain.compute.batch import Batch
from derain.training import pixels

if TYPE_CHECKING:
    from derain.data.pack import Pack
    from derain.params import Train


# A task's data by role, of `derain.types.Role`: train, and unlabelled where the set has it.
Packs = Mapping[str, "Pack"]


@dataclass(frozen=True)
class Crops:
    """Batches of crops at given places; `places` has rows (pair, top, left), the last batch may be smaller.

    The crops of `unlabelled`, rainy ones without a clean partner, join those of the same step.
    """

    pack: Pack
    places: np.ndarray
    patch: int
    batch: int
    device: torch.device
    unlabelled: Crops | None = None

    def __len__(self) -> int:
        return -(-len(self.places) // self.batch)

    def __iter__(self) -> Iterator[Batch]:
        return self.after(0)

    def after(self, steps: int) -> Iterator[Batch]:
        """The batches that follow the first `steps`."""
        return map(self.at, range(steps, len(self)))

    def at(self, step: int) -> Batch:
        """The batch of a step."""
        places = self._places(step)
        rainy, clean = map(to_tensor, pixels.crops(self.pack, places, self.patch, self.device))
        batch = Batch(rainy, clean, sample=pixels.sent(places[:, 0], self.device))
        if self.unlabelled is None:
            return batch
        others = self.unlabelled.at(step)
        none = torch.zeros(len(others.rainy), dtype=torch.bool, device=self.device)
        return batch.joined(others._replace(clean=others.rainy, labelled=none))

    def names(self, step: int) -> list[str]:
        """The names of the pairs in a batch, for messages."""
        others = self.unlabelled.names(step) if self.unlabelled else []
        return [self.pack.names[pair] for pair in self._places(step)[:, 0]] + others

    def _places(self, step: int) -> np.ndarray:
        return self.places[step * self.batch : (step + 1) * self.batch]


def of_epoch(
    packs: Packs, unlabelled: int, train: Train, seed: int, position: int, epoch: int, device: torch.device
) -> Crops:
    """An epoch of a task: `steps_per_epoch` batches of random crops, or every patch of the grid once, shuffled.

    So many random `unlabelled` crops join each batch.
    """
    pack = packs["train"]
    rng = np.random.default_rng([seed, position, epoch])
    if train.steps_per_epoch is None:
        places = rng.permutation(pack.grid(train.patch))
    else:
        places = pack.random(rng, train.steps_per_epoch * train.batch, train.patch)
    crops = Crops(pack, places, train.patch, train.batch, device)
    if unlabelled == 0:
        return crops
    # A sequence of its own, whatever the labelled crops draw.
    others = packs["unlabelled"].random(
        np.random.default_rng([seed, position, epoch, 0, 2]), len(crops) * unlabelled, train.patch
    )
    return replace(crops, unlabelled=Crops(packs["unlabelled"], others, train.patch, unlabelled, device))


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
