"""Each strategy's mathematics against a derivation of its own, and what it stores between tasks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from derain import plugins
from derain.compute.batch import Batch
from derain.compute.hardware import Hardware
from derain.data.pack import Pack, write_pack
from derain.disk import artifacts, paths
from derain.objectives.negative_ssim import negative_ssim
from derain.params import Params
from derain.stream import Carried, consolidate_task, learn_stream, learn_task
from derain.training import crops, masks
from derain.training.learn import training_step
from derain.training.micro_batches import MicroBatches
from derain.training.resume import NOT_KEPT, KeptState
from derain.training.strategy import Done, Kept, Memory, Strategy
from derain.types import Restored, Task
from stages import kd_task, sc_mask
from stages._task import write_start
from tests.conftest import NEGATIVE_SSIM, ROOT, by_role, learner_of, noisy_pairs, random_batch
from tests.test_states import Dying, KilledError

# What switches each strategy off, and a value that makes it felt in a few steps.
STRENGTHS: dict[str, tuple[str, float, float]] = {
    "ewc": ("lambda_ewc", 0.0, 1e5),
    "mas": ("lambda_mas", 0.0, 0.1),
    "synaptic_intelligence": ("c", 0.0, 10.0),
    "pigwm": ("beta", 0.0, 10.0),
    "packnet": ("share", 0.0, 0.5),
    "replay": ("batch", 0, 2),
}
PENALIZING = ("ewc", "mas", "synaptic_intelligence", "pigwm")


def under(params: Params, name: str, **values: Any) -> Params:
    section = params.sections[name] | values
    return params.model_copy(update={"strategy": name, "sections": params.sections | {name: section}})


def strongly(params: Params, name: str) -> Params:
    key, _, strength = STRENGTHS[name]
    return under(params, name, **{key: strength})


def weights_of(
    params: Params, packs: Mapping[str, Pack], hardware: Hardware
) -> list[tuple[Mapping[str, Tensor], Carried]]:
    """The weights after each task, and what is left of it."""
    return [(carried.weights, carried) for _, carried in learn_stream(params, by_role(packs), hardware)]


def alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_strategy_without_strength_is_fine_tuning_bit_for_bit(
    name: str, tiny_params: Params, packs: dict[str, Pack], hardware: Hardware
) -> None:
    key, none, _ = STRENGTHS[name]
    weak = weights_of(under(tiny_params, name, **{key: none}), packs, hardware)
    fine_tuning = weights_of(under(tiny_params, "si"), packs, hardware)
    strong = weights_of(strongly(tiny_params, name), packs, hardware)
    assert all(alike(ours, theirs) for (ours, _), (theirs, _) in zip(weak, fine_tuning, strict=True))
    assert alike(strong[0][0], fine_tuning[0][0]), "the first task is the same for all"
    assert all(not alike(ours, theirs) for (ours, _), (theirs, _) in zip(strong[1:], fine_tuning[1:], strict=True))


def test_every_strategy_is_told_how_to_be_switched_off() -> None:
    assert {*STRENGTHS, "nr", "si"} == set(plugins.names("strategies"))


class Line(nn.Module):
    """y = a x + b: two weights."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

    def forward(self, rainy: Tensor) -> Restored:
        return Restored(self.a * rainy + self.b)


def made(name: str, hardware: Hardware, memory: Memory, **section: Any) -> Any:
    plugin = plugins.load("strategies", name)
    return plugin.Strategy(
        plugin.Params(**section), masks.nothing_consolidated(Line(0.0, 0.0)), hardware, memory, NEGATIVE_SSIM
    )


def consolidated(
    strategy: Strategy,
    network: nn.Module,
    pack: Pack,
    position: int = 0,
    trace: Mapping[str, Tensor] | None = None,
) -> Kept:
    def samples(count: int | None, *, one_by_one: bool) -> crops.Crops:
        batch = 1 if one_by_one else 2
        return crops.for_importance(pack, 16, 0, position, count, batch, torch.device("cpu"))

    task = Task(str(position), position, "heavy", str(position - 1) if position else None)
    return strategy.consolidate(Done(task, network, samples, trace or {}, NOT_KEPT))


def two_weights(a: float, b: float) -> dict[str, Tensor]:
    return {"a": torch.tensor(a), "b": torch.tensor(b)}


# Omega is 2 for a and 3 for b; a moves by +0.5, b by -0.2.
PENALTIES = {
    "ewc": ({"lambda_ewc": 20.0, "gamma": 0.5, "samples": 2}, 5 * (2 * 0.25 + 3 * 0.04), (10 * 2 * 0.5, -10 * 3 * 0.2)),
    "mas": ({"lambda_mas": 10.0, "samples": 2}, 10 * (2 * 0.25 + 3 * 0.04), (20 * 2 * 0.5, -20 * 3 * 0.2)),
    "synaptic_intelligence": ({"c": 10.0, "xi": 0.1}, 10 * (2 * 0.25 + 3 * 0.04), (20 * 2 * 0.5, -20 * 3 * 0.2)),
    # Each tensor by itself: s is 1 for a and 0.6 for b; the derivative is beta/2 (1 + 2 s) Omega sign.
    "pigwm": ({"beta": 10.0, "samples": 2}, 5 * (1 + 1 + 0.6 + 0.36), (5 * 3 * 2, -5 * 2.2 * 3)),
}


@pytest.mark.parametrize("name", PENALIZING)
def test_the_penalty_is_that_of_the_paper(name: str, hardware: Hardware) -> None:
    section, value, slopes = PENALTIES[name]
    network = Line(1.0, 0.0)
    strategy = made(name, hardware, two_weights(2.0, 3.0), **section)
    strategy.before_task(network)
    assert strategy.penalties(network)["penalty"].item() == 0
    with torch.no_grad():
        network.a.add_(0.5)
        network.b.sub_(0.2)
    (penalty,) = strategy.penalties(network).values()
    penalty.backward()
    assert penalty.item() == pytest.approx(value, rel=1e-5)
    gradients = [weight.grad.item() for weight in (network.a, network.b) if weight.grad is not None]
    assert gradients == pytest.approx(slopes, rel=1e-5)


def single_crops(pack: Pack, count: int) -> list[Batch]:
    return list(crops.for_importance(pack, 16, 0, 0, count, 1, torch.device("cpu")))


def slopes_by_difference(batch: Batch, a: float, b: float) -> tuple[float, float]:
    """The derivatives of the loss by a and by b, from values of the loss alone."""

    def loss(a: float, b: float) -> float:
        return negative_ssim(a * batch.rainy + b, batch.clean).item()

    step = 1e-2
    return (loss(a + step, b) - loss(a - step, b)) / 2 / step, (loss(a, b + step) - loss(a, b - step)) / 2 / step


def test_ewc_takes_the_mean_of_squared_slopes_and_adds_them_up(packs: dict[str, Pack], hardware: Hardware) -> None:
    slopes = [slopes_by_difference(batch, 0.8, 0.1) for batch in single_crops(packs["heavy"], 5)]
    fisher = [np.mean([slope[k] ** 2 for slope in slopes]) for k in (0, 1)]
    section = {"lambda_ewc": 1.0, "gamma": 0.5, "samples": 5}
    first = consolidated(made("ewc", hardware, {}, **section), Line(0.8, 0.1), packs["heavy"]).memory
    assert [first["a"].item(), first["b"].item()] == pytest.approx(fisher, rel=0.02)
    second = consolidated(
        made("ewc", hardware, two_weights(2.0, 4.0), **section), Line(0.8, 0.1), packs["heavy"]
    ).memory
    assert second["a"].item() == pytest.approx(1 + first["a"].item())
    assert second["b"].item() == pytest.approx(2 + first["b"].item())


def test_mas_takes_the_mean_slope_of_the_outputs_squared_norm(packs: dict[str, Pack], hardware: Hardware) -> None:
    outputs = [(batch.rainy, 0.8 * batch.rainy - 0.4) for batch in single_crops(packs["heavy"], 5)]
    by_a = np.mean([abs((2 * y * x).sum().item()) for x, y in outputs])
    by_b = np.mean([abs((2 * y).sum().item()) for _, y in outputs])
    section = {"lambda_mas": 1.0, "samples": 5}
    first = consolidated(made("mas", hardware, {}, **section), Line(0.8, -0.4), packs["heavy"]).memory
    assert [first["a"].item(), first["b"].item()] == pytest.approx([by_a, by_b], rel=1e-4)
    second = consolidated(made("mas", hardware, first, **section), Line(0.8, -0.4), packs["heavy"]).memory
    assert second["a"].item() == pytest.approx(2 * first["a"].item())


def test_pigwm_takes_the_mean_size_of_slopes_over_batches_and_over_tasks(
    packs: dict[str, Pack], hardware: Hardware
) -> None:
    singles = [slopes_by_difference(batch, 0.8, 0.1) for batch in single_crops(packs["heavy"], 4)]
    of_batches = [np.mean([abs(singles[k][j] + singles[k + 1][j]) / 2 for k in (0, 2)]) for j in (0, 1)]
    section = {"beta": 1.0, "samples": 4}
    first = consolidated(made("pigwm", hardware, {}, **section), Line(0.8, 0.1), packs["heavy"]).memory
    assert [first["a"].item(), first["b"].item()] == pytest.approx(of_batches, rel=0.02)
    strategy = made("pigwm", hardware, two_weights(3.0, 3.0), **section)
    third = consolidated(strategy, Line(0.8, 0.1), packs["heavy"], position=2).memory
    own = (
        consolidated(made("pigwm", hardware, {}, **section), Line(0.8, 0.1), packs["heavy"], position=2).memory["a"] * 3
    )
    assert third["a"].item() == pytest.approx((2 * 3.0 + own.item()) / 3), "two tasks of mean 3, and this one"


def test_synaptic_intelligence_divides_the_path_integral_by_the_squared_way(
    packs: dict[str, Pack], hardware: Hardware
) -> None:
    trace = {"a": torch.tensor([0.06, 0.5]), "b": torch.tensor([-0.02, 0.1])}
    strategy = made("synaptic_intelligence", hardware, two_weights(1.0, 0.5), c=1.0, xi=0.05)
    omega = consolidated(strategy, Line(0.0, 0.0), packs["heavy"], trace=trace).memory
    assert omega["a"].item() == pytest.approx(1 + 0.06 / (0.25 + 0.05))
    assert omega["b"].item() == pytest.approx(0.5 - 0.02 / (0.01 + 0.05))
    strategy = made("synaptic_intelligence", hardware, {}, c=1.0, xi=0.05)
    assert consolidated(strategy, Line(0.0, 0.0), packs["heavy"], trace=trace).memory["b"] == 0, "no reward for moving"


class Pulling(Strategy):
    """A penalty that pulls much harder than any loss."""

    def penalties(self, network: nn.Module) -> Mapping[str, Tensor]:
        return {"pull": sum((1e3 * weight).sum() for weight in network.parameters())}  # type: ignore[dict-item]


def steps(network: nn.Module, strategy: Strategy, batch: Batch, lr: float, count: int) -> dict[str, Tensor]:
    learner = learner_of(network, strategy, strategy.hardware, MicroBatches(2), sgd=lr)
    for _ in range(count):
        training_step(learner, batch)
    return learner.trace.tensors(network)


def test_the_trace_sums_up_to_the_losses_fall(hardware: Hardware) -> None:
    """The integral of the gradient along any way is the difference of the loss between its ends."""
    batch, network = Batch(*random_batch(3)), Line(0.6, 0.2)
    strategy = Strategy(None, masks.nothing_consolidated(network), hardware, {}, NEGATIVE_SSIM)
    before = negative_ssim(network(batch.rainy).derained, batch.clean).item()
    trace = steps(network, strategy, batch, lr=1e-2, count=100)
    after = negative_ssim(network(batch.rainy).derained, batch.clean).item()
    assert before - after > 0.01
    assert sum(part[0].item() for part in trace.values()) == pytest.approx(before - after, rel=0.02)
    assert trace["a"][1].item() == pytest.approx(network.a.item() - 0.6)


def test_penalties_move_weights_and_are_no_part_of_the_traces_gradient(hardware: Hardware) -> None:
    batch, network = Batch(*random_batch(3)), Line(0.6, 0.2)
    slopes = slopes_by_difference(batch, 0.6, 0.2)
    strategy = Pulling(None, masks.nothing_consolidated(network), hardware, {}, NEGATIVE_SSIM)
    trace = steps(network, strategy, batch, lr=1e-6, count=1)
    for (integral, way), slope in zip(trace.values(), slopes, strict=True):
        assert way.item() == pytest.approx(-1e-3, rel=0.01), "the penalty's step, taken once for all micro-batches"
        assert integral.item() == pytest.approx(slope * 1e-3, rel=0.05)


def test_distillation_pulls_to_the_former_self_by_its_share(hardware: Hardware) -> None:
    """Eq. 6 and 7: a step goes down the slope of the loss on the clean pictures, and lambda times that on its own."""
    batch, network = Batch(*random_batch(3)), Line(0.9, 0.05)
    section = {"alpha_l": 0.008, "tau_s": 1.0, "tau_l": 10.0, "consolidate": False, "rank": "all"}
    strategy = made("nr", hardware, {}, **section, lambda_kd=0.4, gradient="sample", samples=2)
    strategy.before_task(network)
    with torch.no_grad():
        network.a.sub_(0.3)
        network.b.add_(0.15)
    remembered = Batch(batch.rainy, 0.9 * batch.rainy + 0.05)
    loss = strategy.extra_losses(batch, network(batch.rainy))["distillation"].item()
    assert loss == pytest.approx(0.4 * negative_ssim(0.6 * batch.rainy + 0.2, remembered.clean).item(), rel=1e-5)
    assert loss > -0.4 + 1e-3, "away from the former self"
    supervised, distilled = (slopes_by_difference(pairs, 0.6, 0.2) for pairs in (batch, remembered))
    trace = steps(network, strategy, batch, lr=1e-3, count=1)
    ways = [way.item() for _, way in trace.values()]
    expected = [-1e-3 * (own + 0.4 * former) for own, former in zip(supervised, distilled, strict=True)]
    assert ways == pytest.approx(expected, rel=0.02)


def test_replays_step_goes_down_the_mean_slope_of_own_and_joined_crops(hardware: Hardware) -> None:
    rainy, clean = ((part * 255).round().to(torch.uint8).permute(0, 2, 3, 1) for part in random_batch(1, count=2))
    memory = {"rainy": rainy, "clean": clean, "task": torch.zeros(2, dtype=torch.int16)}
    strategy = made("replay", hardware, memory, buffer=2, batch=5)
    joined = strategy.join(Batch(*random_batch(0)), np.random.default_rng(3))
    assert len(joined.rainy) == 3 + 5
    each = [slopes_by_difference(Batch(joined.rainy[k : k + 1], joined.clean[k : k + 1]), 0.6, 0.2) for k in range(8)]
    trace = steps(Line(0.6, 0.2), strategy, joined, lr=1e-3, count=1)
    assert [way.item() for _, way in trace.values()] == pytest.approx(-1e-3 * np.mean(each, axis=0), rel=0.02)


class Vector(nn.Module):
    """The line of two weights again, with both in one tensor: masks choose within a tensor."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.ab = nn.Parameter(torch.tensor([a, b]))

    def forward(self, rainy: Tensor) -> Restored:
        return Restored(self.ab[0] * rainy + self.ab[1])


def test_packnet_projects_the_step_on_the_smaller_of_two_weights(packs: dict[str, Pack], hardware: Hardware) -> None:
    plugin = plugins.load("strategies", "packnet")
    network, batch = Vector(0.6, -0.2), Batch(*random_batch(3))
    first = plugin.Strategy(plugin.Params(share=0.5), masks.nothing_consolidated(network), hardware, {}, NEGATIVE_SSIM)
    mask = consolidated(first, network, packs["heavy"]).mask
    assert mask is not None
    assert mask["ab"].tolist() == [True, False]
    second = plugin.Strategy(plugin.Params(share=0.5), mask, hardware, {}, NEGATIVE_SSIM)
    second.before_task(network)
    trace = steps(network, second, batch, lr=1e-3, count=1)
    _, slope = slopes_by_difference(batch, 0.6, -0.2)
    assert trace["ab"][1].tolist() == pytest.approx([0, -1e-3 * slope], rel=0.02)
    second.after_task(network)
    after = consolidated(second, network, packs["heavy"], position=1).mask
    assert after is not None
    assert after["ab"].tolist() == [False, False], "half of one"


def test_packnet_takes_a_share_of_the_largest_free_weights(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware
) -> None:
    stream = weights_of(under(tiny_params, "packnet", share=0.5), packs, hardware)
    earlier = {name: np.zeros(weight.shape, dtype=bool) for name, weight in stream[0][0].items()}
    for weights, left in stream:
        for name, weight in weights.items():
            magnitude, free = weight.abs().numpy(), ~earlier[name]
            newly = left.mask[name].numpy() & free
            assert newly.sum() == free.sum() // 2
            kept, rest = magnitude[newly], magnitude[free & ~newly]
            assert not kept.size or not rest.size or kept.min() >= rest.max()
            earlier[name] |= newly
    for (before, left), (after, _) in itertools.pairwise(stream):
        assert all(torch.equal(before[name][held], after[name][held]) for name, held in left.mask.items())
        assert not alike(before, after)


def test_the_buffer_is_bounded_and_shared_evenly(
    tiny_params: Params, packs: dict[str, Pack], hardware: Hardware
) -> None:
    stream = weights_of(under(tiny_params, "replay", buffer=7), packs, hardware)
    owners = [torch.bincount(left.memory["task"].long()).tolist() for _, left in stream]
    assert owners == [[7], [4, 3], [3, 2, 2], [2, 2, 2, 1]]
    rainy, clean = stream[-1][1].memory["rainy"], stream[-1][1].memory["clean"]
    assert rainy.dtype == torch.uint8
    assert rainy.shape == clean.shape == (7, 16, 16, 3)
    pictures = [packs["heavy"].pair(k) for k in range(len(packs["heavy"]))]
    for crop, side in ((rainy[0], "rainy"), (clean[0], "clean")):
        windows = [sliding_window_view(getattr(picture, side), (16, 16, 3)) for picture in pictures]
        assert any((window == crop.numpy()).all((-1, -2, -3)).any() for window in windows), "a crop of the first set"
    assert torch.equal(rainy[:2], stream[0][1].memory["rainy"][:2]), "what stays is as it was"


def test_replay_joins_crops_of_the_buffer_as_the_step_draws_them(hardware: Hardware) -> None:
    buffer = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 20, 20, 3)
    memory = {"rainy": buffer, "clean": buffer + 100, "task": torch.zeros(5, dtype=torch.int16)}
    strategy = made("replay", hardware, memory, buffer=5, batch=4)
    own = Batch(*random_batch(0))
    joined = strategy.join(own, np.random.default_rng([1, 2]))
    assert torch.equal(joined.rainy[:3], own.rainy)
    assert joined.rainy.shape == (7, 3, 20, 20)
    drawn = (joined.rainy[3:, 0, 0, 0] * 255).round()
    assert torch.equal((joined.clean[3:, 2, 5, 5] * 255).round(), drawn + 100), "rainy and clean belong together"
    assert torch.equal(strategy.join(own, np.random.default_rng([1, 2])).rainy, joined.rainy)
    many = [strategy.join(own, np.random.default_rng([1, k])).rainy[3:, 0, 0, 0] for k in range(40)]
    assert len(torch.unique(torch.cat(many))) == 5, "all of the buffer has its turn"


def stored(name: str, weights: int) -> int:
    """Bytes between tasks beyond the network, by an account of its own: weights in fp32, six pairs of crops."""
    mask, floats = -(-weights // 8), 4 * weights
    penalizing = dict.fromkeys(PENALIZING, 2 * floats)
    return {"si": 0, "nr": mask + floats, "packnet": mask, "replay": 6 * (2 * 16 * 16 * 3 + 2), **penalizing}[name]


@pytest.mark.parametrize("name", plugins.names("strategies"))
def test_bytes_between_tasks_are_as_declared(
    name: str, tiny_params: Params, packs: dict[str, Pack], hardware: Hardware
) -> None:
    params = under(tiny_params, name, **({"buffer": 6} if name == "replay" else {}))
    for weights, left in weights_of(params, packs, hardware):
        assert left.stored == stored(name, sum(weight.numel() for weight in weights.values()))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"consolidate": False}, lambda weights: 4 * weights),
        ({"lambda_kd": 0.0}, lambda weights: -(-weights // 8)),
        ({"consolidate": False, "lambda_kd": 0.0}, lambda weights: 0),
    ],
)
def test_each_part_of_nr_stores_its_own(
    part: dict[str, Any],
    expected: Callable[[int], int],
    tiny_params: Params,
    packs: dict[str, Pack],
    hardware: Hardware,
) -> None:
    for weights, left in weights_of(under(tiny_params, "nr", **part), packs, hardware):
        assert left.stored == expected(sum(weight.numel() for weight in weights.values()))


@pytest.mark.parametrize("name", plugins.names("strategies"))
def test_stages_that_pass_on_files_end_at_the_bits_of_one_process(
    name: str, tiny_params: Params, hardware: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DERAIN_CACHE", str(tmp_path / "cache"))
    params = under(tiny_params, name) if name in ("nr", "si") else strongly(tiny_params, name)
    content = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"device": "cpu", "precision": "fp32", "threads": 1}
    content |= params.sections | {"strategy": name, "train": params.train.model_dump() | {"micro_batch": None}}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    for number, data in enumerate(("heavy", "medium", "varied", "light")):
        write_pack(paths.DATA / data, "train", noisy_pairs(seed=number, noise=60 // (number + 1)))
    packs = {data: Pack.open(paths.DATA / data, "train") for data in ("heavy", "medium", "varied", "light")}
    write_start(params)
    for task, left in learn_stream(params, by_role(packs), hardware):
        kd_task.main(task.key)
        sc_mask.main(task.key)
        weights, _ = artifacts.load(paths.model(task.name))
        mask, _ = artifacts.load(paths.mask(task.name))
        memory, facts = artifacts.load(paths.memory(task.name))
        assert alike(left.weights, weights)
        assert alike(left.mask, mask)
        assert left.memory.keys() == memory.keys()
        assert alike(left.memory, memory)
        assert facts["bytes"] == left.stored
        assert facts["kind"] == "memory"


@pytest.mark.parametrize("name", ["ewc", "mas", "pigwm"])
def test_an_interrupted_measurement_goes_on_bit_for_bit(
    name: str, tiny_params: Params, packs: dict[str, Pack], hardware: Hardware, tmp_path: Path
) -> None:
    params = under(tiny_params, name)
    task, pack = params.tasks[0], {"train": packs["heavy"]}
    first = learn_task(params, task, pack, hardware, None)

    def measured(state: Any) -> Carried:
        return consolidate_task(params, task, pack, hardware, first, state)

    undisturbed = measured(NOT_KEPT)
    with pytest.raises(KilledError):
        measured(Dying(tmp_path, 2))
    assert alike(undisturbed.memory, measured(KeptState(tmp_path)).memory)
