"""The strength of a strategy, judged on training pairs that are held out: no test set is looked at.

    python -m experiments.tune KEY VALUE [VALUE ...] [--held-out PATTERN ...] [--seeds 0] [--params PARAMS]

KEY is one of a strategy's section in params.yaml, as ewc.lambda_ewc, VALUE as in JSON. Training pairs whose names
match a PATTERN (with the shell's wildcards) are left out of training and stand in for the test sets. Name all pairs
that show a photograph: in the demo `astronaut*`, five pictures of eighteen. Each value is a whole stream; the first
task is trained once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from derain import console
from derain import params as parameters
from derain.compute.hardware import choose
from derain.data.pack import Pack, write_pack
from derain.data.sets import source_of
from derain.params import Params
from derain.types import Pair
from experiments.study import Seed


def with_value(params: Params, key: str, value: Any) -> Params:
    """The strategy of `key` with another value there, tested on the stream's own sets."""
    strategy, _, name = key.partition(".")
    section = params.sections[strategy] | {name: value}
    return params.model_copy(
        update={
            "strategy": strategy,
            "sections": params.sections | {strategy: section},
            "tests": {task.dataset: "learned" for task in params.tasks},
        }
    )


def pack_held_out(params: Params, patterns: list[str], folder: Path) -> None:
    """Packs the training pairs of the stream's sets: those whose names match as `test`, the others as `train`.

    Raises:
        DataError: a set has no pair on one of the two sides.
    """
    for task in params.tasks:
        for side, held_out in (("train", False), ("test", True)):
            source = source_of(params.datasets[task.dataset], task.dataset, params.data, params.seed)
            split = source.split("train")
            pairs = _chosen(split.pairs, patterns, held_out)
            write_pack(folder / task.dataset, side, pairs, stride=split.stride, flip=split.flip and not held_out)


def _chosen(pairs: Iterable[Pair], patterns: list[str], held_out: bool) -> Iterator[Pair]:
    for pair in pairs:
        if any(fnmatchcase(pair.name, pattern) for pattern in patterns) == held_out:
            yield pair


@dataclass(frozen=True)
class Packed:
    """The packs that lie in a folder."""

    folder: Path

    def __call__(self, _params: Params, name: str, role: str) -> Pack:
        return Pack.open(self.folder / name, role)


def main() -> None:
    chosen = arguments()
    params = parameters.check(chosen.params)
    for value in chosen.values:
        with_value(params, chosen.key, value).section("strategies")  # a wrong one stops before hours of work
    hardware = choose(params.device, params.precision)
    hardware.set_up_process(params.threads)
    rows = ["seed  value         psnr     ssim  forgetting (dB)"]
    for seed in chosen.seeds:
        seeded = params.model_copy(update={"seed": seed})
        with tempfile.TemporaryDirectory() as folder:
            pack_held_out(seeded, chosen.held_out, Path(folder))
            runs = Seed(hardware, Packed(Path(folder)))
            for value in chosen.values:
                summary = runs.run(with_value(seeded, chosen.key, value)).summary
                mean = summary.average
                assert mean is not None, "the stream's own sets are learned"
                forgetting = summary.forgetting.psnr if summary.forgetting else 0.0
                rows.append(f"{seed:4}  {value!s:10}  {mean.psnr:7.3f}  {mean.ssim:7.4f}  {forgetting:7.3f}")
                console.say(rows[-1])
    console.say("\n".join(["held-out training pairs, mean over the stream's sets after its last task:", *rows]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.tune", description=__doc__)
    parser.add_argument("key", metavar="KEY")
    parser.add_argument("values", metavar="VALUE", nargs="+", type=json.loads)
    parser.add_argument("--held-out", nargs="+", default=["astronaut*"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--params", type=Path, default=parameters.PARAMS_FILE)
    return parser.parse_args()


if __name__ == "__main__":
    console.run(main)
