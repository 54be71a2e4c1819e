"""Runs parts of the torture and prints their figures; exit code 1 where something went wrong."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path
from types import ModuleType

from derain import console


def main() -> int:
    names = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(names)}; all of them by default")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default 0)")
    parser.add_argument("--count", type=int, help="how often (default: each part's own number)")
    chosen = parser.parse_args()
    unknown = set(chosen.parts) - set(names)
    if unknown:
        parser.error(f"no part is named {min(unknown)}; there are {', '.join(names)}")
    well = [_run(importlib.import_module(f"torture.{name}"), chosen) for name in chosen.parts or names]
    return 0 if all(well) else 1


def _run(part: ModuleType, chosen: argparse.Namespace) -> bool:
    name = part.__name__.rpartition(".")[2]
    count = chosen.count or part.COUNT
    console.say(f"{name}: {(part.__doc__ or '').splitlines()[0]}")
    start = time.monotonic()
    figures = part.run(chosen.seed, count)
    counts = {**figures.counts, "faults": len(figures.faults), "minutes": (time.monotonic() - start) / 60}
    rows = [[what, f"{value:g}" if isinstance(value, int) else f"{value:.2f}"] for what, value in counts.items()]
    console.say(f"python -m torture {name} --seed {chosen.seed} --count {count}")
    console.table("", ["", ""], rows)
    for fault in figures.faults:
        console.warn(fault)
    return not figures.faults


if __name__ == "__main__":
    sys.exit(main())
