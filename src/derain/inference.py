"""A whole picture through a network."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from derain.hardware import Hardware
from derain.types import DataError


def estimate(network: nn.Module, rainy: np.ndarray, hardware: Hardware) -> np.ndarray:
    """The network's last estimate of the derained picture, float32 (H, W, 3), nominally in [0, 1] and not clamped.

    `rainy` is uint8 RGB of shape (H, W, 3). Raises DataError where the picture does not fit into memory.
    """
    # Divided in NumPy, so that 8-bit levels are the same numbers on every device.
    scaled = np.moveaxis(rainy, -1, 0).astype(np.float32) / np.float32(255)
    try:
        batch = torch.from_numpy(scaled)[None].to(hardware.device)
        with torch.inference_mode(), hardware.autocast():
            derained = network(batch).derained[0].float().cpu().numpy()
    except (torch.OutOfMemoryError, MemoryError):
        raise _too_large(rainy) from None
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # how torch says it on the CPU
            raise
        raise _too_large(rainy) from None
    return np.moveaxis(derained, 0, -1)


def _too_large(rainy: np.ndarray) -> DataError:
    height, width = rainy.shape[:2]
    return DataError(f"{width}x{height} pixels do not fit into memory. Cut the picture, or use the CPU.")
