"""What a recipe is asked: how the weights of a task are updated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class Recipe(ABC):
    """Optimizer, schedule and clipping of one task's training; each task begins anew.

    Attributes:
        largest_norm: the norm to which the gradient is clipped, that of consolidated weights left out; None: it is not.
    """

    largest_norm: float | None = None

    def __init__(self, params: Any, lr: float, epochs: int, steps_per_epoch: int) -> None:
        """`params` is its section of params.yaml, `lr` the largest learning rate (`train.lr`)."""
        self.params = params
        self.lr, self.epochs, self.steps_per_epoch = lr, epochs, steps_per_epoch

    @abstractmethod
    def optimizer(self, weights: Sequence[nn.Parameter], fused: bool) -> Optimizer:
        """A fresh optimizer; `fused` asks for torch's fused kernels, which a GPU has."""

    @abstractmethod
    def schedule(self, optimizer: Optimizer) -> LRScheduler:
        """The schedule of its learning rate, which goes on by one after every step."""
