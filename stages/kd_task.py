"""kd_task@<task>: learns a later task under the strategy, from what is left of the task before (Fig. 3c)."""

import csv
import io
import sys

from derain.compute import distributed
from derain.console import run, say
from derain.disk import atomic, paths
from derain.stream import learn_task
from derain.training.checkpoint import History
from stages import _task


def main(key: str) -> None:
    inputs = _task.to_learn(key)
    made_by = inputs.made_by("model")
    with inputs.state(made_by) as state:
        learned = learn_task(inputs.params, inputs.task, inputs.packs, inputs.hardware, inputs.before, state)
        if distributed.is_main():
            _task.write_learned(inputs, learned, made_by)
            atomic.write_atomically(paths.loss(inputs.task.name), as_csv(learned.history))
    say(f"wrote {paths.model(inputs.task.name)} ({inputs.hardware.device}, {inputs.hardware.precision})")


def as_csv(history: History) -> bytes:
    """The losses of each epoch, one row an epoch."""
    text = io.StringIO()
    table = csv.DictWriter(text, history[0].keys(), lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    return text.getvalue().encode()


if __name__ == "__main__":
    run(distributed.together(lambda: main(sys.argv[1])))
