"""Memory that runs out in trainings, at random steps: the micro-batch is halved, and the batch stays what it is.

The training must end with the very bytes of one that was told in advance to take smaller parts from that step on. In
masks and tests, which have no parts to halve, it must end in exit code 6, write no result, and work the next time.
"""

from __future__ import annotations

import itertools
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import torch

from derain import console
from derain.disk import paths
from derain.objectives import negative_ssim
from derain.training import learn
from derain.training.micro_batches import MicroBatches
from stages import sc_mask
from torture._figures import Figures
from torture._folder import small_folder
from torture.numbers import SMALL, at, test, train

COUNT = 20

_BATCH = 6
_STEPS = 10
_ERRORS = (
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    torch.OutOfMemoryError("CUDA out of memory."),
    MemoryError(),
)


def run(seed: int, count: int) -> Figures:
    rng = random.Random(seed)  # noqa: S311 - no secret
    counts: Counter[str] = Counter()
    faults: list[str] = []
    with small_folder() as folder:
        folder.write_params(SMALL | {"train.batch": _BATCH})
        folder.write_artifacts()
        for number, error in zip(range(count), itertools.cycle(_ERRORS)):
            if number % 4 == 3:
                what = ("mask", "test")[number // 4 % 2]
                counts[f"into a {what}"] += 1
                faults += [f"{what}, {error!r}: {fault}" for fault in _without_parts(what, error)]
                continue
            step, fits = rng.randint(1, _STEPS), rng.choice((1, 2, 3))
            counts["into a training"] += 1
            faults += [f"step {step}, {fits} fit, {error!r}: {fault}" for fault in _in_parts(step, fits, error)]
    return Figures(counts, faults)


def _in_parts(step: int, fits: int, error: BaseException) -> Iterator[str]:
    """A training that has, from that step on, memory for so many samples."""
    size = _BATCH
    while size > fits:
        size //= 2
    with _told(step, size):
        expected = _trained()
    with _exhausted(step, fits, error):
        try:
            weights = _trained()
        except Exception as ended:
            yield f"ended with {ended!r}"
        else:
            if weights != expected:
                yield "the weights are others"


def _trained() -> bytes:
    shutil.rmtree(paths.cache() / "states", ignore_errors=True)
    train()
    return paths.model("task1").read_bytes()


@contextmanager
def _told(step: int, size: int) -> Iterator[None]:
    """The micro-batches are of that size from that step on."""

    def change(original: Callable[..., Any], self: MicroBatches, *given: Any) -> Any:
        self.size = size
        return original(self, *given)

    within_memory = at(step, change, MicroBatches.within_memory)
    with mock.patch.object(MicroBatches, "within_memory", lambda self, *given: within_memory(self, *given)):
        yield


@contextmanager
def _exhausted(step: int, fits: int, error: BaseException) -> Iterator[None]:
    """From that step on there is memory for so many samples at once."""
    steps = itertools.count(1)
    now = 0
    within_memory, backward = MicroBatches.within_memory, learn._backward

    def counted(self: MicroBatches, *given: Any) -> Any:
        nonlocal now
        now = next(steps)
        return within_memory(self, *given)

    def exhausted(learner: learn.Learner, parts: Any) -> Any:
        def checked() -> Iterator[Any]:
            for part in parts:
                if now >= step and len(part.rainy) > fits:
                    raise error
                yield part

        return backward(learner, checked())

    with (
        mock.patch.object(MicroBatches, "within_memory", counted),
        mock.patch.object(learn, "_backward", exhausted),
    ):
        yield


def _without_parts(what: str, error: BaseException) -> Iterator[str]:
    """A stage that has no parts to halve, once with an error and once without."""
    stage, output, failing = _STAGES[what]
    output.unlink(missing_ok=True)
    with failing(error):
        code = console.code_of(stage, "")
    if code != 6:
        yield f"ended with {code}"
    if output.exists():
        yield f"{output} was written"
    stage()
    if not output.exists():
        yield "does not work the next time"


def _raises(error: BaseException) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise error

    return call


_STAGES: dict[str, tuple[Callable[[], None], Any, Callable[[BaseException], AbstractContextManager[Any]]]] = {
    "mask": (
        lambda: sc_mask.main("1"),
        paths.mask("task1"),
        lambda error: mock.patch.object(negative_ssim.Objective, "distance", _raises(error)),
    ),
    "test": (
        test,
        paths.RESULTS / "light/scores.json",
        lambda error: mock.patch.object(torch, "from_numpy", _raises(error)),
    ),
}
