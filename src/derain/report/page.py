"""report/index.html: one self-contained page on a run, which needs no network and has the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import yaml

from derain.evaluation.quality import PROTOCOLS
from derain.evaluation.summary import SHARED_KINDS, Levels, Summary, matrix
from derain.params import Params, parts
from derain.report import tables
from derain.report.before_after import before_and_after
from derain.report.results import Coverage, Results
from derain.studies import panels
from derain.studies.recorded import Recorded
from derain.studies.rows import AVERAGE, FORGETTING, UNSEEN, Column
from derain.web import charts
from derain.web.charts import Cell, Line
from derain.web.markup import Markup, asset, document, element, join, scrolling
from derain.web.wording import NOTHING, learned_in, number, stream

DEFINITIONS = {
    "average": "The mean over the learned sets after the last task: ACC of Lopez-Paz and Ranzato, “Gradient Episodic "
    "Memory for Continual Learning”, NeurIPS 2017, Eq. 2.",
    "forgetting": "How far the earlier sets fell below the best they had before the last task, mean over these sets: "
    "Chaudhry et al., “Riemannian Walk for Incremental Learning”, ECCV 2018, Eq. 3 and the mean below it.",
    "backward transfer": "How later tasks changed each earlier set since it was learned, mean over these sets; "
    "negative where they did harm: Lopez-Paz and Ranzato 2017, Eq. 3.",
    "unseen": "The mean over the test sets that no task learned from.",
    "P(n)": "The proportion of all weights that task n consolidates: Xiao et al., “Improving De-raining Generalization "
    "via Neural Reorganization”, ICCV 2021, Eq. 2.",
    "PSNR, SSIM": "Means over the pictures of a set. SSIM: Wang et al., “Image quality assessment: from error "
    "visibility to structural similarity”, IEEE TIP 13(4), 2004.",
}


def build(params: Params, summary: Summary, results: Results, recorded: Recorded) -> str:
    """The page of a run.

    Recorded runs have rows in the tables where they are of the run's parameters; else one line says that they are not.

    Raises:
        DataError: a picture is missing or damaged.
    """
    fitting = recorded.beside(params)
    today = recorded.of_today(params)
    sections = [
        _header(params, results),
        _cards(params, summary, fitting),
        tables.by_test_set(params, summary, recorded, fitting),
        tables.beside_the_paper(params, summary),
        tables.of_studies(params, today),
        panels.section(params, today),
        _memory(params, results, summary),
        _consolidation(params, results.masks),
        _losses(params, results.losses),
        before_and_after(params, results),
        _footer(params, results),
    ]
    title = join(["De-raining: ", stream(params)])
    return document(title, element("main", *sections), [asset("report.css", "derain.report")])


def _header(params: Params, results: Results) -> Markup:
    tasks = params.tasks
    last = results.masks[tasks[-1].name]
    made = last.facts
    size = ", ".join(f"{key} {value}" for key, value in params.sections.get(params.backbone, {}).items())
    in_turn = ", one after another," if len(tasks) > 1 else ""
    names = dict.fromkeys([*(task.dataset for task in tasks), *params.tests])
    rendered = [name for name in names if _has_rendered_rain(params, name)]
    return element(
        "header",
        element("p", "Continual de-raining", class_="eyebrow"),
        element("h1", "One network, " + (f"{len(tasks)} data sets in a row" if len(tasks) > 1 else "one data set")),
        element(
            "p",
            f"A network of {sum(last.weights.values()):,} weights ({params.backbone}: {size}) learned {stream(params)}"
            f"{in_turn} by the strategy {params.strategy}; seed {params.seed}, on {made['device']} in "
            f"{made['precision']} with {made['threads']} CPU thread{'s' * (made['threads'] != 1)}.",
            class_="lead",
        ),
        element("p", f"Rain drawn on photographs, not a published benchmark: {', '.join(rendered)}.", class_="note")
        if rendered
        else None,
    )


def _has_rendered_rain(params: Params, name: str) -> bool:
    return any(part["source"] == "rendered" for part in parts(params.datasets[name]))


def _cards(params: Params, summary: Summary, fitting: Recorded | None) -> Markup:
    # Plain sequential training is the yardstick; a run of it is compared with NR instead.
    rival = "NR" if summary.strategy == "si" else "SI"
    rivals = fitting.by_label.get(rival, []) if fitting else []
    unseen = [test for test, role in params.tests.items() if role == "unseen"]

    def others(column: Column) -> list[tuple[str, str]]:
        runs: dict[str, list[Levels]] = {"do nothing": [summary.input]} if column is not FORGETTING else {}
        if rivals:
            runs[f"{rival}, recorded"] = [run.summary for run in rivals]
        cells = {name: column.figure(its) for name, its in runs.items()}
        return [(name, cell.spread if cell else NOTHING) for name, cell in cells.items()]

    cards = []
    if summary.average:
        cards.append(_card("Average PSNR over the learned sets", summary.average.psnr, others(AVERAGE)))
    if summary.forgetting and summary.backward_transfer:
        compared = [*others(FORGETTING), ("backward transfer", number(summary.backward_transfer.psnr))]
        cards.append(_card("Forgetting (lower is better)", summary.forgetting.psnr, compared))
    if summary.unseen:
        title = f"PSNR on rain never learned ({', '.join(unseen)})"
        cards.append(_card(title, summary.unseen.psnr, others(UNSEEN)))
    return element("section", *cards, class_="cards", aria_label="In short")


def _card(title: str, value: float, compared: Iterable[tuple[str, str]]) -> Markup:
    entries = [join([element("dt", name), element("dd", figure)]) for name, figure in compared]
    figure = element("p", number(value), element("small", " dB"), class_="figure")
    return element("div", element("h2", title), figure, element("dl", *entries), class_="card")


def _memory(params: Params, results: Results, summary: Summary) -> Markup:
    after = matrix(params, results.scores)
    levels = {test: [after[task.name][test].psnr for task in params.tasks] for test in params.tests}
    panels = [
        _memory_panel(params, test, learned_in(params, test), levels[test], summary.input.psnr[test])
        for test in params.tests
    ]
    learned = [test for test, role in params.tests.items() if role == "learned"]
    if len(learned) > 1 and summary.input.average:
        means = [fmean(after) for after in zip(*(levels[test] for test in learned), strict=True)]
        panels.append(_memory_panel(params, "average", "of the learned sets", means, summary.input.average.psnr))
    return element(
        "section",
        element("h2", "What the network remembers"),
        element(
            "p",
            f"PSNR (dB) on each test set after each task, in the order {stream(params)}. Each panel has its own scale.",
            class_="note",
        ),
        charts.legend(
            ("filled", "just learned from this set"), ("hollow", "after another task"), ("baseline", "doing nothing")
        ),
        element("div", *panels, class_="panels"),
        element("h3", "The same as a table"),
        _matrix(params, levels, summary.input.psnr),
        element(
            "p",
            "PSNR in dB, shaded from the lowest to the highest value of each column; outlined where the set was just "
            "learned.",
            class_="note",
        ),
    )


def _memory_panel(params: Params, name: str, small_print: str, levels: Sequence[float], nothing: float) -> Markup:
    tasks = params.tasks
    own = [task.position for task in tasks if task.dataset == name]
    curve = Line("main", list(enumerate(levels)), marked=True, filled=own[-1] if own else None)
    values = ", ".join(f"{value:.1f}" for value in levels)
    description = f"{name}: PSNR after each task {values} dB, doing nothing {nothing:.1f} dB"
    ticks = [(task.position, task.dataset) for task in tasks]
    return element(
        "figure",
        element("figcaption", name, element("small", small_print)),
        charts.line_chart(description, [curve], ticks, nothing),
    )


def _matrix(params: Params, levels: Mapping[str, Sequence[float]], nothing: Mapping[str, float]) -> Markup:
    def cell(test: str, value: float, outlined: bool = False) -> Cell:
        low, high = min(nothing[test], *levels[test]), max(nothing[test], *levels[test])
        return Cell(number(value), (value - low) / (high - low) if high > low else 0, outlined)

    rows = [("do nothing", [cell(test, nothing[test]) for test in params.tests])]
    rows += [
        (
            f"{task.name}: {task.dataset}",
            [cell(test, levels[test][task.position], outlined=task.dataset == test) for test in params.tests],
        )
        for task in params.tasks
    ]
    return charts.heat_table("PSNR on each test set after each task", "after", list(params.tests), rows)


def _consolidation(params: Params, masks: Mapping[str, Coverage]) -> Markup:
    title = element("h2", "What is consolidated")
    last = masks[params.tasks[-1].name]
    if not any(last.consolidated.values()):
        nothing = "This run consolidates nothing: all weights are free after the last task."
        return element("section", title, element("p", nothing, class_="note"))
    names = {task.name: f"{task.name}: {task.dataset}" for task in params.tasks}
    heads = [element("th", name, scope="col") for name in ("P(n)", "newly", "in all", "free")]
    rows = [_coverage_row(name, masks[task].facts) for task, name in names.items()]
    table = element(
        "table",
        element("thead", element("tr", element("th", "after"), *heads, element("th"))),
        element("tbody", *rows),
        class_="wide",
    )
    layers = [
        (f"{layer} ({count:,})", [_layer_cell(masks[task].consolidated[layer], count) for task in names])
        for layer, count in last.weights.items()
    ]
    return element(
        "section",
        title,
        element(
            "p",
            "Share of all weights after each task. A consolidated weight never changes again. A task can choose "
            "weights that are consolidated already: what is new may be less than P(n).",
            class_="note",
        ),
        charts.legend(("earlier", "by earlier tasks"), ("newly", "newly, by this task"), ("rest", "free")),
        scrolling(table, "Consolidated weights by task"),
        element("h3", "By layer"),
        charts.heat_table("Consolidated weights by layer and task", "layer (weights)", list(names.values()), layers),
        element("p", "Share of each layer’s weights and biases that is consolidated after each task.", class_="note"),
    )


def _coverage_row(name: str, made: Mapping[str, Any]) -> Markup:
    newly, in_all, free = (made[f"fraction_{part}"] for part in ("newly_consolidated", "consolidated", "free"))
    bar = charts.stacked_bar(
        f"{name}: {in_all - newly:.1%} earlier, {newly:.1%} newly, {free:.1%} free",
        [("earlier", in_all - newly), ("newly", newly)],
    )
    proportion = f"{made['P(n)']:.1%}" if "P(n)" in made else NOTHING
    figures = [proportion, *(f"{share:.1%}" for share in (newly, in_all, free))]
    return element(
        "tr",
        element("th", name, scope="row"),
        *(element("td", figure) for figure in figures),
        element("td", bar, class_="bar-cell"),
    )


def _layer_cell(consolidated: int, count: int) -> Cell:
    return Cell(f"{consolidated / count:.0%}", consolidated / count)


def _losses(params: Params, losses: Mapping[str, Mapping[str, list[float]]]) -> Markup:
    panels = [_loss_panel(f"{task.name}: {task.dataset}", losses[task.name]) for task in params.tasks]
    terms = dict.fromkeys(term for of_task in losses.values() for term in of_task)
    return element(
        "section",
        element("h2", "Losses"),
        element(
            "p",
            "Mean over each epoch, lower is better; the least that a negative SSIM can be is −1. "
            "Each panel has its own scale.",
            class_="note",
        ),
        charts.legend(*(("other" if place else "main", term) for place, term in enumerate(terms))),
        element("div", *panels, class_="panels"),
    )


def _loss_panel(name: str, losses: Mapping[str, list[float]]) -> Markup:
    lines = [
        Line("other" if place else "main", list(enumerate(values, 1))) for place, values in enumerate(losses.values())
    ]
    ends = ", ".join(f"{term} from {values[0]:.3f} to {values[-1]:.3f}" for term, values in losses.items())
    epochs = len(lines[0].points)
    return element(
        "figure",
        element("figcaption", name),
        charts.line_chart(f"{name}: {ends}", lines, [(1, "epoch 1"), (epochs, f"epoch {epochs}")][:epochs]),
    )


def _footer(params: Params, results: Results) -> Markup:
    definitions = DEFINITIONS | {name: f"{protocol.description}." for name, protocol in PROTOCOLS.items()}
    entries = [
        join([element("dt", name), element("dd", text[0].upper() + text[1:])]) for name, text in definitions.items()
    ]
    made = results.masks[params.tasks[-1].name].facts
    kinds = (*SHARED_KINDS, "strategy")
    keys = {"seed", "task0", "stream", "tests", "datasets", "data", "train", *kinds}
    shown = params.model_dump(mode="json", include=keys)
    shown |= {name: params.sections.get(name, {}) for name in (getattr(params, kind) for kind in kinds)}
    shown["made with"] = {
        key: made[key]
        for key in ("device", "precision", "threads", "processes", "cpu_capability", "libraries")
        if key in made
    }
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return element(
        "footer",
        element("h2", "What the numbers mean"),
        element("dl", *entries),
        element("h2", "Parameters of the run"),
        element("pre", text, tabindex=0),
    )
