"""What the report is made of, read from the pipeline's outputs: of the tasks and tests that params.yaml lists alone."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from derain.disk import artifacts, paths
from derain.evaluation.quality import INPUT, PROTOCOLS, Quality, Scores
from derain.evaluation.summary import machine_of
from derain.params import Params
from derain.types import DataError, NumericError


@dataclass(frozen=True)
class Tested:
    """The scores on one test set, and the pairs whose pictures are shown: name and PNGs by what they show
    (`rainy`, `clean` or a task's name)."""

    scores: Scores
    shown: Mapping[str, Mapping[str, Path]]


@dataclass(frozen=True)
class Coverage:
    """A cumulative mask: what made it, and by layer how many weights there are and how many are consolidated."""

    facts: Mapping[str, Any]
    weights: Mapping[str, int]
    consolidated: Mapping[str, int]


@dataclass(frozen=True)
class Results:
    """All that a run left behind: tests by name, masks and losses by task (losses by term, one value an epoch).

    `stored_bytes` is what the strategy keeps after the last task beside the network.
    """

    tests: Mapping[str, Tested]
    masks: Mapping[str, Coverage]
    losses: Mapping[str, Mapping[str, list[float]]]
    stored_bytes: int

    @property
    def machine(self) -> str:
        """What the last mask was made on."""
        return machine_of(list(self.masks.values())[-1].facts)

    @property
    def scores(self) -> dict[str, Scores]:
        """The scores by test set."""
        return {name: test.scores for name, test in self.tests.items()}

    @property
    def masks_facts(self) -> dict[str, Mapping[str, Any]]:
        """The masks' metadata by task."""
        return {name: mask.facts for name, mask in self.masks.items()}


def read(params: Params, root: Path) -> Results:
    """Reads the results below the project's root.

    Raises:
        DataError: a file is missing or damaged, or lacks a task.
        NumericError: a loss is not finite.
    """
    tasks = [task.name for task in params.tasks]
    return Results(
        {test: _tested(root / paths.RESULTS / test, tasks) for test in params.tests},
        {task: _coverage(root / paths.mask(task)) for task in tasks},
        {task: _losses(root / paths.loss(task)) for task in tasks},
        _stored(root / paths.memory(tasks[-1])),
    )


def layer_of(parameter: str) -> str:
    """The layer that a parameter belongs to: conv0.0.weight and conv0.0.bias to conv0.0."""
    return parameter.rpartition(".")[0] or parameter


def _tested(folder: Path, tasks: list[str]) -> Tested:
    path = folder / "scores.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        scores = {
            row: {
                protocol: {picture: Quality(*value) for picture, value in content["scores"][row][protocol].items()}
                for protocol in PROTOCOLS
            }
            for row in (INPUT, *tasks)
        }
        shown = list(content["shown"])
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Run `dvc repro`.") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is damaged or lacks a task ({error!r}). Run `dvc repro`.") from None
    names = ("rainy", *tasks, "clean")
    return Tested(
        scores,
        {pair: {name: folder / f"{k}-{name}.png" for name in names} for k, pair in enumerate(shown)},
    )


def _coverage(path: Path) -> Coverage:
    mask, facts = artifacts.load(path)
    if "fraction_consolidated" not in facts:
        raise DataError(f"{path} holds no mask but {facts.get('kind', 'something else')}. Run `dvc repro`.")
    return Coverage(facts, _by_layer(mask, Tensor.numel), _by_layer(mask, lambda part: int(part.sum())))


def _stored(path: Path) -> int:
    _, facts = artifacts.load(path)
    if facts.get("kind") != "memory":
        raise DataError(f"{path} holds no memory but {facts.get('kind', 'something else')}. Run `dvc repro`.")
    return int(facts["bytes"])


def _by_layer(mask: Mapping[str, Tensor], count: Any) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for name, part in mask.items():
        totals[layer_of(name)] += count(part)
    return dict(totals)


def _losses(path: Path) -> dict[str, list[float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        terms = [name for name in rows[0] if name not in {"epoch", "lr"}]
        losses = {name: [float(row[name]) for row in rows] for name in terms}
    except FileNotFoundError:
        raise DataError(f"{path} is missing. Run `dvc repro`.") from None
    except (ValueError, TypeError, IndexError, csv.Error):
        raise DataError(f"{path} is damaged: it is no table of losses. Run `dvc repro`.") from None
    if not all(math.isfinite(value) for values in losses.values() for value in values):
        raise NumericError(f"{path}: a loss is not finite; no report was written.")
    return losses
