"""The training loop, for every task, strategy and backbone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from derain.compute import distributed
from derain.compute.hardware import Hardware
from derain.console import track
from derain.training import crops, cuda_graphs
from derain.training.checkpoint import History, Progress
from derain.training.losses import negative_ssim
from derain.training.micro_batches import MicroBatches
from derain.training.resume import State
from derain.training.trace import Trace
from derain.types import Batch, NumericError, Task

if TYPE_CHECKING:
    from derain.data.pack import Pack
    from derain.params import Train
    from derain.training.strategy import Strategy


def learn(
    network: nn.Module,
    task: Task,
    pack: Pack,
    strategy: Strategy,
    train: Train,
    seed: int,
    hardware: Hardware,
    state: State,
) -> tuple[History, dict[str, Tensor]]:
    """Trains the network on one task in place, with a fresh optimizer.

    Returns the mean losses of each epoch, and the training's trace (`Trace.tensors`). Goes on from the `state` where it
    holds something.

    Raises:
        NumericError: a loss or gradient is not finite; the message names the epoch and the pictures of the batch.
    """
    network.train()
    strategy.before_task(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=train.lr, fused=hardware.is_gpu)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, train.milestones, train.gamma)
    trace = Trace(network)
    progress = Progress(network, optimizer, schedule, trace, state)
    micro_batches = cuda_graphs.micro_batches(train.micro_batch, network, hardware)
    for epoch in track(range(len(progress.history), train.epochs), f"{task.name}: learning {task.dataset}, epoch"):
        batches = crops.of_epoch(pack, train, seed, task.position, epoch, hardware.device)
        for batch in batches.after(progress.step):
            # A sequence of its own: SeedSequence ignores trailing zeros, and the crops' ends with the epoch.
            draw = np.random.default_rng([seed, task.position, epoch, progress.step, 1])
            own = distributed.own(strategy.join(batch, draw))
            losses = training_step(network, own, strategy, optimizer, hardware, micro_batches, trace)
            if not all(map(math.isfinite, losses.values())):
                raise NumericError(_not_finite(task, epoch, losses, batches.names(progress.step)))
            progress.step_done(losses, len(batches))
    strategy.after_task(network)
    return progress.history, trace.tensors(network)


def training_step(
    network: nn.Module,
    batch: Batch,
    strategy: Strategy,
    optimizer: torch.optim.Optimizer,
    hardware: Hardware,
    micro_batches: MicroBatches,
    trace: Trace,
) -> dict[str, float]:
    """One step: the gradient of the whole batch, the strategy's say, update. Returns the losses by name.

    `batch` is this process's share; gradient and losses are those of all shares. Weights are left alone when a loss or
    the gradient is not finite; the gradient's norm is returned too then.
    """
    losses = micro_batches.within_memory(batch, lambda parts: _backward(network, parts, strategy, hardware))
    losses = dict(distributed.add_up(network, losses))
    trace.before_step(network)
    losses |= _add_penalties(network, strategy)
    norm = nn.utils.get_total_norm([weight.grad for weight in network.parameters() if weight.grad is not None])
    # All at once: each question to a GPU waits for what it is at.
    *values, gradient = torch.stack((*losses.values(), norm)).tolist()
    if not all(map(math.isfinite, (*values, gradient))):
        return dict(zip(losses, values, strict=True)) | {"gradient": gradient}
    strategy.before_step(network)
    optimizer.step()
    trace.after_step(network)
    return dict(zip(losses, values, strict=True))


def _backward(
    network: nn.Module, parts: Iterable[Batch], strategy: Strategy, hardware: Hardware
) -> Mapping[str, Tensor]:
    """Forward, losses and backward of a batch that comes in parts: leaves its gradients, returns its losses by name."""
    network.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for batch in parts:
        restored = hardware.forward(network, batch.rainy)
        losses = {"supervised": negative_ssim(restored.derained, batch.clean)}
        losses |= strategy.extra_losses(batch, restored)
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
