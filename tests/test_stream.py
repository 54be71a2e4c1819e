"""The method's invariants over a whole stream, at a size that trains in seconds."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from derain import plugins
from derain.compute.hardware import Hardware
from derain.data.pack import Pack
from derain.params import Params
from derain.strategies import nr
from derain.stream import Carried, learn_stream, learn_task
from derain.training import masks
from derain.training.learn import training_step
from derain.types import NumericError, Task
from tests.conftest import NEGATIVE_SSIM, by_role, learner_of

Stream = list[tuple[Task, Mapping[str, torch.Tensor], Carried]]


def run(params: Params, packs: dict[str, Pack], hardware: Hardware, **strategy: Any) -> Stream:
    """The stream's weights and masks after each task, with changed values of the NR section."""
    sections = params.sections | {"nr": params.sections["nr"] | strategy}
    stream = learn_stream(params.model_copy(update={"sections": sections}), by_role(packs), hardware)
    return [(task, carried.weights, carried) for task, carried in stream]


def as_strategy(params: Params, name: str) -> Params:
    return params.model_copy(update={"strategy": name})


def assert_same_weights(one: Stream, other: Stream) -> None:
    for (_, ours, _), (_, theirs, _) in zip(one, other, strict=True):
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), name


def test_nr_with_neither_part_is_fine_tuning_bit_for_bit(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware
) -> None:
    neither = run(tiny_params, packs, hardware, consolidate=False, lambda_kd=0)
    fine_tuning = run(as_strategy(tiny_params, "si"), packs, hardware)
    assert_same_weights(neither, fine_tuning)
    assert all(masks.fraction(consolidated.mask) == 0 for _, _, consolidated in neither)


@pytest.mark.parametrize("part", [{"consolidate": False}, {"lambda_kd": 0}])
def test_each_part_alone_changes_the_result(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware, part: dict[str, Any]
) -> None:
    alone = run(tiny_params, packs, hardware, **part)
    fine_tuning = run(as_strategy(tiny_params, "si"), packs, hardware)
    assert all(torch.equal(alone[0][1][name], fine_tuning[0][1][name]) for name in alone[0][1]), "task 0 is shared"
    assert any(not torch.equal(alone[1][1][name], fine_tuning[1][1][name]) for name in alone[1][1])


@pytest.mark.parametrize("rank", ["all", "free"])
def test_consolidated_weights_never_move_and_free_ones_do(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware, rank: str
) -> None:
    stream = run(tiny_params, packs, hardware, rank=rank)
    for (_, before, consolidated), (_, after, later) in itertools.pairwise(stream):
        moved = 0
        for name, mask in consolidated.mask.items():
            assert torch.equal(before[name][mask], after[name][mask])
            moved += int((before[name][~mask] != after[name][~mask]).sum())
            assert bool((later.mask[name] | ~mask).all()), "masks only grow"
        # Ranking only free weights soon leaves none but those whose gradient is always zero (dead ReLU paths).
        assert moved > 0 or rank == "free"


def test_masks_grow_by_what_the_law_gives(tiny_params: Params, packs: dict[str, Pack], hardware: Hardware) -> None:
    section = tiny_params.sections["nr"]
    law = {key: section[key] for key in ("alpha_l", "tau_s", "tau_l")}
    total = sum(part.numel() for part in run(tiny_params, packs, hardware)[0][2].mask.values())
    taken = 0
    for task, _, consolidated in run(tiny_params, packs, hardware, rank="free"):
        count = int(masks.consolidated_proportion(task.position, **law) * total)
        taken += count
        held = sum(int(part.sum()) for part in consolidated.mask.values())
        # Weights of no importance at all (dead ReLU paths) tie at zero and are never chosen.
        assert held == taken if task.position == 0 else held <= taken
        assert consolidated.facts["P(n)"] == pytest.approx(count / total, abs=1 / total)
    literal = [consolidated for _, _, consolidated in run(tiny_params, packs, hardware)]
    assert literal[0].facts["fraction_chosen"] == pytest.approx(0.58698, abs=0.01)
    assert literal[1].facts["fraction_newly_consolidated"] < literal[1].facts["fraction_chosen"], "old picks come again"


def test_a_consolidated_weight_that_moves_is_noticed(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nr.Strategy, "before_step", lambda self, network: None)
    monkeypatch.setattr(nr.Strategy, "after_step", lambda self, network: None)
    with pytest.raises(NumericError, match="has moved"):
        run(tiny_params, packs, hardware)


def test_same_seed_same_bits_and_another_seed_others(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware
) -> None:
    once = run(tiny_params, packs, hardware)
    assert_same_weights(once, run(tiny_params, packs, hardware))
    other = run(tiny_params.model_copy(update={"seed": 1}), packs, hardware)
    assert any(not torch.equal(once[-1][1][name], other[-1][1][name]) for name in once[-1][1])


def test_the_teacher_is_the_former_self_and_the_loss_that_of_equation_7(
    tiny_params: Params, hardware: Hardware
) -> None:
    torch.manual_seed(0)
    network = plugins.load("backbones", "prenet").build(tiny_params.section("backbones"))
    strategy = nr.Strategy(
        tiny_params.section("strategies"), masks.nothing_consolidated(network), hardware, {}, NEGATIVE_SSIM
    )
    strategy.before_task(network)
    batch = _batch()
    alike = strategy.extra_losses(batch, network(batch.rainy))
    assert alike["distillation"].item() == pytest.approx(-0.8, abs=1e-5), "lambda times -SSIM of equal pictures"
    losses = training_step(learner_of(network, strategy, hardware, lr=1e-2), batch)
    assert set(losses) == {"supervised", "distillation"}
    assert strategy.extra_losses(batch, network(batch.rainy))["distillation"].item() > -0.8
    assert all(weight.grad is None for weight in strategy.teacher.parameters())


def _batch() -> Any:
    from derain.compute.batch import Batch
    from tests.conftest import random_batch

    return Batch(*random_batch(5))


def test_a_loss_that_is_no_number_stops_and_names_the_batch(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware
) -> None:
    task = tiny_params.tasks[1]
    network = plugins.load("backbones", "prenet").build(tiny_params.section("backbones"))
    weights = network.state_dict()
    weights["conv.0.bias"] = torch.full((3,), float("nan"))
    before = Carried(weights, masks.nothing_consolidated(network))
    with pytest.raises(NumericError, match=r"task1, epoch 1: a loss or gradient is not finite .* picture\d.*train\.lr"):
        learn_task(tiny_params, task, {"train": packs["medium"]}, hardware, before)
