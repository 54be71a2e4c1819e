"""The gradients of single samples, many at once: one sample alone leaves a GPU idle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from derain.compute.batch import Batch
from derain.compute.hardware import Hardware
from derain.console import in_one_line, warn
from derain.training.micro_batches import MicroBatches
from derain.types import DerainError

AT_ONCE = 32
"""Samples, or fewer where memory runs out."""

# A scalar of what the network made of a batch, and the size of a gradient: |g|, g^2.
Scalar = Callable[[Tensor, Batch], Tensor]
Size = Callable[[Tensor], Tensor]

# The sizes of a batch's gradient, by weight in their order; or, for single samples, the sums of those of theirs.
Sizes = Callable[[Batch], list[Tensor]]


def of_whole_batches(network: nn.Module, hardware: Hardware, of: Scalar, size: Size) -> Sizes:
    """The sizes of the gradient of a batch as a whole."""

    def sizes(batch: Batch) -> list[Tensor]:
        with hardware.autocast():
            derained = network(batch.rainy).derained
        return [size(gradient) for gradient in torch.autograd.grad(of(derained, batch), list(network.parameters()))]

    return sizes


class OfEachSample:
    """The sums of the sizes of each sample's gradient; crops must be channels-last in memory, as `Crops` gives them.

    Where a network's operations cannot be done for many samples at once (torch.func.vmap), a warning says so once, and
    they are done for one after the other.
    """

    def __init__(self, network: nn.Module, hardware: Hardware, of: Scalar, size: Size) -> None:
        self._weights = {name: weight.detach() for name, weight in network.named_parameters()}
        self._size = size
        self._one = of_whole_batches(network, hardware, of, size)
        self._parts = MicroBatches()
        self._sizes: Sizes = self._at_once

        def scalar(weights: Mapping[str, Tensor], rainy: Tensor, clean: Tensor) -> Tensor:
            sample = Batch(rainy[None], clean[None])
            with hardware.autocast():
                derained = functional_call(network, dict(weights), sample.rainy).derained
            return of(derained, sample)

        self._gradients = vmap(grad(scalar), in_dims=(None, 0, 0))

    def __call__(self, batch: Batch) -> list[Tensor]:
        try:
            return self._parts.within_memory(batch, self._sums)
        except DerainError:
            raise
        except Exception as error:
            if self._sizes is self._one:
                raise
            warn(f"importance is measured sample by sample, and takes longer ({in_one_line(error)})")
        self._parts, self._sizes = MicroBatches(1), self._one
        return self._parts.within_memory(batch, self._sums)

    def _sums(self, parts: Iterable[Batch]) -> list[Tensor]:
        sums = [torch.zeros_like(weight) for weight in self._weights.values()]
        for part in parts:
            for total, value in zip(sums, self._sizes(part), strict=True):
                total += value
        return sums

    def _at_once(self, part: Batch) -> list[Tensor]:
        gradients = self._gradients(self._weights, part.rainy, part.clean)
        return [self._size(gradients[name]).sum(0) for name in self._weights]
