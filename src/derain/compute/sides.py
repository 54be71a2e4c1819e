"""Networks whose sides must be multiples of a number, for pictures of any size."""

from __future__ import annotations

import torch
from torch import Tensor


def mirrored_to(pictures: Tensor, multiple: int) -> Tensor:
    """Pictures (N, C, H, W) continued to the right and below, up to sides that are multiples; crop to H x W after.

    What is added is mirrored at the edge, which does not repeat (as `reflect`), over and over in pictures that are
    smaller than it. Zeros would darken the edge (megvii-research/NAFNet#138).
    """
    rows, columns = (_mirrored(side, multiple, pictures.device) for side in pictures.shape[-2:])
    return pictures[..., rows, :][..., columns]


def _mirrored(side: int, multiple: int, device: torch.device) -> Tensor:
    """The places 0 to side - 1, and those that follow them up to a multiple."""
    period = max(2 * side - 2, 1)
    places = torch.arange((side + multiple - 1) // multiple * multiple, device=device) % period
    return torch.minimum(places, period - places) if side > 1 else places
