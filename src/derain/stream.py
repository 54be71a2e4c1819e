"""Figure 3a of the paper, for every strategy: learn a task, consolidate it, go on to the next.

The stages of the pipeline call `learn_task` and `consolidate_task` one by one; `learn_stream` does it in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from derain import plugins
from derain.compute.hardware import Hardware
from derain.disk import artifacts, networks
from derain.params import Params
from derain.training import crops, cuda_graphs, masks
from derain.training.checkpoint import History, finite
from derain.training.crops import Crops, Packs
from derain.training.learn import Learner, learn
from derain.training.masks import Mask
from derain.training.objective import Objective
from derain.training.recipe import Recipe
from derain.training.resume import NOT_KEPT, State
from derain.training.strategy import Done, Masked, Memory, Strategy
from derain.training.strategy import Params as NoParams
from derain.training.trace import Trace
from derain.types import DataError, NumericError, ParamsError, Task

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Carried:
    """What is carried from one task to the next, on the CPU.

    Attributes:
        weights: the network's `state_dict`: weights, and buffers if it has some.
        mask: what is consolidated, of this task and all before it.
        memory: what the strategy stores beside.
        objective: the `state_dict` of the objective.
        trace: what the last training left to be known of its way (`Trace.tensors`).
        own: the strategy's own tensors at its end (`Strategy.state_dict`).
        history: its mean losses by epoch.
        facts: about the mask: P(n), fractions newly and in all consolidated.
        stored: bytes that the strategy keeps beside the network.
    """

    weights: Tensors
    mask: Mask
    memory: Memory = field(default_factory=dict)
    objective: Tensors = field(default_factory=dict)
    trace: Tensors = field(default_factory=dict)
    own: Tensors = field(default_factory=dict)
    history: History = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    stored: int = 0


def learn_task(
    params: Params, task: Task, packs: Packs, hardware: Hardware, before: Carried | None, state: State = NOT_KEPT
) -> Carried:
    """Learns a task from what is carried to it; from random weights where nothing is.

    Random weights are a function of the seed alone. Where the `state` holds something, goes on from there.

    Raises:
        NumericError: a loss, gradient or weight is not finite.
        ParamsError: the objective needs unlabelled pictures that the task's set has not got.
    """
    network, objective = _built(params, hardware, before)
    _check_unlabelled(params, task, objective, packs)
    epoch = crops.of_epoch(packs, objective.unlabelled, params.train, params.seed, task.position, 0, hardware.device)
    hardware = hardware.for_steps(params.train.epochs * len(epoch))
    if before is None:
        # All strategies of the paper train the first task alike (Fig. 3a), so that it is trained once for all of them.
        strategy = Strategy(NoParams(), masks.nothing_consolidated(network), hardware, {}, objective)
    else:
        strategy = _strategy(params, before, hardware, objective)
    micro_batches = cuda_graphs.micro_batches(params.train.micro_batch, network, objective, hardware)
    recipe: Recipe = plugins.load("recipes", params.recipe).Recipe(
        params.section("recipes"), params.train.lr, params.train.epochs, len(epoch)
    )
    optimizer = recipe.optimizer([*network.parameters(), *objective.parameters()], fused=hardware.is_gpu)
    learner = Learner(network, objective, strategy, recipe, optimizer, hardware, micro_batches, Trace(network))
    history, trace = learn(learner, task, packs, params.train, params.seed, state)
    if not finite(network.state_dict(), objective.state_dict()):
        raise NumericError(f"{task.name}: a weight is not finite. Nothing was written. Try a smaller train.lr.")
    return Carried(
        weights=_kept(network.state_dict()),
        mask=before.mask if before else masks.nothing_consolidated(network),
        memory=before.memory if before else {},
        objective=_kept(objective.state_dict()),
        trace=_kept(trace),
        own=_kept(strategy.state_dict()),
        history=history,
    )


def consolidate_task(
    params: Params, task: Task, packs: Packs, hardware: Hardware, learned: Carried, state: State = NOT_KEPT
) -> Carried:
    """What is carried on from a task that is `learned`, which still has the mask and the memory of the tasks before.

    The mask is the union of the earlier tasks' and of what the strategy consolidates of this one (Fig. 3a, 3b). Where
    the `state` holds something, goes on from there.
    """
    network, objective = _built(params, hardware, learned)
    network.eval()
    objective.eval()
    strategy = _strategy(params, learned, hardware, objective)
    if learned.own:
        strategy.load_state_dict({name: tensor.to(hardware.device) for name, tensor in learned.own.items()})

    def samples(count: int | None, *, one_by_one: bool) -> Crops:
        batch = 1 if one_by_one else params.train.batch
        patch, seed = params.train.patch, params.seed
        return crops.for_importance(packs["train"], patch, seed, task.position, count, batch, hardware.device)

    trace = {name: part.to(hardware.device) for name, part in learned.trace.items()}
    kept = strategy.consolidate(Done(task, network, samples, trace, state))
    chosen = _kept(kept.mask) if kept.mask else None
    mask = masks.union(learned.mask, chosen)
    fractions = {
        "fraction_chosen": masks.fraction(chosen) if chosen else 0.0,
        "fraction_newly_consolidated": masks.fraction(mask) - masks.fraction(learned.mask),
        "fraction_consolidated": masks.fraction(mask),
        "fraction_free": 1 - masks.fraction(mask),
    }
    former = learned.weights.values() if strategy.needs_former_weights else ()
    stored = _bytes(kept.memory.values()) + masks.packed_bytes(mask) + _bytes(former)
    return replace(learned, mask=mask, memory=_kept(kept.memory), facts={**kept.facts, **fractions}, stored=stored)


def learn_stream(
    params: Params,
    packs: Callable[[str], Packs],
    hardware: Hardware,
    reached: MutableMapping[str, Carried] | None = None,
) -> Iterator[tuple[Task, Carried]]:
    """The whole stream in one process: what each task carries on.

    Args:
        packs: a data set's packs by role, given its name.
        reached: what earlier streams have come to, which grows with this one: where two begin alike, that is learned
            once. From random weights the first task is learned alike under all strategies.
    """
    reached = {} if reached is None else reached

    carried = started_from(params)
    for number, task in enumerate(params.tasks, start=1):
        learned_alike = "learned " + _beginning(params, number, for_all_strategies=carried is None)
        carried_alike = "carried " + _beginning(params, number)
        if learned_alike not in reached:
            reached[learned_alike] = learn_task(params, task, packs(task.dataset), hardware, carried)
        if carried_alike not in reached:
            learned = reached[learned_alike]
            reached[carried_alike] = consolidate_task(params, task, packs(task.dataset), hardware, learned)
        carried = reached[carried_alike]
        yield task, carried


def _beginning(params: Params, tasks: int, for_all_strategies: bool = False) -> str:
    """All that decides what a stream comes to after so many tasks."""
    kinds = [kind for kind in plugins.SELECTED if not (kind == "strategies" and for_all_strategies)]
    sets = [params.datasets[task.dataset] for task in params.tasks[:tasks]]
    sections = [(kind, params.selected(kind), params.section(kind)) for kind in kinds]
    return repr((params.tasks[:tasks], sets, params.data, params.seed, params.train, params.start, sections))


def check(params: Params, roles: Callable[[str], Iterable[str]]) -> None:
    """Raises ParamsError where the selected plug-ins cannot learn the stream; `roles` are those of a data set."""
    network, objective = _built(params, Hardware(torch.device("cpu"), "fp32"), None)
    cuda_graphs.micro_batches(params.train.micro_batch, network, objective, Hardware(torch.device("cpu"), "fp32"))
    for task in params.tasks:
        _check_unlabelled(params, task, objective, roles(task.dataset))


def _check_unlabelled(params: Params, task: Task, objective: Objective, roles: Iterable[str]) -> None:
    if objective.unlabelled and "unlabelled" not in roles:
        raise ParamsError(
            f"params.yaml: objective: {params.objective} learns from rainy pictures without clean ones too, and the "
            f"data set {task.dataset!r} of {task.name} has none. Give it some, or choose another objective."
        )


def network_of(params: Params, carried: Carried) -> nn.Module:
    """The network with the weights that are carried, in evaluation mode."""
    network = networks.build_network(params.backbone, params.section("backbones"))
    network.load_state_dict(dict(carried.weights))
    return network.eval()


def started_from(params: Params) -> Carried | None:
    """What the stream starts from, where params.yaml names a file (`start`): weights, and what of them is consolidated.

    Raises:
        DataError: a file is missing, damaged, of another network, or no mask of this network.
        ParamsError: the strategy holds no mask.
    """
    if params.start is None:
        return None
    path = Path(params.start.model)
    network, backbone, section = networks.load_described(path)
    if (backbone, section) != (params.backbone, params.section("backbones")):
        raise DataError(
            f"{path} belongs to another network: {backbone} ({section!r}). Select that in params.yaml, which has "
            f"{params.backbone} ({params.section('backbones')!r})."
        )
    weights = network.state_dict()
    if not finite(weights):
        raise DataError(f"{path} is damaged: it holds weights that are not finite. Train or fetch it again.")
    mask = masks.nothing_consolidated(network)
    if params.start.mask is not None:
        if not issubclass(plugins.load("strategies", params.strategy).Strategy, Masked):
            raise ParamsError(
                f"params.yaml: start.mask: the strategy {params.strategy} holds no weights. Leave the mask out, or "
                "choose a strategy that does."
            )
        mask = _mask_in(Path(params.start.mask), mask)
    return Carried(_kept(weights), mask)


def _mask_in(path: Path, expected: Mask) -> Mask:
    mask, _ = artifacts.load(path)
    if {name: part.shape for name, part in mask.items()} != {name: part.shape for name, part in expected.items()}:
        raise DataError(f"{path} is no mask of this network: its names or shapes differ. Use the one beside the model.")
    if any(part.dtype != torch.bool for part in mask.values()):
        raise DataError(f"{path} is no mask: it holds other values than true and false.")
    return mask


def _built(params: Params, hardware: Hardware, carried: Carried | None) -> tuple[nn.Module, Objective]:
    """The selected network and objective, with what is carried to them, on the device."""
    torch.manual_seed(params.seed)
    network = networks.build_network(params.backbone, params.section("backbones"))
    objective: Objective = plugins.load("objectives", params.objective).Objective(params.section("objectives"))
    if carried is not None:
        network.load_state_dict(dict(carried.weights))
        if carried.objective:
            objective.load_state_dict(dict(carried.objective))
    return network.to(hardware.device), objective.to(hardware.device)


def _strategy(params: Params, carried: Carried, hardware: Hardware, objective: Objective) -> Strategy:
    """The selected strategy, with what is carried from earlier tasks."""
    strategy: Strategy = plugins.load("strategies", params.strategy).Strategy(
        params.section("strategies"), carried.mask, hardware, carried.memory, objective
    )
    return strategy


def _kept(tensors: Tensors) -> dict[str, Tensor]:
    """Copies on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
