"""PReNet against its published size and an independent transcription of its layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from derain.backbones import prenet
from derain.types import DataError

FULL = prenet.Params(channels=32, stages=6, blocks=5)


def plain_forward(weights: dict[str, Tensor], rainy: Tensor, stages: int, blocks: int) -> list[Tensor]:
    """PReNet as its paper writes it: four gate convolutions, a hidden state of zeros, ReLU after every sum."""

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    estimate = rainy
    channels = weights["conv0.0.bias"].numel()
    h = c = rainy.new_zeros(rainy.shape[0], channels, *rainy.shape[-2:])
    estimates = []
    for _ in range(stages):
        x = F.relu(conv("conv0.0", torch.cat([rainy, estimate], 1)))
        x = torch.cat([x, h], 1)
        i, f, o = (torch.sigmoid(conv(f"conv_{gate}.0", x)) for gate in "ifo")
        c = f * c + i * torch.tanh(conv("conv_g.0", x))
        h = o * torch.tanh(c)
        x = h
        for number in range(1, blocks + 1):
            residual = x
            x = F.relu(conv(f"res_conv{number}.0", x))
            x = F.relu(conv(f"res_conv{number}.2", x))
            x = F.relu(x + residual)
        estimate = conv("conv.0", x) + rainy
        estimates.append(estimate)
    return estimates


def test_parameters_of_the_published_network() -> None:
    network = prenet.build(FULL)
    assert sum(weight.numel() for weight in network.parameters()) == 168_963
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in network.named_children()}
    assert counts["conv0"] == 1_760
    assert counts["res_conv5"] == 18_496
    assert counts["conv_f"] == 18_464
    assert counts["conv"] == 867


@pytest.mark.parametrize("size", [FULL, prenet.Params(channels=5, stages=3, blocks=2)])
def test_forward_and_gradient_equal_a_plain_transcription(size: prenet.Params) -> None:
    torch.manual_seed(0)
    network = prenet.build(size).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1.5)  # away from the small initial weights, so that the gates saturate a little
    rainy = torch.rand(2, 3, 13, 18, dtype=torch.float64)
    weights = {name: weight.detach().clone().requires_grad_() for name, weight in network.named_parameters()}
    expected = plain_forward(weights, rainy, size.stages, size.blocks)
    restored = network(rainy)
    torch.testing.assert_close(restored.derained, expected[-1])
    restored.derained.square().mean().backward()
    expected[-1].square().mean().backward()
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight.grad, weights[name].grad, msg=name)


def test_a_published_checkpoint_loads_under_its_names_and_saves_under_them() -> None:
    network = prenet.build(FULL)
    names = set(network.state_dict())
    layers = ["conv0.0", "conv.0", *(f"conv_{gate}.0" for gate in "ifgo")]
    layers += [f"res_conv{number}.{layer}" for number in range(1, 6) for layer in (0, 2)]
    assert names == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    loaded = prenet.from_published(network.state_dict())
    assert (loaded.stages, loaded.blocks, loaded.channels) == (6, 5, 32)
    rainy = torch.rand(1, 3, 20, 20)
    assert torch.equal(loaded(rainy).derained, network(rainy).derained)


def test_a_checkpoint_of_another_network_is_refused() -> None:
    weights = prenet.build(FULL).state_dict()
    for wrong in ({}, {"layer.weight": torch.zeros(3)}, {**weights, "more": torch.zeros(1)}):
        with pytest.raises(DataError, match="another network"):
            prenet.from_published(wrong)


def test_zero_weights_return_the_rainy_picture() -> None:
    network = prenet.build(FULL)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    rainy = torch.rand(1, 3, 9, 11)
    assert torch.equal(network(rainy).derained, rainy)
