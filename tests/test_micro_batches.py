"""A batch in parts: less memory, and the same step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from derain import plugins
from derain.compute.batch import Batch
from derain.compute.hardware import Hardware
from derain.data.pack import Pack
from derain.params import Params
from derain.strategies import nr
from derain.stream import Carried, learn_task
from derain.training import cuda_graphs, masks
from derain.training.learn import training_step
from derain.training.micro_batches import MicroBatches
from derain.types import ParamsError, Restored
from tests.conftest import NEGATIVE_SSIM, learner_of, random_batch


def network_of(params: Params) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = plugins.load("backbones", "prenet").build(params.section("backbones"))
    return network


def step(network: nn.Module, params: Params, hardware: Hardware, batch: Batch, size: int | None) -> dict[str, float]:
    """A step of NR away from its teacher, with half of the weights consolidated."""
    half = {name: torch.rand(weight.shape) < 0.5 for name, weight in network.named_parameters()}
    strategy = nr.Strategy(params.section("strategies"), half, hardware, {}, NEGATIVE_SSIM)
    strategy.before_task(network)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.01)
    return training_step(learner_of(network, strategy, hardware, MicroBatches(size), sgd=1), batch)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_parts_add_up_to_the_whole_batch(tiny_params: Params, hardware: Hardware, size: int) -> None:
    batch = Batch(*random_batch(0, count=5))
    whole, parts = network_of(tiny_params), network_of(tiny_params)
    torch.manual_seed(1)
    losses = step(whole, tiny_params, hardware, batch, None)
    torch.manual_seed(1)
    assert step(parts, tiny_params, hardware, batch, size) == pytest.approx(losses, rel=1e-6)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)
        assert size < 5 or torch.equal(one, other)


@pytest.mark.parametrize("name", ["nr", "si"])
def test_a_task_in_parts_ends_at_the_same_weights(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware, name: str
) -> None:
    batch = tiny_params.model_copy(update={"strategy": name})
    tiny = batch.model_copy(update={"train": batch.train.model_copy(update={"batch": 5})})
    parts = tiny.model_copy(update={"train": tiny.train.model_copy(update={"micro_batch": 2})})
    before = network_of(tiny).state_dict()
    mask = {key: torch.rand(weight.shape) < 0.5 for key, weight in before.items()}
    networks = [
        learn_task(settings, tiny.tasks[1], {"train": packs["medium"]}, hardware, Carried(before, mask))
        for settings in (tiny, parts)
    ]
    for key, weight in networks[0].weights.items():
        assert torch.allclose(weight, networks[1].weights[key], rtol=0, atol=1e-5), key
        assert torch.equal(weight[mask[key]], before[key][mask[key]]) or name == "si"


@pytest.mark.parametrize(
    ("size", "pixels", "sizes"),
    [
        (None, None, [5]),
        (2, None, [2, 2, 1]),
        (None, 1199, [2, 2, 1]),
        (None, 9, [1] * 5),
        (None, 9**9, [5]),
        (4, 9, [4, 1]),
    ],
)
def test_parts_are_of_a_size_or_of_so_many_pixels(size: int | None, pixels: int | None, sizes: list[int]) -> None:
    batch = Batch(*random_batch(0, count=5))  # of 20x20
    parts = MicroBatches(size, pixels).within_memory(batch, list)
    assert [len(part.rainy) for part in parts] == sizes
    assert sum(part.share for part in parts) == pytest.approx(batch.share)


def test_on_a_cpu_in_fp32_a_layer_stays_in_the_cache(tiny_params: Params) -> None:
    cpu = torch.device("cpu")
    for hardware, size in ((Hardware(cpu, "fp32"), 6), (Hardware(cpu, "bf16"), 18)):
        parts = cuda_graphs.micro_batches(None, network_of(tiny_params), NEGATIVE_SSIM, hardware)
        rainy = torch.empty(18, 3, 100, 100)
        assert len(parts.within_memory(Batch(rainy, rainy), next).rainy) == size


class Small(nn.Module):
    """A machine with memory for so many samples."""

    def __init__(self, layer: nn.Module, samples: int, error: Exception) -> None:
        super().__init__()
        self.layer, self.samples, self.error = layer, samples, error
        self.seen: list[int] = []

    def forward(self, rainy: torch.Tensor) -> Restored:
        self.seen.append(len(rainy))
        if len(rainy) > self.samples:
            raise self.error
        restored: Restored = self.layer(rainy)
        return restored


CPU = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


@pytest.mark.parametrize("error", [CPU, MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_out_of_memory_halves_the_parts_and_keeps_the_batch(
    tiny_params: Params, hardware: Hardware, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = Batch(*random_batch(0, count=10))
    whole, small = network_of(tiny_params), Small(network_of(tiny_params), 3, error)
    micro_batches = MicroBatches(None)
    for network, parts in ((whole, MicroBatches(None)), (small, micro_batches)):
        strategy = nr.Strategy(
            tiny_params.section("strategies"), masks.nothing_consolidated(network), hardware, {}, NEGATIVE_SSIM
        )
        strategy.before_task(network)
        strategy.teacher = network_of(tiny_params).requires_grad_(False)
        for _ in range(2):
            training_step(learner_of(network, strategy, hardware, parts, sgd=1), batch)
    assert small.seen == [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2], "two attempts, then two steps in five parts"
    assert micro_batches.size == 2
    for one, other in zip(whole.parameters(), small.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6)
    assert capsys.readouterr().err.count("micro-batches of 2") == 1


def test_a_sample_that_does_not_fit_is_told(tiny_params: Params, hardware: Hardware) -> None:
    with pytest.raises(ParamsError, match=r"train\.patch.*20x20"):
        MicroBatches(1).within_memory(Batch(*random_batch(0)), lambda parts: _exhaust())


def test_other_errors_are_not_taken_for_it() -> None:
    def wrong(parts: Iterator[Batch]) -> Any:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        MicroBatches(None).within_memory(Batch(*random_batch(0)), wrong)


def _exhaust() -> None:
    raise MemoryError


def test_while_it_is_null_nothing_that_is_written_names_it(tiny_params: Params) -> None:
    assert "micro_batch" not in tiny_params.train.model_dump()
    assert "micro_batch" not in tiny_params.model_dump(mode="json")["train"]
    assert tiny_params.train.model_copy(update={"micro_batch": 3}).model_dump()["micro_batch"] == 3
