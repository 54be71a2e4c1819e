"""Prints the paper's tables, and the studies', as Markdown. Run it in the project's root.

They are made of the runs in metrics/recorded.json and of this clone's DVC experiments: `experiments/table1` to
`table5`, `experiments/strategies` and so on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "the paper's tables, from recorded runs and experiments"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--record", action="store_true", help="write the experiments into metrics/recorded.json too")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where the Markdown goes")


def main(chosen: argparse.Namespace) -> int:
    from derain import console, params, paths
    from derain.report import comparison, experiments, paper_tables

    base = params.content()
    settings = params.of(base)
    found = experiments.of_this_clone(Path(), base)
    for line in found.left_out:
        console.warn(line)
    if chosen.record:
        recorded = comparison.record(paths.RECORDED, settings, found.runs)
        console.say(f"{paths.RECORDED}: {len(recorded.runs)} runs; `dvc repro` brings them into the report")
    else:
        there = comparison.read_recorded(paths.RECORDED)
        if there.runs and not there.fits(settings):
            console.warn(comparison.ANOTHER_PROFILE)
        recorded = comparison.joined(there, settings, found.runs)
    recorded = comparison.of_today(settings, base, recorded)
    text = paper_tables.as_markdown(paper_tables.tables(settings, base, recorded))
    if chosen.output:
        paths.write_atomically(chosen.output, text.encode())
        console.say(f"wrote {chosen.output}")
    else:
        console.say(text)
    return 0
