"""The `derain` command. What a sub-command needs is imported inside it, so that `derain --help` answers at once."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from derain import console
from derain.evaluation.quality import PROTOCOLS
from derain.types import DerainError

SOME_FAILED = 3
INTERRUPTED = 130

_EXIT_CODES = "exit codes: 0 all done, 2 wrong usage, 3 some pictures failed, 4 a number is not finite, 5 unusable file"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `derain ARGV...` and returns the exit code; wrong usage raises SystemExit(2), as argparse does."""
    chosen = _parser().parse_args(argv)
    try:
        return int(chosen.command(chosen))
    except DerainError as error:
        return console.fail(error)
    except KeyboardInterrupt:
        console.warn("interrupted; the files written so far are complete")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="derain", description="Takes rain off photographs.", epilog=_EXIT_CODES)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="take the rain off your pictures",
        description="Derains pictures, whole and one at a time, and writes each as STEM.png (8-bit RGB, upright).",
        epilog=_EXIT_CODES,
    )
    run.set_defaults(command=_run)
    run.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE_OR_FOLDER")
    run.add_argument("-o", "--output", required=True, type=Path, metavar="FOLDER", help="made where missing")
    run.add_argument(
        "--weights",
        required=True,
        type=Path,
        metavar="FILE",
        help="a model of this project (.safetensors) or a published PReNet checkpoint (.pth)",
    )
    run.add_argument("--device", default="auto", type=_device, help="auto (the default), cpu, cuda or cuda:N")
    run.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"], help="auto is the default")

    results = commands.add_parser(
        "results",
        help="the table of the pipeline's last run",
        description="Prints the results of the last `dvc repro` or `dvc exp run`. Run it in the project's root.",
        epilog=_EXIT_CODES,
    )
    results.set_defaults(command=_results)

    score = commands.add_parser(
        "score",
        help="PSNR and SSIM of derained pictures against clean ones",
        description="Compares every picture of the derained folder, as it lies there, with the clean one of its name.",
        epilog=_EXIT_CODES,
    )
    score.set_defaults(command=_score)
    score.add_argument("--clean", required=True, type=Path, metavar="FOLDER")
    score.add_argument("--derained", required=True, type=Path, metavar="FOLDER")
    score.add_argument("--rainy", type=Path, metavar="FOLDER", help="scores doing nothing as well")
    score.add_argument(
        "--protocol",
        default="matlab-y",
        choices=list(PROTOCOLS),
        help="; ".join(f"{name}: {protocol.description}" for name, protocol in PROTOCOLS.items()),
    )
    score.add_argument("--json", metavar="FILE", help="writes the scores as JSON; with - only that, on standard output")
    return parser


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"'{text}' is none of auto, cpu, cuda, cuda:N")
    return text


def _results(_: argparse.Namespace) -> int:
    from derain.report.terminal import show

    show(Path())
    return 0


def _run(chosen: argparse.Namespace) -> int:
    from derain.restore.files import plan
    from derain.restore.run import derain_files

    jobs = plan(chosen.pictures, chosen.output)

    from derain import artifacts, hardware

    where = hardware.choose(chosen.device, chosen.precision)
    network = artifacts.load_network(chosen.weights, where.device)
    failures = derain_files(console.track(jobs, "derain"), network, where)
    console.say(f"{len(jobs) - len(failures)} of {len(jobs)} pictures derained into {chosen.output}")
    return _report(failures)


def _score(chosen: argparse.Namespace) -> int:
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
    return _report(scores.failed.values())


def _report(failures: Collection[DerainError]) -> int:
    for failure in failures:
        console.fail(failure)
    return SOME_FAILED if failures else 0
