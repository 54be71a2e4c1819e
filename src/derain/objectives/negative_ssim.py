"""The loss of PReNet's training script: negative SSIM (Ren et al., CVPR 2019)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from derain.params import Section
from derain.training import objective


class Params(Section):
    """None."""


class Objective(objective.Objective):
    """Minus the mean SSIM between the derained and the clean crops."""

    def distance(self, derained: Tensor, reference: Tensor) -> Tensor:
        return negative_ssim(derained, reference)


def negative_ssim(derained: Tensor, reference: Tensor) -> Tensor:
    """Minus the mean SSIM over pixels, channels and pictures, in fp32.

    Window 11x11 Gaussian of sigma 1.5 with zero padding (so borders count), C1 = 0.01^2, C2 = 0.03^2, range 1
    (PReNet's SSIM.py; SSIM: Wang et al., IEEE TIP 2004, Eq. 13). Shapes (N, C, H, W); the result is a scalar >= -1.
    """
    with torch.autocast(derained.device.type, enabled=False):
        x, y = derained.float(), reference.float()
        rows, columns = (_window(size, x.device) for size in x.shape[-2:])
        products = torch.cat((x, y, x * x, y * y, x * y))
        # A separable filter with zero padding is a multiplication by a banded matrix from each side.
        mean_x, mean_y, mean_xx, mean_yy, mean_xy = (rows @ products @ columns).chunk(5)
        variances = mean_xx - mean_x**2 + mean_yy - mean_y**2
        covariance = mean_xy - mean_x * mean_y
        c1, c2 = 0.01**2, 0.03**2
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        return -(luminance * (2 * covariance + c2) / (variances + c2)).mean()


@lru_cache(maxsize=32)
def _window(size: int, device: torch.device) -> Tensor:
    """The 11-tap Gaussian of sigma 1.5 as a symmetric banded matrix (size, size)."""
    distance = torch.arange(size, dtype=torch.float64)[:, None] - torch.arange(size, dtype=torch.float64)[None, :]
    taps = torch.exp(-(distance**2) / (2 * 1.5**2)) * (distance.abs() <= 5)
    total = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2)).sum()
    return (taps / total).float().to(device)
