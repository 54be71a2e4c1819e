"""The tables of a page: results by test set, and the paper's own numbers beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from derain.evaluation.quality import PROTOCOLS
from derain.evaluation.summary import MAIN, SECOND, Summary
from derain.params import Params
from derain.report.wording import learned_in
from derain.studies import comparison, paper
from derain.studies.comparison import Recorded, Row, Spread
from derain.web.markup import Markup, element, scrolling
from derain.web.wording import NOTHING, number

Figure = Callable[[Row], tuple[Spread, Spread] | None]
"""What a column shows of a row, as (PSNR, SSIM); None where the row has not got it."""


class Column(NamedTuple):
    """A column of the table of results; `best` is max or min."""

    name: str
    small_print: str
    figure: Figure
    best: Callable[[Iterable[float]], float] = max


def results(params: Params, summary: Summary, recorded: Recorded, fitting: Recorded | None) -> Markup:
    """The results by test set: doing nothing, this run, and the recorded runs that are `fitting`."""
    notes = [
        f"Rows below this run: {fitting.note}. Coloured: the best PSNR of the trained ones." if fitting else None,
        comparison.ANOTHER_PROFILE if recorded.runs and not fitting else None,
        "Dotted underline: a PSNR below doing nothing.",
        protocol(MAIN),
    ]
    return element(
        "section",
        element("h2", "Results by test set"),
        element("p", "After the last task. PSNR in dB, SSIM below it.", class_="note"),
        _results_table(params, comparison.rows(summary, fitting)),
        *(element("p", note, class_="note") for note in notes if note),
        element(
            "details",
            element("summary", "The same in RGB"),
            _results_table(params, comparison.rgb_rows(summary, fitting)),
            element("p", protocol(SECOND), class_="note"),
        ),
    )


def beside_the_paper(params: Params, summary: Summary) -> Markup | None:
    """The paper's own numbers, where training and tests are on its data sets; else None."""
    tests = paper.comparable(params)
    if not tests:
        return None
    body = [
        _paper_row("do nothing", [paper.Printed(summary.input.psnr[test], summary.input.ssim[test]) for test in tests]),
        _paper_row(
            f"this run ({summary.strategy})",
            [paper.Printed(summary.psnr[test], summary.ssim[test]) for test in tests],
            look="this",
        ),
    ]
    for table in paper.TABLES:
        body.append(element("tr", element("th", table.title, scope="rowgroup", colspan=len(tests) + 1), class_="part"))
        body += [_paper_row(label, [cells.get(name) for name in tests.values()]) for label, cells in table.rows.items()]
    rows = [cells for table in paper.TABLES for cells in table.rows.values()]
    shown = [cell for cells in rows for name, cell in cells.items() if name in tests.values()]
    keys = sorted({key for cell in shown for key in cell.notes})
    columns = [Column(test, name, lambda _: None) for test, name in tests.items()]
    return element(
        "section",
        element("h2", "Beside the paper’s own numbers"),
        element(
            "p",
            "PSNR in dB, SSIM below it. The paper names no protocol; what it prints for one set alone lies beside the "
            "numbers that PReNet’s authors took on the Y channel.",
            class_="note",
        ),
        scrolling(_table(columns, body), "The paper’s own numbers"),
        *(element("p", element("sup", key), " ", paper.NOTES[key], class_="note") for key in keys),
    )


def protocol(name: str) -> str:
    """A protocol as a sentence."""
    return f"Protocol {name}: {PROTOCOLS[name].description}."


def _results_table(params: Params, rows: Sequence[Row]) -> Markup:
    columns = [column for column in _columns(params) if any(column.figure(row) for row in rows)]
    body = [
        element(
            "tr",
            element("th", row.label, scope="row"),
            *(_result(row, rows, column) for column in columns),
            class_=row.kind,
        )
        for row in rows
    ]
    return scrolling(_table(columns, body), "Results by test set")


def _columns(params: Params) -> list[Column]:
    def on(test: str) -> Figure:
        return lambda row: (row.psnr[test], row.ssim[test]) if test in row.psnr else None

    columns = [Column(test, learned_in(params, test), on(test)) for test in params.tests]
    columns.append(Column("average", "learned sets", lambda row: row.average))
    if list(params.tests.values()).count("unseen") > 1:
        columns.append(Column("average", "unseen sets", lambda row: row.unseen))
    columns.append(Column("forgetting", "lower is better", lambda row: row.forgetting, min))
    return columns


def _result(row: Row, rows: Sequence[Row], column: Column) -> Markup:
    value = column.figure(row)
    if value is None:
        return element("td", NOTHING)
    psnr, ssim = value
    deviation = None if psnr.deviation is None else f" ± {psnr.deviation:.2f}"
    return element(
        "td",
        element("b", number(psnr.mean, 2)),
        element("small", deviation, class_="deviation") if deviation else None,
        element("small", number(ssim.mean, 3)),
        class_=_look(row, rows, column),
    )


def _look(row: Row, rows: Sequence[Row], column: Column) -> str | None:
    """`worse` below doing nothing, `best` among several trained rows, as far as the printed digits tell."""
    nothing, *trained = ((found := column.figure(one)) and round(found[0].mean, 2) for one in rows)
    own = column.figure(row)
    if row is rows[0] or own is None:
        return None
    shown = round(own[0].mean, 2)
    if nothing is not None and shown < nothing:
        return "worse"
    levels = [level for level in trained if level is not None]
    return "best" if len(levels) > 1 and shown == column.best(levels) else None


def _paper_row(label: str, cells: Sequence[paper.Printed | None], look: str | None = None) -> Markup:
    return element("tr", element("th", label, scope="row"), *(_printed(cell) for cell in cells), class_=look)


def _printed(cell: paper.Printed | None) -> Markup:
    if cell is None:
        return element("td", NOTHING)
    notes = element("sup", ",".join(cell.notes)) if cell.notes else None
    return element("td", number(cell.psnr, 2), notes, element("small", number(cell.ssim, 3)))


def _table(columns: Sequence[Column], body: Sequence[Markup]) -> Markup:
    heads = [element("th", column.name, element("small", column.small_print), scope="col") for column in columns]
    return element("table", element("thead", element("tr", element("th"), *heads)), element("tbody", *body))
