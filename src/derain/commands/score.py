"""Compares every picture of the derained folder, as it lies there, with the clean one of its name."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from derain import console
from derain.commands import failed
from derain.evaluation.quality import PROTOCOLS

if TYPE_CHECKING:
    from derain.evaluation.score import Scores

HELP = "PSNR and SSIM of derained pictures against clean ones"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clean", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--derained", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--rainy", type=Path, metavar="FOLDER", help="scores doing nothing as well")
    parser.add_argument(
        "--protocol",
        default="matlab-y",
        choices=[*PROTOCOLS, "all"],
        help="; ".join(f"{name}: {protocol.description}" for name, protocol in PROTOCOLS.items()),
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="the scores as a table, a row a picture and protocol")
    parser.add_argument("--json", metavar="FILE", help="the scores as JSON; - for only that, on standard output")


def main(chosen: argparse.Namespace) -> int:
    from derain.disk.atomic import write_atomically
    from derain.evaluation.score import as_csv, as_json, candidates, score_files

    pictures = candidates(chosen.clean, chosen.derained, chosen.rainy)
    only_json = chosen.json == "-"
    protocols = list(PROTOCOLS) if chosen.protocol == "all" else [chosen.protocol]
    scores = {
        protocol: score_files(pictures if only_json else console.track(pictures, f"score, {protocol}"), protocol)
        for protocol in protocols
    }
    entries = [as_json(of_one, protocol) for protocol, of_one in scores.items()]
    text = json.dumps({"protocols": entries} if len(entries) > 1 else entries[0], indent=2, allow_nan=False)
    if only_json:
        console.say(text)
    else:
        for protocol, of_one in scores.items():
            _print(of_one, protocol, len(pictures), chosen.derained)
        if chosen.json:
            write_atomically(Path(chosen.json), f"{text}\n".encode())
    if chosen.csv:
        write_atomically(chosen.csv, as_csv(scores).encode())
    first = scores[protocols[0]]
    if any(math.isinf(quality.psnr) for quality in first.derained.values()):
        console.warn("a picture equals its clean one, so its PSNR and the mean are infinite (null in JSON)")
    return failed(first.failed.values())


def _print(scores: Scores, protocol: str, given: int, folder: Path) -> None:
    from derain.evaluation.score import as_rows

    title = f"{len(scores.derained)} of the {given} pictures in {folder}"
    caption = f"{protocol}: {PROTOCOLS[protocol].description}"
    console.table(title, ["picture", "PSNR (dB)", "SSIM"], as_rows(scores), caption)
