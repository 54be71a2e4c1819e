"""Adam whose learning rate falls at milestones: PReNet's training script (Ren et al., CVPR 2019; csdwren/PReNet).

There lr 1e-3 falls to a fifth after 30, 50 and 80 of 100 epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, field_validator
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from derain.params import Section
from derain.training import recipe


class Params(Section):
    """After each of the `milestones`, shares of the training in (0, 1), the learning rate is multiplied by `gamma`."""

    milestones: list[Annotated[float, Field(gt=0, lt=1)]]
    gamma: Annotated[float, Field(gt=0, le=1)]

    @field_validator("milestones")
    @classmethod
    def _increasing(cls, milestones: list[float]) -> list[float]:
        if milestones != sorted(set(milestones)):
            raise ValueError("the milestones must increase")
        return milestones


class Recipe(recipe.Recipe):
    """Milestones fall on whole epochs."""

    params: Params

    def optimizer(self, weights: Sequence[nn.Parameter], fused: bool) -> Optimizer:
        return Adam(weights, lr=self.lr, fused=fused)

    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        epochs = [round(share * self.epochs) for share in self.params.milestones]
        return MultiStepLR(optimizer, [epoch * self.steps_per_epoch for epoch in epochs], self.params.gamma)
