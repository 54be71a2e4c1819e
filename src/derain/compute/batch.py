"""Crops that are learned from at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Crops that are learned from at once: float32 tensors of shape (N, 3, H, W) in [0, 1], RGB.

    An unlabelled crop has no clean partner: its clean side is the rainy one.

    Attributes:
        share: how much they are of a step's batch, in [0, 1]: the weight of their mean loss in the step's.
        labelled: which crops have a clean partner, bool (N,); None: all.
        sample: the number, in its pack, of the pair that each crop was cut from, int64 (N,), -1 without one; None: no
            crop has one.
    """

    rainy: Tensor
    clean: Tensor
    share: float = 1.0
    labelled: Tensor | None = None
    sample: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that there are, in the order of the fields."""
        return [field for field in self if field is not None and not isinstance(field, float)]

    def map(self, of: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with another tensor in the place of each."""
        labelled, sample = (None if tensor is None else of(tensor) for tensor in (self.labelled, self.sample))
        return Batch(of(self.rainy), of(self.clean), self.share, labelled, sample)

    def part(self, rows: slice) -> Batch:
        """Some of the crops, with their share of the step's batch."""
        part = self.map(lambda tensor: tensor[rows])
        return part._replace(share=self.share * (len(part.rainy) / len(self.rainy)))

    def joined(self, other: Batch) -> Batch:
        """The crops of both as one batch of a step."""

        def both(one: Tensor | None, two: Tensor | None, missing: int | bool) -> Tensor | None:
            if one is None and two is None:
                return None
            parts = [
                torch.full((len(batch.rainy),), missing, device=batch.rainy.device) if part is None else part
                for batch, part in ((self, one), (other, two))
            ]
            return torch.cat(parts)

        return Batch(
            torch.cat((self.rainy, other.rainy)),
            torch.cat((self.clean, other.clean)),
            labelled=both(self.labelled, other.labelled, True),
            sample=both(self.sample, other.sample, -1),
        )

    def mean(self, values: Tensor, of: Tensor | None) -> Tensor:
        """The sum of the samples' `values`, (N,), where `of` says so (bool, (N,); None: all), over N.

        As part of a step's loss it adds up over the batch's parts whatever they hold: a mean over the labelled samples
        alone would not, and has no value where there are none.
        """
        return (values if of is None else values * of).sum() / len(values)
