"""sc_mask0, sc_mask@<task>: what the strategy consolidates of a task, joined to the earlier masks (Fig. 3a, 3b)."""

import sys

from derain import artifacts, distributed, paths
from derain.console import run, say
from derain.training.stream import consolidate_task
from stages import _task


def main(key: str) -> None:
    inputs = _task.inputs(key, weights=False)
    model_path = paths.model(inputs.task.name)
    weights, model = artifacts.load(model_path)
    network = artifacts.build_network(inputs.params.backbone, inputs.params.section("backbones"))
    artifacts.load_weights(network, weights, model_path)
    made_by = inputs.made_by("mask")
    made_by["made_from"]["model"] = model["sha256"]
    path = paths.mask(inputs.task.name)
    with inputs.state(made_by) as state:
        consolidated = consolidate_task(
            inputs.params, inputs.task, inputs.pack, inputs.hardware, network, inputs.before.mask, state
        )
        if distributed.is_main():
            artifacts.save(path, consolidated.mask, {**made_by, **consolidated.facts})
    say(f"wrote {path}: {consolidated.facts['fraction_consolidated']:.1%} of the weights are consolidated")


if __name__ == "__main__":
    run(distributed.together(lambda: main(sys.argv[1])))
