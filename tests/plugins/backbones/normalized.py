"""A throw-away backbone: batch normalization, whose samples are coupled in training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from derain.params import Section
from derain.types import Restored


class Params(Section):
    """Its width in channels."""

    channels: Annotated[int, Field(ge=1)]


def build(params: Params) -> Normalized:
    return Normalized(params.channels)


class Normalized(nn.Module):
    """Rainy pictures (N, 3, H, W) in [0, 1] of any size to `Restored`, with its features as `latent`."""

    samples_coupled = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, rainy: Tensor) -> Restored:
        latent = self.features(rainy)
        return Restored(rainy - self.last(latent), {"latent": latent})
