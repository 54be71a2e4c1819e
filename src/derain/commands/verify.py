"""Checks every output of the pipeline against dvc.lock and against the checksums within, and DVC's cache as well. Names
what is wrong and the commands that bring it back. Run it in the project's root."""

from __future__ import annotations

import argparse
from pathlib import Path

from derain import console
from derain.types import DataError

HELP = "whether every artifact is what was written"


def arguments(parser: argparse.ArgumentParser) -> None:
    """None: the project's root holds all it needs."""


def main(_: argparse.Namespace) -> int:
    from derain.data.verify import faults, outputs

    root = Path()
    count = len(outputs(root))
    faulty = list(faults(root))
    for fault in faulty:
        console.fail(DataError(f"{fault.path} {fault.reason}. To get it back:"))
        console.say(f"  {fault.cure}")
    if faulty:
        console.say(
            f"{len(faulty)} of {count} outputs are not as they were written. `dvc pull` brings back what a remote has."
        )
        return DataError.exit_code
    console.say(f"all {count} outputs are what was written")
    return 0
