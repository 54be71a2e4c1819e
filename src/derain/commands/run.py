"""Derains pictures, and writes each under its own name into the output folder: format, depth, EXIF, colour profile and
transparency as they were."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derain import console
from derain.commands import failed, load_network, network_arguments
from derain.disk.atomic import write_atomically, write_json
from derain.types import DataError, DerainError, ParamsError

if TYPE_CHECKING:
    from derain.restore.run import Outcome

HELP = "take the rain off your pictures"

FORMATS = ("png", "jpeg", "tiff", "webp", "bmp")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "pictures", nargs="+", metavar="PICTURE_OR_FOLDER", help="files, folders, patterns; - for standard input"
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="FOLDER", help="made where missing; - for standard output"
    )
    network_arguments(parser)
    parser.add_argument("--recursive", action="store_true", help="folders with all below them, keeping the tree")
    parser.add_argument("--format", default="same", choices=["same", *FORMATS], help="same is the default")
    parser.add_argument("--bits", default="same", choices=["same", "8", "16"], help="a channel; same is the default")
    parser.add_argument("--compare", action="store_true", help="writes NAME.compared.jpg too: before and after")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="a page of all pictures, before and after")
    parser.add_argument("--json", metavar="FILE", help="what became of each picture; - for standard output")
    parser.add_argument("--skip-existing", action="store_true", help="leaves alone what has an output already")
    parser.add_argument("--fail-fast", action="store_true", help="stops at the first picture that fails")
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("-q", "--quiet", action="store_true", help="says only what went wrong")
    loud.add_argument("-v", "--verbose", action="store_true", help="a line a picture, with what could not be kept")


def main(chosen: argparse.Namespace) -> int:
    if "-" in (*chosen.pictures, chosen.output):
        return _filter(chosen)
    from derain.restore.files import plan
    from derain.restore.run import derain_files

    folder = Path(chosen.output)
    jobs = plan(chosen.pictures, folder, chosen.recursive, _format(chosen), chosen.compare)
    network = load_network(chosen)
    outcomes = derain_files(jobs, network, _bits(chosen), chosen.skip_existing)
    silent = chosen.quiet or chosen.json == "-"
    entries, failures = _follow(outcomes if silent else console.track(outcomes, "derain", len(jobs)), chosen)
    if chosen.json == "-":
        console.say(json.dumps(entries, indent=2, allow_nan=False))
    elif chosen.json:
        write_json(Path(chosen.json), entries)
    if not silent:
        counts = Counter(entry["status"] for entry in entries)
        already = f", {counts['skipped']} were there already" if counts["skipped"] else ""
        console.say(f"{counts['done']} of {len(jobs)} pictures derained into {folder}{already}")
    return failed(failures)


def _follow(outcomes: Iterable[Outcome], chosen: argparse.Namespace) -> tuple[list[dict[str, Any]], list[DerainError]]:
    """Lets the pictures pass, and keeps what is to be said of them."""
    from derain.restore.gallery import Gallery

    gallery = Gallery() if chosen.report else None
    entries: list[dict[str, Any]] = []
    failures: list[DerainError] = []
    for outcome in outcomes:
        entries.append(outcome.as_json())
        name = str(outcome.job.rainy)
        if chosen.verbose:
            console.say("; ".join([f"{name}: {outcome.status} in {outcome.seconds:.1f} s", *outcome.notes]))
        if outcome.error is not None:
            failures.append(outcome.error)
            if gallery:
                gallery.add_failure(name, str(outcome.error))
            if chosen.fail_fast:
                break
        elif gallery and outcome.rainy and outcome.derained:
            gallery.add(name, outcome.rainy.rgb8, outcome.derained.rgb8, outcome.notes)
    if gallery:
        write_atomically(chosen.report, gallery.html("De-rained pictures").encode())
    return entries, failures


def _filter(chosen: argparse.Namespace) -> int:
    """From standard input to standard output."""
    others = ("recursive", "compare", "report", "json", "skip_existing")
    if chosen.pictures != ["-"] or chosen.output != "-" or any(getattr(chosen, name) for name in others):
        raise ParamsError("- stands for one picture from standard input to standard output: derain run - -o -")
    from derain.restore.formats import WRITTEN, decode, encode
    from derain.restore.run import derain_picture

    try:
        rainy = decode(sys.stdin.buffer.read())
    except DataError as error:
        raise DataError(f"standard input {error}") from None
    derained = derain_picture(rainy, load_network(chosen), _bits(chosen))
    content, _ = encode(derained, _format(chosen) or (rainy.format if rainy.format in WRITTEN else "PNG"))
    sys.stdout.buffer.write(content)
    return 0


def _format(chosen: argparse.Namespace) -> str | None:
    return None if chosen.format == "same" else str(chosen.format).upper()


def _bits(chosen: argparse.Namespace) -> int | None:
    return None if chosen.bits == "same" else int(chosen.bits)
