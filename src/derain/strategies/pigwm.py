"""PIGWM, Zhou et al., "Image De-raining via Continual Learning", CVPR 2021: what its released code does.

The penalty of a parameter tensor is beta/2 * s + beta/2 * s^2 with s = sum Omega |theta - theta*|. Omega is the mean
over batches of |d L / d theta|, L the objective's distance (SSIM there), and over tasks the mean of theirs.

Here Omega is measured in a pass over crops after the task, at its final weights; the released code takes the mean along
the last epoch, before each step.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from derain.params import Count, Finite, Section
from derain.training import strategy
from derain.training.importance import mean_absolute_gradient
from derain.training.strategy import Done, Memory


class Params(Section):
    """`samples` crops are drawn for Omega, a gradient a batch of them; None: the set's whole grid of patches."""

    beta: Annotated[Finite, Field(ge=0)]
    samples: Count | None


class Strategy(strategy.Anchored):
    """The memory is Omega, the mean over the tasks so far."""

    params: Params

    def strength(self) -> float:
        return self.params.beta / 2

    def distance(self, importance: Tensor, moved: Tensor) -> Tensor:
        total = (importance * moved.abs()).sum()
        return total + total.square()

    def importance(self, done: Done) -> Memory:
        crops = done.samples(self.params.samples, one_by_one=False)
        omega = mean_absolute_gradient(done.network, crops, self.hardware, self.objective, done.state)
        before = done.task.position
        return {name: (self.memory.get(name, 0) * before + part) / (before + 1) for name, part in omega.items()}
