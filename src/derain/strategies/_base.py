"""What a strategy is asked, in the order it is asked. Answering nothing is sequential fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from derain.hardware import Hardware
from derain.params import Section
from derain.states import State
from derain.training import masks
from derain.training.crops import Crops
from derain.training.masks import Mask
from derain.types import Batch, Restored, Task

# Gives the crops on which importance is measured: how many (None: the whole grid), and whether one by one.
Samples = Callable[[int | None, bool], Crops]


class Params(Section):
    """A strategy without parameters."""


class Strategy:
    """One task under a strategy: `params` is its section of params.yaml, `mask` what earlier tasks consolidated."""

    def __init__(self, params: Any, mask: Mask, hardware: Hardware) -> None:
        self.params = params
        self.mask = {name: part.to(hardware.device) for name, part in mask.items()}
        self.hardware = hardware

    def before_task(self, network: nn.Module) -> None:
        """Called with the weights of the task before, ahead of the first step."""

    def extra_losses(self, batch: Batch, restored: Restored) -> Mapping[str, Tensor]:
        """Weighted loss terms by name, each a mean over the batch's samples, added to the supervised loss.

        `batch` may be a part of a step's batch: asked for each part, and the answers add up by the parts' shares.
        """
        return {}

    def before_step(self, network: nn.Module) -> None:
        """Called once a step, between the gradients of its whole batch and the optimizer's step."""

    def after_task(self, network: nn.Module) -> None:
        """Called after the last step; the place for run-time assertions."""

    def consolidate(
        self, network: nn.Module, task: Task, samples: Samples, state: State
    ) -> tuple[Mask, Mapping[str, Any]]:
        """What this task consolidates, and facts about it for the mask's metadata.

        `state` is what an interrupted call goes on from.
        """
        return masks.nothing_consolidated(network), {}
