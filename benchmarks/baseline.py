"""PReNet's training as published, written plainly: what the engine is compared with.

Ren et al., "Progressive Image Deraining Networks: A Better and Simpler Baseline", CVPR 2019, and its training script:
channels-first fp32, four convolutions for the gates, a hidden state that starts from zeros, SSIM with a full 11x11
window per channel, Adam, and a second forward pass with its graph only to print a PSNR. Parameters bear the names of
`derain.backbones.prenet`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PublishedPReNet(nn.Module):
    """Rainy pictures (N, 3, H, W) in [0, 1] to the last estimate."""

    def __init__(self, channels: int = 32, stages: int = 6, blocks: int = 5) -> None:
        super().__init__()
        self.channels, self.stages, self.blocks = channels, stages, blocks
        self.conv0 = nn.Sequential(nn.Conv2d(6, channels, 3, 1, 1), nn.ReLU())
        for number in range(1, blocks + 1):
            first, second = (nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(2))
            self.add_module(f"res_conv{number}", nn.Sequential(first, nn.ReLU(), second, nn.ReLU()))
        self.conv_i = nn.Sequential(nn.Conv2d(2 * channels, channels, 3, 1, 1), nn.Sigmoid())
        self.conv_f = nn.Sequential(nn.Conv2d(2 * channels, channels, 3, 1, 1), nn.Sigmoid())
        self.conv_g = nn.Sequential(nn.Conv2d(2 * channels, channels, 3, 1, 1), nn.Tanh())
        self.conv_o = nn.Sequential(nn.Conv2d(2 * channels, channels, 3, 1, 1), nn.Sigmoid())
        self.conv = nn.Sequential(nn.Conv2d(channels, 3, 3, 1, 1))

    def forward(self, rainy: Tensor) -> Tensor:
        count, _, height, width = rainy.shape
        estimate = rainy
        hidden = rainy.new_zeros(count, self.channels, height, width)
        cell = rainy.new_zeros(count, self.channels, height, width)
        for _ in range(self.stages):
            features = torch.cat((self.conv0(torch.cat((rainy, estimate), 1)), hidden), 1)
            i, f, g, o = self.conv_i(features), self.conv_f(features), self.conv_g(features), self.conv_o(features)
            cell = f * cell + i * g
            hidden = o * torch.tanh(cell)
            restored = hidden
            for number in range(1, self.blocks + 1):
                block = self.get_submodule(f"res_conv{number}")
                restored = F.relu(block(restored) + restored)
            estimate = self.conv(restored) + rainy
        return estimate


def published_ssim(derained: Tensor, clean: Tensor) -> Tensor:
    """Mean SSIM with a full 11x11 Gaussian window of sigma 1.5 a channel, zero padding, range 1."""
    channels = clean.shape[1]
    line = torch.tensor([math.exp(-((x - 5) ** 2) / (2 * 1.5**2)) for x in range(11)])
    line = line / line.sum()
    window = torch.outer(line, line).expand(channels, 1, 11, 11).contiguous().to(clean.device)

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x, window, padding=5, groups=channels)

    mean_x, mean_y = mean(derained), mean(clean)
    variance_x = mean(derained * derained) - mean_x.pow(2)
    variance_y = mean(clean * clean) - mean_y.pow(2)
    covariance = mean(derained * clean) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    bottom = (mean_x.pow(2) + mean_y.pow(2) + c1) * (variance_x + variance_y + c2)
    return (top / bottom).mean()


def published_step(
    network: PublishedPReNet, rainy: Tensor, clean: Tensor, optimizer: torch.optim.Optimizer, prints: bool = True
) -> float:
    """A step of the published script; `prints` is the second forward, for the PSNR that it shows."""
    network.train()
    optimizer.zero_grad()
    loss = -published_ssim(network(rainy), clean)
    loss.backward()
    optimizer.step()
    if prints:
        network.eval()
        derained = network(rainy).clamp(0, 1)
        error = (derained - clean).pow(2).flatten(1).mean(1)
        (-10 * torch.log10(error)).mean().item()
    return loss.item()
