"""Prints the paper's tables, and the studies', as Markdown. Run it in the project's root.

They are made of the recorded runs and of this clone's DVC experiments: `experiments/table1` to `table5`,
`experiments/strategies` and so on. Runs of another profile have a record of their own, as metrics/recorded-pairs.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from derain.disk import atomic, paths

HELP = "the paper's tables, from recorded runs and experiments"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--record", action="store_true", help="write the experiments into the record too")
    parser.add_argument(
        "--recorded", type=Path, default=paths.RECORDED, metavar="FILE", help="the record (default: %(default)s)"
    )
    parser.add_argument(
        "--params", type=Path, default="params.yaml", metavar="FILE", help="the runs' parameters (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where the Markdown goes")


def main(chosen: argparse.Namespace) -> int:
    from derain import console
    from derain.params import load
    from derain.studies import experiments
    from derain.studies.recorded import read_recorded, record
    from derain.studies.tables import as_markdown, tables

    params = load(chosen.params)
    runs, left_out = experiments.of_this_clone(Path(), params)
    for line in left_out:
        console.warn(line)
    if chosen.record:
        recorded = record(chosen.recorded, params, runs)
        console.say(
            f"{chosen.recorded}: {len(recorded.runs)} runs; `dvc repro` brings {paths.RECORDED} into the report"
        )
    else:
        there = read_recorded(chosen.recorded)
        if there.runs and not there.fits(params):
            console.warn(f"{chosen.recorded} holds runs of other parameters than {chosen.params}; they are left out")
        recorded = there.joined(params, runs)
    text = as_markdown(tables(params, recorded.of_today(params)), chosen.params, chosen.recorded)
    if chosen.output:
        atomic.write_atomically(chosen.output, text.encode())
        console.say(f"wrote {chosen.output}")
    else:
        console.say(text)
    return 0
