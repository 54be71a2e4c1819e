"""Derains a film: frames keep their number, size and times, sound and subtitles are copied. Interrupted, the same
command goes on where it was."""

from __future__ import annotations

import argparse
from pathlib import Path

from derain import console
from derain.commands import load_network, network_arguments

HELP = "take the rain off a film"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("film", type=Path, metavar="FILM")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="its suffix is the container")
    parser.add_argument(
        "--quality", type=int, choices=range(52), default=18, metavar="0..51", help="lower is better; 18 by default"
    )
    network_arguments(parser)


def main(chosen: argparse.Namespace) -> int:
    from derain.restore.video import derain_film

    frames = derain_film(chosen.film, chosen.output, chosen.weights, load_network(chosen), chosen.quality)
    console.say(f"{frames} frames derained into {chosen.output}")
    return 0
