"""The page and the terminal's table, built from small made-up results on disk."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from derain import console
from derain.disk import artifacts, atomic, paths
from derain.evaluation import summary
from derain.params import Params, load
from derain.report import before_after, page, results, terminal
from derain.studies import paper
from derain.studies.recorded import Recorded, read_recorded
from derain.types import DataError, NumericError
from derain.web import charts
from derain.web.markup import Markup, element, join
from stages import report

TASKS = {"task0": "first", "task1": "second"}
TESTS = {"first": "learned", "second": "learned", "strange": "unseen"}
#          first  second  strange
LEVELS = {"input": [10.0, 20.0, 22.0], "task0": [30.0, 21.0, 23.0], "task1": [26.0, 33.0, 21.5]}
HOSTILE = "<script>alert('&\")</script>.png"

PARAMS: dict[str, Any] = {
    "seed": 3,
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "launch": "python",
    "data": {"photos": "builtin", "test_share": 0.2, "rains_per_photo": 1},
    "datasets": {name: {"source": "rendered", "kind": "heavy"} for name in TESTS},
    "task0": {"dataset": "first"},
    "stream": {"1": {"dataset": "second", "after": "0"}},
    "tests": TESTS,
    "train": {
        "lr": 0.001,
        "epochs": 3,
        "steps_per_epoch": 1,
        "batch": 1,
        "micro_batch": None,
        "patch": 16,
    },
    "backbone": "prenet",
    "objective": "negative_ssim",
    "negative_ssim": {},
    "recipe": "adam_multistep",
    "adam_multistep": {"milestones": [0.5], "gamma": 0.2},
    "prenet": {"channels": 4, "stages": 2, "blocks": 1},
    "strategy": "nr",
    "nr": {"alpha_l": 0.008, "lambda_kd": 0.8},
    "si": {},
}

MADE = {"device": "cpu", "cpu_capability": "AVX2", "precision": "fp32", "threads": 1}
MADE |= {"torch": "2.15.0", "libraries": {"torch": "2.15.0"}}
VOID = {"br", "img", "input", "meta", "link", "hr", "col", "source", "wbr", "base", "embed", "track", "area"}


class Page(HTMLParser):
    """What a page is made of; `balanced` unless an end tag is missing or in the wrong place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.balanced = True
        self.texts: list[str] = []
        self.code: list[str] = []
        self.feed(html)
        self.close()
        self.balanced &= not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.balanced &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.code if self.open and self.open[-1] in {"style", "script"} else self.texts).append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the stage reads, which is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    for j, test in enumerate(TESTS):
        write_scores(tmp_path, test, {row: levels[j] for row, levels in LEVELS.items()})
    weights = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "scale": (2,)}
    mask = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in weights.items()}
    for n, task in enumerate(TASKS):
        mask["conv.weight"][n] = True
        facts = {"P(n)": 0.25, "fraction_newly_consolidated": 27 / 114}
        facts |= {"fraction_consolidated": 27 * (n + 1) / 114, "fraction_free": 1 - 27 * (n + 1) / 114}
        artifacts.save(paths.mask(task), mask, {"kind": "mask", **MADE, **facts})
        artifacts.save(paths.memory(task), {}, {"kind": "memory", **MADE, "bytes": 1000 + n})
        atomic.write_atomically(paths.loss(task), b"epoch,lr,supervised\n1,0.001,-0.5\n2,0.001,-0.7\n3,0.0002,-0.75\n")
    atomic.write_atomically(paths.loss("task1"), b"epoch,lr,supervised,distillation\n1,1,-0.5,-0.6\n2,1,-0.6,-0.5\n")
    write_recorded({"runs": []})
    return tmp_path


def write_scores(root: Path, test: str, levels: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    names = [HOSTILE, "plain.png", "not shown.png"]
    scores = {
        row: {protocol: {name: [level - lower, level / 100] for name in names} for protocol, lower in PROTOCOLS}
        for row, level in levels.items()
    }
    folder = root / "results" / test
    atomic.write_json(folder / "scores.json", {"test": test, "shown": names[:2], "scores": scores})
    for number, size in enumerate([(24, 32), (32, 24)]):
        for name in ("rainy", "clean", *TASKS):
            picture = Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8))
            picture.save(folder / f"{number}-{name}.png")


PROTOCOLS = [("matlab-y", 0.0), ("rgb", 1.0)]


def write_params(**changes: Any) -> Params:
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS | changes))
    return load()


def write_recorded(content: Any) -> None:
    atomic.write_json(paths.RECORDED, content)


def record(*runs: tuple[str, int, float]) -> dict[str, Any]:
    """Recorded runs of this profile: (label, seed, dB added to the run's own PSNR on `first` and to its average)."""
    params = load()
    left = results.read(params, Path())
    own = summary.summarize(params, left.scores, left.masks_facts, left.stored_bytes, left.machine).as_json()
    recorded: dict[str, Any] = {"profile": summary.profile(params), "runs": []}
    made = {"strategy": "si", "settings": {}, "changes": [], "commit": "1234567", "date": "2021-10-11"}
    names = {"SI": "si", "NR without SC": "nr-without-sc"}
    after = {row: level.model_dump() for row, level in summary.after_each_task(params, left.scores).items()}
    for label, seed, more in runs:
        of_run = copy.deepcopy(own)
        of_run["psnr"]["first"] += more
        of_run["average"]["psnr"] += more
        of_run["machine"] = "a <b>machine</b>"
        its = {"name": names.get(label, "nr"), "label": label, "seed": seed}
        recorded["runs"].append({**its, **made, "summary": of_run, "after": after})
    return recorded


def built() -> str:
    """The page that the current folder gives."""
    params = load()
    left = results.read(params, Path())
    summed_up = summary.summarize(params, left.scores, left.masks_facts, left.stored_bytes, left.machine)
    return page.build(params, summed_up, left, read_recorded(paths.RECORDED))


def test_the_page_needs_no_network_and_is_well_formed(project: Path) -> None:
    write_recorded(record(("NR", 0, 1.0), ("SI", 0, -2.0)))
    read = Page(built())
    assert read.balanced
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in read.tags}
    assert all(str(image["src"]).startswith("data:image/") for image in read.of("img"))
    for tag, attributes in read.tags:
        assert tag == "img" or not {"src", "href", "xlink:href", "srcset", "action"} & set(attributes), tag
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import|https?:|fetch\(|import\(", "".join(read.code))
    identifiers = Counter(attributes["id"] for _, attributes in read.tags if "id" in attributes)
    assert set(identifiers.values()) == {1}
    sliders = [of for of in read.of("div") if of.get("class") == "slider"]
    assert len(sliders) == 2 * len(TESTS)
    assert all(slider[key] in identifiers for slider in sliders for key in ("data-over", "data-under"))


def test_the_same_results_give_the_same_bytes(project: Path) -> None:
    assert built() == built()


def test_every_text_is_escaped(project: Path) -> None:
    write_recorded(record(("<i>NR</i>", 0, 1.0)))
    html = built()
    read = Page(html)
    assert [of for tag, of in read.tags if tag in {"i", "b"} and not of and tag == "i"] == []
    assert len(read.of("script")) == 1
    assert html.count("<script>") == 1
    assert "<i>NR</i>" in read.text
    assert "a <b>machine</b>" in read.text
    assert any(str(image["alt"]).startswith(HOSTILE) for image in read.of("img"))


def test_elements_escape_texts_and_attributes_but_not_markup() -> None:
    inner = element("b", "1 < 2")
    assert inner == "<b>1 &lt; 2</b>"
    assert element("p", inner, None, " & ", class_='"x"', data_at=None) == (
        '<p class="&quot;x&quot;"><b>1 &lt; 2</b> &amp; </p>'
    )
    assert element("img", alt_="<") == '<img alt="&lt;">'
    assert join(["<", Markup("<br>")], ", ") == "&lt;, <br>"


def test_leftovers_of_removed_tasks_and_tests_are_ignored(project: Path) -> None:
    before = built()
    atomic.write_atomically(Path("masks/task9.safetensors"), b"rubbish")
    atomic.write_atomically(Path("plots/loss/task9.csv"), b"rubbish")
    atomic.write_atomically(Path("results/old/scores.json"), b"rubbish")
    atomic.write_atomically(Path("results/first/0-task9.png"), b"rubbish")
    scores = json.loads(Path("results/first/scores.json").read_text())
    scores["scores"]["task9"] = {"matlab-y": {HOSTILE: [float("nan"), 0]}}
    Path("results/first/scores.json").write_text(json.dumps(scores))
    assert built() == before


def test_numbers_of_the_run_stand_in_the_page(project: Path) -> None:
    text = Page(built()).text
    assert "Average PSNR over the learned sets 29.50 dB do nothing 15.00" in text
    assert "Forgetting (lower is better) 4.00 dB backward transfer −4.00" in text
    assert "PSNR on rain never learned (strange) 21.50 dB do nothing 22.00" in text
    # 108 + 4 + 2 weights; of conv with its bias 27 and then 54 are consolidated.
    assert "A network of 114 weights" in text
    assert "conv (112) 24% 48% scale (2) 0% 0%" in text
    assert "task1: second 25.0% 23.7% 47.4% 52.6%" in text


def test_worse_than_doing_nothing_and_the_best_are_marked(project: Path) -> None:
    write_recorded(record(("NR", 0, 1.0), ("SI", 0, -2.0)))
    cells = re.findall(r'<td(?: class="(\w+)")?><b>([^<]*)</b>', built().split("<details>")[0])
    this_run, nr, si = cells[4:9], cells[9:14], cells[14:19]
    assert this_run == [("", "26.00"), ("best", "33.00"), ("worse", "21.50"), ("", "29.50"), ("best", "4.00")]
    assert nr[0] == ("best", "27.00")
    assert si[0] == ("", "24.00")


def test_recorded_runs_stand_beside_the_run_with_their_spread(project: Path) -> None:
    write_recorded(
        record(("NR", 0, 1.0), ("SI", 0, -2.0), ("SI", 1, -3.0), ("SI", 2, -4.0), ("NR", 1, 1.0), ("NR", 2, 1))
    )
    text = Page(built()).text
    assert "recorded on a <b>machine</b>, 2021-10-11, seeds 0, 1, 2, mean ± standard deviation" in text
    assert "SI 23.00 ± 1.00" in text
    assert "NR 27.00 ± 0.00" in text
    assert "SI, recorded 26.50 ± 1.00" in text


def test_a_single_seed_has_no_spread(project: Path) -> None:
    write_recorded(record(("SI", 0, -2.0)))
    text = Page(built()).text
    assert "2021-10-11, seed 0." in text
    assert "±" not in text


def test_runs_of_another_profile_are_left_out_and_said_to_be(project: Path) -> None:
    write_recorded(record(("SI", 0, -2.0)))
    write_params(train=PARAMS["train"] | {"batch": 2})
    text = Page(built()).text
    assert "of other parameters" in text
    assert "recorded on" not in text
    write_recorded({"runs": []})
    assert "profile" not in Page(built()).text


def test_a_strategy_without_masks_says_that_nothing_is_consolidated(project: Path) -> None:
    for task in TASKS:
        facts = {"fraction_newly_consolidated": 0.0, "fraction_consolidated": 0.0, "fraction_free": 1.0}
        artifacts.save(paths.mask(task), {"conv.weight": torch.zeros(4, dtype=torch.bool)}, {**MADE, **facts})
    read = Page(built())
    assert "This run consolidates nothing" in read.text
    assert read.balanced


def test_a_stream_of_one_task_has_one_derained_picture(project: Path) -> None:
    write_params(stream={}, tests={"first": "learned"})
    read = Page(built())
    assert read.balanced
    assert [re.sub(".*png, ", "", str(image["alt"])) for image in read.of("img")[:3]] == [
        "rainy",
        "de-rained",
        "clean",
    ]
    assert "One network, one data set" in read.text


def test_many_large_pictures_become_small_jpegs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((20, 3000, 3), np.uint8)).save("results/first/0-rainy.png")
    embedded = before_after.embed([Path("results/first/0-rainy.png"), Path("results/first/0-clean.png")])
    wide, small = embedded.values()
    assert (wide.width, wide.source[:15]) == (before_after.LONGEST_SIDE, "data:image/jpeg")
    assert (small.width, small.height, small.source[:14]) == (32, 24, "data:image/png")
    monkeypatch.setattr(before_after, "LOSSLESS_BUDGET", 1000)
    (all_small,) = before_after.embed([Path("results/first/0-clean.png")]).values()
    assert all_small.source.startswith("data:image/jpeg")


def test_the_papers_numbers_never_stand_beside_rendered_rain(project: Path) -> None:
    renamed = {"Rain100H": PARAMS["datasets"]["first"], **PARAMS["datasets"]}
    assert paper.comparable(write_params(datasets=renamed)) == {}
    assert "the paper’s own numbers" not in Page(built()).text


def test_the_papers_numbers_stand_beside_benchmarks_with_misprints_marked(project: Path) -> None:
    sets = {"first": "Rain800", "second": "rain14000", "strange": "SPA-Data"}
    benchmarks = {name: {"source": "benchmark", "set": of, "folder": "there"} for name, of in sets.items()}
    assert paper.comparable(write_params(datasets=benchmarks)) == {
        "first": "Rain800",
        "second": "Rain14000",
        "strange": "SPA-Data",
    }
    read = Page(built())
    assert read.balanced
    assert "Rain800 alone 25.86 0.871 36.34 a 0.973 33.71 0.957" in read.text
    assert "a A misprint, almost surely" in read.text
    assert "b " + paper.NOTES["b"] not in read.text
    assert "not a published benchmark" not in read.text


def test_a_benchmark_learned_from_rendered_rain_is_not_comparable(project: Path) -> None:
    rain100h = {"source": "benchmark", "set": "Rain100H", "folder": "there"}
    rendered = PARAMS["datasets"]["first"]
    assert paper.comparable(write_params(datasets=PARAMS["datasets"] | {"strange": rain100h})) == {}
    mixed = {"source": "mix", "of": [rain100h, rendered]}
    assert paper.comparable(write_params(datasets=PARAMS["datasets"] | {"first": mixed}, stream={})) == {}
    pure = {"first": {"source": "mix", "of": [rain100h]}, "second": rain100h, "strange": rendered}
    assert paper.comparable(write_params(datasets=pure, stream={})) == {"first": "Rain100H", "second": "Rain100H"}


def test_the_tables_of_the_paper_cover_its_sets_and_every_note_is_used() -> None:
    cells = [cell for table in paper.TABLES for row in table.rows.values() for cell in row.values()]
    for table, sets in zip(paper.TABLES, [set(paper.SETS)] * 2 + [{"SPA-Data"}] * 3, strict=True):
        assert all(set(row) == sets for row in table.rows.values())
    assert set("".join(cell.notes for cell in cells)) == set(paper.NOTES)
    assert sum(cell.notes == "a" for cell in cells) == 1


@pytest.mark.parametrize("low_high", [(0.0, 1.0), (-0.93, -0.31), (12.7, 31.9), (30.01, 30.04), (5.0, 5.0001)])
def test_ticks_are_few_and_inside(low_high: tuple[float, float]) -> None:
    low, high = low_high
    ticks = charts.nice_ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_values_of_two_lines_that_come_close_are_written_apart() -> None:
    upper = charts.Line("main", [(0.0, 30.0), (1.0, 25.0), (2.0, 24.9)], marked=True)
    lower = charts.Line("other", [(0.0, 20.0), (1.0, 24.9), (2.0, 25.0)], marked=True)
    svg = charts.line_chart("two lines", [upper, lower], [(0.0, "a"), (1.0, "b"), (2.0, "c")])
    circles = [float(y) for y in re.findall(r'<circle[^>]* cy="([\d.]+)"', svg)]
    labels = [float(y) for y in re.findall(r'<text class="label"[^>]* y="([\d.]+)"', svg)]
    below = [label > circle for label, circle in zip(labels, circles, strict=True)]
    assert below[1:3] == [False, True], "in its own valley, and yet above, since the other line is below"
    assert below[4:] == [True, False]


def run_stage() -> None:
    report.main()


def test_the_stage_writes_its_three_files_and_the_table_is_shown_from_them(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage()
    assert json.loads(paths.SUMMARY.read_text())["psnr"] == {"first": 26, "second": 33, "strange": 21.5}
    assert Page(paths.REPORT.read_text()).balanced
    assert paths.FORGETTING.read_text().startswith("after,test,psnr,ssim\ntask0: first,first,30.0,0.3\n")
    assert str(paths.REPORT) in capsys.readouterr().out
    terminal.show(Path())
    assert capsys.readouterr().out.splitlines()[-1] == f"Report: {paths.REPORT}"
    first = [path.read_bytes() for path in (paths.SUMMARY, paths.REPORT, paths.FORGETTING)]
    run_stage()
    assert first == [path.read_bytes() for path in (paths.SUMMARY, paths.REPORT, paths.FORGETTING)]


def broken_score() -> None:
    file = Path("results/strange/scores.json")
    scores = json.loads(file.read_text())
    scores["scores"]["task0"]["rgb"]["plain.png"][0] = float("nan")
    scores["scores"]["task1"]["rgb"]["plain.png"][1] = float("nan")
    file.write_text(json.dumps(scores))


def lacking_task() -> None:
    file = Path("results/strange/scores.json")
    scores = json.loads(file.read_text())
    del scores["scores"]["task1"]
    file.write_text(json.dumps(scores))


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (broken_score, NumericError, r"strange, task1: .*plain\.png"),
        (lacking_task, DataError, r"results/strange/scores\.json .*task1"),
        (lambda: Path("results/first/scores.json").unlink(), DataError, r"results/first/scores\.json is missing"),
        (lambda: Path("results/first/1-clean.png").unlink(), DataError, r"results/first/1-clean\.png is missing"),
        (lambda: Path("results/first/1-clean.png").write_bytes(b"GIF89a"), DataError, r"1-clean\.png is damaged"),
        (lambda: Path("masks/task1.safetensors").unlink(), DataError, r"masks/task1\.safetensors is missing"),
        (lambda: Path("memory/task1.safetensors").unlink(), DataError, r"memory/task1\.safetensors is missing"),
        (lambda: Path("plots/loss/task1.csv").unlink(), DataError, r"plots/loss/task1\.csv is missing"),
        (lambda: Path("plots/loss/task1.csv").write_text("epoch,lr\n"), DataError, r"task1\.csv is damaged"),
        (
            lambda: Path("plots/loss/task1.csv").write_text("epoch,lr,supervised\n1,1,nan\n"),
            NumericError,
            r"task1\.csv: a loss",
        ),
        (lambda: paths.RECORDED.unlink(), DataError, r"metrics/recorded\.json is missing"),
        (lambda: paths.RECORDED.write_text("{"), DataError, r"metrics/recorded\.json is no JSON"),
        (
            lambda: write_recorded({"runs": [{"label": "NR", "strategy": "nr", "seed": 0}]}),
            DataError,
            r"metrics/recorded\.json .*runs\.0\.name",
        ),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    project: Path, spoil: Any, kind: type[Exception], message: str
) -> None:
    spoil()
    with pytest.raises(kind, match=message) as raised:
        run_stage()
    assert len(str(raised.value).splitlines()) <= 2
    assert not any(path.exists() for path in (paths.SUMMARY, paths.REPORT, paths.FORGETTING))


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setattr(console, "out", Console(width=120, highlight=False, soft_wrap=True))
    terminal.show(Path())
    return capsys.readouterr().out.splitlines()


def test_the_terminal_shows_the_rows_and_names_the_protocol(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recorded(record(("NR without SC", 0, 1.0), ("NR without SC", 1, 2.0), ("SI", 0, -2.0), ("SI", 1, -4.0)))
    run_stage()
    capsys.readouterr()
    lines = shown(monkeypatch, capsys)
    rows = {cells[0]: cells[1:] for line in lines if len(cells := [cell.strip() for cell in line.split("│")[1:-1]]) > 1}
    assert rows["do nothing"] == ["10.00", "20.00", "15.00", "0.150", "–", "22.00"]
    assert rows["this run (nr)"] == ["26.00", "33.00", "29.50", "0.295", "4.00", "21.50"]
    assert rows["SI*"] == ["23.00", "33.00", "26.50±1.41", "0.295", "4.00±0.00", "21.50±0.00"]
    text = "\n".join(lines)
    assert "* recorded on a <b>machine</b>, 2021-10-11, seeds 0, 1, mean ± standard deviation" in text
    assert "matlab-y: Y of BT.601" in text
    assert lines[-1] == f"Report: {paths.REPORT}"


def test_the_table_fits_a_hundred_columns(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recorded(record(("NR without SC", 0, 1.0), ("NR without SC", 1, 2.0)))
    run_stage()
    capsys.readouterr()
    lines = shown(monkeypatch, capsys)
    assert max(len(line) for line in lines if "│" in line) <= 100


def test_another_profiles_runs_are_not_in_the_terminal_either(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recorded(record(("SI", 0, -2.0)))
    run_stage()
    write_params(data=PARAMS["data"] | {"rains_per_photo": 5})
    capsys.readouterr()
    text = "\n".join(shown(monkeypatch, capsys))
    assert "SI*" not in text
    assert "of other parameters" in text


def test_without_a_summary_show_says_what_to_run(project: Path) -> None:
    with pytest.raises(DataError, match=r"metrics/summary\.json is missing. Run `dvc repro`"):
        terminal.show(Path())


def test_an_empty_record_fits_nothing_and_breaks_nothing() -> None:
    assert Recorded().by_label == {}
