"""The runs that the tables and studies are made of: params.yaml with a change, by name.

`experiments/` runs them by DVC or in one process, and the tables find them again by their names and parameters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any, NamedTuple

from derain import params as parameters
from derain.params import Params

Content = Mapping[str, Any]
"""What a params.yaml holds, or a part of it."""

OTHER_ORDER = (0, 3, 2, 1)
"""The paper's second order of its four sets (Sec. 4.5): Rain100H, Rain100L, Rain14000, Rain800."""

_STRATEGIES: tuple[tuple[str, str, Content], ...] = (
    ("nr", "NR", {"strategy": "nr"}),
    ("si", "SI", {"strategy": "si"}),
    ("nr-without-sc", "NR without SC", {"strategy": "nr", "nr": {"consolidate": False}}),
    ("nr-without-kd", "NR without KD", {"strategy": "nr", "nr": {"lambda_kd": 0.0}}),
    ("ewc", "EWC", {"strategy": "ewc"}),
    ("mas", "MAS", {"strategy": "mas"}),
    ("synaptic-intelligence", "Synaptic intelligence", {"strategy": "synaptic_intelligence"}),
    ("pigwm", "PIGWM", {"strategy": "pigwm"}),
    ("packnet", "PackNet-like", {"strategy": "packnet"}),
    ("replay", "Replay", {"strategy": "replay"}),
)

STRATEGIES = (*(name for name, _, _ in _STRATEGIES), "mix")
"""The variants that differ in nothing but the strategy; Mix is the bound."""

_VALUES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("nr.alpha_l", (0.002, 0.004, 0.016, 0.032)),
    ("nr.tau_l", (3, 30)),
    ("nr.lambda_kd", (0.2, 3.2)),
    ("nr.rank", ("free",)),
    ("nr.gradient", ("batch",)),
)
"""Values of NR's parameters beside those of params.yaml."""

_WIDTHS = (8, 24, 32)
"""Channels of PReNet beside those of params.yaml."""


class Variant(NamedTuple):
    """A run: its name, as in the experiment `nr-seed0`, its label in tables, and its parameters."""

    name: str
    label: str
    params: Params

    def seeded(self, seed: int) -> Params:
        """The parameters for one seed."""
        return self.params.model_copy(update={"seed": seed})


def catalogue(params: Params) -> dict[str, Variant]:
    """All variants of a params.yaml, by name."""
    return {variant.name: variant for variants in groups(params).values() for variant in variants}


def groups(params: Params) -> dict[str, list[Variant]]:
    """The variants by table of the paper or by study; some are in several."""
    strategies = {name: Variant(name, label, _changed(params, change)) for name, label, change in _STRATEGIES}
    mix = _mix(params)
    alone = list(_alone(params))
    orders = {(name, order): _ordered(strategies[name], order) for order in _orders(params) for name in _RIVALS}
    all_groups = {
        "table1": [strategies["si"], mix, strategies["nr"]],
        "table2": [*alone, strategies["nr"]],
        "table3": [strategies[name] for name in ("si", "nr-without-sc", "nr-without-kd", "nr")],
        "table4": [strategies["nr"], strategies["si"]],
        "table5": [orders[key] for key in orders if key[1] == OTHER_ORDER],
        "strategies": [*strategies.values(), mix],
        "orders": list(orders.values()),
        "values": [strategies["nr"], *_values(params)],
        "widths": [strategies["nr"], strategies["si"], *_widths(strategies)],
        "capacity": [_twice(variant) for variant in _capacity(strategies)],
    }
    return {name: variants for name, variants in all_groups.items() if variants}


def overrides(base: Content, changed: Content, prefix: str = "") -> Iterator[str]:
    """What stands after `-S` to make one content of the other: `key=value`, `+key=value` or `~key`."""
    for key in base:
        if key not in changed:
            yield f"~{prefix}{key}"
    for key, value in changed.items():
        if key not in base:
            yield f"+{prefix}{key}={_text(value)}"
        elif isinstance(value, Mapping) and isinstance(base[key], Mapping):
            yield from overrides(base[key], value, f"{prefix}{key}.")
        elif value != base[key]:
            yield f"{prefix}{key}={_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, str) and re.fullmatch(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z_][\w./-]*", value, re.I):
        return value
    return json.dumps(value, ensure_ascii=False)


def _changed(params: Params, change: Content) -> Params:
    return parameters.of(_merged(params.content, change))


def _merged(base: Content, change: Content) -> dict[str, Any]:
    merged = {
        key: _merged(value, change[key])
        if isinstance(value, Mapping) and isinstance(change.get(key), Mapping)
        else change.get(key, value)
        for key, value in base.items()
    }
    return merged | {key: value for key, value in change.items() if key not in base}


def _mix(params: Params) -> Variant:
    """All sets at once, for as many steps as the stream has.

    Where an epoch is the whole grid of patches, the union's epochs are as long as the tasks' together already.
    """
    datasets = params.content["datasets"]
    learned = [datasets[task.dataset] for task in params.tasks]
    union = {"source": "mix", "of": [part for each in learned for part in each.get("of", [each])]}
    return Variant("mix", "Mix", _single(params, "mixed", {"datasets": {"mixed": union}}))


def _alone(params: Params) -> Iterator[Variant]:
    """Each set of the stream alone, for as many steps as the stream has."""
    for dataset in dict.fromkeys(task.dataset for task in params.tasks):
        yield Variant(f"alone-{dataset}", f"{dataset} alone", _single(params, dataset, {}))


def _single(params: Params, dataset: str, more: Content) -> Params:
    times = len(params.tasks) if params.train.steps_per_epoch else 1
    train = {"epochs": params.train.epochs * times}
    change = {"strategy": "si", "task0": {"dataset": dataset}, "train": train, **more}
    return parameters.of({**_merged(params.content, change), "stream": {}})


def _orders(params: Params) -> list[tuple[int, ...]]:
    """All orders of a stream of three or four different sets; of others there are none, or too many."""
    datasets = [task.dataset for task in params.tasks]
    return list(permutations(range(len(datasets)))) if len(set(datasets)) == len(datasets) in (3, 4) else []


_RIVALS = ("nr", "si")


def _ordered(strategy: Variant, order: tuple[int, ...]) -> Variant:
    """A strategy on the stream's sets in another order; the chain of tasks stays as it is."""
    tasks = strategy.params.tasks
    datasets = [tasks[place].dataset for place in order]
    if order == tuple(range(len(tasks))):
        return strategy
    later = {task.key: {"dataset": dataset} for task, dataset in zip(tasks[1:], datasets[1:], strict=True)}
    changed = _changed(strategy.params, {"task0": {"dataset": datasets[0]}, "stream": later})
    return Variant(f"{strategy.name}-{'-'.join(datasets)}", f"{strategy.label}: {' → '.join(datasets)}", changed)


def _capacity(strategies: Mapping[str, Variant]) -> Iterator[Variant]:
    """NR with both its ranks, and SI."""
    for rank in ("all", "free"):
        yield Variant(f"nr-rank-{rank}", f"NR, rank {rank}", _changed(strategies["nr"].params, {"nr": {"rank": rank}}))
    yield strategies["si"]


def _twice(variant: Variant) -> Variant:
    """The whole stream once more after itself."""
    tasks = variant.params.tasks
    keys = [task.key for task in tasks]
    stream = {}
    for task in tasks:
        keys.append(str(max(map(int, keys)) + 1))
        stream[keys[-1]] = {"dataset": task.dataset, "after": keys[-2]}
    changed = _changed(variant.params, {"stream": stream})
    return Variant(f"{variant.name}-twice", f"{variant.label}, the stream twice", changed)


def _values(params: Params) -> Iterator[Variant]:
    for path, values in _VALUES:
        section, _, key = path.partition(".")
        for value in values:
            if params.sections.get(section, {}).get(key, value) != value:
                changed = _changed(params, {"strategy": section, section: {key: value}})
                yield Variant(f"{section}-{key}-{value}", f"{path} = {value}", changed)


def _widths(strategies: Mapping[str, Variant]) -> Iterator[Variant]:
    for channels in _WIDTHS:
        for name in _RIVALS:
            _, label, params = strategies[name]
            if params.backbone == "prenet" and params.sections.get("prenet", {}).get("channels", channels) != channels:
                changed = _changed(params, {"prenet": {"channels": channels}})
                yield Variant(f"{name}-channels-{channels}", f"{label}, {channels} channels", changed)
