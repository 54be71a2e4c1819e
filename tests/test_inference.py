"""A whole picture through a network."""

from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from derain.backbones.prenet import PReNet
from derain.compute import forward
from derain.compute import hardware as hardware_module
from derain.compute.forward import estimate
from derain.compute.hardware import Hardware, choose
from derain.types import DataError, ParamsError, Restored


class Same(torch.nn.Module):
    def forward(self, rainy: torch.Tensor) -> Restored:
        return Restored(rainy)


class Greedy(torch.nn.Module):
    def forward(self, rainy: torch.Tensor) -> Restored:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1000000000000 bytes.")


def test_every_level_comes_back_unchanged(hardware: Hardware) -> None:
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(estimate(Same(), picture, hardware) * np.float32(255), picture)


def test_a_picture_too_large_for_memory_is_named_by_its_size(hardware: Hardware) -> None:
    with pytest.raises(DataError, match="30x20 pixels do not fit"):
        estimate(Greedy(), np.zeros((20, 30, 3), np.uint8), hardware)


class Layers(nn.Module):
    """Convolutions of all kinds before a ReLU, of which two can apply it themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 4, 3, padding="same"),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
            nn.ReLU(),
            nn.Conv2d(4, 3, 1),
        )

    def forward(self, rainy: torch.Tensor) -> Restored:
        return Restored(self.layers(rainy))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("network", "count"), [(lambda: PReNet(8, 3, 2), 5), (Layers, 2)])
def test_a_fused_network_computes_the_same(
    network: Callable[[], nn.Module], count: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor does not convolve in bf16")
    torch.manual_seed(0)
    plain, where = network().eval().requires_grad_(False), Hardware(torch.device("cpu"), precision)
    pictures = torch.rand(2, 3, 33, 47).numpy()
    before = forward.forward(plain, pictures, where)
    fused = forward.fused(plain, where)
    assert sum(isinstance(module, forward._ConvolutionReLU) for module in fused.modules()) == count
    np.testing.assert_allclose(
        forward.forward(fused, pictures, where), before, atol=1e-6 if precision == "fp32" else 0.01
    )
    np.testing.assert_array_equal(forward.forward(plain, pictures, where), before)
    monkeypatch.setattr(forward, "_can_fuse", lambda dtype: False)
    np.testing.assert_array_equal(forward.forward(forward.fused(plain, where), pictures, where), before)


@pytest.mark.parametrize(
    ("device", "precision"), [("gpu", "auto"), ("cuda:x", "auto"), ("cpu", "fp64"), ("cuda:99", "fp32")]
)
def test_hardware_that_is_not_there_is_named(device: str, precision: str) -> None:
    with pytest.raises(ParamsError, match=device if precision != "fp64" else precision):
        choose(device, precision)


def test_choosing_hardware_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_set, kept = mock.Mock(), mock.Mock()
    monkeypatch.setattr(torch, "set_num_threads", torch_set.threads)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", torch_set.deterministic)
    monkeypatch.setattr(hardware_module, "_keep_freed_memory", kept)
    chosen = choose("cpu", "fp32")
    assert not torch_set.mock_calls + kept.mock_calls
    chosen.set_up_process(threads=1)
    assert torch_set.mock_calls == [mock.call.threads(1), mock.call.deterministic(True)]
    assert kept.mock_calls == [mock.call()]


def test_what_ran_is_recorded() -> None:
    where = choose("cpu", "bf16")
    where.set_up_process(threads=1)
    described = where.describe()
    assert described["precision"] == "bf16"
    assert described["threads"] == 1
    assert described["device"] == "cpu"
    assert described["torch"] == torch.__version__
