"""Compares every picture of the derained folder, as it lies there, with the clean one of its name."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from derain import console
from derain.commands import failed
from derain.evaluation.quality import PROTOCOLS

HELP = "PSNR and SSIM of derained pictures against clean ones"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clean", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--derained", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--rainy", type=Path, metavar="FOLDER", help="scores doing nothing as well")
    parser.add_argument(
        "--protocol",
        default="matlab-y",
        choices=list(PROTOCOLS),
        help="; ".join(f"{name}: {protocol.description}" for name, protocol in PROTOCOLS.items()),
    )
    parser.add_argument("--json", metavar="FILE", help="the scores as JSON; - for only that, on standard output")


def main(chosen: argparse.Namespace) -> int:
    from derain.paths import write_atomically
    from derain.restore.score import as_json, as_rows, candidates, score_files

    pictures = candidates(chosen.clean, chosen.derained, chosen.rainy)
    only_json = chosen.json == "-"
    scores = score_files(pictures if only_json else console.track(pictures, "score"), chosen.protocol)
    text = json.dumps(as_json(scores, chosen.protocol), indent=2, allow_nan=False)
    if only_json:
        console.say(text)
    else:
        title = f"{len(scores.derained)} of the {len(pictures)} pictures in {chosen.derained}"
        caption = f"{chosen.protocol}: {PROTOCOLS[chosen.protocol].description}"
        console.table(title, ["picture", "PSNR (dB)", "SSIM"], as_rows(scores), caption)
        if chosen.json:
            write_atomically(Path(chosen.json), f"{text}\n".encode())
    if any(math.isinf(quality.psnr) for quality in scores.derained.values()):
        console.warn("a picture equals its clean one, so its PSNR and the mean are infinite (null in JSON)")
    return failed(scores.failed.values())
