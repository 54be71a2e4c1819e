"""One file a sub-command of `derain`: `HELP`, `arguments(parser)` and `main(chosen) -> exit code`.

The file's docstring is the description that `derain COMMAND --help` prints. What a command needs is imported when it
runs, so that `derain --help` answers at once.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from pathlib import Path

from derain import console
from derain.types import DEVICES, DerainError

SOME_FAILED = 3

EXIT_CODES = "exit codes: 0 all done, 2 wrong usage, 3 some pictures failed, 4 a number is not finite, 5 unusable file"


def network_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what names a network and where it runs."""
    parser.add_argument(
        "--weights",
        required=True,
        type=Path,
        metavar="FILE",
        help="a model of this project (.safetensors) or a published PReNet checkpoint (.pth)",
    )
    parser.add_argument("--device", default="auto", type=device, help="auto (the default), cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"], help="auto is the default")


def device(text: str) -> str:
    """A device's name, as an argument's type."""
    if not re.fullmatch(DEVICES, text):
        raise argparse.ArgumentTypeError(f"'{text}' is none of auto, cpu, cuda, cuda:N")
    return text


def failed(failures: Collection[DerainError]) -> int:
    """Prints why some inputs failed; the exit code."""
    for failure in failures:
        console.fail(failure)
    return SOME_FAILED if failures else 0
