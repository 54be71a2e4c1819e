"""Prints the results of the last `dvc repro` or `dvc exp run`. Run it in the project's root."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "the table of the pipeline's last run"


def arguments(parser: argparse.ArgumentParser) -> None:
    """None: the project's root holds all it needs."""


def main(_: argparse.Namespace) -> int:
    from derain.report.terminal import show

    show(Path())
    return 0
