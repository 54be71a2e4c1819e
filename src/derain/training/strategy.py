"""What a strategy is asked, in the order it is asked. Answering nothing is sequential fine-tuning."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from derain.compute.batch import Batch
from derain.compute.hardware import Hardware
from derain.params import Section
from derain.training import masks
from derain.training.crops import Crops
from derain.training.masks import Mask
from derain.training.objective import Objective
from derain.training.resume import State
from derain.types import NumericError, Restored, Task


class Samples(Protocol):
    """Gives the crops on which importance is measured: `count` of them (None: the whole grid), one by one or not."""

    def __call__(self, count: int | None, *, one_by_one: bool) -> Crops: ...


# What a strategy stores between tasks, by name, beyond the network and its mask.
Memory = Mapping[str, Tensor]


@dataclass(frozen=True)
class Done:
    """A task that is learned, as a strategy may look at it.

    `trace` is what its training left to be known of its way (`derain.training.trace.Trace.tensors`), and `state` what
    an interrupted measurement of importance goes on from; there is one for all that `consolidate` does.
    """

    task: Task
    network: nn.Module
    samples: Samples
    trace: Mapping[str, Tensor]
    state: State


@dataclass(frozen=True)
class Kept:
    """What a task leaves behind: the weights it consolidates (None: none), the new memory, and facts about the mask."""

    mask: Mask | None = None
    memory: Memory = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Params(Section):
    """A strategy without parameters."""


class Strategy:
    """One task under a strategy.

    `params` is its section of params.yaml, `mask` what earlier tasks consolidated, `memory` what the strategy kept
    after the task before ({} ahead of the first one's end), and `objective` what the task is learned by.

    Running statistics (buffers) go on with each task's data, as in fine-tuning; `Masked` holds them.
    """

    def __init__(self, params: Any, mask: Mask, hardware: Hardware, memory: Memory, objective: Objective) -> None:
        self.params = params
        self.objective = objective
        self.mask = {name: part.to(hardware.device) for name, part in mask.items()}
        self.hardware = hardware
        self.memory = {name: tensor.to(hardware.device) for name, tensor in memory.items()}

    @property
    def needs_former_weights(self) -> bool:
        """Whether a second copy of the network has to be there while a task is learned: the weights of the one before.

        They are the network's own between tasks, and yet count as stored.
        """
        return False

    def before_task(self, network: nn.Module) -> None:
        """Called with the weights of the task before, ahead of the first step."""

    def join(self, batch: Batch, draw: np.random.Generator) -> Batch:
        """The batch that a step learns from, given the task's own; `draw` is a function of seed, task and step."""
        return batch

    def extra_losses(self, batch: Batch, restored: Restored) -> Mapping[str, Tensor]:
        """Weighted loss terms by name, each a mean over the batch's samples, added to the supervised loss.

        `batch` may be a part of a step's batch: asked for each part, and the answers add up by the parts' shares. On a
        GPU the operations of some first answers are repeated in all later steps: an answer must be a function of the
        batch and of tensors that are changed in place only, and may not ask for a number's value (`.item()`).
        """
        return {}

    def penalties(self, network: nn.Module) -> Mapping[str, Tensor]:
        """Weighted loss terms by name that look at the weights alone: asked once a step, after the batch's gradients.

        A scalar each, with a gradient. No part of the training's trace.
        """
        return {}

    def before_step(self, network: nn.Module) -> None:
        """Called once a step, between the gradients of all its losses and the optimizer's step."""

    def after_step(self, network: nn.Module) -> None:
        """Called once a step, after the optimizer's."""

    def after_task(self, network: nn.Module) -> None:
        """Called after the last step; the place for run-time assertions."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Tensors of its own that steps change, by name: resumed with the training, and there when it consolidates."""
        return {}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes what `state_dict` gave, on the strategy's device: of a training to go on with, or one that is done."""

    def consolidate(self, done: Done) -> Kept:
        """What this task leaves behind.

        Asked of a strategy that has not learned the task itself: `before_task` was not called, and `load_state_dict`
        was where the training had something of its own. The first task of a stream from random weights has nothing: it
        is learned without any strategy.
        """
        return Kept()


class Masked(Strategy):
    """Consolidated weights never change: the base of strategies whose `consolidate` answers a mask.

    Where any is consolidated, running statistics are held too: a weight that is kept while they move computes something
    else.
    """

    def before_task(self, network: nn.Module) -> None:
        self.before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
        self.holds = masks.fraction(self.mask) > 0
        if self.holds:
            masks.hold_statistics(network)

    def before_step(self, network: nn.Module) -> None:
        """Shields consolidated weights from the gradient, and so from an optimizer's moments."""
        for name, weight in network.named_parameters():
            if weight.grad is not None:
                weight.grad.masked_fill_(self.mask[name], 0)

    @torch.no_grad()
    def after_step(self, network: nn.Module) -> None:
        """Takes back what an optimizer does without a gradient, as weight decay."""
        for name, weight in network.named_parameters() if self.holds else ():
            weight.copy_(torch.where(self.mask[name], self.before[name], weight))

    def after_task(self, network: nn.Module) -> None:
        """Asserts that every consolidated weight has the bits it had before the task."""
        for name, weight in network.named_parameters():
            held = self.mask[name]
            if not torch.equal(weight[held], self.before[name][held]):
                raise NumericError(
                    f"a consolidated weight of {name} has moved: the model is not kept. Please report this."
                )


class Anchored(Strategy, ABC):
    """Weights are drawn to those of the task before, theta*, each by how important it is; none is consolidated.

    The memory is the importance Omega, by weight a float32 tensor of its shape.
    """

    @property
    def needs_former_weights(self) -> bool:
        return True

    @abstractmethod
    def strength(self) -> float:
        """The factor of the penalty; without one (0) none is computed."""

    @abstractmethod
    def importance(self, done: Done) -> Memory:
        """Omega after this task, that of earlier tasks (`self.memory`) counted in."""

    def distance(self, importance: Tensor, moved: Tensor) -> Tensor:
        """The penalty of one parameter tensor before `strength`, a scalar; `moved` is theta - theta*."""
        return (importance * moved.square()).sum()

    def before_task(self, network: nn.Module) -> None:
        self.anchor = {name: weight.detach().clone() for name, weight in network.named_parameters()}

    def penalties(self, network: nn.Module) -> Mapping[str, Tensor]:
        if self.strength() == 0 or not self.memory:
            return {}
        distances = [
            self.distance(self.memory[name], weight - self.anchor[name]) for name, weight in network.named_parameters()
        ]
        return {"penalty": self.strength() * torch.stack(distances).sum()}

    def consolidate(self, done: Done) -> Kept:
        return Kept(memory=self.importance(done))
