"""eval@<test set>: the quality of the network after each task on one test set, and that of doing nothing."""

import sys

from derain import params as parameters
from derain.compute import distributed
from derain.compute.hardware import choose
from derain.console import run
from derain.data.pack import Pack
from derain.data.pictures import write_png
from derain.disk import atomic, networks, paths
from derain.evaluation.evaluate import Shown, as_lists, evaluate
from derain.evaluation.quality import Scores

SHOWN = 2
"""Pairs of each test set whose pictures the report shows."""


def main() -> None:
    test = sys.argv[1]
    params = parameters.load()
    # In fp32 whatever the training ran in, so that scores differ by the weights alone.
    hardware = choose(params.device, "fp32")
    hardware.set_up_process(params.threads)
    pack = Pack.open(paths.DATA / test, "test")
    after = {task.name: networks.load_network(paths.model(task.name), hardware.device) for task in params.tasks}
    scores, examples = evaluate(pack, after, hardware, SHOWN)
    if distributed.is_main():
        _write(test, scores, examples)


def _write(test: str, scores: Scores, examples: list[Shown]) -> None:
    folder = paths.RESULTS / test
    for number, (pair, derained) in enumerate(examples):
        pictures = {"rainy": pair.rainy, "clean": pair.clean, **derained}
        for name, picture in pictures.items():
            write_png(folder / f"{number}-{name}.png", picture)
    names = [pair.name for pair, _ in examples]
    atomic.write_json(folder / "scores.json", {"test": test, "shown": names, "scores": as_lists(scores)})


if __name__ == "__main__":
    run(distributed.together(main))
