"""What users type, end to end, on a small copy of the project: repro, experiments, queue, remotes, bad parameters."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dvc.repo import Repo

from derain import params, plugins
from derain.compute.hardware import Hardware
from derain.data.pack import Pack
from derain.disk import artifacts
from derain.evaluation import summary
from derain.report import results
from derain.stream import learn_stream
from derain.studies import variants
from derain.studies.recorded import Recorded, RecordedRun, read_recorded, run_of
from derain.studies.tables import as_markdown, tables
from experiments.run import named
from tests.conftest import by_role

ROOT = Path(__file__).resolve().parent.parent


class Project:
    """A copy of the project under git and DVC, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, fails: bool = False) -> str:
        """Runs a command there; returns what it printed. `fails` says that it must not succeed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "DVC_GLOBAL_CONFIG_DIR": str(self.folder.parent / "global"),
            "DVC_SYSTEM_CONFIG_DIR": str(self.folder.parent / "system"),
            "DVC_SITE_CACHE_DIR": str(self.folder.parent / "site"),
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(
            command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout

    def dvc(self, *command: str, fails: bool = False) -> str:
        return self.run("dvc", *command, fails=fails)

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", message)

    def copy(self, folder: Path) -> Project:
        shutil.copytree(self.folder, folder / "project", symlinks=True)
        return Project(folder / "project")

    def summary(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "metrics/summary.json").read_text())
        return content

    def metadata(self, file: str) -> dict[str, Any]:
        return artifacts.load(self.folder / file)[1]


def ran(output: str) -> list[str]:
    """The stages that DVC ran, in order."""
    return re.findall(r"Running stage '([^']+)'", output)


TINY = {
    "threads": 1,
    "precision": "fp32",
    "data": {"photos": "builtin", "test_share": 0.2, "rains_per_photo": 1},
    "stream": {"1": {"dataset": "light", "after": "0"}},
    "tests": {"heavy": "learned", "light": "learned", "unseen": "unseen"},
    "prenet": {"channels": 4, "stages": 2, "blocks": 1},
}
TINY_TRAIN = {"epochs": 2, "steps_per_epoch": 1, "batch": 2, "patch": 32}


def project_files() -> list[str]:
    """The project's files, as git tells them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True)
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def copy_of_the_project(folder: Path, without: tuple[str, ...] = ()) -> Project:
    """A copy under git, committed."""
    for name in project_files():
        if not name.startswith(without or "/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    project = Project(folder)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("git", "config", "user.email", "test@example.org")
    project.run("git", "config", "user.name", "Test")
    project.commit("The project")
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project at a tiny size, committed, after `dvc repro`; tests copy it and never change it."""
    project = copy_of_the_project(tmp_path_factory.mktemp("dvc") / "project", without=("tests/", "dvc.lock"))
    content = yaml.safe_load((ROOT / "params.yaml").read_text()) | TINY
    content["train"] |= TINY_TRAIN
    content["nr"]["samples"] = 4
    content["datasets"] = {name: content["datasets"][name] for name in ("heavy", "medium", "light", "unseen")}
    (project.folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    project.commit("A tiny profile")
    project.dvc("repro")
    project.commit("Its results")
    return project


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    return finished.copy(tmp_path)


def stages(folder: Path) -> dict[str, Any]:
    with Repo(str(folder)) as repo:
        return {stage.addressing: stage for stage in repo.index.stages}


def test_the_demo_has_the_stages_of_the_paper() -> None:
    names = list(stages(ROOT))
    sets = ["heavy", "medium", "varied", "light", "unseen"]
    expected = ["validate", *(f"download@{name}" for name in sets), "train_task0", "sc_mask0"]
    expected += [f"{stage}@{task}" for stage in ("kd_task", "sc_mask") for task in (1, 2, 3)]
    expected += [*(f"eval@{name}" for name in sets), "report"]
    assert sorted(names) == sorted(expected)


def test_the_recorded_results_are_those_of_the_code_as_it_is(tmp_path: Path) -> None:
    """dvc.lock knows today's code and parameters; what is recorded is of the same tests and values."""
    project = copy_of_the_project(tmp_path / "project")
    output = project.dvc("repro", "--allow-missing", "--dry")
    assert ran(output) == []
    settings, recorded = params.load(ROOT / "params.yaml"), read_recorded(ROOT / "metrics/recorded.json")
    assert recorded.fits(settings)
    plain = recorded.of(variants.STRATEGIES).runs
    assert {run.name for run in plain} == set(variants.STRATEGIES)
    nothing = summary.read(ROOT / "metrics/summary.json").input
    for run in plain:
        assert run.summary.input == nothing
        assert run.settings | run_changes(run) == settings.sections[run.strategy] | run_changes(run), run.label


def run_changes(run: RecordedRun) -> dict[str, Any]:
    """What a variant changes in its strategy's own section."""
    changed = (change.split("=") for change in run.changes if change.startswith(f"{run.strategy}."))
    return {key.partition(".")[2]: yaml.safe_load(value) for key, value in changed}


def test_the_readme_is_finished_and_its_links_lead_somewhere() -> None:
    names = ("README.md", "CONTRIBUTING.md", "experiments/README.md", *map(str, sorted(Path("docs").glob("*.md"))))
    for file in (ROOT / name for name in names):
        text = file.read_text()
        assert "@@" not in text
        for link in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
            assert (file.parent / link).exists(), f"{file.name}: {link}"


def leaves(value: Any, path: str = "") -> list[str]:
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in leaves(item, f"{path}.{key}" if path else key)]
    return [path]


PROFILES = ["params.yaml", *(f"profiles/{path.name}" for path in sorted((ROOT / "profiles").glob("*.yaml")))]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_parameter_is_declared_by_a_stage(profile: str, tmp_path: Path) -> None:
    """Changing any leaf of params.yaml makes a stage stale, so that no result is taken for another's."""
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    shutil.copy2(ROOT / "dvc.yaml", tmp_path)
    shutil.copy2(ROOT / profile, tmp_path / "params.yaml")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    declared = {
        name
        for address, stage in stages(tmp_path).items()
        if address not in {"validate", "report"}  # which look at all of it
        for dependency in stage.params
        for name in dependency.params
    }
    content = yaml.safe_load((tmp_path / "params.yaml").read_text())
    # The sections of strategies that are not selected; a part of the commands themselves, whose change DVC sees too.
    unused = {*plugins.names("strategies"), "launch"} - {content["strategy"]}
    missing = [
        leaf
        for leaf in leaves(content)
        if leaf.split(".")[0] not in unused
        and not any(leaf == name or leaf.startswith(f"{name}.") for name in declared)
    ]
    assert not missing


def test_repro_makes_everything_once_and_leaves_git_clean(finished: Project) -> None:
    for kind, task in itertools.product(("models", "traces", "masks", "memory"), ("task0", "task1")):
        assert finished.metadata(f"{kind}/{task}.safetensors")["sha256"]
    assert (finished.folder / "report/index.html").stat().st_size > 10_000
    assert "up to date" in finished.dvc("repro")
    assert finished.run("git", "status", "--short") == ""


def test_artifacts_say_what_made_them(finished: Project) -> None:
    model, mask = (finished.metadata(f"{kind}/task1.safetensors") for kind in ("models", "masks"))
    for made in (model, mask):
        assert (made["task"], made["dataset"], made["strategy"], made["seed"]) == ("1", "light", "nr", 0)
        assert (made["precision"], made["threads"], made["device"]) == ("fp32", 1, "cpu")
        assert {"torch", "numpy"} <= made["libraries"].keys()
    before, trace = (finished.metadata(f"{kind}/task0.safetensors") for kind in ("models", "traces"))
    assert "strategy" not in {*before, *trace}, "the first task is the same for all"
    assert model["strategy_params"]["lambda_kd"] == mask["strategy_params"]["lambda_kd"] == 0.8
    assert model["made_from"]["model"] == before["sha256"]
    assert mask["made_from"]["model"] == model["sha256"]
    assert model["made_from"]["memory"] == finished.metadata("memory/task0.safetensors")["sha256"]
    assert mask["made_from"]["trace"] == finished.metadata("traces/task1.safetensors")["sha256"]
    assert mask["P(n)"] == pytest.approx(0.220234, abs=1e-6)
    assert 0 <= mask["fraction_newly_consolidated"] < mask["fraction_consolidated"] < 1
    tensors, _ = artifacts.load(finished.folder / "masks/task1.safetensors")
    weights, _ = artifacts.load(finished.folder / "models/task1.safetensors")
    assert {name: part.shape for name, part in tensors.items()} == {name: part.shape for name, part in weights.items()}
    assert all(part.dtype == torch.bool for part in tensors.values())


def test_the_pipeline_equals_the_stream_in_one_process(finished: Project, hardware: Hardware) -> None:
    settings = params.load(finished.folder / "params.yaml")
    packs = {name: Pack.open(finished.folder / "data" / name, "train") for name in ("heavy", "light")}
    for task, carried in learn_stream(settings, by_role(packs), hardware):
        weights, _ = artifacts.load(finished.folder / f"models/{task.name}.safetensors")
        mask, _ = artifacts.load(finished.folder / f"masks/{task.name}.safetensors")
        for name, weight in carried.weights.items():
            assert torch.equal(weight, weights[name]), f"{task.name} {name}"
            assert torch.equal(carried.mask[name], mask[name]), f"{task.name} {name}"


def test_another_folder_gives_the_same_bytes(finished: Project, tmp_path: Path) -> None:
    clone = Project(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", finished.folder, clone.folder], check=True)
    clone.dvc("repro")
    assert clone.run("git", "status", "--short") == "", "dvc.lock and metrics/summary.json hold the same checksums"


def test_a_changed_value_reruns_what_uses_it(project: Project) -> None:
    output = project.dvc("exp", "run", "-S", "nr.alpha_l=0.01")
    assert ran(output)[0] == "validate"
    assert {"sc_mask0", "kd_task@1", "report"} <= set(ran(output))
    assert not {"train_task0", "download@heavy"} & set(ran(output))
    assert project.metadata("masks/task0.safetensors")["P(n)"] == pytest.approx(
        (1 - 0.01 / (1 - 2.718281828 ** (-0.1))) * (1 - 1 / 2.718281828) + 0.01, abs=1e-6
    )
    shown = json.loads(project.dvc("exp", "show", "--json"))
    assert "0.01" in json.dumps(shown)


def test_strategies_are_compared_by_name(project: Project) -> None:
    project.dvc("exp", "run", "-n", "nr")
    output = project.dvc("exp", "run", "-n", "si", "-S", "strategy=si")
    assert "train_task0" not in ran(output), "the first task is shared"
    assert project.metadata("masks/task1.safetensors")["fraction_consolidated"] == 0
    difference = json.loads(project.dvc("metrics", "diff", "nr", "si", "--json"))
    changed = difference["metrics/summary.json"]
    assert changed["strategy"]["new"] == "si"
    assert changed["psnr.light"]["diff"] != 0
    assert "input.psnr.light" not in changed, "doing nothing is the same"
    assert "si" in project.dvc("exp", "show", "--md")
    project.dvc("plots", "diff", "nr", "si", "--out", "compared")
    page = (project.folder / "compared/index.html").read_text()
    assert "forgetting" in page
    assert "task1: light" in page


def test_small_numbers_are_numbers(project: Project) -> None:
    project.dvc("exp", "run", "-S", "train.lr=1e-5")
    assert project.metadata("models/task0.safetensors")["train"]["lr"] == 1e-5


def test_a_line_more_is_a_task_more_and_earlier_ones_stay(project: Project) -> None:
    file = project.folder / "params.yaml"
    line = "  '2':\n    dataset: medium\n    after: '1'\n"
    file.write_text(re.sub(r"(stream:\n(?:  .*\n)+)", lambda match: match[1] + line, file.read_text()))
    output = project.dvc("repro")
    assert {"kd_task@2", "sc_mask@2", "report"} <= set(ran(output))
    assert not {"train_task0", "kd_task@1", "sc_mask0", "sc_mask@1", "download@medium"} & set(ran(output))
    assert project.metadata("masks/task2.safetensors")["position"] == 2


def test_a_new_file_of_any_kind_invalidates_nothing_and_a_changed_source_what_uses_it(project: Project) -> None:
    for kind in plugins.KEYS:
        (project.folder / f"src/derain/{kind}/brand_new.py").write_text('"""Of no use to anyone yet."""\n')
    assert set(ran(project.dvc("repro"))) == {"validate"}
    source = project.folder / "src/derain/sources/rendered.py"
    source.write_text(source.read_text() + "# a remark\n")
    again = set(ran(project.dvc("repro")))
    assert again == {"validate", *(stage for stage in again if stage.startswith("download@"))}
    assert "download@heavy" in again


def test_a_stream_starts_from_a_network_in_service(project: Project) -> None:
    for name in ("models", "masks"):
        shutil.copy(project.folder / name / "task1.safetensors", project.folder / f"{name}-in-service.safetensors")
    files = "{model: models-in-service.safetensors, mask: masks-in-service.safetensors}"
    # In the workspace, where the files are: a queued run sees those alone that git knows.
    assert "train_task0" in ran(project.dvc("exp", "run", "-S", f"start={files}"))
    weights, made = artifacts.load(project.folder / "models/task0.safetensors")
    before, _ = artifacts.load(project.folder / "models-in-service.safetensors")
    held, _ = artifacts.load(project.folder / "masks-in-service.safetensors")
    assert made["strategy"] == "nr"
    assert all(torch.equal(weights[name][part], before[name][part]) for name, part in held.items())
    assert any(not torch.equal(weights[name], before[name]) for name in held)
    assert "train_task0" in ran(project.dvc("exp", "run", "-S", "nr.lambda_kd=0.5")), "it is learned under the strategy"
    output = project.dvc("exp", "run", "-S", "start=missing.safetensors", fails=True)
    assert set(ran(output)) <= {"validate"}
    assert "missing.safetensors is missing" in output


def test_tasks_are_added_reordered_and_removed(project: Project) -> None:
    output = project.dvc("exp", "run", "-S", '+stream.2={dataset: medium, after: "1"}')
    assert {"kd_task@2", "sc_mask@2"} <= set(ran(output))
    assert not {"train_task0", "kd_task@1"} & set(ran(output))
    output = project.dvc("exp", "run", "-S", "stream.2.after='0'", "-S", "stream.1.after='2'")
    assert "train_task0" not in ran(output)
    order = [project.metadata(f"models/task{key}.safetensors")["position"] for key in ("0", "2", "1")]
    assert order == [0, 1, 2]
    rows = list(csv.DictReader((project.folder / "plots/forgetting.csv").open()))
    assert len({row["after"] for row in rows}) == 3
    project.dvc("exp", "run", "-S", "~stream.1", "-S", "stream.2.dataset=light")
    assert set(project.summary()["consolidated"]) == {"task0", "task2"}, "leftovers of a removed task are not read"


def test_the_runs_of_the_tables_are_experiments_that_leave_the_workspace_alone(project: Project) -> None:
    """They start from params.yaml as it is; what is there is not run again; tables are those of their artifacts."""
    output = project.run("python", "-m", "experiments.run", "nr-without-kd", "mix", "--seeds", "1")
    assert "$ dvc exp run --temp --name nr-without-kd-seed1 -S seed=1 -S nr.lambda_kd=0.0" in output
    output = project.run("experiments/table3", "--seeds", "1")
    assert "nr-without-kd-seed1: done before" in output
    assert "train_task0" not in ran(output)
    assert project.run("git", "status", "--short") == ""
    project.run("derain", "tables", "-o", "tables.md")
    printed = (project.folder / "tables.md").read_text()
    base, day = params.load(project.folder / "params.yaml"), date.today().isoformat()
    recomputed = []
    for variant in named(base, ["table3", "mix"]):
        project.dvc("exp", "apply", f"{variant.name}-seed1")
        settings = params.load(project.folder / "params.yaml")
        left = results.read(settings, project.folder)
        summed_up = summary.summarize(settings, left.scores, left.masks_facts, left.stored_bytes, left.machine)
        after = summary.after_each_task(settings, left.scores)
        if summed_up.forgetting:
            heavy = [level.psnr["heavy"] for level in after.values()]
            assert summed_up.forgetting.psnr == pytest.approx(heavy[0] - heavy[1], abs=2e-4), "two tasks"
        if variant.name in ("nr-without-kd", "nr"):
            weight = 0 if variant.name == "nr-without-kd" else 0.8
            assert project.metadata("models/task1.safetensors")["strategy_params"]["lambda_kd"] == weight
            unseen = [level["unseen"] for level in summary.matrix(settings, left.scores).values()]
            first, last = (f"{psnr:.2f} / {ssim:.3f} |" for psnr, ssim in unseen)
            assert f"| {variant.label} | {last}" in printed
            if weight:
                assert f"\n| after heavy | {first}" in printed, "Table 4"
                assert f"\n| after light | {last}" in printed
        recomputed.append(run_of(base, variant, 1, "", day, summed_up, after))
    of_artifacts = tables(base, Recorded().joined(base, recomputed))
    assert printed == as_markdown(of_artifacts, Path("params.yaml"), Path("metrics/recorded.json"))
    assert {table.title.partition(",")[0] for table in of_artifacts} >= {"Table 1", "Table 3", "Table 4"}
    assert project.metadata("models/task0.safetensors")["dataset"] == "mixed"
    assert "forgetting" not in project.summary(), "undefined for one task"
    union, part = (Pack.open(project.folder / f"data/{name}", "train") for name in ("mixed", "heavy"))
    assert len(union) == 2 * len(part)


def test_an_experiment_with_other_parameters_is_no_run_of_a_table(project: Project) -> None:
    project.dvc("exp", "run", "--temp", "-n", "nr-seed0", "-S", "nr.alpha_l=0.01")
    assert "nr-seed0 is left out: it was made with another nr" in project.run("derain", "tables")
    assert "$ dvc exp run --temp --name nr-seed0" in project.run(
        "python", "-m", "experiments.run", "nr", "--seeds", "0"
    )
    assert "holds runs of another profile" in project.run("derain", "tables", "--record", fails=True)
    (project.folder / "metrics/recorded.json").unlink()
    assert "metrics/recorded.json: 1 runs" in project.run("derain", "tables", "--record")
    [run] = json.loads((project.folder / "metrics/recorded.json").read_text())["runs"]
    assert (run["name"], run["seed"], run["settings"]["alpha_l"]) == ("nr", 0, 0.008)
    (project.folder / "src/derain/strategies/new.py").write_text("")
    project.run("git", "add", "--all")
    assert "left out" not in project.run("derain", "tables")
    (project.folder / "src/derain/compute/forward.py").open("a").write("# changed\n")
    told = "nr-seed0 is left out: it was made by other code (src/derain/compute/forward.py)"
    assert told in project.run("derain", "tables")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("nr.tau_l=0.5", r"nr\.tau_l: 0\.5 is not allowed.*above nr\.tau_s"),
        ("nr.alpha_l=0.2", r"nr\.alpha_l: 0\.2 is not allowed.*negative"),
        ("nr.alpha_l=.nan", r"nr\.alpha_l.*not allowed"),
        ("train.lr=fast", r"train\.lr: 'fast' is not allowed"),
        ("+nr.alpah_l=0.1", r"nr\.alpah_l: unknown key"),
        ("strategy=nope", r"strategy: no file strategies/nope\.py.*Allowed: .*nr.*si"),
        ("datasets.heavy.kind=havy", r"datasets\.heavy\.kind: 'havy' is no kind of rain. Allowed: heavy"),
        ("tests.light=unseen", r"stream\.1\.dataset: 'light' is learned, so tests\.light must be learned"),
        ("stream.1.dataset=nope", r"stream\.1\.dataset: 'nope' is no data set"),
    ],
)
def test_a_bad_value_stops_before_any_stage(project: Project, override: str, told: str) -> None:
    (project.folder / "models/task0.safetensors").unlink()  # so that there is work to be done
    output = project.dvc("exp", "run", "-S", override, fails=True)
    assert set(ran(output)) <= {"validate"}
    assert re.search(told, " ".join(output.split()))
    assert "Traceback" not in output


def test_a_misspelt_key_is_refused(project: Project) -> None:
    output = project.dvc("exp", "run", "-S", "nr.alpah_l=0.1", fails=True)
    assert "nr.alpah_l" in output
    assert not ran(output)


def test_a_loss_that_is_no_number_stops_with_nothing_written(project: Project) -> None:
    output = project.dvc("exp", "run", "-S", "train.lr=1e30", fails=True)
    assert "not finite" in output
    assert "train.lr" in output
    assert "Traceback" not in output
    assert not list((project.folder / "models").glob("*task0*"))


def test_a_queue_runs_the_code_it_was_queued_with(project: Project) -> None:
    project.dvc("exp", "run", "--queue", "-S", "nr.alpha_l=0.004,0.016")
    source = project.folder / "src/derain/evaluation/summary.py"
    source.write_text("raise SystemExit('the later edit ran')\n")
    project.dvc("queue", "start", "--jobs", "1")
    try:
        deadline = time.monotonic() + 300
        while re.search("Queued|Running", status := project.dvc("queue", "status")):
            assert time.monotonic() < deadline, status
            time.sleep(1)
    finally:
        project.dvc("queue", "stop", "--kill")
    assert status.count("Success") == 2, status
    shown = project.dvc("exp", "show", "--json")
    for value in ("0.004", "0.016"):
        assert value in shown


def test_a_second_clone_goes_on_from_a_remote_without_training_again(project: Project, tmp_path: Path) -> None:
    project.dvc("remote", "add", "--default", "store", str(tmp_path / "remote"))
    project.commit("A remote")
    project.dvc("push")
    clone = Project(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", project.folder, clone.folder], check=True)
    clone.run("git", "config", "user.email", "test@example.org")
    clone.run("git", "config", "user.name", "Test")
    clone.dvc("pull")
    assert ran(clone.dvc("repro")) == []
    output = clone.dvc("exp", "run", "-S", '+stream.2={dataset: medium, after: "1"}')
    assert "kd_task@2" in ran(output)
    assert not {"train_task0", "kd_task@1", "sc_mask0", "sc_mask@1"} & set(ran(output))


def test_a_clone_with_the_cache_at_hand_is_up_to_date(project: Project, tmp_path: Path) -> None:
    project.run("git", "clone", "--quiet", str(project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.dvc("cache", "dir", "--local", str(project.folder / ".dvc/cache"))
    clone.dvc("checkout")
    assert "up to date" in clone.dvc("status")
    assert ran(clone.dvc("repro")) == []


def test_a_merge_conflict_in_dvc_lock_has_the_way_out_of_the_documentation(project: Project) -> None:
    def changed(value: str, branch: str) -> None:
        project.dvc("exp", "run", "-S", value)
        project.commit(f"{value} on {branch}")

    project.run("git", "checkout", "--quiet", "-b", "other")
    changed("train.lr=0.001", "other")
    project.run("git", "checkout", "--quiet", "main")
    project.dvc("checkout")
    changed("nr.alpha_l=0.01", "main")
    said = project.run("git", "merge", "other", fails=True)
    assert "CONFLICT" in said
    assert "in dvc.lock" in said
    assert "in params.yaml" not in said
    (way_out,) = re.findall(r"^(git checkout --ours dvc\.lock.*)$", (ROOT / "docs/reliability.md").read_text(), re.M)
    said = project.run("sh", "-c", way_out)
    assert "train_task0" not in ran(said), "which the other branch has trained"
    assert "up to date" in project.dvc("status")
    assert params.load(project.folder / "params.yaml").train.lr == 0.001
    assert artifacts.load(project.folder / "masks/task0.safetensors")[1]["strategy_params"]["alpha_l"] == 0.01
    assert project.run("git", "status", "--porcelain") == ""


def test_a_zip_without_git_says_what_to_do(tmp_path: Path) -> None:
    for name in ("Makefile", "params.yaml"):
        shutil.copy2(ROOT / name, tmp_path / name)
    project = Project(tmp_path)
    said = project.run("make", "repository", fails=True)
    (way_out,) = re.findall(r"^  (git init .*)$", said, re.M)
    identity = "export GIT_AUTHOR_NAME=T GIT_COMMITTER_NAME=T GIT_AUTHOR_EMAIL=t@e.org GIT_COMMITTER_EMAIL=t@e.org"
    project.run("sh", "-c", f"{identity}; {way_out}")
    project.run("make", "repository")


def test_a_damaged_pack_is_named_with_the_way_out(project: Project) -> None:
    pack = project.folder / "data/light/train.pack"
    content = bytearray(pack.read_bytes())
    content[1000] ^= 4
    pack.unlink()
    pack.write_bytes(content)
    output = project.run(sys.executable, "-m", "stages.kd_task", "1", fails=True)
    assert "data/light/train" in output
    assert "dvc repro" in output
    assert "Traceback" not in output


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o444)  # DVC takes a read-only file for intact


def test_rot_is_found_and_the_commands_that_are_printed_mend_it(project: Project) -> None:
    verify = (sys.executable, "-m", "derain", "verify")
    count = len([out for stage in stages(project.folder).values() for out in stage.outs])
    assert f"all {count} outputs are what was written" in project.run(*verify)
    recorded = {
        str(out): out.hash_info.value
        for stage in stages(project.folder).values()
        for out in stage.outs
        if out.protocol == "local"
    }
    cache = project.folder / ".dvc/cache/files/md5"
    model, mask = (
        next(value for name, value in recorded.items() if name.endswith(f"{kind}/task0.safetensors"))
        for kind in ("models", "masks")
    )
    before = {path: path.read_bytes() for path in (project.folder / "models").iterdir()}
    for path in (
        project.folder / "models/task0.safetensors",
        cache / model[:2] / model[2:],
        cache / mask[:2] / mask[2:],
        project.folder / "data/light/test.pack",
        project.folder / "results/unseen/scores.json",
    ):
        flip_a_bit(path)
    (project.folder / "plots/loss/task1.csv").unlink()
    output = project.run(*verify, fails=True)
    assert "Traceback" not in output
    cures = re.findall(r"^  (.+)$", output, re.MULTILINE)
    for name in ("models/task0", "masks/task0", "data/light", "results/unseen", "plots/loss/task1.csv"):
        assert name in output
    assert len(cures) == 5
    for cure in cures:
        project.run("sh", "-c", cure)
    assert f"all {count} outputs are what was written" in project.run(*verify)
    assert {path: path.read_bytes() for path in (project.folder / "models").iterdir()} == before
    assert ran(project.dvc("repro")) == []
