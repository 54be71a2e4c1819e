"""Interleaved timing, and what every benchmark prints."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from derain import console, paths
from derain.hardware import Hardware, choose, processor

Work = Callable[[], Any]


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
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    for option, default in defaults.items():
        parser.add_argument(f"--{option}", type=type(default), default=default)
    parser.add_argument("--steps", type=int, default=5, help="rounds that are measured (default 5)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--ours-only", action="store_true", help="prints the median seconds of our own code as JSON")
    return parser.parse_args()


def hardware(chosen: argparse.Namespace) -> Hardware:
    return choose("cpu", chosen.precision, chosen.threads)


def interleaved(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work by round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


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
        paths.write_json(chosen.json, {"machine": machine(), **asdict(result)})


def ours_only(seconds: list[float]) -> None:
    console.say(json.dumps({"median_s": statistics.median(seconds)}))


def machine() -> str:
    """Processor, threads, what it computes natively, and torch's version."""
    native = [
        name
        for name, has in (
            ("avx512-bf16", torch.cpu._is_avx512_bf16_supported()),
            ("AMX", torch.cpu._is_amx_tile_supported()),
        )
        if has
    ]
    return (
        f"{processor()}, {torch.get_num_threads()} threads, {' '.join(native) or 'no bf16'}, torch {torch.__version__}"
    )


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 0.1 else f"{value * 1e3:.3g} ms"
