"""The training loop, for every task, backbone, objective, recipe and strategy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from derain.compute import distributed
from derain.compute.batch import Batch
from derain.compute.forward import evaluating
from derain.compute.hardware import Hardware
from derain.console import track
from derain.params import Train
from derain.training import crops
from derain.training.checkpoint import Checkpoint, History
from derain.training.crops import Packs
from derain.training.micro_batches import MicroBatches
from derain.training.objective import Objective
from derain.training.recipe import Recipe
from derain.training.resume import State
from derain.training.strategy import Strategy
from derain.training.trace import Trace
from derain.types import NumericError, Restored, Task


@dataclass(frozen=True)
class Learner:
    """A network, and all that has a say while it learns a task."""

    network: nn.Module
    objective: Objective
    strategy: Strategy
    recipe: Recipe
    optimizer: torch.optim.Optimizer
    hardware: Hardware
    micro_batches: MicroBatches
    trace: Trace

    @property
    def weights(self) -> list[nn.Parameter]:
        """What the optimizer changes: the network's weights, and the objective's own."""
        return [*self.network.parameters(), *self.objective.parameters()]

    def forward(self, rainy: Tensor) -> Restored:
        """What the network makes of pictures (N, 3, H, W), in the training's precision."""
        return self.hardware.forward(self.network, rainy)


def learn(
    learner: Learner, task: Task, packs: Packs, train: Train, seed: int, state: State
) -> tuple[History, dict[str, Tensor]]:
    """Trains the network on one task in place.

    Returns the mean losses of each epoch, and the training's trace (`Trace.tensors`). Goes on from the `state` where it
    holds something.

    Raises:
        NumericError: a loss or gradient is not finite; the message names the epoch and the pictures of the batch.
    """
    network, objective, strategy = learner.network, learner.objective, learner.strategy
    device = learner.hardware.device
    network.train()
    objective.train()
    strategy.before_task(network)
    parts = {
        "network": network,
        "objective": objective,
        "strategy": strategy,
        "optimizer": learner.optimizer,
        "trace": learner.trace,
    }
    checkpoint = Checkpoint(parts, learner.recipe.schedule(learner.optimizer), device, state)
    for epoch in track(range(len(checkpoint.history), train.epochs), f"{task.name}: learning {task.dataset}, epoch"):
        batches = crops.of_epoch(packs, objective.unlabelled, train, seed, task.position, epoch, device)
        if checkpoint.step == 0:
            with torch.no_grad(), evaluating(network):
                objective.before_epoch(epoch, batches, learner.forward)
        for batch in batches.after(checkpoint.step):
            # A sequence of its own: SeedSequence ignores trailing zeros, and the crops' ends with the epoch.
            draw = np.random.default_rng([seed, task.position, epoch, checkpoint.step, 1])
            losses = training_step(learner, distributed.own(strategy.join(batch, draw)))
            if not all(map(math.isfinite, losses.values())):
                raise NumericError(_not_finite(task, epoch, losses, batches.names(checkpoint.step)))
            checkpoint.step_done(losses, len(batches))
    strategy.after_task(network)
    return checkpoint.history, learner.trace.tensors(network)


def training_step(learner: Learner, batch: Batch) -> dict[str, float]:
    """One step: the gradient of the whole batch, the strategy's say, update. Returns the losses by name.

    `batch` is this process's share; gradient and losses are those of all shares. Weights are left alone when a loss or
    the gradient is not finite; the gradient's norm is returned too then.
    """
    network, strategy, weights = learner.network, learner.strategy, learner.weights
    losses = dict(learner.micro_batches.within_memory(batch, lambda parts: _backward(learner, parts)))
    losses = dict(distributed.add_up(weights, losses))
    learner.trace.before_step(network)
    losses |= _add_penalties(network, strategy)
    norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    # All at once: each question to a GPU waits for what it is at.
    *values, gradient = torch.stack((*losses.values(), norm)).tolist()
    if not all(map(math.isfinite, (*values, gradient))):
        return dict(zip(losses, values, strict=True)) | {"gradient": gradient}
    strategy.before_step(network)
    if learner.recipe.largest_norm is not None:
        nn.utils.clip_grad_norm_(weights, learner.recipe.largest_norm)
    learner.optimizer.step()
    strategy.after_step(network)
    distributed.share_buffers((network, learner.objective))
    learner.trace.after_step(network)
    return dict(zip(losses, values, strict=True))


def _backward(learner: Learner, parts: Iterable[Batch]) -> Mapping[str, Tensor]:
    """Forward, losses and backward of a batch that comes in parts: leaves its gradients, returns its losses by name."""
    learner.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for batch in parts:
        restored = learner.forward(batch.rainy)
        losses = {
            **learner.objective.losses(batch, restored, learner.forward),
            **learner.strategy.extra_losses(batch, restored),
        }
        losses = {name: batch.share * loss for name, loss in losses.items()}
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0) + loss.detach()
    return sums


def _add_penalties(network: nn.Module, strategy: Strategy) -> dict[str, Tensor]:
    """Adds the gradients of the strategy's penalties to those of the batch, and returns the penalties by name."""
    penalties = strategy.penalties(network)
    if penalties:
        torch.autograd.backward(torch.stack(list(penalties.values())).sum())
    return {name: penalty.detach() for name, penalty in penalties.items()}


def _not_finite(task: Task, epoch: int, losses: Mapping[str, float], names: list[str]) -> str:
    shown = ", ".join(f"{name} {value}" for name, value in losses.items())
    return (
        f"{task.name}, epoch {epoch + 1}: a loss or gradient is not finite ({shown}) in the batch "
        f"{', '.join(sorted(set(names)))}. Nothing was written. Try a smaller train.lr or precision=fp32."
    )
