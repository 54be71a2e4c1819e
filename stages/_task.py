"""What train_task0, kd_task and sc_mask have in common: a task's inputs and what is written of where it came from."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from torch import Tensor

from derain import params
from derain.compute.hardware import Hardware, choose, processor
from derain.data.pack import Pack
from derain.disk import artifacts, paths
from derain.params import Params
from derain.training import resume
from derain.training.resume import State
from derain.types import Task


class Before(NamedTuple):
    """The weights, the cumulative mask and the strategy's memory after the task before; None ahead of the first one."""

    weights: dict[str, Tensor] | None
    mask: dict[str, Tensor] | None
    memory: dict[str, Tensor] | None
    checksums: dict[str, str]


class Inputs(NamedTuple):
    """What a stage of a task works on."""

    params: Params
    task: Task
    pack: Pack
    hardware: Hardware
    before: Before

    def made_by(self, kind: str) -> dict[str, Any]:
        """What made an artifact: its metadata."""
        return {
            "kind": kind,
            "task": self.task.key,
            "position": self.task.position,
            "dataset": self.task.dataset,
            # The first task's training is the same for every strategy.
            **({} if self.task.after is None and kind in {"model", "trace"} else self._strategy()),
            "seed": self.params.seed,
            "train": self.params.train.model_dump(),
            "made_from": {"data": self.pack.sha256, **self.before.checksums},
            **self.hardware.describe(),
        }

    def state(self, made_by: Mapping[str, Any]) -> AbstractContextManager[State]:
        """What an interrupted run of the stage goes on from; `made_by` is all that decides what it makes."""
        return resume.kept({**made_by, "processor": processor()}, self.task.name)

    def _strategy(self) -> dict[str, Any]:
        return {
            "strategy": self.params.strategy,
            "strategy_params": self.params.section("strategies").model_dump(),
        }


def inputs(key: str, weights: bool) -> Inputs:
    """Reads params.yaml and what the task of that key starts from: what is left of the task before, its `weights` too
    if they are asked for."""
    settings = params.load()
    task = settings.task(key)
    hardware = choose(settings.device, settings.precision)
    hardware.set_up_process(settings.threads)
    pack = Pack.open(paths.DATA / task.dataset, "train")
    return Inputs(settings, task, pack, hardware, _before(task, weights))


def _before(task: Task, with_weights: bool) -> Before:
    if task.after is None:
        return Before(None, None, None, {})
    stem = f"task{task.after}"
    mask, masked = artifacts.load(paths.mask(stem))
    memory, remembered = artifacts.load(paths.memory(stem))
    if not with_weights:
        return Before(None, mask, memory, {"earlier mask": masked["sha256"], "earlier memory": remembered["sha256"]})
    weights, model = artifacts.load(paths.model(stem))
    checksums = {"model": model["sha256"], "mask": masked["sha256"], "memory": remembered["sha256"]}
    return Before(weights, mask, memory, checksums)
