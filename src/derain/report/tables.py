"""The tables of a page: results by test set, the paper's own numbers beside them, and those of the studies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from derain.evaluation.quality import PROTOCOLS
from derain.evaluation.summary import MAIN, SECOND, DoingNothing, Levels, Summary
from derain.params import Params
from derain.studies import paper, tables
from derain.studies.recorded import ANOTHER_PROFILE, Recorded
from derain.studies.rows import AVERAGE, FORGETTING, UNSEEN, Cell, Column, Row, Table, on, results, row, text
from derain.web.markup import Markup, element, scrolling
from derain.web.wording import NOTHING, learned_in, number


def by_test_set(params: Params, summary: Summary, recorded: Recorded, fitting: Recorded | None) -> Markup:
    """The results by test set: doing nothing, this run, and the recorded runs that are `fitting`."""
    notes = [
        f"Rows below this run: {fitting.note}. Coloured: the best PSNR of the trained ones." if fitting else None,
        ANOTHER_PROFILE if recorded.runs and not fitting else None,
        "Dotted underline: a PSNR below doing nothing.",
        protocol(MAIN),
    ]

    def table(under: Callable[[Summary | DoingNothing], Levels]) -> Markup:
        columns = [column for column in _columns(params) if column.figure([under(summary)])]
        return _drawn(results(columns, summary, fitting, under))

    return element(
        "section",
        element("h2", "Results by test set"),
        element("p", "After the last task. PSNR in dB, SSIM below it.", class_="note"),
        table(lambda run: run),
        *(element("p", note, class_="note") for note in notes if note),
        element(
            "details",
            element("summary", "The same in RGB"),
            table(lambda run: run.rgb),
            element("p", protocol(SECOND), class_="note"),
        ),
    )


def beside_the_paper(params: Params, summary: Summary) -> Markup | None:
    """The paper's own numbers, where training and tests are on its data sets; else None."""
    tests = paper.comparable(params)
    if not tests:
        return None
    columns = [on(test, name)._replace(best=None) for test, name in tests.items()]
    rows = [row("do nothing", [summary.input], columns)]
    rows.append(row(f"this run ({summary.strategy})", [summary], columns, "this"))
    for table in paper.TABLES:
        rows.append(Row(table.title, [], "part"))
        rows += [Row(label, [cells.get(name) for name in tests.values()]) for label, cells in table.rows.items()]
    keys = sorted({key for _, cells, _ in rows for cell in cells if cell for key in cell.notes})
    return element(
        "section",
        element("h2", "Beside the paper’s own numbers"),
        element(
            "p",
            "PSNR in dB, SSIM below it. The paper names no protocol; what it prints for one set alone lies beside the "
            "numbers that PReNet’s authors took on the Y channel.",
            class_="note",
        ),
        _drawn(Table("The paper’s own numbers", columns, rows)),
        *(element("p", element("sup", key), " ", paper.NOTES[key], class_="note") for key in keys),
    )


def of_studies(params: Params, recorded: Recorded) -> Markup | None:
    """The paper's tables and the studies, from recorded runs, each folded away."""
    folded = [
        element(
            "details",
            element("summary", table.title),
            _in_lines(table),
            *(element("p", note, class_="note") for note in table.notes),
        )
        for table in tables.tables(params, recorded)
    ]
    return element("section", element("h2", "The paper’s tables, and further ones"), *folded) if folded else None


def protocol(name: str) -> str:
    """A protocol as a sentence."""
    return f"Protocol {name}: {PROTOCOLS[name].description}."


def _columns(params: Params) -> list[Column]:
    several = list(params.tests.values()).count("unseen") > 1
    tests = [on(test, learned_in(params, test)) for test in params.tests]
    return [*tests, AVERAGE, *([UNSEEN._replace(name="average")] if several else []), FORGETTING]


def _drawn(table: Table) -> Markup:
    """A table that says the columns' small print, deviations and SSIM in small letters."""
    heads = [element("th", column.name, element("small", column.small_print), scope="col") for column in table.columns]
    body = [_row(line, table) for line in table.rows]
    head = element("thead", element("tr", element("th"), *heads))
    return scrolling(element("table", head, element("tbody", *body)), table.title)


def _row(line: Row, table: Table) -> Markup:
    if line.kind == "part":
        across = len(table.columns) + 1
        return element("tr", element("th", line.label, scope="rowgroup", colspan=across), class_="part")
    cells = [_cell(line, place, table) for place in range(len(line.cells))]
    return element("tr", element("th", line.label, scope="row"), *cells, class_=line.kind)


def _cell(line: Row, place: int, table: Table) -> Markup:
    cell, best = line.cells[place], table.columns[place].best
    if cell is None:
        return element("td", NOTHING)
    value, look = number(cell.value), None
    if best and line.kind != "nothing":
        look = _look(cell, [other.cells[place] for other in table.rows], best)
    return element(
        "td",
        element("b", value) if best else value,
        element("sup", ",".join(cell.notes)) if cell.notes else None,
        element("small", f" ± {cell.deviation:.2f}", class_="deviation") if cell.deviation is not None else None,
        None if cell.ssim is None else element("small", number(cell.ssim, ".3f")),
        class_=look,
    )


def _look(cell: Cell, column: Sequence[Cell | None], best: Callable[[Iterable[float]], float]) -> str | None:
    """`worse` below doing nothing, `best` among several trained rows, as far as the printed digits tell."""
    nothing, *trained = (other and round(other.value, 2) for other in column)
    level = round(cell.value, 2)
    if nothing is not None and level < nothing:
        return "worse"
    levels = [other for other in trained if other is not None]
    return "best" if len(levels) > 1 and level == best(levels) else None


def _in_lines(table: Table) -> Markup:
    """A table whose cells are a line each."""
    heads = [element("th", name, scope="col") for name in ("", *(column.name for column in table.columns))]
    rows = [
        element("tr", element("th", label, scope="row"), *(element("td", text(cell)) for cell in cells))
        for label, cells, _ in table.rows
    ]
    body = element("table", element("thead", element("tr", *heads)), element("tbody", *rows))
    return scrolling(body, table.title)
