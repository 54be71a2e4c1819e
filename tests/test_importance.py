"""Importance against a naive loop over single samples."""

import pytest
import torch

from derain.backbones import prenet
from derain.data.pack import Pack
from derain.hardware import Hardware
from derain.training import crops
from derain.training.importance import mean_absolute_gradient
from derain.training.losses import negative_ssim
from derain.types import NumericError


@pytest.fixture
def network() -> prenet.PReNet:
    torch.manual_seed(0)
    return prenet.build(prenet.Params(channels=4, stages=2, blocks=2))


def naive(network: torch.nn.Module, rainy: torch.Tensor, clean: torch.Tensor) -> dict[str, torch.Tensor]:
    total = {name: torch.zeros_like(weight) for name, weight in network.named_parameters()}
    for k in range(len(rainy)):
        network.zero_grad()
        negative_ssim(network(rainy[k : k + 1]).derained, clean[k : k + 1]).backward()
        for name, weight in network.named_parameters():
            assert weight.grad is not None
            total[name] += weight.grad.abs()
    return {name: value / len(rainy) for name, value in total.items()}


def test_one_gradient_a_sample(network: prenet.PReNet, packs: dict[str, Pack], hardware: Hardware) -> None:
    one_by_one = crops.for_importance(packs["heavy"], 16, 0, 0, count=7, batch=1, device=hardware.device)
    batches = list(one_by_one)
    assert len(batches) == 7
    rainy, clean = (torch.cat([batch[part] for batch in batches]) for part in (0, 1))
    omega = mean_absolute_gradient(network, one_by_one, hardware)
    expected = naive(network, rainy, clean)
    assert omega.keys() == expected.keys()
    for name, value in omega.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-9)


def test_gradients_cancel_within_a_batch(network: prenet.PReNet, packs: dict[str, Pack], hardware: Hardware) -> None:
    """|E[g]| <= E|g| for every weight: the variants differ, and in this direction."""
    singles = crops.for_importance(packs["heavy"], 16, 0, 0, count=6, batch=1, device=hardware.device)
    batch = crops.for_importance(packs["heavy"], 16, 0, 0, count=6, batch=6, device=hardware.device)
    per_sample = mean_absolute_gradient(network, singles, hardware)
    per_batch = mean_absolute_gradient(network, batch, hardware)
    for name, value in per_batch.items():
        assert bool((value <= per_sample[name] * (1 + 1e-4) + 1e-9).all())
    assert sum(float(value.sum()) for value in per_batch.values()) < 0.99 * sum(
        float(value.sum()) for value in per_sample.values()
    )


def test_the_weights_do_not_change(network: prenet.PReNet, packs: dict[str, Pack], hardware: Hardware) -> None:
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    mean_absolute_gradient(network, crops.for_importance(packs["light"], 16, 0, 0, 2, 1, hardware.device), hardware)
    for name, weight in network.named_parameters():
        assert torch.equal(weight, before[name])


def test_a_gradient_that_is_no_number_stops(network: prenet.PReNet, packs: dict[str, Pack], hardware: Hardware) -> None:
    with torch.no_grad():
        network.conv[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericError, match="not finite"):
        mean_absolute_gradient(network, crops.for_importance(packs["light"], 16, 0, 0, 2, 1, hardware.device), hardware)
