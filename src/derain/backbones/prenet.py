"""PReNet: "Progressive Image Deraining Networks: A Better and Simpler Baseline", Ren et al., CVPR 2019.

    stage t:  z = ReLU(conv0([rainy, estimate]))                          6 -> C channels
              i, f, o = sigmoid(conv([z, h])), g = tanh(conv([z, h]))     2C -> C each
              c = f c + i g,  h = o tanh(c)                               ConvLSTM
              r = h;  for each residual block: r = ReLU(block(r) + r)     two 3x3 convolutions with ReLU a block
              estimate = conv(r) + rainy                                  C -> 3

All convolutions are 3x3 with padding 1 and bias, the stages share their weights, the first estimate is the rainy
picture and h, c start at zero. Parameters bear the names of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from derain.params import Section
from derain.types import DataError, Restored


class Params(Section):
    """The paper's full size is 32 channels, 6 stages, 5 residual blocks (168,963 parameters)."""

    channels: Annotated[int, Field(ge=1, le=1024)]
    stages: Annotated[int, Field(ge=1, le=64)]
    blocks: Annotated[int, Field(ge=1, le=64)]


def build(params: Params) -> PReNet:
    """The network with torch's default initialization, as its authors trained it."""
    return PReNet(params.channels, params.stages, params.blocks)


def from_published(weights: Mapping[str, Tensor]) -> PReNet:
    """The network of a checkpoint that its authors published; six stages, which the file does not say.

    Raises:
        DataError: the tensors are not PReNet's.
    """
    try:
        channels = weights["conv0.0.weight"].shape[0]
        # PReNet_r shares one block under the same names; only five make it PReNet.
        network = PReNet(channels, stages=6, blocks=5)
        network.load_state_dict(dict(weights))
    except (KeyError, RuntimeError, IndexError):
        raise DataError("the checkpoint belongs to another network: its tensors are not those of PReNet.") from None
    return network


class PReNet(nn.Module):
    """Rainy pictures (N, 3, H, W) in [0, 1] of any size to `Restored`: the last stage's estimate."""

    def __init__(self, channels: int, stages: int, blocks: int) -> None:
        super().__init__()
        self.channels, self.stages, self.blocks = channels, stages, blocks
        self.conv0 = nn.Sequential(_conv(6, channels), nn.ReLU(inplace=True))
        for block in range(1, blocks + 1):
            layers = (
                _conv(channels, channels),
                nn.ReLU(inplace=True),
                _conv(channels, channels),
                nn.ReLU(inplace=True),
            )
            self.add_module(f"res_conv{block}", nn.Sequential(*layers))
        for gate, activation in {"i": nn.Sigmoid(), "f": nn.Sigmoid(), "g": nn.Tanh(), "o": nn.Sigmoid()}.items():
            self.add_module(f"conv_{gate}", nn.Sequential(_conv(2 * channels, channels), activation))
        self.conv = nn.Sequential(_conv(channels, 3))

    def forward(self, rainy: Tensor) -> Restored:
        rainy = rainy.contiguous(memory_format=torch.channels_last)
        residual_blocks = [self.get_submodule(f"res_conv{block}") for block in range(1, self.blocks + 1)]
        gate_weight, gate_bias = self._gates()
        estimate, memory = rainy, None
        for _ in range(self.stages):
            features = self.conv0(torch.cat((rainy, estimate), dim=1))
            memory = self._remember(features, memory, gate_weight, gate_bias)
            restored, _ = memory
            for number, block in enumerate(residual_blocks):
                restored = block(restored) + restored
                # Later sums are of two non-negative terms: there ReLU changes neither value nor gradient.
                restored = restored.relu_() if number == 0 else restored
            estimate = self.conv(restored) + rainy
        return Restored(estimate)

    def _gates(self) -> tuple[Tensor, Tensor]:
        """The gates as one convolution, in the order i, g, o, f; g is doubled, since tanh(x) = 2 sigmoid(2x) - 1."""
        scales = {"i": 1, "g": 2, "o": 1, "f": 1}
        layers = {gate: cast(nn.Conv2d, self.get_submodule(f"conv_{gate}.0")) for gate in scales}
        weight = torch.cat([scale * layers[gate].weight for gate, scale in scales.items()])
        bias = torch.cat([scale * cast(Tensor, layers[gate].bias) for gate, scale in scales.items()])
        return weight.contiguous(memory_format=torch.channels_last), bias

    def _remember(
        self, features: Tensor, memory: tuple[Tensor, Tensor] | None, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One step of the ConvLSTM: the new (h, c)."""
        width = self.channels
        if memory is None:
            # h = c = 0: the hidden half of the weights and the forget gate do nothing.
            gates = F.conv2d(features, weight[: 3 * width, :width], bias[: 3 * width], padding=1).sigmoid_()
            i, g, o = torch.split(gates, width, dim=1)
            cell = i * (2 * g - 1)
        else:
            hidden, cell = memory
            gates = F.conv2d(torch.cat((features, hidden), dim=1), weight, bias, padding=1).sigmoid_()
            i, g, o, f = torch.split(gates, width, dim=1)
            cell = f * cell + i * (2 * g - 1)
        return o * torch.tanh(cell), cell


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
