"""Runs all benchmarks, in fp32 and bf16, each in a process of its own: some minutes."""

from __future__ import annotations

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

for name, *options in RUNS:
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=True)  # noqa: S603 - our own words
