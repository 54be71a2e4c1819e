"""The table of results in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from derain import console
from derain import params as parameters
from derain.disk import paths
from derain.evaluation import summary
from derain.evaluation.quality import PROTOCOLS
from derain.evaluation.summary import Summary
from derain.params import Params
from derain.studies import comparison
from derain.studies.comparison import Recorded, Row, Spread, level
from derain.studies.variants import Content

Figure = Callable[[Row], Spread | None]
"""What a column shows of a row; None where the row has not got it."""


def print_results(params: Params, base: Content, run: Summary, recorded: Recorded, report: Path) -> None:
    """Prints the table of a run, with the recorded runs where they are of its parameters, and where the report lies."""
    fitting = comparison.beside(params, base, recorded)
    columns = _columns(params)
    rows = [
        [row.label + "*" * (row.kind == "recorded"), *(_narrow(figure(row), digits) for _, digits, figure in columns)]
        for row in comparison.rows(run, fitting)
    ]
    notes = ["PSNR in dB after the last task; average, SSIM and forgetting over the learned sets."]
    if fitting:
        notes.append(f"* {fitting.note}")
    elif recorded.runs:
        notes.append(comparison.ANOTHER_PROFILE)
    notes.append(f"{run.protocol}: {PROTOCOLS[run.protocol].description}")
    console.table("Results by test set", ["", *(name for name, _, _ in columns)], rows, "\n".join(notes))
    console.say(f"Report: {report}")


def show(root: Path) -> None:
    """Prints the table of the last run from its metrics/summary.json.

    Raises:
        DataError: it is missing or damaged.
    """
    base = parameters.content(root / parameters.PARAMS_FILE)
    params = parameters.of(base)
    run = summary.read(root / paths.SUMMARY)
    print_results(params, base, run, comparison.read_recorded(root / paths.RECORDED), root / paths.REPORT)


def _columns(params: Params) -> list[tuple[str, int, Figure]]:
    """Name, digits and figure. Of a learned set only the mean over seeds, so that the table stays narrow."""

    def on(test: str, role: str) -> Figure:
        def figure(row: Row) -> Spread | None:
            value = row.psnr.get(test)
            return value if value is None or role == "unseen" else Spread(value.mean)

        return figure

    def on_all(role: str) -> list[tuple[str, int, Figure]]:
        return [(test, 2, on(test, role)) for test, its_role in params.tests.items() if its_role == role]

    return [
        *on_all("learned"),
        ("average", 2, lambda row: row.average and row.average[0]),
        ("SSIM", 3, lambda row: row.average and Spread(row.average[1].mean)),
        ("forgetting", 2, lambda row: row.forgetting and row.forgetting[0]),
        *on_all("unseen"),
    ]


def _narrow(value: Spread | None, digits: int) -> str:
    return level(value, digits).replace(" ", "")
