"""What tiles must know of a network, found by running it on small pictures: how far it sees, what memory it takes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from derain.compute.forward import memory_errors
from derain.compute.hardware import Hardware
from derain.restore.tiles import GRID, Taken

_SIDES = (64, 128, 256, 512)
_MEASURED = (64, 128)
_NOTHING = torch.empty(0)


def receptive_radius(
    network: nn.Module, device: torch.device | str = "cpu", fits: Callable[[int], bool] = lambda _: True
) -> int | None:
    """How many pixels away a pixel of the estimate can still depend on the rainy picture.

    What the network states (`receptive_radius`) is taken; else a probe tells, and None where one of as many pixels as
    memory `fits` does not show it: there the network may see everything at once.

    A cell of the tiles' grid in the middle of a picture is set to NaN, which passes convolutions, activations and
    pooling whatever the weights are, and marks all that depends on it. The picture is doubled until the marks keep
    away from its border. A cell, and not one pixel, because a network with strides sees farther from some pixels.
    """
    if isinstance(stated := getattr(network, "receptive_radius", None), int):
        return stated
    for side in (side for side in _SIDES if fits(side**2)):
        start = side // 2
        rainy = torch.full((1, 3, side, side), 0.5, device=device)
        plain = _answer(network, rainy)
        rainy[..., start : start + GRID, start : start + GRID] = torch.nan
        # Kernels that swallow NaN change the values at least, and NaN differs from everything.
        _, _, rows, columns = torch.nonzero(_answer(network, rainy) != plain, as_tuple=True)
        reached = torch.cat([rows, columns])
        if len(reached) and reached.min() > 0 and reached.max() < side - 1:
            return max(0, start - int(reached.min()), int(reached.max()) - (start + GRID - 1))
    return None


def _answer(network: nn.Module, rainy: Tensor) -> Tensor:
    # As in training, since kernels fused for inference compute max(NaN, 0) = 0; nothing is kept for a backward pass.
    nothing_saved = torch.autograd.graph.saved_tensors_hooks(lambda _: _NOTHING, lambda _: _NOTHING)
    with memory_errors(), torch.enable_grad(), nothing_saved:
        estimate: Tensor = network(rainy.clone().requires_grad_()).derained
    return estimate.detach()


def taken(network: nn.Module, hardware: Hardware) -> Taken:
    """The most memory that the network's tensors take at any moment of a forward pass.

    By two pictures: what the larger one takes more for each pixel is put down to pairs of pixels.
    """
    small, large = (_bytes_per_pixel(network, hardware, side) for side in _MEASURED)
    pixels, more = (side**2 for side in _MEASURED)
    pair = max(0.0, large - small) / (more - pixels)
    return Taken(max(small - pair * pixels, 0.0), pair)


def _bytes_per_pixel(network: nn.Module, hardware: Hardware, side: int) -> float:
    rainy = torch.full((1, 3, side, side), 0.5, device=hardware.device)
    with memory_errors(), torch.inference_mode(), hardware.autocast(), _Live() as live:
        network(rainy)
    return float(live.most / side**2)


class _Live(TorchDispatchMode):
    """Counts the bytes of all storages that were made within it and are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
