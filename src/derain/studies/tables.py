"""The paper's tables, and further ones, from recorded runs: ours, and below each the paper's own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from derain.evaluation.summary import ByTest
from derain.params import Benchmark, Params
from derain.studies import comparison, paper, variants
from derain.studies.comparison import Recorded, RecordedRun, Row, Spread, level, spread
from derain.studies.variants import Content
from derain.web.wording import NOTHING, number


@dataclass(frozen=True)
class Table:
    """A table of texts: a label and cells a row; `notes` stand below it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    notes: Sequence[str] = ()


Column = tuple[str, Callable[[Row], str]]


def tables(params: Params, base: Content, recorded: Recorded) -> list[Table]:
    """All tables for which there are runs; a table's rows are means over the seeds that all of them have.

    Args:
        params, base: params.yaml, checked and as it is.
        recorded: runs of these parameters (`comparison.of_today`).
    """
    names = {name: [variant.name for variant in group] for name, group in variants.groups(base).items()}
    groups = {name: recorded.of(group).with_shared_seeds() for name, group in names.items()}
    groups = {name: group for name, group in groups.items() if _has_its_own(names[name], group)}
    found = []
    for place, printed in enumerate(paper.TABLES, 1):
        if group := groups.get(f"table{place}"):
            found += [_ours(params, place, printed, group), _theirs(place, printed)]
    for name, title in _STUDIES.items():
        if group := groups.get(name):
            found.append(_orders(params, group) if name == "orders" else _study(params, title, group))
    return found


def _has_its_own(names: Sequence[str], group: Recorded) -> bool:
    """Whether there is more than the plain strategies, which stand beside others in many tables."""
    own = set(names).difference(variants.STRATEGIES) or set(names)
    return any(run.name in own for run in group.runs)


_STUDIES = {
    "strategies": "Strategies: the same tasks, data, steps and seeds",
    "values": "NR with other values",
    "capacity": "Capacity: the stream, and once more after itself",
    "widths": "Width of the network (NR and SI: as in params.yaml)",
    "orders": "Orders of the stream",
}


_HEAD = """# Tables of {profile}

Made by `derain tables` from the recorded runs (`{record}`) and this clone's experiments; how to run them:
`experiments/README.md`. Means over seeds ± standard deviation. The paper's own numbers are of benchmark sets and a
network of full size: they stand apart, and compare with ours only where the tests below are the same.
"""


def as_markdown(found: Iterable[Table], profile: Path, record: Path) -> str:
    """Tables as a page of Markdown, which names the files of the parameters and of the recorded runs."""
    parts = [_HEAD.format(profile=profile, record=record)]
    for table in found:
        rows = [["", *table.columns], ["---", *("---:" for _ in table.columns)]]
        rows += [[label, *cells] for label, cells in table.rows]
        parts.append(
            "\n".join([f"## {table.title}", "", *map(_line, rows), *(f"\n{note}" for note in table.notes), ""])
        )
    return "\n".join(parts)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _ours(params: Params, place: int, printed: paper.Table, recorded: Recorded) -> Table:
    if place == 4:
        return _after_each_task(params, recorded)
    unseen = [test for test, role in params.tests.items() if role == "unseen"]
    tests = unseen if place == 3 else list(params.tests)
    columns = [_on(test) for test in tests]
    if place != 2:
        columns += [("average of the learned", _both(lambda row: row.average))]
        columns += [("forgetting (dB)", _one(lambda row: row.forgetting and row.forgetting[0]))]
    title = printed.title.partition(":")[0] + ", ours" + _TITLES[place]
    return _table(params, title, columns, recorded)


_TITLES = {
    1: ": the sets in a row, or mixed",
    2: ": one set alone",
    3: ": what each part gives on unseen rain",
    5: ": the paper’s other order",
}


def _after_each_task(params: Params, recorded: Recorded) -> Table:
    unseen = [test for test, role in params.tests.items() if role == "unseen"]
    columns = [(label, its, test) for label, its in recorded.by_label.items() for test in unseen]
    first = recorded.runs[0]
    rows = [("do nothing", [_pair(*_spreads([first.summary.input], test)) for _, _, test in columns])]
    for after, dataset in zip(first.after, first.order, strict=True):
        cells = [_pair(*_spreads([run.after[after] for run in its], test)) for _, its, test in columns]
        rows.append((f"after {dataset}", cells))
    names = [f"{test}, {label}" for label, _, test in columns]
    return Table("Table 4, ours: unseen rain after each task", names, rows, [_note(params, recorded)])


def _spreads(levels: Sequence[ByTest], test: str) -> tuple[Spread, Spread]:
    return spread([level.psnr[test] for level in levels]), spread([level.ssim[test] for level in levels])


def _theirs(place: int, printed: paper.Table) -> Table:
    tests = [name for name in paper.SETS if any(name in cells for cells in printed.rows.values())]
    rows = [
        (label, [_as_printed(cells[name]) if name in cells else NOTHING for name in tests])
        for label, cells in printed.rows.items()
    ]
    keys = sorted({key for cells in printed.rows.values() for cell in cells.values() for key in cell.notes})
    notes = ["As printed: the benchmark sets and a network of full size; no seeds, spread or protocol named."]
    return Table(f"Table {place}, the paper’s", tests, rows, [*notes, *(f"[{key}] {paper.NOTES[key]}" for key in keys)])


def _as_printed(cell: paper.Printed) -> str:
    return f"{cell.psnr:.2f} / {cell.ssim:.3f}" + (f" [{','.join(cell.notes)}]" if cell.notes else "")


def _study(params: Params, title: str, recorded: Recorded) -> Table:
    columns: list[Column] = [
        ("average of the learned", _both(lambda row: row.average)),
        ("forgetting (dB)", _one(lambda row: row.forgetting and row.forgetting[0])),
        *(_on(test) for test, role in params.tests.items() if role == "unseen"),
    ]
    streams = {label: [run.summary for run in its if len(run.after) > 1] for label, its in recorded.by_label.items()}
    free = {label: f"{fmean(one.free for one in its):.1%}" for label, its in streams.items() if its}
    stored = {label: f"{fmean(one.stored_bytes for one in its):,.0f}" for label, its in streams.items() if its}
    columns += [
        ("free weights", lambda row: free.get(row.label, NOTHING)),
        ("stored bytes", lambda row: stored.get(row.label, NOTHING)),
    ]
    return _table(params, title, columns, recorded)


def _orders(params: Params, recorded: Recorded) -> Table:
    """Every order of the stream under every strategy that ran it; what the order changes."""
    strategies = list(dict.fromkeys(run.strategy for run in recorded.runs))
    figures = [(strategy, name) for name in comparison.FIGURES for strategy in strategies]
    values: dict[str, dict[tuple[str, str], list[float]]] = {}
    for run in recorded.runs:
        for name, figure in comparison.FIGURES.items():
            values.setdefault(" → ".join(run.order), {}).setdefault((run.strategy, name), []).append(figure(run))
    means = {order: {key: fmean(cell) for key, cell in cells.items()} for order, cells in values.items()}
    shared = [order for order in means if len(means[order]) == len(figures)]
    rows = [(order, [_mean(means[order].get(key)) for key in figures]) for order in sorted(means)]
    if len(shared) > 1:
        columns = {key: [means[order][key] for order in shared] for key in figures}
        rows += [
            (
                f"mean over {len(shared)} orders ± deviation",
                [_level(spread(columns[key])) for key in figures],
            ),
            ("lowest", [_mean(min(columns[key])) for key in figures]),
            ("highest", [_mean(max(columns[key])) for key in figures]),
        ]
    names = [f"{name} (dB), {strategy.upper()}" for strategy, name in figures]
    return Table(_STUDIES["orders"], names, rows, [_note(params, recorded)])


def _table(params: Params, title: str, columns: Sequence[Column], recorded: Recorded) -> Table:
    rows = [comparison.row("do nothing", "nothing", [recorded.runs[0].summary.input])]
    rows += [
        comparison.row(label, "recorded", [run.summary for run in its]) for label, its in recorded.by_label.items()
    ]
    return Table(
        title,
        [name for name, _ in columns],
        [(row.label, [cell(row) for _, cell in columns]) for row in rows],
        [_note(params, recorded)],
    )


def _note(params: Params, recorded: Recorded) -> str:
    return (
        f"PSNR in dB / SSIM, {recorded.runs[0].summary.protocol}; {_budget(params, recorded.runs)}; "
        f"{recorded.note}. Rain: {_sources(params)}."
    )


def _budget(params: Params, runs: Sequence[RecordedRun]) -> str:
    train, tasks = params.train, len(params.tasks)
    size = f"batch {train.batch} of {train.patch}x{train.patch}"
    if train.steps_per_epoch is None:
        return f"{train.epochs} epochs of a set's whole grid a task, {size}"
    steps = train.epochs * train.steps_per_epoch
    single = f", {steps * tasks:,} for one set alone and for Mix" if any(len(run.after) == 1 for run in runs) else ""
    return f"{steps:,} optimizer steps a task{single}, {size}"


def _sources(params: Params) -> str:
    """What the tests are: rendered rain is never called by a benchmark's name."""
    return ", ".join(
        f"{test} ({definition.source}{', ' + definition.set if isinstance(definition, Benchmark) else ''})"
        for test, definition in ((test, params.datasets[test]) for test in params.tests)
    )


def _on(test: str) -> Column:
    return test, lambda row: _pair(row.psnr[test], row.ssim[test]) if test in row.psnr else NOTHING


def _both(figure: Callable[[Row], tuple[Spread, Spread] | None]) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        found = figure(row)
        return _pair(*found) if found else NOTHING

    return cell


def _one(figure: Callable[[Row], Spread | None]) -> Callable[[Row], str]:
    return lambda row: _level(figure(row))


def _pair(psnr: Spread, ssim: Spread) -> str:
    return f"{_level(psnr)} / {ssim.mean:.3f}"


def _level(value: Spread | None) -> str:
    return level(value, 2)


def _mean(value: float | None) -> str:
    return NOTHING if value is None or math.isnan(value) else number(value, 2)
