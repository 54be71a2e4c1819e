"""Numbers that are none, put into trainings, masks and tests at random steps: the stage stops within that step.

The stages themselves run. Each must end with exit code 4, name what it was at, write no result, and leave the last good
state behind, from which the undisturbed stage goes on to the very bytes.
"""

from __future__ import annotations

import itertools
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from derain.compute.batch import Batch
from derain.disk import networks, paths
from derain.objectives import negative_ssim
from derain.strategies import nr
from derain.training import resume
from derain.training.checkpoint import from_bytes
from derain.training.crops import Crops
from derain.training.objective import Objective
from derain.types import DerainError, NumericError
from stages import eval as eval_stage
from stages import kd_task, sc_mask
from torture._figures import Figures
from torture._folder import small_folder

COUNT = 30

_STEPS = 10
SMALL = {
    "threads": 1,
    "precision": "fp32",
    "prenet": {"channels": 4, "stages": 2, "blocks": 1},
    "stream": {"1": {"dataset": "light", "after": "0"}},
    "train.epochs": _STEPS // 2,
    "train.steps_per_epoch": 2,
    "train.batch": 2,
    "train.patch": 16,
    "adam_multistep.milestones": [0.4],
    "nr.samples": _STEPS,
}
"""Parameters of a training of ten steps."""
_VALUES = (float("nan"), float("inf"), float("-inf"))

Injection = Callable[[int, float], AbstractContextManager[Any]]


def run(seed: int, count: int) -> Figures:
    rng = random.Random(seed)  # noqa: S311 - no secret
    counts: Counter[str] = Counter()
    faults: list[str] = []
    every_step = mock.patch.multiple(resume, SAVE_EVERY=0.0, SHARE=1e9)
    with every_step, small_folder() as folder:
        folder.write_params(SMALL)
        folder.write_artifacts()
        expected = {train: _result(train), _mask: _result(_mask)}
        cases = itertools.cycle(itertools.product(_VALUES, _INJECTIONS))
        for value, name in itertools.islice(cases, count):
            stage, injection = _INJECTIONS[name]
            step = rng.randint(2, _STEPS)
            case = f"{name} {value} at step {step}"
            counts[f"into the {name}"] += 1
            faults += [f"{case}: {fault}" for fault in _broken(stage, injection(step, value), step)]
            if stage in expected and _result(stage) != expected[stage]:
                faults.append(f"{case}: the run after it has another result")
    return Figures(counts, faults)


def train() -> None:
    kd_task.main("1")


def _mask() -> None:
    sc_mask.main("1")


def test() -> None:
    with mock.patch.object(sys, "argv", ["stages.eval", "light"]):
        eval_stage.main()


_OUTPUTS = {train: paths.model("task1"), _mask: paths.mask("task1"), test: paths.RESULTS / "light/scores.json"}


def _result(stage: Callable[[], None]) -> bytes:
    """What an undisturbed stage makes."""
    stage()
    return _OUTPUTS[stage].read_bytes()


def _broken(stage: Callable[[], None], injected: AbstractContextManager[Any], step: int) -> Iterator[str]:
    """Runs a stage with a number in it that is none; yields what is wrong with how it ends."""
    output = _OUTPUTS[stage]
    before = output.read_bytes() if output.exists() else None
    output.unlink(missing_ok=True)
    shutil.rmtree(paths.cache() / "states", ignore_errors=True)  # which hold what the run before was done with
    try:
        with injected:
            stage()
        yield "nothing was noticed"
    except DerainError as error:
        if not isinstance(error, NumericError) or error.exit_code != 4:
            yield f"ended with {error.exit_code}: {error}"
        elif "not finite" not in str(error) or not any(word in str(error) for word in ("picture", "steps", "network")):
            yield f"does not say where: {error}"
    if output.exists():
        yield f"{output} was written"
    if stage is test:
        return
    if before is not None and stage is train:
        output.write_bytes(before)
    yield from _wrong_state(step)


def _wrong_state(step: int) -> Iterator[str]:
    """What is wrong with the state that is left behind."""
    kept = [file.read_bytes()[32:] for file in (paths.cache() / "states").glob("*/state")]
    if len(kept) != 1:
        yield f"{len(kept)} states were left"
        return
    content = from_bytes(kept[0])
    done = content["count"] if "count" in content else 2 * len(content["loop"]["history"]) + content["loop"]["step"]
    if done != step - 1:
        yield f"the state that was left is that of step {done}"
    tensors = (content["total"] if "total" in content else content["network"]).values()
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        yield "the state that was left holds what is no number"


def at(step: int, change: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, whose call number `step` (from 1) is answered by `change`, which gets `original` first."""
    calls = itertools.count(1)
    return lambda *given: change(original, *given) if next(calls) == step else original(*given)


def _of_loss(spoil: Callable[[Tensor], Tensor], step: int) -> AbstractContextManager[Any]:
    def spoilt(original: Callable[..., Any], *given: Any) -> dict[str, Tensor]:
        return {name: spoil(loss) for name, loss in original(*given).items()}

    return mock.patch.object(Objective, "losses", _method(at(step, spoilt, Objective.losses)))


def _of_distance(spoil: Callable[[Tensor], Tensor], step: int) -> AbstractContextManager[Any]:
    distance = negative_ssim.Objective.distance
    spoilt = at(step, lambda original, *given: spoil(original(*given)), distance)
    return mock.patch.object(negative_ssim.Objective, "distance", _method(spoilt))


def _with_gradient(value: float) -> Callable[[Tensor], Tensor]:
    def spoil(loss: Tensor) -> Tensor:
        loss.register_hook(lambda gradient: gradient * value)
        return loss

    return spoil


def _input(step: int, value: float) -> AbstractContextManager[Any]:
    def spoil(original: Callable[..., Batch], crops: Crops, *given: Any) -> Batch:
        batch = original(crops, *given)
        return batch._replace(rainy=batch.rainy.index_fill(2, torch.tensor([3]), value))

    return mock.patch.object(Crops, "at", _method(at(step, spoil, Crops.at)))


def _weight(step: int, value: float) -> AbstractContextManager[Any]:
    """Spoils a weight just before the optimizer's step: the sum stays what it is, no number."""

    def spoil(original: Callable[..., Any], strategy: nr.Strategy, network: nn.Module) -> None:
        original(strategy, network)
        with torch.no_grad():
            next(network.parameters()).fill_(value)

    return mock.patch.object(nr.Strategy, "before_step", _method(at(step, spoil, nr.Strategy.before_step)))


def _teacher(step: int, value: float) -> AbstractContextManager[Any]:
    def spoil(original: Callable[..., Any], strategy: nr.Strategy, *given: Any) -> Any:
        next(strategy.teacher.parameters()).fill_(value)
        return original(strategy, *given)

    return mock.patch.object(nr.Strategy, "extra_losses", _method(at(step, spoil, nr.Strategy.extra_losses)))


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *given: function(self, *given)


def _model(_: int, value: float) -> AbstractContextManager[Any]:
    load = networks.load_network

    def spoilt(*given: Any) -> nn.Module:
        network = load(*given)
        next(network.parameters()).fill_(value)
        return network

    return mock.patch.object(networks, "load_network", spoilt)


_INJECTIONS: dict[str, tuple[Callable[[], None], Injection]] = {
    "loss": (train, lambda step, value: _of_loss(lambda loss: loss * value, step)),
    "gradient": (train, lambda step, value: _of_loss(_with_gradient(value), step)),
    "input": (train, _input),
    "weights": (train, _weight),
    "target of distillation": (train, _teacher),
    "gradient of importance": (_mask, lambda step, value: _of_distance(_with_gradient(value), step)),
    "input of importance": (_mask, _input),
    "tested network": (test, _model),
}
