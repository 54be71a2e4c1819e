"""kd_task@<task>: learns a later task under the strategy, from what is left of the task before (Fig. 3c)."""

import csv
import io
import sys

from derain.compute import distributed
from derain.console import run, say
from derain.disk import artifacts, atomic, networks, paths
from derain.stream import learn_task
from derain.training.checkpoint import History
from stages import _task


def main(key: str) -> None:
    inputs = _task.inputs(key, weights=True)
    before = inputs.before
    section = inputs.params.section("backbones")
    made_by = inputs.made_by("model")
    path = paths.model(inputs.task.name)
    with inputs.state({"backbone": inputs.params.backbone, "section": section.model_dump(), **made_by}) as state:
        learned = learn_task(
            inputs.params, inputs.task, inputs.pack, inputs.hardware, before.weights, before.mask, before.memory, state
        )
        if distributed.is_main():
            networks.save_network(path, learned.network, inputs.params.backbone, section, made_by)
            artifacts.save(paths.trace(inputs.task.name), learned.trace, inputs.made_by("trace"))
            atomic.write_atomically(paths.loss(inputs.task.name), as_csv(learned.history))
    say(f"wrote {path} ({inputs.hardware.device}, {inputs.hardware.precision})")


def as_csv(history: History) -> bytes:
    """The losses of each epoch, one row an epoch."""
    text = io.StringIO()
    table = csv.DictWriter(text, history[0].keys(), lineterminator="\n")
    table.writeheader()
    table.writerows(history)
    return text.getvalue().encode()


if __name__ == "__main__":
    run(distributed.together(lambda: main(sys.argv[1])))
