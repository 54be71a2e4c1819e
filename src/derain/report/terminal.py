"""The table of results in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from derain import console
from derain import params as parameters
from derain.disk import paths
from derain.evaluation import summary
from derain.evaluation.quality import PROTOCOLS
from derain.evaluation.summary import Levels
from derain.params import Params
from derain.studies.recorded import ANOTHER_PROFILE, read_recorded
from derain.studies.rows import AVERAGE, FORGETTING, Cell, Column, on, results, text


def show(root: Path) -> None:
    """Prints the table of the last run from its metrics/summary.json, with the recorded runs of its parameters.

    Raises:
        DataError: it is missing or damaged.
    """
    params = parameters.load(root / parameters.PARAMS_FILE)
    run, recorded = summary.read(root / paths.SUMMARY), read_recorded(root / paths.RECORDED)
    fitting = recorded.beside(params)
    table = results(_columns(params), run, fitting)
    rows = [
        [label + "*" * (kind == "recorded"), *(text(cell).replace(" ", "") for cell in cells)]
        for label, cells, kind in table.rows
    ]
    notes = ["PSNR in dB after the last task; average, SSIM and forgetting over the learned sets."]
    if fitting:
        notes.append(f"* {fitting.note}")
    elif recorded.runs:
        notes.append(ANOTHER_PROFILE)
    notes.append(f"{run.protocol}: {PROTOCOLS[run.protocol].description}")
    console.table(table.title, ["", *(column.name for column in table.columns)], rows, "\n".join(notes))
    console.say(f"Report: {root / paths.REPORT}")


def _columns(params: Params) -> list[Column]:
    """Of a learned set only the mean over seeds, so that the table stays narrow."""
    return [
        *(on(test).without("ssim", "deviation") for test, role in params.tests.items() if role == "learned"),
        AVERAGE.without("ssim"),
        Column("SSIM", _ssim),
        FORGETTING.without("ssim"),
        *(on(test).without("ssim") for test, role in params.tests.items() if role == "unseen"),
    ]


def _ssim(runs: Sequence[Levels]) -> Cell | None:
    average = AVERAGE.figure(runs)
    return Cell(average.ssim, form=".3f") if average and average.ssim is not None else None
