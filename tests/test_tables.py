"""The runs of the tables as changes of params.yaml, and the tables, against numbers worked by hand."""

from __future__ import annotations

import csv
import multiprocessing
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from derain import cli
from derain import params as parameters
from derain.evaluation.summary import after_of_csv, forgetting_csv, profile
from derain.params import Params
from derain.studies import experiments, panels, variants
from derain.studies.recorded import Recorded, RecordedRun, read_recorded, record
from derain.studies.rows import Table, text
from derain.studies.tables import as_markdown, tables
from derain.types import DataError, ParamsError
from experiments.run import named

ROOT = Path(__file__).resolve().parent.parent
PARAMS = parameters.load(ROOT / "params.yaml")
CONTENT = PARAMS.content
VARIANTS = variants.catalogue(PARAMS)
PROFILES = [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))]


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_every_variant_of_every_profile_is_allowed(file: Path, tmp_path: Path) -> None:
    params = parameters.load(file)
    assert set(variants.groups(params)) >= {"table1", "table2", "table3", "table4", "table5", "strategies", "orders"}
    for variant in variants.catalogue(params).values():
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(variant.seeded(3).content))
        assert parameters.check(tmp_path / "params.yaml") == variant.seeded(3)
    assert params == parameters.load(file), "a variant is a copy"


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_dvc_makes_of_the_overrides_what_the_variant_says(file: Path, tmp_path: Path) -> None:
    """By the very function that `dvc exp run -S` calls."""
    params = parameters.load(file)
    for name, variant in variants.catalogue(params).items():
        if name.count("-") > 3:
            continue  # of the orders the shortest do
        changed = tmp_path / "changed.yaml"
        changed.write_text(yaml.safe_dump(params.content, sort_keys=False))
        apply_overrides(changed, list(variants.overrides(params.content, variant.seeded(7).content)))
        assert parameters.load(changed) == variant.seeded(7), name


@pytest.mark.parametrize(
    ("value", "override"),
    [
        ("null", '+key="null"'),
        ("3", '+key="3"'),
        ("1e-5", '+key="1e-5"'),
        ("a folder/of mine, {really}", '+key="a folder/of mine, {really}"'),
        ('"quoted"', '+key="\\"quoted\\""'),
        ("https://example.org/a.zip?x=1", '+key="https://example.org/a.zip?x=1"'),
        (None, "+key=null"),
        (True, "+key=true"),
        (1e-5, "+key=1e-05"),
        ([1, "two"], "+key=[1, two]"),
    ],
)
def test_values_come_through_the_command_line_as_they_are(value: Any, override: str, tmp_path: Path) -> None:
    assert list(variants.overrides({}, {"key": value})) == [override]
    file = tmp_path / "params.yaml"
    file.write_text("other: 1\n")
    apply_overrides(file, [override])
    assert parameters.content(file) == {"other": 1, "key": value}


def test_all_train_for_as_many_steps_on_the_same_tests() -> None:
    def steps(params: Params) -> int:
        assert params.train.steps_per_epoch
        return params.train.epochs * params.train.steps_per_epoch * len(params.tasks)

    assert {steps(v.params) for name, v in VARIANTS.items() if not name.endswith("-twice")} == {4 * 600}
    assert all(variant.params.tests == PARAMS.tests for variant in VARIANTS.values())


def test_the_orders_are_all_of_them_and_the_papers_other_one_is_among_them() -> None:
    orders = [[task.dataset for task in v.params.tasks] for v in variants.groups(PARAMS)["orders"]]
    assert len(orders) == 48
    assert len({tuple(order) for order in orders}) == 24
    [order] = {tuple(t.dataset for t in v.params.tasks) for v in variants.groups(PARAMS)["table5"]}
    assert order == ("heavy", "light", "varied", "medium"), "Rain100H, Rain100L, Rain14000, Rain800 (Sec. 4.5)"


def test_the_stream_twice_goes_on_from_its_end() -> None:
    tasks = VARIANTS["nr-rank-free-twice"].params.tasks
    sets = [task.dataset for task in PARAMS.tasks]
    assert [task.dataset for task in tasks] == 2 * sets
    assert [task.key for task in tasks] == list("01234567")
    assert VARIANTS["nr-rank-free-twice"].params.sections["nr"]["rank"] == "free"


def test_a_name_that_is_none_is_told_with_those_that_are() -> None:
    once = ["si", "nr-without-sc", "nr-without-kd", "nr"]
    assert [variant.name for variant in named(PARAMS, ["table3", "nr"])] == once
    with pytest.raises(ParamsError, match=r"'nope' is no run.*table1, .*alone-heavy"):
        named(PARAMS, ["nope"])


def made(name: str, seed: int, level: float) -> RecordedRun:
    """A run whose PSNR is `level` on every set after its last task, and 1 dB less for each task before it."""
    params = VARIANTS[name].params
    tests = list(params.tests)

    def of(value: float) -> dict[str, Any]:
        return {"psnr": dict.fromkeys(tests, value), "ssim": dict.fromkeys(tests, value / 100)}

    def means(value: float) -> dict[str, Any]:
        both = {"psnr": value, "ssim": value / 100}
        return {**of(value), "average": both, "unseen": both}

    last = len(params.tasks) - 1
    many = {"forgetting": {"psnr": 1.5, "ssim": 0.1}, "backward_transfer": {"psnr": -1, "ssim": 0}} if last else {}
    return RecordedRun.model_validate(
        {
            "name": name,
            "label": VARIANTS[name].label,
            "strategy": params.strategy,
            "settings": params.sections[params.strategy],
            "changes": [],
            "seed": seed,
            "commit": "1234567",
            "date": "2021-10-11",
            "after": {f"{task.name}: {task.dataset}": of(level - last + k) for k, task in enumerate(params.tasks)},
            "summary": {
                "strategy": params.strategy,
                "protocol": "matlab-y",
                "machine": "a machine",
                **means(level),
                **many,
                "consolidated": {task.name: 0.5 for task in params.tasks},
                "free": 0.25,
                "stored_bytes": 1234,
                "rgb": {**means(level - 1), "protocol": "rgb"},
                "input": {**means(20.0), "rgb": means(19.0)},
            },
        }
    )


def record_of(*runs: RecordedRun) -> Recorded:
    return Recorded(profile=profile(PARAMS), runs=list(runs))


def tables_of(*runs: RecordedRun) -> dict[str, Table]:
    return {table.title.partition(":")[0]: table for table in tables(PARAMS, record_of(*runs))}


def names(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def cells(table: Table, label: str) -> dict[str, str]:
    [row] = [row for row in table.rows if row.label == label]
    return dict(zip(names(table), map(text, row.cells), strict=True))


def test_a_table_has_means_and_spreads_and_doing_nothing() -> None:
    table = tables_of(
        *(made("nr", seed, 26.0 + seed) for seed in (0, 2)),
        *(made(name, seed, 25.0) for name in ("si", "mix") for seed in (0, 1, 2)),
    )["Table 1, ours"]
    assert [row.label for row in table.rows] == ["do nothing", "SI", "Mix", "NR"]
    assert cells(table, "do nothing")["heavy"] == "20.00 / 0.200"
    assert cells(table, "NR")["unseen"] == "27.00 ± 1.41 / 0.270"
    assert cells(table, "SI")["forgetting (dB)"] == "1.50 ± 0.00"
    assert cells(table, "Mix")["forgetting (dB)"] == "–"
    [note] = table.notes
    expected = (
        "matlab-y",
        "600 optimizer steps a task, 2,400 for one set alone and for Mix",
        "seeds 0, 2, mean",
        "a machine",
    )
    assert all(part in note for part in expected), "seed 1, which NR has not got, is left out"
    assert "heavy (rendered)" in note


def test_the_papers_numbers_stand_apart_with_its_misprints_marked() -> None:
    both = tables_of(made("nr", 0, 26.0), made("alone-heavy", 0, 25.0))
    assert cells(both["Table 2, the paper’s"], "Rain800 alone")["Rain14000"] == "36.34 / 0.973 [a]"
    assert any(note.startswith("[a] A misprint") for note in both["Table 2, the paper’s"].notes)
    for title, table in both.items():
        assert ("Rain100H" in names(table)) == (title in {"Table 1, the paper’s", "Table 2, the paper’s"})


def test_table_4_goes_by_the_order_of_the_tasks() -> None:
    table = tables_of(made("nr", 0, 26.0), made("nr", 1, 28.0))["Table 4, ours"]
    assert [row.label for row in table.rows] == ["do nothing", *(f"after {t.dataset}" for t in PARAMS.tasks)]
    assert [text(row.cells[0]) for row in table.rows[1:]] == [
        f"{level:.2f} ± 1.41 / {level / 100:.3f}" for level in (24, 25, 26, 27)
    ]


def test_seeds_that_no_two_rows_share_and_rows_of_several_machines_are_told() -> None:
    [note] = tables_of(made("nr", 0, 26.0), made("si", 1, 25.0))["Table 1, ours"].notes
    assert "SI seed 1; NR seed 0" in note
    other = made("nr", 1, 27.0)
    other = other.model_copy(update={"summary": other.summary.model_copy(update={"machine": "another"})})
    runs = [made("nr", 0, 26.0), other, made("si", 0, 25.0), made("si", 1, 25.0)]
    [note] = tables_of(*runs)["Table 1, ours"].notes
    assert "a machine and another (the spread holds their difference: NR)" in note
    assert "seeds 0, 1, mean" in note


def test_the_table_beside_a_run_is_of_the_seeds_that_its_rows_share() -> None:
    runs = [made("nr", 0, 26.0), made("nr", 1, 30.0), made("si", 0, 25.0)]
    beside = record_of(*runs).beside(PARAMS)
    assert beside is not None
    assert beside.seeds == {"NR": [0], "SI": [0]}


def test_a_table_needs_a_run_of_its_own() -> None:
    assert "Table 2, ours" not in tables_of(made("nr", 0, 26.0), made("si", 0, 26.0))
    assert "Table 2, ours" in tables_of(made("nr", 0, 26.0), made("alone-heavy", 0, 26.0))


def test_orders_are_summed_up_over_those_that_all_strategies_ran() -> None:
    runs = [made("nr", 0, 26.0), made("si", 0, 24.0), made("nr-light-varied-medium-heavy", 0, 29.0)]
    runs += [made("nr-heavy-light-varied-medium", 0, 28.0), made("si-heavy-light-varied-medium", 0, 22.0)]
    table = tables_of(*runs)["Orders of the stream"]
    alone = cells(table, "light → varied → medium → heavy")
    assert (alone["average (dB), NR"], alone["average (dB), SI"]) == ("29.00", "–")
    assert cells(table, "mean over 2 orders ± deviation")["average (dB), NR"] == "27.00 ± 1.41"
    assert cells(table, "highest")["average (dB), SI"] == "24.00"


def test_a_study_stands_beside_the_plain_run_and_not_alone() -> None:
    assert "NR with other values" not in tables_of(made("nr", 0, 26.0))
    table = tables_of(made("nr", 0, 26.0), made("nr-rank-free", 0, 27.0))["NR with other values"]
    assert [row.label for row in table.rows] == ["do nothing", "NR", "nr.rank = free"]
    assert cells(table, "nr.rank = free")["stored bytes"] == "1,234"
    assert cells(table, "do nothing")["free weights"] == "–"


def test_markdown_has_a_cell_a_column() -> None:
    runs = [made(name, seed, 25.0 + seed) for name in VARIANTS for seed in range(2)]
    page = as_markdown(tables_of(*runs).values(), Path("params.yaml"), Path("metrics/recorded.json"))
    for block in page.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1
    assert page.count("\n## ") == 15


@pytest.mark.parametrize(
    ("profile", "record", "page"),
    [
        ("params.yaml", "metrics/recorded.json", "docs/tables.md"),
        ("profiles/pairs.yaml", "metrics/recorded-pairs.json", "docs/tables-pairs.md"),
    ],
)
def test_the_tables_in_the_docs_are_those_of_the_record(profile: str, record: str, page: str) -> None:
    params, recorded = parameters.load(ROOT / profile), read_recorded(ROOT / record)
    assert recorded.fits(params)
    made_anew = as_markdown(tables(params, recorded.of_today(params)), Path(profile), Path(record))
    assert (ROOT / page).read_text() == made_anew, f"derain tables --params {profile} --recorded {record} -o {page}"


def test_a_record_of_another_profile_is_told_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "record.json"
    record(path, PARAMS, [made("nr", 0, 26.0)])
    monkeypatch.chdir(ROOT)
    assert cli.main(["tables", "--recorded", str(path)]) == 0
    assert "## Table 1, ours" in capsys.readouterr().out
    assert cli.main(["tables", "--recorded", str(path), "--params", "profiles/pairs.yaml"]) == 0
    printed = capsys.readouterr()
    assert "## Table 1, ours" not in printed.out
    assert "other parameters than profiles/pairs.yaml" in printed.err


def test_the_profile_of_real_pairs_is_the_middle_one_but_for_its_size_and_tests() -> None:
    middle, pairs = (parameters.content(ROOT / f"profiles/{name}.yaml") for name in ("photos", "pairs"))
    assert [change.partition("=")[0] for change in variants.overrides(middle, pairs)] == [
        "threads",
        "data.test_share",
        "+datasets.rain100h",
        "+datasets.rain100l",
        "+tests.rain100h",
        "+tests.rain100l",
        "train.steps_per_epoch",
    ]


def test_the_studies_pictures_hold_the_means() -> None:
    runs = [made("nr", 0, 26.5), made("nr", 1, 27.0), made("nr-alpha_l-0.002", 0, 25.0), made("nr-tau_l-30", 0, 24.0)]
    runs += [
        made("nr-rank-free", 0, 25.5),
        made("si", 0, 23.0),
        made("nr-channels-8", 0, 22.0),
        made("si-channels-8", 0, 21.0),
    ]
    runs += [made("nr-rank-all-twice", 0, 28.0), made("nr-rank-free-twice", 0, 29.0), made("si-twice", 0, 28.5)]
    pictures = panels.section(PARAMS, record_of(*runs))
    assert pictures is not None
    labels = re.findall(r'aria-label="([^"]+)"', pictures)
    assert "average PSNR (dB) by nr.alpha_l: 25.00, 26.50" in labels
    assert "average PSNR (dB) by nr.tau_l: 26.50, 24.00" in labels
    assert "average PSNR (dB) by nr.rank: 26.50, 25.50" in labels
    assert "average PSNR (dB) by channels; SI grey: 22.00, 26.50; 21.00, 23.00" in labels
    axes = [
        re.findall(r'x="34" [^>]*>([\d.]+)<', svg)
        for svg in re.findall(r'aria-label="average PSNR \(dB\) by nr\..*?</svg>', pictures, re.S)
    ]
    assert axes == [["24", "25", "26"]] * 3, "one scale, so that small differences look small"
    learned = ", ".join(f"{level:.2f}" for level in range(21, 29))
    assert any(label.startswith(f"PSNR on the set just learned (dB) rank all; SI grey: {learned}") for label in labels)
    assert panels.section(PARAMS, record_of(made("nr", 0, 26.0))) is None


def test_the_studies_csv_has_a_row_a_run_and_study() -> None:
    runs = [made("nr", 0, 26.0), made("nr", 1, 27.0), made("mix", 0, 30.0)]
    rows = list(csv.DictReader(panels.table(PARAMS, record_of(*runs)).decode().splitlines()))
    assert {row["study"] for row in rows if row["run"] == "Mix"} == {"table1", "strategies"}
    assert [row["psnr"] for row in rows if (row["study"], row["run"]) == ("table4", "NR")] == ["26.0", "27.0"]
    assert {row["forgetting"] for row in rows if row["run"] == "Mix"} == {""}


def test_the_orders_picture_is_of_means_by_what_comes_first_and_last() -> None:
    orders = {"": 26.0, "-light-varied-medium-heavy": 21.0, "-heavy-light-medium-varied": 24.0}
    runs = [made(f"nr{order}", 0, level) for order, level in orders.items()]
    runs += [made(f"si{order}", 0, level + 1) for order, level in orders.items()]
    runs.append(made("nr-light-heavy-medium-varied", 0, 99.0))  # which SI has not run
    pictures = panels.section(PARAMS, record_of(*runs))
    assert pictures is not None
    first, last = re.findall(r'aria-label="(average[^"]+)"', pictures)
    assert first == "average PSNR (dB) by the set that comes first, 3 orders; SI grey: 25.00, 21.00; 26.00, 22.00"
    assert last == (
        "average PSNR (dB) by the set that comes last, 3 orders; SI grey: 21.00, 24.00, 26.00; 22.00, 25.00, 27.00"
    )
    assert ">heavy<" in pictures, "the sets are named under the axis"


def test_a_record_is_read_back_and_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics/recorded.json"
    record(path, PARAMS, [made("si", 0, 25.0), made("nr", 1, 26.0)])
    record(path, PARAMS, [made("nr", 1, 27.0), made("nr", 0, 26.0)])
    runs = read_recorded(path).runs
    assert runs == [made("nr", 0, 26.0), made("nr", 1, 27.0), made("si", 0, 25.0)]
    assert len(path.read_text().splitlines()[-5:]) == 5
    assert sum('"name": "' in line for line in path.read_text().splitlines()) == 3, "a run is a line"
    assert read_recorded(path).fits(PARAMS)


def test_a_record_of_another_profile_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "recorded.json"
    record(path, PARAMS, [made("si", 0, 25.0)])
    before = path.read_bytes()
    other = parameters.of({**CONTENT, "train": {**CONTENT["train"], "lr": 0.5}})
    with pytest.raises(DataError, match=r"recorded\.json holds runs of another profile.*Move it away"):
        record(path, other, [made("nr", 0, 1.0)])
    assert path.read_bytes() == before


def test_runs_with_other_values_of_their_strategy_are_not_of_today() -> None:
    recorded = record_of(made("nr", 0, 26.0), made("si", 0, 25.0))
    assert recorded.of_today(PARAMS) == recorded
    changed = parameters.of({**CONTENT, "nr": {**CONTENT["nr"], "alpha_l": 0.004}})
    assert [run.name for run in recorded.of_today(changed).runs] == ["si"]
    longer = parameters.of({**CONTENT, "train": {**CONTENT["train"], "epochs": 200}})
    assert recorded.of_today(longer).runs == []


@pytest.mark.parametrize("spoil", ["one task", "a set that is not tested"])
def test_studies_of_unusual_streams_have_no_pictures_of_what_is_undefined(spoil: str) -> None:
    other = {"stream": {}} if spoil == "one task" else {"tests": {"heavy": "learned", "unseen": "unseen"}}
    runs = []
    for name in ("nr", "nr-tau_l-30", "nr-channels-8", *panels._TWICE):
        run = made(name, 0, 26.0)
        if spoil == "one task":
            run = run.model_copy(update={"summary": run.summary.model_copy(update={"forgetting": None})})
        else:
            after = {row: level.model_copy(update={"psnr": {"heavy": 1.0}}) for row, level in run.after.items()}
            run = run.model_copy(update={"after": after})
        runs.append(run)
    pictures = panels.section(parameters.of(CONTENT | other), Recorded(runs=runs))
    assert pictures is not None
    assert "nan" not in pictures
    assert ("forgetting" in pictures) == (spoil != "one task")
    assert "set just learned" not in pictures or spoil == "one task"


def test_a_union_in_the_stream_is_part_of_mix_and_repeated_sets_have_no_orders() -> None:
    datasets = CONTENT["datasets"]
    union = {"source": "mix", "of": [datasets["medium"], datasets["light"]]}
    params = parameters.of(CONTENT | {"datasets": datasets | {"both": union}, "task0": {"dataset": "both"}})
    mixed = variants.catalogue(params)["mix"].params.content["datasets"]["mixed"]
    assert mixed["source"] == "mix"
    assert len(mixed["of"]) == 5
    assert "orders" not in variants.groups(parameters.of(CONTENT | {"task0": {"dataset": "light"}}))


def _record_one(path: Path, seed: int) -> None:
    record(path, PARAMS, [made("nr", seed, 25.0)])


def test_several_processes_record_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "recorded.json"
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        pool.starmap(_record_one, [(path, seed) for seed in range(12)])
    assert [run.seed for run in read_recorded(path).runs] == list(range(12))


@pytest.mark.parametrize("damaged", ["after,test,psnr,ssim\ntask0: a,b,x,0.5\n", "after,test,psnr,ssim\na,b\n"])
def test_a_damaged_matrix_is_told(damaged: str) -> None:
    with pytest.raises(DataError, match=r"forgetting\.csv is damaged"):
        after_of_csv(damaged)


def git(folder: Path, *words: str) -> str:
    person = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    return subprocess.run(["git", *person, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_an_experiment_is_of_todays_code_where_dvc_would_run_nothing_again(tmp_path: Path) -> None:
    training, page = "src/derain/training/learn.py", "src/derain/report/page.py"
    for name in ("dvc.yaml", "params.yaml", "metrics/summary.json", training, page):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/forgetting.csv").write_bytes(forgetting_csv(made("nr", 0, 26.0).after))
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    for message in ("The project", "An experiment"):
        git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", message)
    git(tmp_path, "update-ref", f"refs/exps/12/{38 * '3'}/nr-seed0", "HEAD")
    (tmp_path / page).write_text("# changed")
    [run] = experiments.of_this_clone(tmp_path, PARAMS).runs
    assert (run.name, run.after) == ("nr", made("nr", 0, 26.0).after)
    (tmp_path / training).write_text("# changed")
    assert experiments.of_this_clone(tmp_path, PARAMS) == (
        [],
        [f"the experiment nr-seed0 is left out: it was made by other code ({training})."],
    )
    code = experiments.code_of(ROOT, PARAMS)
    assert {"src/derain/backbones/prenet.py", "src/derain/strategies/nr.py"} <= set(code)
    assert all((ROOT / path).exists() for path in code)
