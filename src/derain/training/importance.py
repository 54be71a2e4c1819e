"""How much each weight matters to a task: the mean of |gradient| at the task's final weights (Eq. 1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from derain.console import track
from derain.hardware import Hardware
from derain.training.losses import negative_ssim
from derain.types import Batch, NumericError


def mean_absolute_gradient(network: nn.Module, batches: Iterable[Batch], hardware: Hardware) -> Mapping[str, Tensor]:
    """Omega: the mean over the batches of |d loss / d theta|, per weight (Eq. 1; supplement, Eq. 9).

    The loss is the supervised one, as L in Eq. 1; the weights do not change. With batches of one crop this is the
    literal Eq. 1, one gradient per sample; with larger ones it is the mean of |batch-mean gradient|, which the
    authors' code for a sister method uses (gradients of opposite sign cancel within a batch).

    Raises:
        NumericError: a gradient is not finite.
    """
    weights = dict(network.named_parameters())
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    count = 0
    for batch in track(batches, "importance"):
        with hardware.autocast():
            derained = network(batch.rainy).derained
        gradients = torch.autograd.grad(negative_ssim(derained, batch.clean), list(weights.values()))
        for name, gradient in zip(weights, gradients, strict=True):
            total[name] += gradient.abs()
        count += 1
    if not all(bool(value.isfinite().all()) for value in total.values()):
        raise NumericError(
            "importance: a gradient is not finite; the model is unusable. Train it with a smaller train.lr."
        )
    return {name: value / count for name, value in total.items()}
