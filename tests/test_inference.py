"""A whole picture through a network."""

import numpy as np
import pytest
import torch

from derain.hardware import Hardware, choose
from derain.inference import estimate
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


@pytest.mark.parametrize(
    ("device", "precision"), [("gpu", "auto"), ("cuda:x", "auto"), ("cpu", "fp64"), ("cuda:99", "fp32")]
)
def test_hardware_that_is_not_there_is_named(device: str, precision: str) -> None:
    with pytest.raises(ParamsError, match=device if precision != "fp64" else precision):
        choose(device, precision)


def test_what_ran_is_recorded() -> None:
    described = choose("cpu", "bf16", threads=1).describe()
    assert described["precision"] == "bf16"
    assert described["threads"] == 1
    assert described["device"] == "cpu"
    assert described["torch"] == torch.__version__
