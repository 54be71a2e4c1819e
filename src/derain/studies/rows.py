"""Tables before they are drawn: columns, rows and cells, and the figures of runs that stand in more than one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from derain.evaluation.summary import Both, DoingNothing, Levels, Summary
from derain.studies.recorded import Recorded
from derain.web.wording import NOTHING, number

Figure = Callable[[Sequence[Levels]], "Cell | None"]
"""What a column shows of a row's runs, which differ in their seed; None where one of them has not got it."""
Kind = Literal["nothing", "this", "recorded", "part"]
"""Doing nothing, this run, recorded runs, or a heading above rows."""


class Cell(NamedTuple):
    """A number, PSNR in dB where `form` says nothing else, and the SSIM that goes with it.

    `notes` are the keys of its footnotes, a character each; `deviation` is the (sample) standard deviation over seeds.
    """

    value: float
    ssim: float | None = None
    notes: str = ""
    deviation: float | None = None
    form: str = ".2f"

    @property
    def spread(self) -> str:
        """The number, and its deviation where there is one."""
        deviation = "" if self.deviation is None else f" ± {self.deviation:{self.form}}"
        return number(self.value, self.form) + deviation


class Column(NamedTuple):
    """A column; a table that makes its rows by itself needs no `figure`. Of ranked rows the `best` is max or min."""

    name: str
    figure: Figure = lambda _: None
    small_print: str = ""
    best: Callable[[Iterable[float]], float] | None = None

    def without(self, *parts: Literal["ssim", "deviation"]) -> Column:
        """The column with less in its cells."""
        gone: dict[str, Any] = dict.fromkeys(parts)

        def figure(runs: Sequence[Levels]) -> Cell | None:
            cell = self.figure(runs)
            return cell and cell._replace(**gone)

        return self._replace(figure=figure)


class Row(NamedTuple):
    """A label, and a cell a column, None where there is nothing to be shown."""

    label: str
    cells: Sequence[Cell | None]
    kind: Kind | None = None


@dataclass(frozen=True)
class Table:
    """A table; `notes` stand below it."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()


def row(label: str, runs: Sequence[Levels], columns: Sequence[Column], kind: Kind | None = None) -> Row:
    """Runs that differ in their seed as one row."""
    return Row(label, [column.figure(runs) for column in columns], kind)


def results(
    columns: Sequence[Column],
    run: Summary,
    recorded: Recorded | None,
    under: Callable[[Summary | DoingNothing], Levels] = lambda run: run,
) -> Table:
    """Results by test set: doing nothing, this run, and a row a label of the recorded runs.

    `under` gives a run's levels under the table's protocol.
    """
    labels = recorded.by_label if recorded else {}
    rows = [
        row("do nothing", [under(run.input)], columns, "nothing"),
        row(f"this run ({run.strategy})", [under(run)], columns, "this"),
        *(row(label, [under(one.summary) for one in its], columns, "recorded") for label, its in labels.items()),
    ]
    return Table("Results by test set", columns, rows)


def text(cell: Cell | None) -> str:
    """A cell in one line."""
    if cell is None:
        return NOTHING
    ssim = "" if cell.ssim is None else f" / {cell.ssim:.3f}"
    return cell.spread + ssim + (f" [{','.join(cell.notes)}]" if cell.notes else "")


def mean(values: Sequence[float]) -> Cell:
    """Mean and sample standard deviation."""
    return Cell(fmean(values), deviation=stdev(values) if len(values) > 1 else None)


def mean_of_both(levels: Sequence[Both | None]) -> Cell | None:
    """The mean of PSNR, with its deviation, and that of SSIM; None where there is a run without them, or no run."""
    present = [level for level in levels if level is not None]
    if not present or len(present) < len(levels):
        return None
    return mean([level.psnr for level in present])._replace(ssim=fmean(level.ssim for level in present))


def on(test: str, small_print: str = "") -> Column:
    """The quality on a test set."""
    return Column(test, lambda runs: mean_of_both([run.on(test) for run in runs]), small_print, max)


AVERAGE = Column("average", lambda runs: mean_of_both([run.average for run in runs]), "learned sets", max)
UNSEEN = Column("unseen", lambda runs: mean_of_both([run.unseen for run in runs]), "unseen sets", max)
FORGETTING = Column(
    "forgetting",
    lambda runs: mean_of_both([run.forgetting if isinstance(run, Summary) else None for run in runs]),
    "lower is better",
    min,
)


def _of_streams(of: Callable[[Summary], float], form: str) -> Figure:
    """The mean over runs of more than one task."""

    def figure(runs: Sequence[Levels]) -> Cell | None:
        values = [of(run) for run in runs if isinstance(run, Summary) and len(run.consolidated) > 1]
        return Cell(fmean(values), form=form) if values else None

    return figure


FREE = Column("free weights", _of_streams(lambda run: run.free, ".1%"))
STORED = Column("stored bytes", _of_streams(lambda run: run.stored_bytes, ",.0f"))
