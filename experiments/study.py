"""Every strategy with several seeds, on the same data and for the same number of optimizer steps, in one process.

    python -m experiments.study [PARAMS] [RECORD] [--seeds 0 1 2] [--strategies NR SI ...]

PARAMS is params.yaml and RECORD metrics/recorded.json where they are not named. The numbers are those of the
command lines beside this file: tests/test_dvc.py shows that the pipeline's stages give the bits of one process. Here
the first task is trained once a seed, and nothing is read or written in between. Each run is recorded as it
finishes; interrupted, the study goes on with the first run that is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from torch import Tensor

from derain import console, params, paths
from derain.data.pack import Pack
from derain.data.sources import pack_set
from derain.evaluation.evaluate import evaluate
from derain.evaluation.quality import PROTOCOLS, RowScores
from derain.hardware import Hardware, choose, processor
from derain.params import Mix, Params
from derain.report.summary import MAIN, profile, summarize
from derain.strategies._base import Memory
from derain.training.masks import Mask
from derain.training.stream import Learned, consolidate_task, learn_task
from derain.types import Task


def with_strategy(name: str) -> Callable[[Params], Params]:
    """Another strategy, with its section as it is."""
    return lambda settings: settings.model_copy(update={"strategy": name})


def with_nr(settings: Params, **values: Any) -> Params:
    """NR with other values of its section."""
    section = settings.sections["nr"] | values
    return settings.model_copy(update={"strategy": "nr", "sections": settings.sections | {"nr": section}})


def mixed(settings: Params) -> Params:
    """One task: the union of the stream's sets, for as many steps as the stream has.

    Where an epoch is the whole grid of patches, the union's epochs are as long as the tasks' together already.
    """
    tasks = settings.tasks
    times = len(tasks) if settings.train.steps_per_epoch else 1
    union = Mix.model_validate(
        {"source": "mix", "of": [settings.datasets[task.dataset].model_dump() for task in tasks]}
    )
    train = settings.train.model_copy(
        update={
            "epochs": settings.train.epochs * times,
            "milestones": [epoch * times for epoch in settings.train.milestones],
        }
    )
    first = settings.task0.model_copy(update={"dataset": "mixed"})
    return settings.model_copy(
        update={
            "strategy": "si",
            "datasets": settings.datasets | {"mixed": union},
            "task0": first,
            "stream": {},
            "train": train,
        }
    )


STRATEGIES: Mapping[str, Callable[[Params], Params]] = {
    "NR": with_nr,
    "SI": with_strategy("si"),
    "NR without SC": lambda settings: with_nr(settings, consolidate=False),
    "NR without KD": lambda settings: with_nr(settings, lambda_kd=0.0),
    "EWC": with_strategy("ewc"),
    "MAS": with_strategy("mas"),
    "Synaptic intelligence": with_strategy("synaptic_intelligence"),
    "PIGWM": with_strategy("pigwm"),
    "PackNet-like": with_strategy("packnet"),
    "Replay": with_strategy("replay"),
    "Mix": mixed,
}


class Seed:
    """The runs of one seed: its packs, and the first task, which is trained once for all strategies that share it."""

    def __init__(self, hardware: Hardware, folder: Path) -> None:
        self.hardware, self.folder = hardware, folder
        self.first: dict[str, Learned] = {}
        self.packs: dict[tuple[str, str], Pack] = {}

    def run(self, settings: Params) -> dict[str, Any]:
        """A whole stream under one strategy: its metrics/summary.json."""
        # Evaluation is in fp32, as in the pipeline.
        exact = Hardware(self.hardware.device, "fp32")
        scores: dict[str, dict[str, RowScores]] = {test: {} for test in settings.tests}
        facts: dict[str, dict[str, Any]] = {}
        weights: dict[str, Tensor] | None = None
        mask: Mask | None = None
        memory: Memory | None = None
        for task in settings.tasks:
            learned = self.learn(settings, task, weights, mask, memory)
            pack = self.pack(settings, task.dataset, "train")
            mask, memory, _, facts[task.name] = consolidate_task(
                settings, task, pack, self.hardware, learned.network, learned.trace, mask, memory
            )
            weights = {name: tensor.detach().cpu().clone() for name, tensor in learned.network.state_dict().items()}
            for test in settings.tests:
                column, _ = evaluate(
                    self.pack(settings, test, "test"), {task.name: learned.network.eval()}, exact, shown=0
                )
                scores[test] |= column
        return dict(summarize(settings, scores, facts).as_json())

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
        if task.dataset not in self.first:
            self.first[task.dataset] = learn_task(settings, task, pack, self.hardware, None, None, None)
        return self.first[task.dataset]

    def pack(self, settings: Params, name: str, split: str) -> Pack:
        """A split of a data set, packed when it is first asked for."""
        if not (self.folder / name).exists():
            pack_set(name, settings.datasets[name], self.folder / name, settings.data, settings.seed)
        if (name, split) not in self.packs:
            self.packs[name, split] = Pack.open(self.folder / name, split)
        return self.packs[name, split]


def main() -> None:
    chosen = arguments()
    settings = params.check(chosen.params)
    hardware = choose(settings.device, settings.precision, settings.threads)
    record = begun(chosen.record, settings)
    for seed in chosen.seeds:
        with tempfile.TemporaryDirectory() as folder:
            runs = Seed(hardware, Path(folder))
            for label in chosen.strategies:
                if any((run["label"], run["seed"]) == (label, seed) for run in record["runs"]):
                    continue
                console.say(f"{label}, seed {seed}")
                asked = STRATEGIES[label](settings.model_copy(update={"seed": seed}))
                run = {
                    "label": label,
                    "strategy": asked.strategy,
                    "seed": seed,
                    "machine": f"{processor()}, {settings.threads} threads, {hardware.precision}",
                    "date": date.today().isoformat(),
                    "summary": runs.run(asked),
                }
                record["runs"].append(run)
                record["runs"].sort(key=lambda run: (list(STRATEGIES).index(run["label"]), run["seed"]))
                paths.write_json(chosen.record, record)
    console.say(f"wrote {chosen.record}: {len(record['runs'])} runs")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.study", description=__doc__)
    parser.add_argument("params", nargs="?", type=Path, default=params.PARAMS_FILE)
    parser.add_argument("record", nargs="?", type=Path, default=paths.RECORDED)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    return parser.parse_args()


def begun(record: Path, settings: Params) -> dict[str, Any]:
    """The record with the runs it has of this profile; without any where it is of another one."""
    content = json.loads(record.read_text()) if record.exists() else {"runs": []}
    same = content.get("profile") == profile(settings)
    return {
        "protocol": f"{MAIN}: {PROTOCOLS[MAIN].description}",
        "profile": profile(settings),
        "runs": content["runs"] if same else [],
    }


if __name__ == "__main__":
    console.run(main)
