"""The paper's tables, and further ones, from recorded runs: ours, and below each the paper's own numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from derain.evaluation.summary import Levels
from derain.params import Params
from derain.studies import paper, variants
from derain.studies.recorded import Recorded
from derain.studies.rows import (
    AVERAGE,
    FORGETTING,
    FREE,
    STORED,
    UNSEEN,
    Cell,
    Column,
    Row,
    Table,
    mean,
    mean_of_both,
    on,
    row,
    text,
)

_LEARNED = AVERAGE._replace(name="average of the learned")
_FORGETTING = FORGETTING.without("ssim")._replace(name="forgetting (dB)")


def tables(params: Params, recorded: Recorded) -> list[Table]:
    """All tables for which there are runs of these parameters (`Recorded.of_today`).

    A table's rows are means over the seeds that all of them have.
    """
    names = {name: [variant.name for variant in group] for name, group in variants.groups(params).items()}
    groups = {name: recorded.of(group).with_shared_seeds() for name, group in names.items()}
    groups = {name: group for name, group in groups.items() if _has_its_own(names[name], group)}
    made = []
    for place, printed in enumerate(paper.TABLES, 1):
        if group := groups.get(f"table{place}"):
            made += [_ours(params, place, printed, group), _theirs(place, printed)]
    for name, title in _STUDIES.items():
        if group := groups.get(name):
            made.append(_orders(params, group) if name == "orders" else _study(params, title, group))
    return made


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


def as_markdown(drawn: Iterable[Table], profile: Path, record: Path) -> str:
    """Tables as a page of Markdown, which names the files of the parameters and of the recorded runs."""
    parts = [_HEAD.format(profile=profile, record=record)]
    for table in drawn:
        lines = [["", *(column.name for column in table.columns)], ["---", *("---:" for _ in table.columns)]]
        lines += [[label, *map(text, cells)] for label, cells, _ in table.rows]
        body = ["| " + " | ".join(cells) + " |" for cells in lines]
        parts.append("\n".join([f"## {table.title}", "", *body, *(f"\n{note}" for note in table.notes), ""]))
    return "\n".join(parts)


def _ours(params: Params, place: int, printed: paper.Printed, recorded: Recorded) -> Table:
    if place == 4:
        return _after_each_task(params, recorded)
    columns = [on(test) for test, role in params.tests.items() if role == "unseen" or place != 3]
    if place != 2:
        columns += [_LEARNED, _FORGETTING]
    return _table(params, printed.title.partition(":")[0] + ", ours" + _TITLES[place], columns, recorded)


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
    rows = [Row("do nothing", [mean_of_both([first.summary.input.on(test)]) for _, _, test in columns])]
    for after, dataset in zip(first.after, first.order, strict=True):
        cells = [mean_of_both([run.after[after].on(test) for run in its]) for _, its, test in columns]
        rows.append(Row(f"after {dataset}", cells))
    heads = [Column(f"{test}, {label}") for label, _, test in columns]
    return Table("Table 4, ours: unseen rain after each task", heads, rows, [_note(params, recorded)])


def _theirs(place: int, printed: paper.Printed) -> Table:
    tests = [name for name in paper.SETS if any(name in cells for cells in printed.rows.values())]
    rows = [Row(label, [cells.get(name) for name in tests]) for label, cells in printed.rows.items()]
    keys = sorted({key for cells in printed.rows.values() for cell in cells.values() for key in cell.notes})
    notes = ["As printed: the benchmark sets and a network of full size; no seeds, spread or protocol named."]
    notes += [f"[{key}] {paper.NOTES[key]}" for key in keys]
    return Table(f"Table {place}, the paper’s", [Column(name) for name in tests], rows, notes)


def _study(params: Params, title: str, recorded: Recorded) -> Table:
    unseen = [on(test) for test, role in params.tests.items() if role == "unseen"]
    return _table(params, title, [_LEARNED, _FORGETTING, *unseen, FREE, STORED], recorded)


def _orders(params: Params, recorded: Recorded) -> Table:
    """Every order of the stream under every strategy that ran it; what the order changes."""
    strategies = list(dict.fromkeys(run.strategy for run in recorded.runs))
    runs: dict[str, dict[str, list[Levels]]] = {}
    for run in recorded.runs:
        runs.setdefault(" → ".join(run.order), {}).setdefault(run.strategy, []).append(run.summary)
    figures = [column.without("ssim", "deviation") for column in (AVERAGE, FORGETTING, UNSEEN)]
    columns = [(figure, strategy) for figure in figures for strategy in strategies]
    rows = [
        Row(order, [column.figure(its.get(strategy, [])) for column, strategy in columns])
        for order, its in sorted(runs.items())
    ]
    shared = [row.cells for row in rows if len(runs[row.label]) == len(strategies)]
    if len(shared) > 1:
        values = [[cell.value for cell in cells if cell] for cells in zip(*shared, strict=True)]
        rows += [
            Row(f"mean over {len(shared)} orders ± deviation", [mean(its) if its else None for its in values]),
            Row("lowest", [Cell(min(its)) if its else None for its in values]),
            Row("highest", [Cell(max(its)) if its else None for its in values]),
        ]
    heads = [Column(f"{column.name} (dB), {strategy.upper()}") for column, strategy in columns]
    return Table(_STUDIES["orders"], heads, rows, [_note(params, recorded)])


def _table(params: Params, title: str, columns: Sequence[Column], recorded: Recorded) -> Table:
    rows = [row("do nothing", [recorded.runs[0].summary.input], columns)]
    rows += [row(label, [run.summary for run in its], columns) for label, its in recorded.by_label.items()]
    return Table(title, columns, rows, [_note(params, recorded)])


def _note(params: Params, recorded: Recorded) -> str:
    return (
        f"PSNR in dB / SSIM, {recorded.runs[0].summary.protocol}; {_budget(params, recorded)}; "
        f"{recorded.note}. Rain: {_sources(params)}."
    )


def _budget(params: Params, recorded: Recorded) -> str:
    train, tasks = params.train, len(params.tasks)
    size = f"batch {train.batch} of {train.patch}x{train.patch}"
    if train.steps_per_epoch is None:
        return f"{train.epochs} epochs of a set's whole grid a task, {size}"
    steps = train.epochs * train.steps_per_epoch
    single = any(len(run.after) == 1 for run in recorded.runs)
    alone = f", {steps * tasks:,} for one set alone and for Mix" if single else ""
    return f"{steps:,} optimizer steps a task{alone}, {size}"


def _sources(params: Params) -> str:
    """What the tests are: rendered rain is never called by a benchmark's name."""
    definitions = {test: params.datasets[test] for test in params.tests}
    sources = {test: [its[key] for key in ("source", "set") if key in its] for test, its in definitions.items()}
    return ", ".join(f"{test} ({', '.join(its)})" for test, its in sources.items())
