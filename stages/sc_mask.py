"""sc_mask0, sc_mask@<task>: what is left of a task: its mask, joined to the earlier ones (Fig. 3a, 3b), and memory."""

import sys

from derain.compute import distributed
from derain.console import run, say
from derain.disk import artifacts, networks, paths
from derain.stream import consolidate_task
from stages import _task


def main(key: str) -> None:
    inputs = _task.inputs(key, weights=False)
    before = inputs.before
    model_path = paths.model(inputs.task.name)
    weights, model = artifacts.load(model_path)
    trace, traced = artifacts.load(paths.trace(inputs.task.name))
    network = networks.build_network(inputs.params.backbone, inputs.params.section("backbones"))
    networks.load_weights(network, weights, model_path)
    made_by = inputs.made_by("mask")
    made_by["made_from"] |= {"model": model["sha256"], "trace": traced["sha256"]}
    path = paths.mask(inputs.task.name)
    with inputs.state(made_by) as state:
        consolidated = consolidate_task(
            inputs.params,
            inputs.task,
            inputs.pack,
            inputs.hardware,
            network,
            trace,
            before.mask,
            before.memory,
            state,
        )
        if distributed.is_main():
            artifacts.save(path, consolidated.mask, {**made_by, **consolidated.facts})
            memory_facts = {**made_by, "kind": "memory", "bytes": consolidated.stored}
            artifacts.save(paths.memory(inputs.task.name), consolidated.memory, memory_facts)
    say(
        f"wrote {path}: {consolidated.facts['fraction_consolidated']:.1%} of the weights are consolidated, "
        f"{consolidated.stored:,} bytes stored"
    )


if __name__ == "__main__":
    run(distributed.together(lambda: main(sys.argv[1])))
