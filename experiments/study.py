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
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from derain import console
from derain import params as parameters
from derain.compute.hardware import Hardware, choose
from derain.data.pack import Pack
from derain.data.sets import pack_set, source_of
from derain.disk import paths
from derain.evaluation.evaluate import evaluate
from derain.evaluation.quality import INPUT, RowScores
from derain.evaluation.summary import ByTest, Summary, after_each_task, machine_of, summarize
from derain.params import Params
from derain.stream import Carried, learn_stream, network_of
from derain.studies import experiments
from derain.studies.recorded import begun, record, run_of
from derain.training.crops import Packs
from experiments.run import named


class Run(NamedTuple):
    """What a stream came to: its metrics/summary.json, and its quality after each task."""

    summary: Summary
    after: dict[str, ByTest]


GetPack = Callable[[Params, str, str], Pack]
"""A data set's pack, given the parameters, its name and the role."""


class Seed:
    """The runs of one seed, with the beginnings of streams, learned and evaluated once for all runs that share them."""

    def __init__(self, hardware: Hardware, pack: GetPack) -> None:
        self.hardware, self.pack = hardware, pack
        self.reached: dict[str, Carried] = {}
        self.columns: dict[tuple[int, str], RowScores] = {}

    def run(self, params: Params) -> Run:
        """A whole stream under one strategy."""
        scores: dict[str, dict[str, RowScores]] = {test: {} for test in params.tests}
        facts: dict[str, Mapping[str, Any]] = {}

        def packs(name: str) -> Packs:
            roles = source_of(params.datasets[name], name, params.data, params.seed).roles
            return {role: self.pack(params, name, role) for role in roles if role != "test"}

        for task, carried in learn_stream(params, packs, self.hardware, self.reached):
            facts[task.name] = carried.facts
            for test in params.tests:
                scores[test] |= self._scores(params, carried, test, task.name)
        summary = summarize(params, scores, facts, carried.stored, machine_of(self.hardware.describe()))
        return Run(summary, after_each_task(params, scores))

    def _scores(self, params: Params, carried: Carried, test: str, task: str) -> Mapping[str, RowScores]:
        """A network's quality on a test set, and that of doing nothing, in fp32, as the pipeline takes them."""
        network_key = id(carried.weights)  # which `reached` keeps: the first task's are the same for all strategies
        if (network_key, test) not in self.columns:
            exact = Hardware(self.hardware.device, "fp32")
            network = network_of(params, carried).to(exact.device)
            rows, _ = evaluate(self.pack(params, test, "test"), {"network": network}, exact, shown=0)
            self.columns |= {(network_key, test): rows["network"], (network_key, f"{test} {INPUT}"): rows[INPUT]}
        return {INPUT: self.columns[network_key, f"{test} {INPUT}"], task: self.columns[network_key, test]}


class PackedSets:
    """Data sets in a folder, each packed when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packs: dict[tuple[str, str], Pack] = {}

    def __call__(self, params: Params, name: str, role: str) -> Pack:
        if not (self.folder / name).exists():
            pack_set(name, params.datasets[name], self.folder / name, params.data, params.seed)
        if (name, role) not in self.packs:
            self.packs[name, role] = Pack.open(self.folder / name, role)
        return self.packs[name, role]


def main() -> None:
    chosen = arguments()
    params = parameters.check(chosen.params)
    hardware = choose(params.device, params.precision)
    hardware.set_up_process(params.threads)
    commit = experiments.head(Path(__file__).parent)
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory() as folder:
            runs = Seed(hardware, PackedSets(Path(folder)))
            for variant in named(params, chosen.names):
                if begun(chosen.record).of_today(params).has(variant.name, seed):
                    continue
                console.say(f"{variant.label}, seed {seed}")
                summary, after = runs.run(variant.seeded(seed))
                day = date.today().isoformat()
                record(chosen.record, params, [run_of(params, variant, seed, commit, day, summary, after)])
    console.say(f"{chosen.record} holds all of them")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.study", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", default=["strategies"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--params", type=Path, default=parameters.PARAMS_FILE)
    parser.add_argument("--record", type=Path, default=paths.RECORDED)
    return parser.parse_args()


if __name__ == "__main__":
    console.run(main)
