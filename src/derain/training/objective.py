"""What an objective is asked: the loss that a task is learned by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from derain.compute.batch import Batch
from derain.training.crops import Crops
from derain.types import Restored

# What the network makes of pictures (N, 3, H, W), in the training's precision.
Forward = Callable[[Tensor], Restored]


class Objective(nn.Module, ABC):
    """The loss, with what is its own: heads and critics are modules, banks are buffers.

    Its parameters are learned with the network's, by the same recipe, and freely: masks hold the network's weights
    alone. All of its `state_dict` is resumed, saved beside the network's weights, and there again for the next task;
    what lies elsewhere is lost when a training is interrupted. A stream that starts from a file begins with a new one.

    Attributes:
        unlabelled: how many crops without a clean partner join each step's own.
        samples_coupled: whether the losses of a batch are more than a mean over its samples: then it is never split.
    """

    unlabelled: int = 0
    samples_coupled: bool = False

    def __init__(self, params: Any) -> None:
        """`params` is its section of params.yaml."""
        super().__init__()
        self.params = params

    @abstractmethod
    def distance(self, derained: Tensor, reference: Tensor) -> Tensor:
        """The L of Eq. 1 and Eq. 7 (Xiao et al., ICCV 2021): a mean over the pictures (N, 3, H, W), a scalar.

        Training, importance and distillation all measure by it.
        """

    def losses(self, batch: Batch, restored: Restored, forward: Forward) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Weighted loss terms by name, each a scalar, a mean over the samples of `batch`.

        A batch may hold labelled crops, unlabelled ones, or both (`Batch.labelled`): a term over some of them is
        `batch.mean`, which adds up over the parts of a batch that is split. `restored` is what the network made of the
        batch; `forward` is there for what it makes of other pictures. See `Strategy.extra_losses` for what holds on a
        GPU.
        """
        return {"supervised": self.distance(restored.derained, batch.clean)}

    def before_epoch(self, epoch: int, crops: Crops, forward: Forward) -> None:
        """Called before the first step of each epoch, from 0 on, with its crops; the place to fill a bank.

        Nothing needs a gradient in it, and the network evaluates. Every process does it for itself.
        """
