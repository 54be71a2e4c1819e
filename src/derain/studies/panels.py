"""The studies: what a strategy, a value, a width, a longer stream or another order changes; pictures and a CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal, TypeVar

from derain.params import Params
from derain.studies import variants
from derain.studies.recorded import Recorded, RecordedRun
from derain.studies.rows import AVERAGE, FORGETTING, Column
from derain.studies.variants import Variant
from derain.web import charts
from derain.web.charts import Line
from derain.web.markup import Markup, element

Made = Mapping[str, tuple[Variant, Sequence[RecordedRun]]]
"""The variants of a study that ran, by name, with their runs."""
Look = Literal["main", "other"]
T = TypeVar("T")

_LOOKS: Mapping[str, Look] = {"nr": "main", "si": "other"}
"""Of the strategies that widths and orders compare."""
_TWICE = ("nr-rank-all-twice", "nr-rank-free-twice", "si-twice")

_FIGURES: Mapping[str, Column] = {"average PSNR (dB)": AVERAGE, "forgetting (dB)": FORGETTING}


def section(params: Params, recorded: Recorded) -> Markup | None:
    """The pictures of the studies that are recorded; None where none is.

    Each is of the seeds that all its runs have.
    """
    values, widths, capacity, orders = _made(params, recorded, "values", "widths", "capacity", "orders")
    panels = [*_values(params, values), *_widths(widths), *_capacity(capacity), *_orders(orders)]
    if not panels:
        return None
    return element(
        "section",
        element("h2", "Studies"),
        element(
            "p",
            "Means over the recorded seeds. The panels of NR’s parameters share a scale, each other one has its own.",
            class_="note",
        ),
        charts.legend(("main", "NR"), ("other", "the other one that the panel names")),
        element("div", *panels, class_="panels"),
    )


def _made(params: Params, recorded: Recorded, *studies: str) -> Iterator[Made]:
    groups = variants.groups(params)
    for study in studies:
        group = {variant.name: variant for variant in groups.get(study, [])}
        runs: dict[str, list[RecordedRun]] = {}
        for run in recorded.of(group).with_shared_seeds().runs:
            runs.setdefault(run.name, []).append(run)
        yield {name: (group[name], its) for name, its in runs.items()}


def table(params: Params, recorded: Recorded) -> bytes:
    """plots/studies.csv: a row a recorded run of each study it is in."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["study", "run", "seed", "psnr", "forgetting", "unseen"])
    for study, group in variants.groups(params).items():
        for run in recorded.of(variant.name for variant in group).runs:
            figures = (run.summary.average, run.summary.forgetting, run.summary.unseen)
            rows.writerow([study, run.label, run.seed, *("" if level is None else level.psnr for level in figures)])
    return text.getvalue().encode()


def _values(params: Params, made: Made) -> Iterator[Markup]:
    """By parameter of NR: its values, those of params.yaml among them."""
    own = params.sections.get("nr", {})
    by_key: dict[str, list[tuple[Any, Sequence[RecordedRun]]]] = {}
    spans = {what: [_mean(figure, runs) for _, runs in made.values()] for what, figure in _FIGURES.items()}
    for variant, runs in made.values():
        for key, value in variant.params.sections["nr"].items():
            if value != own[key]:
                by_key.setdefault(key, []).append((value, runs))
    for key, values in by_key.items():
        if "nr" in made:
            values.append((own[key], made["nr"][1]))
        values.sort(key=lambda value: (str(type(value[0])), value[0]))
        ticks = _side_by_side(str(value) for value, _ in values)
        for what, figure in _FIGURES.items():
            line = _side_by_side(_mean(figure, runs) for _, runs in values)
            yield from _panel(what, f"by nr.{key}", [Line("main", line, marked=True, digits=2)], ticks, spans[what])


def _widths(made: Made) -> Iterator[Markup]:
    by_strategy: dict[str, list[tuple[float, Sequence[RecordedRun]]]] = {strategy: [] for strategy in _LOOKS}
    for variant, runs in made.values():
        by_strategy[variant.params.strategy].append((variant.params.sections["prenet"]["channels"], runs))
    ticks = [(float(channels), str(channels)) for channels, _ in sorted(by_strategy["nr"], key=lambda one: one[0])]
    if len(ticks) < 2:
        return
    for what, figure in _FIGURES.items():
        lines = [
            Line(look, sorted((channels, _mean(figure, runs)) for channels, runs in widths), marked=True, digits=2)
            for strategy, look in _LOOKS.items()
            if (widths := by_strategy[strategy])
        ]
        yield from _panel(what, "by channels; SI grey", lines, ticks)


def _capacity(made: Made) -> Iterator[Markup]:
    """Over the stream twice: what is free, and what the set that was just learned reaches."""
    full, free, plain = (made.get(name, (None, []))[1] for name in _TWICE)
    if not full or not free:
        return
    ticks = _side_by_side(map(str, range(len(full[0].after))))

    def line(
        look: Look, runs: Sequence[RecordedRun], of: Callable[[RecordedRun], Sequence[float]], marked: bool = True
    ) -> Line:
        return Line(look, _side_by_side(map(fmean, zip(*map(of, runs), strict=True))), marked)

    yield from _panel(
        "free weights (%)",
        "after each task; rank free grey",
        [line("main", full, _free), line("other", free, _free)],
        ticks,
    )
    for runs, name in ((full, "rank all"), (free, "rank free")):
        lines = [
            line("main", runs, _just_learned),
            *([line("other", plain, _just_learned, marked=False)] if plain else []),
        ]
        yield from _panel("PSNR on the set just learned (dB)", f"{name}; SI grey", lines, ticks)


def _orders(made: Made) -> Iterator[Markup]:
    """Means over the orders of the stream that begin, and that end, with the same set."""
    by_order: dict[tuple[str, ...], dict[str, Sequence[RecordedRun]]] = {}
    for variant, runs in made.values():
        by_order.setdefault(tuple(runs[0].order), {})[variant.params.strategy] = runs
    both = {order: its for order, its in by_order.items() if len(its) == len(_LOOKS)}
    sets = dict.fromkeys(dataset for order in both for dataset in order)
    for what, figure in _FIGURES.items():
        for place, name in ((0, "first"), (-1, "last")):
            alike = {each: [its for order, its in both.items() if order[place] == each] for each in sets}
            there = [each for each, orders in alike.items() if orders]
            if len(there) < 2:
                continue
            means = {
                look: [fmean(_mean(figure, its[strategy]) for its in alike[each]) for each in there]
                for strategy, look in _LOOKS.items()
            }
            lines = [Line(look, _side_by_side(levels), marked=True, digits=2) for look, levels in means.items()]
            small_print = f"by the set that comes {name}, {len(both)} orders; SI grey"
            yield from _panel(what, small_print, lines, _side_by_side(there))


def _panel(
    what: str,
    small_print: str,
    lines: Sequence[Line],
    ticks: Sequence[tuple[float, str]],
    span: Sequence[float] = (),
) -> Iterator[Markup]:
    """A panel, whose y axis holds `span` too; none where a value is undefined, as forgetting is for a single task."""
    if not all(math.isfinite(y) for line in lines for _, y in line.points):
        return
    values = "; ".join(", ".join(f"{y:.2f}" for _, y in line.points) for line in lines)
    yield element(
        "figure",
        element("figcaption", what, element("small", small_print)),
        charts.line_chart(f"{what} {small_print}: {values}", lines, ticks, span=span),
    )


def _side_by_side(values: Iterable[T]) -> list[tuple[float, T]]:
    """Levels or names at the places 0, 1, 2, ... of the x axis."""
    return [(float(place), value) for place, value in enumerate(values)]


def _mean(column: Column, runs: Sequence[RecordedRun]) -> float:
    cell = column.figure([run.summary for run in runs])
    return cell.value if cell else math.nan


def _free(run: RecordedRun) -> list[float]:
    return [100 * (1 - share) for share in run.summary.consolidated.values()]


def _just_learned(run: RecordedRun) -> list[float]:
    return [level.psnr.get(dataset, math.nan) for dataset, level in zip(run.order, run.after.values(), strict=True)]
