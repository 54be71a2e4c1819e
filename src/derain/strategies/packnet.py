"""PackNet-like: disjoint masks by magnitude, after Mallya and Lazebnik, "PackNet", CVPR 2018.

After each task, the largest of the still free weights are consolidated, the same share in every parameter tensor, and
never change again. PackNet proper sets the others to zero, trains what is left once more, and uses only the weights of
a task and those before it at test time. Here no picture says which task it belongs to, so that all weights are always
used: the free ones keep their values, and later tasks change them under the earlier tasks' feet. Biases are shared out
as other weights are (PackNet leaves them as the first task set them).
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from derain.params import Finite, Section
from derain.training import strategy
from derain.training.strategy import Done, Kept


class Params(Section):
    """`share` of the still free weights is what each task consolidates."""

    share: Annotated[Finite, Field(ge=0, le=1)]


class Strategy(strategy.Masked):
    """Nothing is stored but the mask."""

    params: Params

    def consolidate(self, done: Done) -> Kept:
        return Kept(
            {
                name: _largest(weight.detach(), ~self.mask[name], self.params.share)
                for name, weight in done.network.named_parameters()
            }
        )


def _largest(weight: Tensor, free: Tensor, share: float) -> Tensor:
    """The mask of the int(share * #free) free entries of largest magnitude."""
    magnitude = torch.where(free, weight.abs(), -1).flatten()
    chosen = torch.zeros_like(magnitude, dtype=torch.bool)
    chosen[magnitude.topk(int(share * int(free.sum()))).indices] = True
    return chosen.reshape(weight.shape)
