"""A whole picture through a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from derain.hardware import Hardware
from derain.types import SpaceError, ran_out_of_memory


def estimate(network: nn.Module, rainy: np.ndarray, hardware: Hardware) -> np.ndarray:
    """The network's last estimate of the derained picture, float32 (H, W, 3), nominally in [0, 1] and not clamped.

    `rainy` is uint8 RGB of shape (H, W, 3). Raises SpaceError where the picture does not fit into memory.
    """
    # Divided in NumPy, so that 8-bit levels are the same numbers on every device.
    scaled = np.moveaxis(rainy, -1, 0).astype(np.float32) / np.float32(255)
    try:
        return np.moveaxis(forward(network, scaled[None], hardware)[0], 0, -1)
    except MemoryError:
        height, width = rainy.shape[:2]
        raise SpaceError(f"{width}x{height} pixels do not fit into memory. Cut the picture, or use the CPU.") from None


def forward(network: nn.Module, batch: np.ndarray, hardware: Hardware) -> np.ndarray:
    """The network's last estimates of pictures (N, 3, H, W), float32 in and out.

    Raises MemoryError where they do not fit into the memory of the device.
    """
    with memory_errors(), torch.inference_mode(), hardware.autocast():
        estimates = network(torch.from_numpy(batch).to(hardware.device)).derained
        return np.asarray(estimates.float().cpu().numpy())


@contextmanager
def memory_errors() -> Iterator[None]:
    """Within it, memory that runs out is a MemoryError, on every device."""
    try:
        yield
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        raise MemoryError(str(error)) from None
