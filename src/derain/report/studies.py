"""The studies: what a strategy, a value, a width, a longer stream or another order changes; pictures and a CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Literal

from derain.report import charts, variants
from derain.report.charts import Line
from derain.report.comparison import Recorded, RecordedRun
from derain.report.markup import Markup, element
from derain.report.variants import Content

Figure = Callable[[RecordedRun], float]
Runs = Mapping[str, Sequence[RecordedRun]]
"""A study's runs by label."""
Look = Literal["main", "other"]

_LOOKS: Mapping[Look, str] = {"main": "NR", "other": "SI"}

_FIGURES: Mapping[str, Figure] = {
    "average PSNR (dB)": lambda run: run.summary.average.psnr if run.summary.average else math.nan,
    "forgetting (dB)": lambda run: run.summary.forgetting.psnr if run.summary.forgetting else math.nan,
}


def section(base: Content, recorded: Recorded) -> Markup | None:
    """The pictures of the studies that are recorded; None where none is."""
    runs = {name: recorded.of(v.name for v in group).by_label for name, group in variants.groups(base).items()}
    panels = [
        *_values(base, runs["values"]),
        *_widths(base, runs.get("widths", {})),
        *_capacity(runs["capacity"]),
        *_orders(runs.get("orders", {})),
    ]
    if not panels:
        return None
    return element(
        "section",
        element("h2", "Studies"),
        element("p", "Means over the recorded seeds. Each panel has its own scale.", class_="note"),
        charts.legend(("main", "NR"), ("other", "the other one that the panel names")),
        element("div", *panels, class_="panels"),
    )


def table(base: Content, recorded: Recorded) -> bytes:
    """plots/studies.csv: a row a recorded run of each study it is in."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["study", "run", "seed", "psnr", "forgetting", "unseen"])
    for study, group in variants.groups(base).items():
        for run in recorded.of(variant.name for variant in group).runs:
            found = (run.summary.average, run.summary.forgetting, run.summary.unseen)
            rows.writerow([study, run.label, run.seed, *("" if level is None else level.psnr for level in found)])
    return text.getvalue().encode()


def _values(base: Content, runs: Runs) -> Iterator[Markup]:
    """By parameter of NR: its values, the base's own among them."""
    points: dict[str, list[tuple[float, Sequence[RecordedRun]]]] = {}
    for label, its in runs.items():
        name, _, value = label.partition(" = ")
        if value.replace(".", "").isdigit():
            points.setdefault(name, []).append((float(value), its))
    for name, found in points.items():
        section, _, key = name.partition(".")
        found.append((float(base[section][key]), runs.get("NR", [])))
        found = sorted((value, its) for value, its in found if its)
        ticks = [(float(place), f"{value:g}") for place, (value, _) in enumerate(found)]
        for what, figure in _FIGURES.items():
            line = [(float(place), _mean(figure, its)) for place, (_, its) in enumerate(found)]
            yield _panel(what, f"by {name}", [Line("main", line, marked=True, digits=2)], ticks)


def _widths(base: Content, runs: Runs) -> Iterator[Markup]:
    def width(label: str) -> float:
        return float(label.split(", ")[1].split()[0]) if ", " in label else float(base["prenet"]["channels"])

    by_strategy = {
        look: sorted((width(label), its) for label, its in runs.items() if label.split(",")[0] == strategy)
        for look, strategy in _LOOKS.items()
    }
    ticks = [(channels, f"{channels:g}") for channels, _ in by_strategy["main"]]
    if len(ticks) < 2:
        return
    for what, figure in _FIGURES.items():
        lines = [
            Line(look, [(channels, _mean(figure, its)) for channels, its in found], marked=True, digits=2)
            for look, found in by_strategy.items()
            if found
        ]
        yield _panel(what, "by channels; SI grey", lines, ticks)


def _capacity(runs: Runs) -> Iterator[Markup]:
    """Over the stream twice: what is free, and what the set that was just learned reaches."""
    found = {label.partition(", the stream")[0]: its for label, its in runs.items()}
    full, free, plain = (found.get(label, []) for label in ("NR, rank all", "NR, rank free", "SI"))
    if not full or not free:
        return
    ticks = [(float(place), str(place)) for place in range(len(full[0].after))]

    def line(look: Look, its: Sequence[RecordedRun], of: Callable[[RecordedRun], Sequence[float]]) -> Line:
        return Line(look, list(enumerate(map(fmean, zip(*map(of, its), strict=True)))), marked=True, digits=2)

    lines = [line("main", full, _free), line("other", free, _free)]
    yield _panel("free weights (%)", "after each task; rank free grey", lines, ticks)
    for its, name in ((full, "rank all"), (free, "rank free")):
        lines = [line("main", its, _just_learned), *([line("other", plain, _just_learned)] if plain else [])]
        yield _panel("PSNR on the set just learned (dB)", f"{name}; SI grey", lines, ticks)


def _orders(runs: Runs) -> Iterator[Markup]:
    """The orders of the stream from the worst to the best for NR."""
    by_order: dict[tuple[str, ...], dict[str, Sequence[RecordedRun]]] = {}
    for its in runs.values():
        order = tuple(after.partition(": ")[2] for after in its[0].after)
        by_order.setdefault(order, {})[its[0].strategy] = its
    both = [found for found in by_order.values() if {"nr", "si"} <= set(found)]
    if len(both) < 3:
        return
    for what, figure in _FIGURES.items():
        levels = sorted((_mean(figure, found["nr"]), _mean(figure, found["si"])) for found in both)
        lines = [
            Line("main", [(float(place), nr) for place, (nr, _) in enumerate(levels)]),
            Line("other", [(float(place), si) for place, (_, si) in enumerate(levels)]),
        ]
        ticks = [(0.0, "lowest"), (len(levels) - 1.0, "highest")]
        yield _panel(what, f"{len(levels)} orders, sorted by NR; SI grey", lines, ticks)


def _panel(what: str, small_print: str, lines: Sequence[Line], ticks: Sequence[tuple[float, str]]) -> Markup:
    values = "; ".join(", ".join(f"{y:.2f}" for _, y in line.points) for line in lines)
    return element(
        "figure",
        element("figcaption", what, element("small", small_print)),
        charts.line_chart(f"{what} {small_print}: {values}", lines, ticks),
    )


def _mean(figure: Figure, runs: Sequence[RecordedRun]) -> float:
    return fmean(figure(run) for run in runs)


def _free(run: RecordedRun) -> list[float]:
    return [100 * (1 - share) for share in run.summary.consolidated.values()]


def _just_learned(run: RecordedRun) -> list[float]:
    return [level.psnr[after.partition(": ")[2]] for after, level in run.after.items()]
