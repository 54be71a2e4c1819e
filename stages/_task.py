"""What train_task0, kd_task and sc_mask have in common: what a task starts from, what is written of its making."""

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from derain import params as parameters
from derain import plugins
from derain.compute.hardware import Hardware, choose, processor
from derain.data.pack import Pack
from derain.disk import artifacts, atomic, networks, paths
from derain.params import Params
from derain.plugins import KEYS, Selected
from derain.stream import Carried, started_from
from derain.training import resume
from derain.training.crops import Packs
from derain.training.masks import Mask, nothing_consolidated
from derain.training.resume import State
from derain.training.strategy import Memory
from derain.types import Task

_OWN = "strategy/"
"""Before the names of a strategy's own tensors in a task's trace."""
_PARTS = ("weights", "mask")
"""Of what a stream starts from."""
LEARNED_ROLES = ("train", "unlabelled")


class Inputs(NamedTuple):
    """What a stage of a task works on: `before` is what is carried to it, made by the files of these `checksums`."""

    params: Params
    task: Task
    packs: Packs
    hardware: Hardware
    before: Carried | None
    checksums: Mapping[str, str]

    def made_by(self, kind: str) -> dict[str, Any]:
        """What made an artifact: its metadata."""
        # From random weights, the first task's training is the same for every strategy.
        training = kind in {"model", "trace"}
        plain = training and self.before is None
        return {
            "kind": kind,
            "task": self.task.key,
            "position": self.task.position,
            "dataset": self.task.dataset,
            **self._selected("objectives", *(("recipes",) if training else ()), *(() if plain else ("strategies",))),
            "seed": self.params.seed,
            "train": self.params.train.model_dump(),
            "made_from": {**{f"data {role}": pack.sha256 for role, pack in self.packs.items()}, **self.checksums},
            **self.hardware.describe(),
        }

    def state(self, made_by: Mapping[str, Any]) -> AbstractContextManager[State]:
        """What an interrupted run of the stage goes on from; `made_by` is all that decides what it makes."""
        return resume.kept({**made_by, "processor": processor(), **self._selected("backbones")}, self.task.name)

    def _selected(self, *kinds: Selected) -> dict[str, Any]:
        """The names and sections of selected plug-ins."""
        return {KEYS[kind]: self.params.selected(kind) for kind in kinds} | {
            f"{KEYS[kind]}_params": self.params.section(kind).model_dump() for kind in kinds
        }


def to_learn(key: str) -> Inputs:
    """Reads params.yaml, and what is carried to the task of that key."""
    params = parameters.load()
    task = params.task(key)
    if task.after is None:
        before, checksums = _start(params)
        return _inputs(params, task, before, checksums)
    model_path = paths.model(f"task{task.after}")
    tensors, model = artifacts.load(model_path)
    weights, objective = networks.parts_of(tensors)
    networks.check_weights(params.backbone, params.section("backbones"), weights, model_path)
    mask, memory, checksums = _left(task.after)
    return _inputs(params, task, Carried(weights, mask, memory, objective), {"model": model["sha256"], **checksums})


def to_consolidate(key: str) -> tuple[Inputs, Carried]:
    """Reads params.yaml, and the task of that key as it was learned, with what was carried to it."""
    params = parameters.load()
    task = params.task(key)
    model_path = paths.model(task.name)
    tensors, model = artifacts.load(model_path)
    weights, objective = networks.parts_of(tensors)
    network = networks.check_weights(params.backbone, params.section("backbones"), weights, model_path)
    kept, traced = artifacts.load(paths.trace(task.name))
    own = {name.removeprefix(_OWN): tensor for name, tensor in kept.items() if name.startswith(_OWN)}
    trace = {name: tensor for name, tensor in kept.items() if not name.startswith(_OWN)}
    if task.after is not None:
        mask, memory, checksums = _left(task.after)
    else:
        start, checksums = _start(params)
        mask, memory = start.mask if start else nothing_consolidated(network), {}
    made_from = {"model": model["sha256"], "trace": traced["sha256"], **checksums}
    learned = Carried(weights, mask, memory, objective, trace, own)
    return _inputs(params, task, learned, made_from), learned


def write_learned(inputs: Inputs, learned: Carried, made_by: Mapping[str, Any]) -> None:
    """Writes the model and the trace of a task."""
    task, backbone = inputs.task.name, inputs.params.backbone
    section = inputs.params.section("backbones")
    networks.save_network(paths.model(task), learned.weights, backbone, section, made_by, learned.objective)
    own = {_OWN + name: tensor for name, tensor in learned.own.items()}
    artifacts.save(paths.trace(task), {**learned.trace, **own}, inputs.made_by("trace"))


def write_start(params: Params) -> None:
    """Writes what a stream starts from: an empty file, where params.yaml names none.

    DVC cannot say that the first task is learned under the strategy only where there is something to keep: so the file
    names the strategy then, and its code.
    """
    start = started_from(params)
    if start is None:
        atomic.write_atomically(paths.START, b"")
        return
    tensors = {f"{part}/{name}": tensor for part in _PARTS for name, tensor in getattr(start, part).items()}
    code = hashlib.sha256(plugins.file("strategies", params.strategy).read_bytes()).hexdigest()
    section = params.section("strategies").model_dump()
    made_by = {"strategy": params.strategy, "strategy_params": section, "strategy_code": code}
    artifacts.save(paths.START, tensors, {"kind": "start", **made_by})


def _start(params: Params) -> tuple[Carried | None, dict[str, str]]:
    if params.start is None:
        return None, {}
    tensors, made = artifacts.load(paths.START)
    weights, mask = (
        {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{part}/")}
        for part in _PARTS
    )
    return Carried(weights, mask), {"start": made["sha256"]}


def _left(task: str) -> tuple[Mask, Memory, dict[str, str]]:
    """The mask and the memory after a task, and their checksums."""
    mask, masked = artifacts.load(paths.mask(f"task{task}"))
    memory, remembered = artifacts.load(paths.memory(f"task{task}"))
    return mask, memory, {"mask": masked["sha256"], "memory": remembered["sha256"]}


def _inputs(params: Params, task: Task, before: Carried | None, checksums: Mapping[str, str]) -> Inputs:
    hardware = choose(params.device, params.precision)
    hardware.set_up_process(params.threads)
    folder = paths.DATA / task.dataset
    roles = [role for role in LEARNED_ROLES if Pack.is_there(folder, role)]
    packs = {role: Pack.open(folder, role) for role in roles or LEARNED_ROLES[:1]}
    return Inputs(params, task, packs, hardware, before, checksums)
