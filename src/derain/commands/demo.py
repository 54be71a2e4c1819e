"""Serves a page, to this computer alone, that takes the rain off a picture dropped there. Ctrl-C ends it."""

from __future__ import annotations

import argparse
import contextlib
from functools import partial
from pathlib import Path

from derain import console
from derain.commands import hardware_arguments
from derain.types import ParamsError

HELP = "a local page: drop a picture, see it before and after, download it"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[Path("models")],
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="what the page offers; models/, the newest task first, by default",
    )
    hardware_arguments(parser)
    parser.add_argument("--port", default=0, type=_port, metavar="N", help="a free one by default")


def main(chosen: argparse.Namespace) -> int:
    try:
        from derain.demo import server
    except ModuleNotFoundError as missing:
        raise ParamsError(f"`derain demo` needs {missing.name}: pip install '.[demo]'") from None
    from derain.demo.weights import at_hand
    from derain.restore.network import load as load_network

    choices = at_hand(chosen.weights)
    load = partial(load_network, device=chosen.device, precision=chosen.precision)
    with server.listen(chosen.port) as listening:
        demo = server.Demo(choices, load, listening.getsockname()[1])
        console.say(f"http://127.0.0.1:{demo.port}/ (Ctrl-C ends it)")
        with contextlib.suppress(KeyboardInterrupt):
            server.Server(demo).run(sockets=[listening])
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or not (int(text) == 0 or 1024 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"'{text}' is no port from 1024 to 65535, nor 0 for a free one")
    return int(text)
