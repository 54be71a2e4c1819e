"""Interleaved timing, and what every benchmark prints."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from derain import console
from derain.compute.hardware import Hardware, choose, processor
from derain.disk import atomic
from derain.training.cuda_graphs import WARM_UP

Work = Callable[[], Any]

PEAKS = {
    "NVIDIA H200 NVL": {"bf16": 835e12, "fp32": 60e12},
    "NVIDIA H200": {"bf16": 989e12, "fp32": 67e12},
    "NVIDIA H100 80GB HBM3": {"bf16": 989e12, "fp32": 67e12},
    "NVIDIA H100 PCIe": {"bf16": 756e12, "fp32": 51e12},
    "NVIDIA A100": {"bf16": 312e12, "fp32": 19.5e12},
    "NVIDIA L40S": {"bf16": 362e12, "fp32": 91.6e12},
    "NVIDIA GeForce RTX 4090": {"bf16": 165e12, "fp32": 82.6e12},
}
"""FLOP/s by the beginning of a GPU's name: bf16 by tensor cores, dense; fp32 without them, as TF32 is off.

From NVIDIA's data sheets.
"""


@dataclass
class Row:
    """A piece of work: ours beside a baseline, in seconds (medians), and the ratio over the rounds."""

    work: str
    baseline: str
    baseline_s: float
    ours_s: float
    ratio: float
    low: float
    high: float

    def cells(self) -> list[str]:
        spread = f"{self.ratio:.2f} ({self.low:.2f}-{self.high:.2f})"
        return [self.work, self.baseline, _seconds(self.baseline_s), _seconds(self.ours_s), spread]


@dataclass
class Result:
    """What a benchmark found: rows, and facts beside them (differences, bytes, shares)."""

    name: str
    settings: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, float | str] = field(default_factory=dict)


HEAD = ["work", "baseline", "baseline", "ours", "times as fast (quartiles)"]


def arguments(name: str, doc: str | None, **defaults: Any) -> argparse.Namespace:
    """The options that all benchmarks have; `defaults` name further ones, of their default's type."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc)
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda or cuda:N")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    for option, default in defaults.items():
        parser.add_argument(f"--{option}", type=type(default), default=default)
    parser.add_argument("--steps", type=int, default=5, help="rounds that are measured (default 5)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--ours-only", action="store_true", help="prints the median seconds of our own code as JSON")
    return parser.parse_args()


def hardware(chosen: argparse.Namespace) -> Hardware:
    where = choose(chosen.device, chosen.precision)
    where.set_up_process(chosen.threads)
    return where


def on_gpu() -> bool:
    """Whether this process has used a GPU."""
    return bool(torch.cuda.is_initialized())


def interleaved(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work by round, after rounds that are not counted: one, and on a GPU those that set it up."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    uncounted = 2 + WARM_UP if on_gpu() else 1
    for number in range(uncounted + rounds):
        for name, work in works.items():
            start = time.perf_counter()
            _to_its_end(work)
            if number >= uncounted:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def _to_its_end(work: Work) -> None:
    work()
    if on_gpu():
        torch.cuda.synchronize()


@contextmanager
def elsewhere(make: Callable[..., Mapping[str, Work]], *given: Any) -> Iterator[dict[str, Work]]:
    """The works that `make(*given)` returns, in a process of their own that our settings do not reach.

    A baseline that shared our process would keep freed memory as ours does. The other process waits while ours works.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, torch.get_num_threads(), make, given), daemon=True)
    process.start()
    there.close()
    try:
        yield {name: partial(_ask, here, name) for name in here.recv()}
    finally:
        process.terminate()
        process.join()


def _serve(asked: Connection, threads: int, make: Callable[..., Mapping[str, Work]], given: tuple[Any, ...]) -> None:
    torch.set_num_threads(threads)
    works = make(*given)
    asked.send(list(works))
    while True:
        _to_its_end(works[asked.recv()])
        asked.send(None)


def _ask(connection: Connection, name: str) -> None:
    connection.send(name)
    connection.recv()


def rates(samples: int, flops: float, seconds: list[float], where: Hardware) -> dict[str, float | str]:
    """Samples and TFLOP a second, and the share of the device's peak where it is known; of a work's median."""
    median = statistics.median(seconds)
    name = torch.cuda.get_device_name(where.device) if where.is_gpu else ""
    peak = next((peaks[where.precision] for begins, peaks in PEAKS.items() if name.startswith(begins)), None)
    figures: dict[str, float | str] = {"samples a second": samples / median, "TFLOP/s": flops / median / 1e12}
    return figures | ({"share of the device's peak": flops / median / peak} if peak else {})


def compared(work: str, baseline: str, seconds: Mapping[str, list[float]], ours: str) -> Row:
    """Ours against a baseline, round by round."""
    ratios = sorted(theirs / mine for theirs, mine in zip(seconds[baseline], seconds[ours], strict=True))
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    medians = statistics.median(seconds[baseline]), statistics.median(seconds[ours])
    return Row(work, baseline, *medians, statistics.median(ratios), low, high)


def finish(chosen: argparse.Namespace, result: Result) -> None:
    """Prints the result, and writes it where asked."""
    console.say(f"{result.name} ({machine()})")
    if result.rows:
        console.table("", HEAD, [row.cells() for row in result.rows])
    for what, value in result.facts.items():
        console.say(f"  {what}: {value if isinstance(value, str) else format(value, '.4g')}")
    if chosen.json:
        atomic.write_json(chosen.json, {"machine": machine(), **asdict(result)})


def ours_only(chosen: argparse.Namespace, seconds: list[float]) -> None:
    """Prints the median, and writes it where asked."""
    figures = {"median_s": statistics.median(seconds)}
    console.say(json.dumps(figures))
    if chosen.json:
        atomic.write_json(chosen.json, {"machine": machine(), "settings": vars(chosen) | {"json": None}, **figures})


def machine() -> str:
    """Processor, threads, what it computes natively, the GPU that is used, and torch's version."""
    native = [
        name
        for name, has in (
            ("avx512-bf16", torch.cpu._is_avx512_bf16_supported()),
            ("AMX", torch.cpu._is_amx_tile_supported()),
        )
        if has
    ]
    gpu = f"{torch.cuda.get_device_name()}, " if on_gpu() else ""
    return (
        f"{gpu}{processor()}, {torch.get_num_threads()} threads, {' '.join(native) or 'no bf16'}, "
        f"torch {torch.__version__}"
    )


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 0.1 else f"{value * 1e3:.3g} ms"
