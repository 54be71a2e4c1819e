"""Runs of the tables in one process, on the same data, recorded as they finish; no experiment of DVC's.

    python -m experiments.study [NAME ...] [--seeds 0 1 2] [--params PARAMS] [--record RECORD]

NAME is a variant or a group, as for `python -m experiments.run`; strategies where none is named. The numbers are the
same: tests/test_dvc.py shows that the pipeline's stages give the bits of one process. Here streams that begin alike are
learned once up to where they part, and nothing is read or written in between. Interrupted, the study goes on with the
first run that is missing; several may write to one RECORD.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from torch import Tensor

from derain import console, params
from derain.compute.hardware import Hardware, choose
from derain.data.pack import Pack
from derain.data.sources import pack_set
from derain.disk import paths
from derain.evaluation.evaluate import evaluate
from derain.evaluation.quality import RowScores
from derain.evaluation.summary import ByTest, Summary, after_each_task, machine_of, summarize
from derain.params import Params
from derain.stream import Learned, consolidate_task, learn_task
from derain.studies import experiments
from derain.studies.recorded import begun, record, run_of
from derain.training.masks import Mask
from derain.training.strategy import Memory
from derain.types import Task
from experiments.run import named


class Run(NamedTuple):
    """What a stream came to: its metrics/summary.json, and its quality after each task."""

    summary: Summary
    after: dict[str, ByTest]


class Reached(NamedTuple):
    """A stream up to a task: what the next one starts from, and what is known of all so far."""

    weights: dict[str, Tensor] | None = None
    mask: Mask | None = None
    memory: Memory | None = None
    stored: int = 0
    facts: Mapping[str, dict[str, Any]] = {}
    scores: Mapping[str, Mapping[str, RowScores]] = {}


class Seed:
    """The runs of one seed: its packs, and the beginnings of streams, learned once for all runs that share them."""

    def __init__(self, hardware: Hardware, folder: Path) -> None:
        self.hardware, self.folder = hardware, folder
        self.first: dict[str, Learned] = {}
        self.reached: dict[str, Reached] = {}
        self.packs: dict[tuple[str, str], Pack] = {}

    def run(self, settings: Params) -> Run:
        """A whole stream under one strategy."""
        reached = Reached()
        asked = (settings.strategy, settings.section("strategies"), settings.tests, *_of_first(settings))
        for number, task in enumerate(settings.tasks, start=1):
            alike = repr((settings.tasks[:number], *asked))
            if alike not in self.reached:
                self.reached[alike] = self.after(settings, task, reached)
            reached = self.reached[alike]
        machine = machine_of(self.hardware.describe())
        summary = summarize(settings, reached.scores, reached.facts, reached.stored, machine)
        return Run(summary, after_each_task(settings, reached.scores))

    def after(self, settings: Params, task: Task, before: Reached) -> Reached:
        """Learns a task, consolidates it, and evaluates the network on all tests, in fp32, as the pipeline does."""
        learned = self.learn(settings, task, before)
        pack = self.pack(settings, task.dataset, "train")
        mask, memory, stored, facts = consolidate_task(
            settings, task, pack, self.hardware, learned.network.train(), learned.trace, before.mask, before.memory
        )
        weights = {name: tensor.detach().cpu().clone() for name, tensor in learned.network.state_dict().items()}
        exact = Hardware(self.hardware.device, "fp32")
        scores = {}
        for test in settings.tests:
            pictures = self.pack(settings, test, "test")
            column, _ = evaluate(pictures, {task.name: learned.network.eval()}, exact, shown=0)
            scores[test] = {**before.scores.get(test, {}), **column}
        return Reached(weights, mask, memory, stored, {**before.facts, task.name: facts}, scores)

    def learn(self, settings: Params, task: Task, before: Reached) -> Learned:
        """Learns a task, the first one only where no strategy before has."""
        pack = self.pack(settings, task.dataset, "train")
        if task.after is not None:
            return learn_task(settings, task, pack, self.hardware, before.weights, before.mask, before.memory)
        alike = repr((task.dataset, *_of_first(settings)))
        if alike not in self.first:
            self.first[alike] = learn_task(settings, task, pack, self.hardware, None, None, None)
        return self.first[alike]

    def pack(self, settings: Params, name: str, split: str) -> Pack:
        """A split of a data set, packed when it is first asked for."""
        if not (self.folder / name).exists():
            pack_set(name, settings.datasets[name], self.folder / name, settings.data, settings.seed)
        if (name, split) not in self.packs:
            self.packs[name, split] = Pack.open(self.folder / name, split)
        return self.packs[name, split]


def _of_first(settings: Params) -> tuple[object, ...]:
    """What the first task's training depends on beside its data set."""
    return settings.train, settings.backbone, settings.section("backbones")


def main() -> None:
    chosen = arguments()
    settings = params.check(chosen.params)
    hardware = choose(settings.device, settings.precision, settings.threads)
    commit = experiments.head(Path(__file__).parent)
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory() as folder:
            runs = Seed(hardware, Path(folder))
            for variant in named(settings, chosen.names):
                if begun(chosen.record).of_today(settings).has(variant.name, seed):
                    continue
                console.say(f"{variant.label}, seed {seed}")
                summary, after = runs.run(variant.seeded(seed))
                day = date.today().isoformat()
                record(chosen.record, settings, [run_of(settings, variant, seed, commit, day, summary, after)])
    console.say(f"{chosen.record} holds all of them")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.study", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", default=["strategies"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--params", type=Path, default=params.PARAMS_FILE)
    parser.add_argument("--record", type=Path, default=paths.RECORDED)
    return parser.parse_args()


if __name__ == "__main__":
    console.run(main)
