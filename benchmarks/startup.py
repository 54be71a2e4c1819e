"""How long `derain --help` and a stage with nothing heavy to do take, in processes of their own."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks import _measure
from benchmarks._measure import Result

COMMANDS = {
    "derain --help": [sys.executable, "-m", "derain", "--help"],
    "stages.validate": [sys.executable, "-m", "stages.validate"],
    "python with NumPy and Pillow": [sys.executable, "-c", "import numpy, PIL.Image"],
}


def main() -> None:
    chosen = _measure.arguments("startup", __doc__)
    works = {name: lambda command=command: _run(command) for name, command in COMMANDS.items()}
    seconds = _measure.interleaved(works, chosen.steps)
    if chosen.ours_only:
        _measure.ours_only(chosen, seconds["derain --help"])
        return
    facts: dict[str, float | str] = {f"{name}, seconds": statistics.median(of) for name, of in seconds.items()}
    _measure.finish(chosen, Result("start-up", vars(chosen) | {"json": None}, facts=facts))


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own words


if __name__ == "__main__":
    main()
