"""Derains pictures, whole and one at a time, and writes each as STEM.png (8-bit RGB, upright)."""

from __future__ import annotations

import argparse
from pathlib import Path

from derain import console
from derain.commands import failed, network_arguments

HELP = "take the rain off your pictures"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE_OR_FOLDER")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER", help="made where missing")
    network_arguments(parser)


def main(chosen: argparse.Namespace) -> int:
    from derain.restore.files import plan
    from derain.restore.run import derain_files

    jobs = plan(chosen.pictures, chosen.output)

    from derain import artifacts, hardware

    where = hardware.choose(chosen.device, chosen.precision)
    network = artifacts.load_network(chosen.weights, where.device)
    failures = derain_files(console.track(jobs, "derain"), network, where)
    console.say(f"{len(jobs) - len(failures)} of {len(jobs)} pictures derained into {chosen.output}")
    return failed(failures)
