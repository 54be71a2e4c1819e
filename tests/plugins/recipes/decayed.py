"""A throw-away recipe: AdamW with weight decay, warmed up, clipped."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LinearLR, LRScheduler

from derain.params import Positive, Section
from derain.training import recipe


class Params(Section):
    """`decay` is AdamW's weight decay."""

    decay: Positive


class Recipe(recipe.Recipe):
    """From a tenth of the learning rate to all of it."""

    largest_norm = 0.1
    params: Params

    def optimizer(self, weights: Sequence[nn.Parameter], fused: bool) -> Optimizer:
        return AdamW(weights, lr=self.lr, weight_decay=self.params.decay, fused=fused)

    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        return LinearLR(optimizer, 0.1, total_iters=self.epochs * self.steps_per_epoch)
