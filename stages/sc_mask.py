"""sc_mask0, sc_mask@<task>: what is left of a task: its mask, joined to the earlier ones (Fig. 3a, 3b), and memory."""

import sys

from derain.compute import distributed
from derain.console import run, say
from derain.disk import artifacts, paths
from derain.stream import consolidate_task
from stages import _task


def main(key: str) -> None:
    inputs, learned = _task.to_consolidate(key)
    made_by = inputs.made_by("mask")
    task = inputs.task.name
    with inputs.state(made_by) as state:
        carried = consolidate_task(inputs.params, inputs.task, inputs.packs, inputs.hardware, learned, state)
        if distributed.is_main():
            artifacts.save(paths.mask(task), carried.mask, {**made_by, **carried.facts})
            memory_facts = {**made_by, "kind": "memory", "bytes": carried.stored}
            artifacts.save(paths.memory(task), carried.memory, memory_facts)
    say(
        f"wrote {paths.mask(task)}: {carried.facts['fraction_consolidated']:.1%} of the weights are consolidated, "
        f"{carried.stored:,} bytes stored"
    )


if __name__ == "__main__":
    run(distributed.together(lambda: main(sys.argv[1])))
