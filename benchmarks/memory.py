"""The most memory that a training step takes above what the process holds before it, in parts and at once.

Each variant runs in a process of its own: the published script's step under torch's own settings, ours at once, and
ours in micro-batches, whose time is compared too, interleaved in one process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks import _measure
from benchmarks._measure import Result
from benchmarks.baseline import published_step
from benchmarks.training_step import crops, networks, step
from derain.compute.hardware import choose
from derain.console import say

SIZES = (6, 3, 2, 1)
"""Samples in a micro-batch."""


def main() -> None:
    chosen = _measure.arguments("memory", __doc__, batch=18, patch=100, only="")
    if chosen.only:
        say(str(_peak(chosen.only, chosen.batch, chosen.patch, chosen.precision, chosen.threads)))
        return
    where = _measure.hardware(chosen)
    batch = crops(chosen.batch, chosen.patch)
    works = {"at once": step(networks()[0], batch, where, distilled=False, micro_batch=chosen.batch)}
    works |= {str(size): step(networks()[0], batch, where, distilled=False, micro_batch=size) for size in SIZES}
    if chosen.ours_only:
        _measure.ours_only(chosen, _measure.interleaved({"ours": works["at once"]}, chosen.steps)["ours"])
        return
    seconds = _measure.interleaved(works, chosen.steps)
    result = Result(f"memory of a training step, {chosen.precision}", vars(chosen) | {"json": None})
    result.rows = [
        _measure.compared(f"step in micro-batches of {size}", "at once", seconds, str(size)) for size in SIZES
    ]
    published = _in_its_own_process(chosen, "published")
    result.facts["published, MB"] = published / 1e6
    for name in ("at once", *map(str, SIZES)):
        peak = _in_its_own_process(chosen, name)
        result.facts[f"ours, {name}, MB"] = peak / 1e6
        result.facts[f"ours, {name}, of the published"] = peak / published
    _measure.finish(chosen, result)


def _in_its_own_process(chosen: object, variant: str) -> int:
    options = [f"--{name}={getattr(chosen, name)}" for name in ("batch", "patch", "precision", "threads")]
    command = [sys.executable, "-m", "benchmarks.memory", f"--only={variant}", *options]
    return int(json.loads(subprocess.check_output(command)))  # noqa: S603 - our own words


def _peak(variant: str, count: int, side: int, precision: str, threads: int) -> int:
    """Bytes of the process at the most during two steps, above what it holds before them."""
    ours, published = networks()
    batch = crops(count, side)
    if variant == "published":
        torch.set_num_threads(threads)
        optimizer = torch.optim.Adam(published.parameters(), lr=1e-3)

        def work() -> object:
            return published_step(published, batch.rainy, batch.clean, optimizer)
    else:
        where = choose("cpu", precision)
        where.set_up_process(threads)
        size = count if variant == "at once" else int(variant)
        work = step(ours, batch, where, distilled=False, micro_batch=size)
    Path("/proc/self/clear_refs").write_text("5")  # begins the high-water mark anew: proc(5)
    before = _status("VmRSS")
    work()
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
