"""Importance against a naive loop over single samples."""

from pathlib import Path

import pytest
import torch

from derain.backbones import prenet
from derain.compute.batch import Batch
from derain.compute.hardware import Hardware, choose
from derain.data.pack import Pack
from derain.objectives.negative_ssim import negative_ssim
from derain.training import crops, importance, samples_at_once
from derain.training.importance import mean_absolute_gradient
from derain.training.resume import KeptState
from derain.training.samples_at_once import OfEachSample, Size, of_whole_batches
from derain.types import NumericError, Restored
from tests.conftest import NEGATIVE_SSIM, random_batch
from tests.test_states import Dying, KilledError


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
    rainy, clean = torch.cat([batch.rainy for batch in batches]), torch.cat([batch.clean for batch in batches])
    omega = mean_absolute_gradient(network, one_by_one, hardware, NEGATIVE_SSIM)
    expected = naive(network, rainy, clean)
    assert omega.keys() == expected.keys()
    for name, value in omega.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-9)


def test_gradients_cancel_within_a_batch(network: prenet.PReNet, packs: dict[str, Pack], hardware: Hardware) -> None:
    """|E[g]| <= E|g| for every weight: the variants differ, and in this direction."""
    singles = crops.for_importance(packs["heavy"], 16, 0, 0, count=6, batch=1, device=hardware.device)
    batch = crops.for_importance(packs["heavy"], 16, 0, 0, count=6, batch=6, device=hardware.device)
    per_sample = mean_absolute_gradient(network, singles, hardware, NEGATIVE_SSIM)
    per_batch = mean_absolute_gradient(network, batch, hardware, NEGATIVE_SSIM)
    for name, value in per_batch.items():
        assert bool((value <= per_sample[name] * (1 + 1e-4) + 1e-9).all())
    assert sum(float(value.sum()) for value in per_batch.values()) < 0.99 * sum(
        float(value.sum()) for value in per_sample.values()
    )


def test_the_weights_do_not_change(network: prenet.PReNet, packs: dict[str, Pack], hardware: Hardware) -> None:
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    mean_absolute_gradient(
        network, crops.for_importance(packs["light"], 16, 0, 0, 2, 1, hardware.device), hardware, NEGATIVE_SSIM
    )
    for name, weight in network.named_parameters():
        assert torch.equal(weight, before[name])


def test_a_gradient_that_is_no_number_stops(network: prenet.PReNet, packs: dict[str, Pack], hardware: Hardware) -> None:
    with torch.no_grad():
        network.get_parameter("conv.0.weight")[0, 0, 0, 0] = float("nan")
    with pytest.raises(NumericError, match="not finite"):
        mean_absolute_gradient(
            network, crops.for_importance(packs["light"], 16, 0, 0, 2, 1, hardware.device), hardware, NEGATIVE_SSIM
        )


def channels_last(seed: int, count: int) -> Batch:
    """A batch as `Crops` gives it."""
    rainy, clean = (side.contiguous(memory_format=torch.channels_last) for side in random_batch(seed, count))
    return Batch(rainy, clean)


SCALARS = {"distance": importance._distance(NEGATIVE_SSIM), "squared norm": importance._squared_norm}


@pytest.mark.parametrize("of", SCALARS)
@pytest.mark.parametrize("size", [torch.Tensor.abs, torch.Tensor.square])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_samples_at_once_are_samples_one_by_one(
    network: prenet.PReNet,
    hardware: Hardware,
    of: str,
    size: Size,
    precision: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = Hardware(hardware.device, precision)
    batch = channels_last(0, 5)
    at_once = OfEachSample(network, where, SCALARS[of], size)(batch)
    one_by_one = of_whole_batches(network, where, SCALARS[of], size)
    singles = [one_by_one(Batch(batch.rainy[k : k + 1], batch.clean[k : k + 1])) for k in range(5)]
    for together, *alone in zip(at_once, *singles, strict=True):
        expected = torch.stack(alone).sum(0)
        assert (together - expected).norm() <= (1e-4 if precision == "fp32" else 0.05) * expected.norm()
    assert not capsys.readouterr().err


def test_an_importance_pass_of_samples_at_once_is_the_loops(
    network: prenet.PReNet,
    packs: dict[str, Pack],
    hardware: Hardware,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As on a GPU, in chunks of which the last one is smaller, interrupted between two of them."""
    singles = crops.for_importance(packs["heavy"], 16, 0, 0, count=7, batch=1, device=hardware.device)
    expected = mean_absolute_gradient(network, singles, hardware, NEGATIVE_SSIM)
    monkeypatch.setattr(Hardware, "is_gpu", True)
    monkeypatch.setattr(samples_at_once, "AT_ONCE", 3)
    whole = mean_absolute_gradient(network, singles, hardware, NEGATIVE_SSIM)
    with pytest.raises(KilledError):
        mean_absolute_gradient(network, singles, hardware, NEGATIVE_SSIM, Dying(tmp_path, 1))
    resumed = mean_absolute_gradient(network, singles, hardware, NEGATIVE_SSIM, KeptState(tmp_path))
    for name, value in whole.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-9)
        assert torch.equal(value, resumed[name])
    assert not capsys.readouterr().err


class Unusual(torch.nn.Module):
    """A network whose operations depend on its pictures: vmap does not have that."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: torch.Tensor) -> Restored:
        assert bool(rainy.mean() > 0)
        restored: Restored = self.network(rainy)
        return restored


def test_a_network_that_vmap_does_not_have_is_measured_one_by_one(
    network: prenet.PReNet, hardware: Hardware, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = channels_last(0, 3)
    usual = OfEachSample(network, hardware, SCALARS["distance"], torch.Tensor.abs)(batch)
    unusual = OfEachSample(Unusual(network), hardware, SCALARS["distance"], torch.Tensor.abs)
    for _ in range(2):
        for one, other in zip(usual, unusual(batch), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-9)
    assert capsys.readouterr().err.count("sample by sample") == 1


def test_fewer_samples_at_once_where_memory_runs_out(
    network: prenet.PReNet, hardware: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = channels_last(0, 6)
    sizes = OfEachSample(network, hardware, SCALARS["distance"], torch.Tensor.abs)
    whole, gradients, seen = sizes(batch), sizes._gradients, []

    def small(weights: dict[str, torch.Tensor], rainy: torch.Tensor, clean: torch.Tensor) -> object:
        seen.append(len(rainy))
        if len(rainy) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return gradients(weights, rainy, clean)  # type: ignore[arg-type]

    monkeypatch.setattr(sizes, "_gradients", small)
    for one, other in zip(whole, sizes(batch), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-9)
    assert seen == [6, 3, 1, 1, 1, 1, 1, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("precision", "largest"), [("fp32", 1e-3), ("bf16", 0.05)])
def test_a_gpu_measures_what_the_processor_does(
    network: prenet.PReNet,
    packs: dict[str, Pack],
    hardware: Hardware,
    precision: str,
    largest: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    importances = []
    for where in (hardware, choose("cuda", precision)):
        singles = crops.for_importance(packs["heavy"], 16, 0, 0, 40, 1, where.device)
        importances.append(mean_absolute_gradient(network.to(where.device), singles, where, NEGATIVE_SSIM))
    for name, value in importances[0].items():
        assert (importances[1][name].cpu() - value).norm() <= largest * value.norm()
    assert "sample by sample" not in capsys.readouterr().err
