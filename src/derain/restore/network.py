"""A trained network as a function from rainy to derained pictures of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain.types import DataError, NumericError

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Rainy pictures (N, 3, H, W) in [0, 1] to their derained ones, the same shape, not clamped."""


class Network:
    """A trained network ready for pictures of any size; one load serves many pictures."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward

    def restore(self, rainy: NDArray[Any]) -> NDArray[Any]:
        """The derained picture, of the shape and dtype of the rainy one.

        Args:
            rainy: shape (H, W, 3), RGB, or (H, W), grey; uint8, uint16, or float32 in [0, 1].

        Returns:
            The derained picture: float32 clamped to [0, 1], integers rounded to the nearest.

        Raises:
            DataError: the picture has another shape, dtype or range.
            NumericError: the network's estimate is not finite.
        """
        peak = _check(rainy)
        planes = np.moveaxis(rainy if rainy.ndim == 3 else np.stack([rainy] * 3, axis=-1), -1, 0)
        estimate = np.moveaxis(self._forward((planes.astype(np.float32) / np.float32(peak))[None])[0], 0, -1)
        if not np.isfinite(estimate).all():
            raise NumericError("the derained picture holds a value that is not finite; the weights are damaged")
        estimate = np.clip(estimate if rainy.ndim == 3 else estimate.mean(axis=-1), 0, 1)
        return estimate if rainy.dtype == np.float32 else np.rint(estimate * np.float32(peak)).astype(rainy.dtype)


def load(
    weights: str | Path,
    device: str = "auto",
    precision: str = "auto",
    tile: int | None = None,
    overlap: int | None = None,
    max_memory: int | None = None,
) -> Network:
    """A trained network, ready to take the rain off pictures.

    Args:
        weights: a model of this project (.safetensors), a published PReNet checkpoint (.pth), or an exported .onnx.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (bf16 where the hardware computes in it natively), `fp32` or `bf16`.
        tile: side of a tile in pixels; None: automatic.
        overlap: how far each tile reaches into its neighbours, in pixels; None: automatic.
        max_memory: bytes that a picture may need above what the process holds; None: 1.5 GiB.

    Raises:
        DataError: the file is missing or damaged, or belongs to another network.
        ParamsError: the device is not there.
    """
    if Path(weights).suffix == ".onnx":
        from derain.restore import onnx

        return Network(onnx.forward(Path(weights)))
    import torch

    from derain import artifacts, hardware

    where = hardware.choose(device, precision)
    network = artifacts.load_network(weights, where.device)

    def forward(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode(), where.autocast():
            estimate: NDArray[np.float32] = network(torch.from_numpy(batch).to(where.device)).derained.float().cpu()
        return np.asarray(estimate)

    return Network(forward)


_PEAKS = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}


def _check(rainy: NDArray[Any]) -> int:
    """The value that is white in a picture; DataError where it is none that a network takes."""
    if not isinstance(rainy, np.ndarray) or rainy.dtype not in _PEAKS:
        found = getattr(rainy, "dtype", type(rainy).__name__)
        raise DataError(f"a picture must be an array of uint8, uint16, or float32 in [0, 1], not {found}.")
    if not (rainy.ndim == 2 or (rainy.ndim == 3 and rainy.shape[2] == 3)) or rainy.size == 0:
        raise DataError(f"a picture must have shape (height, width, 3) or (height, width), not {rainy.shape}.")
    if rainy.dtype == np.float32 and not (rainy.min() >= 0 and rainy.max() <= 1):
        raise DataError("a picture of float32 must lie in [0, 1]; divide it by its white value.")
    return _PEAKS[rainy.dtype]
