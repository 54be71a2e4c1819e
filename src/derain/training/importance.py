"""How much each weight matters to a task, by the gradients at the task's final weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from derain.compute import distributed
from derain.compute.batch import Batch
from derain.compute.forward import evaluating
from derain.compute.hardware import Hardware
from derain.console import say, track
from derain.training import samples_at_once
from derain.training.checkpoint import from_bytes, to_bytes
from derain.training.crops import Crops
from derain.training.objective import Objective
from derain.training.resume import NOT_KEPT, State
from derain.training.samples_at_once import Scalar, Size, Sizes
from derain.types import NumericError


def mean_absolute_gradient(
    network: nn.Module, crops: Crops, hardware: Hardware, objective: Objective, state: State = NOT_KEPT
) -> Mapping[str, Tensor]:
    """Omega: the mean over the batches of crops of |d loss / d theta|, per weight (Eq. 1; supplement, Eq. 9).

    The loss is the objective's distance, as L in Eq. 1; the network evaluates, and nothing in it changes. With batches
    of one crop this is the literal Eq. 1, one gradient per sample; with larger ones it is the mean of |batch-mean
    gradient|, which the authors' code for a sister method uses (gradients of opposite sign cancel within a batch).
    Where the `state` holds something, goes on from there.

    Raises:
        NumericError: a gradient is not finite; names the pictures of the batch.
    """
    return _mean_over_batches(network, crops, hardware, state, _distance(objective), Tensor.abs)


def mean_squared_gradient(
    network: nn.Module, crops: Crops, hardware: Hardware, objective: Objective, state: State = NOT_KEPT
) -> Mapping[str, Tensor]:
    """F: the mean over the batches of crops of (d loss / d theta)^2, per weight; state and errors as above.

    With batches of one crop, the diagonal of the empirical Fisher information (Kirkpatrick et al. 2017), were the loss
    a negative log-likelihood; the objective's distance stands in for one.
    """
    return _mean_over_batches(network, crops, hardware, state, _distance(objective), Tensor.square)


def mean_output_sensitivity(
    network: nn.Module, crops: Crops, hardware: Hardware, state: State = NOT_KEPT
) -> Mapping[str, Tensor]:
    """Omega: the mean over single crops of |d ||f(x)||^2 / d theta|, per weight (Aljundi et al. 2018, Sec. 4.1).

    No clean picture is looked at. The norm is over all values of the de-rained crop. State and errors as above.
    """
    return _mean_over_batches(network, crops, hardware, state, _squared_norm, Tensor.abs)


def _distance(objective: Objective) -> Scalar:
    return lambda derained, batch: objective.distance(derained, batch.clean)


def _squared_norm(derained: Tensor, _: Batch) -> Tensor:
    return derained.float().square().sum()


def _mean_over_batches(
    network: nn.Module,
    crops: Crops,
    hardware: Hardware,
    state: State,
    of: Scalar,
    size: Size,
) -> Mapping[str, Tensor]:
    """The mean over the batches of the `size` of the gradient of a scalar `of` what the network makes of a batch."""
    total = {name: torch.zeros_like(weight) for name, weight in network.named_parameters()}
    gradients, count = len(crops), 0
    sizes: Sizes = samples_at_once.of_whole_batches(network, hardware, of, size)
    if crops.batch == 1 and hardware.is_gpu and not getattr(network, "samples_coupled", False):
        crops = replace(crops, batch=samples_at_once.AT_ONCE)
        sizes = samples_at_once.OfEachSample(network, hardware, of, size)
    before = state.load()
    if before is not None:
        kept = from_bytes(before)
        count, total = kept["count"], {name: part.to(hardware.device) for name, part in kept["total"].items()}
        say(f"goes on where it was interrupted: after {count} of {len(crops)} batches")

    def content() -> bytes:
        return to_bytes({"count": count, "total": total})

    for first in track(range(count, len(crops), distributed.size()), "importance"):
        # One batch for each process; one that finds none left takes the last again, which is not counted.
        batch = crops.at(min(first + distributed.rank(), len(crops) - 1))
        with evaluating(network):
            own = sizes(batch)
        # Added one by one in the order of the batches: the sum has the same bits for any number of processes.
        for of_batch in distributed.gather(own)[: len(crops) - first]:
            if not nn.utils.get_total_norm(of_batch).isfinite():
                raise NumericError(
                    f"importance: a gradient is not finite in the batch {', '.join(sorted(set(crops.names(count))))}; "
                    "the model is unusable. Train it with a smaller train.lr."
                )
            for name, part in zip(total, of_batch, strict=True):
                total[name] += part
            count += 1
        state.step_done(content)
    return {name: value / gradients for name, value in total.items()}
