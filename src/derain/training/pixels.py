"""The pixels of crops on the device of the training: gathered there where a pack fits, else sent batch by batch."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from derain.console import warn
from derain.types import ran_out_of_memory

if TYPE_CHECKING:
    from derain.data.pack import Pack

SHARE = 0.5
"""The share of a GPU's free memory that a pack may take."""
_SENT_AT_ONCE = 1 << 24
"""Pixels."""


def crops(pack: Pack, positions: np.ndarray, patch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`Pack.crops` as tensors on a device: the same bytes, whichever way they take."""
    if device.type == "cuda" and (uploaded := _uploaded(pack, device)):
        return uploaded.crops(positions, patch)
    rainy, clean = (sent(side, device) for side in pack.crops(positions, patch))
    return rainy, clean


class Uploaded:
    """A pack's pixels in the memory of a device."""

    def __init__(self, pack: Pack, device: torch.device) -> None:
        self._pack, self._device = pack, device
        self._pixels = torch.empty(pack.pixels.shape, dtype=torch.uint8, device=device)
        for start in range(0, len(pack.pixels), _SENT_AT_ONCE):
            part = slice(start, start + _SENT_AT_ONCE)
            self._pixels[part] = torch.from_numpy(np.array(pack.pixels[part]))

    def crops(self, positions: np.ndarray, patch: int) -> tuple[Tensor, Tensor]:
        """The patches at `positions`, rainy and clean: two uint8 tensors (N, patch, patch, 3), RGB."""
        spans = sent(self._pack.spans(positions, patch), self._device)
        rainy, clean, row, column = spans[..., None, None].unbind(1)
        side = torch.arange(patch, device=self._device)
        within = row * side[:, None] + column * side
        return self._pixels[rainy + within], self._pixels[clean + within]


@lru_cache(maxsize=2)  # a task's pairs, and its unlabelled pictures
def _uploaded(pack: Pack, device: torch.device) -> Uploaded | None:
    """The pack on the GPU, once; None where it takes more than its `SHARE`."""
    if pack.pixels.nbytes > SHARE * torch.cuda.mem_get_info(device)[0]:
        return None
    try:
        return Uploaded(pack, device)
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        warn(f"{pack.path} does not fit into the memory of the GPU: crops are sent to it batch by batch")
        return None


def sent(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on the device. A GPU takes it from pinned memory, without the processor waiting for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
