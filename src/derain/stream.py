"""Figure 3a of the paper, for every strategy: learn a task, consolidate it, go on to the next.

The stages of the pipeline call `learn_task` and `consolidate_task` one by one; `learn_stream` does it in one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from derain.compute.hardware import Hardware
from derain.disk.networks import build_network
from derain.params import Params
from derain.plugins import load_plugin
from derain.training import crops, masks
from derain.training.checkpoint import History
from derain.training.learn import learn
from derain.training.masks import Mask
from derain.training.resume import NOT_KEPT, State
from derain.training.strategy import Done, Memory, Strategy
from derain.training.strategy import Params as NoParams
from derain.types import NumericError, Task

if TYPE_CHECKING:
    from derain.data.pack import Pack


class Learned(NamedTuple):
    """A network after a task, the losses of each epoch, and the training's trace (`Trace.tensors`)."""

    network: nn.Module
    history: History
    trace: Mapping[str, Tensor]


class Consolidated(NamedTuple):
    """What is left of a task: the cumulative mask, the strategy's memory, and how many bytes are stored.

    `facts` are about the mask: P(n), fractions newly and in all consolidated.
    """

    mask: Mask
    memory: Memory
    stored: int
    facts: dict[str, Any]


def learn_task(
    params: Params,
    task: Task,
    pack: Pack,
    hardware: Hardware,
    before: Mapping[str, Tensor] | None,
    mask: Mask | None,
    memory: Memory | None,
    state: State = NOT_KEPT,
) -> Learned:
    """Learns a task from what is there after the task before; the first one from random weights.

    Random weights are a function of the seed alone. Where the `state` holds something, goes on from there.
    """
    torch.manual_seed(params.seed)
    network = build_network(params.backbone, params.section("backbones"))
    if before is not None:
        network.load_state_dict(dict(before))
    network.to(hardware.device)
    epoch = crops.of_epoch(pack, params.train, params.seed, task.position, 0, hardware.device)
    hardware = hardware.for_steps(params.train.epochs * len(epoch))
    earlier = mask or masks.nothing_consolidated(network)
    # All strategies of the paper train the first task alike (Fig. 3a), so that it is trained once for all of them.
    first = Strategy(NoParams(), earlier, hardware, {})
    strategy = first if before is None else _strategy(params, earlier, hardware, memory)
    history, trace = learn(network, task, pack, strategy, params.train, params.seed, hardware, state)
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        raise NumericError(f"{task.name}: a weight is not finite. Nothing was written. Try a smaller train.lr.")
    return Learned(network, history, trace)


def consolidate_task(
    params: Params,
    task: Task,
    pack: Pack,
    hardware: Hardware,
    network: nn.Module,
    trace: Mapping[str, Tensor],
    mask: Mask | None,
    memory: Memory | None,
    state: State = NOT_KEPT,
) -> Consolidated:
    """What is left of a task, given what was left of the task before.

    The mask is the union of the earlier tasks' and of what the strategy consolidates of this one (Fig. 3a, 3b). Where
    the `state` holds something, goes on from there.
    """
    earlier = mask or masks.nothing_consolidated(network)
    network.to(hardware.device)
    strategy = _strategy(params, earlier, hardware, memory)

    def samples(count: int | None, one_by_one: bool) -> crops.Crops:
        batch = 1 if one_by_one else params.train.batch
        return crops.for_importance(pack, params.train.patch, params.seed, task.position, count, batch, hardware.device)

    way = {name: part.to(hardware.device) for name, part in trace.items()}
    kept = strategy.consolidate(Done(task, network, samples, way, state))
    cumulative = masks.union(earlier, kept.mask)
    fractions = {
        "fraction_chosen": masks.fraction(kept.mask),
        "fraction_newly_consolidated": masks.fraction(cumulative) - masks.fraction(earlier),
        "fraction_consolidated": masks.fraction(cumulative),
        "fraction_free": 1 - masks.fraction(cumulative),
    }
    former = network.parameters() if strategy.needs_former_weights else ()
    stored = _bytes(kept.memory.values()) + masks.packed_bytes(cumulative) + _bytes(former)
    return Consolidated(
        cumulative, {name: part.cpu() for name, part in kept.memory.items()}, stored, {**kept.facts, **fractions}
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _strategy(params: Params, earlier: Mask, hardware: Hardware, memory: Memory | None) -> Strategy:
    """The selected strategy, with what is left of earlier tasks."""
    strategy: Strategy = load_plugin("strategies", params.strategy).Strategy(
        params.section("strategies"), earlier, hardware, memory or {}
    )
    return strategy


def learn_stream(
    params: Params, packs: Mapping[str, Pack], hardware: Hardware
) -> Iterator[tuple[Task, Learned, Consolidated]]:
    """The whole stream in one process; `packs` are the training splits by data set."""
    weights: Mapping[str, Tensor] | None = None
    mask: Mask | None = None
    memory: Memory | None = None
    for task in params.tasks:
        learned = learn_task(params, task, packs[task.dataset], hardware, weights, mask, memory)
        consolidated = consolidate_task(
            params, task, packs[task.dataset], hardware, learned.network, learned.trace, mask, memory
        )
        weights = {name: tensor.detach().cpu().clone() for name, tensor in learned.network.state_dict().items()}
        mask, memory = consolidated.mask, consolidated.memory
        yield task, learned, consolidated
