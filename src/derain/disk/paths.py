"""Every path of the pipeline."""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path("data")
VALIDATED = DATA / "validated"
START = VALIDATED / "start.safetensors"
RESULTS = Path("results")
SUMMARY = Path("metrics/summary.json")
RECORDED = Path("metrics/recorded.json")
REPORT = Path("report/index.html")
FORGETTING = Path("plots/forgetting.csv")
STUDIES = Path("plots/studies.csv")


def model(task: str) -> Path:
    """The network after a task, e.g. models/task0.safetensors."""
    return Path("models") / f"{task}.safetensors"


def mask(task: str) -> Path:
    """The cumulative mask after a task, e.g. masks/task0.safetensors."""
    return Path("masks") / f"{task}.safetensors"


def memory(task: str) -> Path:
    """What the strategy stores after a task besides the mask, e.g. memory/task0.safetensors."""
    return Path("memory") / f"{task}.safetensors"


def trace(task: str) -> Path:
    """What a task's training left to be known of its way, e.g. traces/task0.safetensors."""
    return Path("traces") / f"{task}.safetensors"


def loss(task: str) -> Path:
    """The losses of each epoch of a task, e.g. plots/loss/task0.csv."""
    return Path("plots/loss") / f"{task}.csv"


def cache() -> Path:
    """Where downloads, unpacked archives and states stay: $DERAIN_CACHE, or ~/.cache/derain."""
    return Path(os.environ.get("DERAIN_CACHE") or Path.home() / ".cache" / "derain")
