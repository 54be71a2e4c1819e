"""A whole picture through a network."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from derain.compute.hardware import Hardware
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


def fused(network: nn.Module, hardware: Hardware) -> nn.Module:
    """A copy for inference that computes the same: on a CPU a convolution applies the ReLU that follows it itself.

    By the operator of oneDNN that torch's own compiler puts there. Where it is missing, the network itself.
    """
    dtype = torch.bfloat16 if hardware.precision == "bf16" else torch.float32
    if hardware.is_gpu or not _can_fuse(dtype):
        return network
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            layers = list(module)
            for place, (layer, following) in enumerate(pairwise(layers)):
                if _is_plain(layer) and isinstance(following, nn.ReLU):
                    module[place], module[place + 1] = _ConvolutionReLU(layer, dtype), nn.Identity()
    return network


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    return isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _can_fuse(dtype: torch.dtype) -> bool:
    return hasattr(torch.ops.mkldnn, "_convolution_pointwise") and (
        dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


class _ConvolutionReLU(nn.Module):
    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.settings = (convolution.padding, convolution.stride, convolution.dilation, convolution.groups)
        self.weight = convolution.weight.detach().to(dtype, memory_format=torch.channels_last)
        self.bias = None if convolution.bias is None else convolution.bias.detach().to(dtype)

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            features.to(self.weight.dtype), self.weight, self.bias, *self.settings, "relu", [], ""
        )
        return result


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Within it, modules are in evaluation mode; after it each of their layers is in the mode in which it was."""
    modes = {layer: layer.training for module in modules for layer in module.modules()}
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode


@contextmanager
def memory_errors() -> Iterator[None]:
    """Within it, memory that runs out is a MemoryError, on every device."""
    try:
        yield
    except RuntimeError as error:
        if not ran_out_of_memory(error):
            raise
        raise MemoryError(str(error)) from None
