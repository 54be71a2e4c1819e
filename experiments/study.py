"""Runs of the tables in one process, on the same data, recorded as they finish; no experiment of DVC's.

    python -m experiments.study [NAME ...] [--seeds 0 1 2] [--params PARAMS] [--record RECORD]

NAME is a variant or a group, as for `python -m experiments.run`; strategies where none is named. The numbers are the
same: tests/test_dvc.py shows that the pipeline's stages give the bits of one process. Here the first task is trained
once a seed, and nothing is read or written in between. Interrupted, the study goes on with the first run that is
missing; several may write to one RECORD.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from torch import Tensor

from derain import console, params, paths
from derain.data.pack import Pack
from derain.data.sources import pack_set
from derain.evaluation.evaluate import evaluate
from derain.evaluation.quality import RowScores
from derain.hardware import Hardware, choose
from derain.params import Params
from derain.report import comparison, experiments
from derain.report.summary import ByTest, Summary, after_of_csv, forgetting_csv, machine_of, summarize
from derain.strategies._base import Memory
from derain.training.masks import Mask
from derain.training.stream import Learned, consolidate_task, learn_task
from derain.types import Task
from experiments.run import named


class Run(NamedTuple):
    """What a stream came to: its metrics/summary.json, and its quality after each task."""

    summary: Summary
    after: dict[str, ByTest]


class Seed:
    """The runs of one seed: its packs, and the first task, which is trained once for all strategies that share it."""

    def __init__(self, hardware: Hardware, folder: Path) -> None:
        self.hardware, self.folder = hardware, folder
        self.first: dict[str, Learned] = {}
        self.packs: dict[tuple[str, str], Pack] = {}

    def run(self, settings: Params) -> Run:
        """A whole stream under one strategy."""
        # Evaluation is in fp32, as in the pipeline.
        exact = Hardware(self.hardware.device, "fp32")
        scores: dict[str, dict[str, RowScores]] = {test: {} for test in settings.tests}
        facts: dict[str, dict[str, Any]] = {}
        weights: dict[str, Tensor] | None = None
        mask: Mask | None = None
        memory: Memory | None = None
        stored = 0
        for task in settings.tasks:
            learned = self.learn(settings, task, weights, mask, memory)
            pack = self.pack(settings, task.dataset, "train")
            mask, memory, stored, facts[task.name] = consolidate_task(
                settings, task, pack, self.hardware, learned.network, learned.trace, mask, memory
            )
            weights = {name: tensor.detach().cpu().clone() for name, tensor in learned.network.state_dict().items()}
            for test in settings.tests:
                column, _ = evaluate(
                    self.pack(settings, test, "test"), {task.name: learned.network.eval()}, exact, shown=0
                )
                scores[test] |= column
        found = summarize(settings, scores, facts, stored, machine_of(self.hardware.describe()))
        return Run(found, after_of_csv(forgetting_csv(settings, scores).decode()))

    def learn(
        self,
        settings: Params,
        task: Task,
        weights: dict[str, Tensor] | None,
        mask: Mask | None,
        memory: Memory | None,
    ) -> Learned:
        """Learns a task, the first one only where no strategy before has."""
        pack = self.pack(settings, task.dataset, "train")
        if task.after is not None:
            return learn_task(settings, task, pack, self.hardware, weights, mask, memory)
        alike = repr((task.dataset, settings.train, settings.backbone, settings.section("backbones")))
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


def main() -> None:
    chosen = arguments()
    base = params.content(chosen.params)
    settings = params.check(chosen.params)
    hardware = choose(settings.device, settings.precision, settings.threads)
    commit = experiments.head(Path(__file__).parent)
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory() as folder:
            runs = Seed(hardware, Path(folder))
            for variant in named(base, chosen.names):
                asked = params.of(variant.seeded(seed))
                if comparison.of_today(settings, base, comparison.begun(chosen.record)).has(variant.name, seed):
                    continue
                console.say(f"{variant.label}, seed {seed}")
                found = runs.run(asked)
                day = date.today().isoformat()
                made = comparison.run_of(base, variant, seed, commit, day, found.summary, found.after)
                comparison.record(chosen.record, settings, [made])
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
