"""Runs all benchmarks, in fp32 and bf16, each in a process of its own: some minutes.

`--device cuda` runs those that a GPU has a part in.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

RUNS = [
    *(["training_step", "--precision", precision, "--steps", "4"] for precision in ("fp32", "bf16")),
    *(["memory", "--precision", precision, "--steps", "3"] for precision in ("fp32", "bf16")),
    *(["inference", "--precision", precision, "--steps", "9"] for precision in ("fp32", "bf16")),
    *(["importance", "--precision", precision, "--steps", "3"] for precision in ("fp32", "bf16")),
    ["data", "--steps", "3"],
    ["startup"],
    ["growth"],
]

ON_A_GPU = [
    *(["training_step", "--precision", precision, "--steps", "50"] for precision in ("bf16", "fp32")),
    ["saturation", "--precision", "bf16", "--steps", "50", "--profile", "gpu-profile.txt"],
    *(["importance", "--precision", precision, "--batch", "256", "--steps", "3"] for precision in ("bf16", "fp32")),
    *(["inference", "--precision", precision, "--steps", "50"] for precision in ("bf16", "fp32")),
    ["data", "--precision", "bf16", "--steps", "10"],
]

parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
parser.add_argument("--device", default="cpu", help="cpu (the default), cuda or cuda:N")
device = parser.parse_args().device
runs = RUNS if device == "cpu" else [[*run, "--device", device] for run in ON_A_GPU]
codes = [
    subprocess.call([sys.executable, "-m", f"benchmarks.{name}", *options])  # noqa: S603 - our own words
    for name, *options in runs
]
sys.exit(int(any(codes)))
