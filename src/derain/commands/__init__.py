"""One file a sub-command of `derain`: `HELP`, `arguments(parser)` and `main(chosen) -> exit code`.

The file's docstring is the description that `derain COMMAND --help` prints. What a command needs is imported when it
runs, so that `derain --help` answers at once.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from derain import console
from derain.types import DEVICES, DerainError

if TYPE_CHECKING:
    from derain.restore.network import Network

SOME_FAILED = 3

EXIT_CODES = (
    "exit codes: 0 all done, 1 a fault of the program, 2 wrong usage, 3 some pictures failed, 4 a number is not "
    "finite, 5 unusable file, 6 no space or memory, 75 busy, 130 interrupted, 143 terminated"
)


def network_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what names a network and where it runs."""
    parser.add_argument(
        "--weights",
        required=True,
        type=Path,
        metavar="FILE",
        help="a model of this project (.safetensors) or a published PReNet checkpoint (.pth)",
    )
    hardware_arguments(parser)
    parser.add_argument("--tile", type=int, metavar="PIXELS", help="side of the tiles; as memory allows by default")
    parser.add_argument("--overlap", type=int, metavar="PIXELS", help="of tiles; as far as the network sees by default")
    parser.add_argument("--max-memory", type=_bytes, metavar="SIZE", help="for one picture, such as 500M or 2G")


def hardware_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where a network runs."""
    parser.add_argument("--device", default="auto", type=device, help="auto (the default), cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"], help="auto is the default")


def load_network(chosen: argparse.Namespace) -> Network:
    """The network that `network_arguments` name."""
    from derain.restore.network import load

    return load(chosen.weights, chosen.device, chosen.precision, chosen.tile, chosen.overlap, chosen.max_memory)


def _bytes(text: str) -> int:
    size = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)B?", text.upper())
    if not size:
        raise argparse.ArgumentTypeError(f"'{text}' is no size such as 500M or 2G")
    return int(float(size[1]) * {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}[size[2]])


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
