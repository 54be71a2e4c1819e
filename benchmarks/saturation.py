"""A training step with its teacher: plain, captured, compiled; by batch size, to saturation; and what bounds it.

Meant for a GPU. `--profile FILE` writes the kernels that took the most time.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import _measure
from benchmarks._measure import Result
from benchmarks.training_step import crops, flops, networks, step
from derain import console
from derain.compute.hardware import COMPILED_FROM, Hardware

GAIN = 1.03
"""Twice the batch is saturation where it brings fewer samples a second than this many times."""


def main() -> None:
    chosen = _measure.arguments("saturation", __doc__, batch=18, patch=100, most=576, profile="")
    plain = _measure.hardware(chosen)
    compiled = plain.for_steps(COMPILED_FROM)
    batch = crops(chosen.batch, chosen.patch, plain.device)
    works = {
        "plain": step(networks(plain.device)[0], batch, plain, distilled=True, captured=False),
        "captured": step(networks(plain.device)[0], batch, plain, distilled=True),
        "compiled and captured": step(networks(plain.device)[0], batch, compiled, distilled=True),
    }
    if chosen.ours_only:
        ours = {"ours": works["compiled and captured"]}
        _measure.ours_only(chosen, _measure.interleaved(ours, chosen.steps)["ours"])
        return
    seconds = _measure.interleaved(works, chosen.steps)
    result = Result(f"saturation, {chosen.precision}", vars(chosen) | {"json": None})
    result.rows = [_measure.compared(f"step, {name}", "plain", seconds, name) for name in list(works)[1:]]
    if chosen.profile:
        _write_profile(works["compiled and captured"], Path(chosen.profile))
    works.clear()  # and the memory of its graphs
    result.facts = _sweep(chosen.batch, chosen.patch, chosen.most, chosen.steps, compiled)
    _measure.finish(chosen, result)


def _sweep(first: int, side: int, most: int, rounds: int, where: Hardware) -> dict[str, float | str]:
    """Rates by batch size, each twice the one before, until they grow no more."""
    facts: dict[str, float | str] = {}
    size, before = first, 0.0
    while size <= most:
        torch.compiler.reset()  # one function is compiled anew a few times only
        work = step(networks(where.device)[0], crops(size, side, where.device), where, distilled=True)
        seconds = _measure.interleaved({"step": work}, rounds)["step"]
        rates = _measure.rates(size, size * flops(side, distilled=True), seconds, where)
        facts |= {f"batch {size}, ms": 1e3 * median(seconds)}
        facts |= {f"batch {size}, {what}": value for what, value in rates.items()}
        rate = float(rates["samples a second"])
        if rate < GAIN * before:
            break
        size, before = 2 * size, rate
    return facts


def _write_profile(work: _measure.Work, path: Path) -> None:
    on_gpu = _measure.on_gpu()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
        for _ in range(3):
            work()
    by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    path.write_text(profiled.key_averages().table(sort_by=by, row_limit=40, max_name_column_width=100))
    console.say(f"wrote {path}")


if __name__ == "__main__":
    main()
