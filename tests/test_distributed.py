"""Two processes that torchrun starts make what one makes, fail as one, and stop and go on as one."""

from __future__ import annotations

import csv
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import yaml

from derain.compute import distributed, hardware
from derain.compute.batch import Batch
from derain.data.pack import write_pack
from derain.disk import artifacts
from derain.types import ParamsError
from tests import test_dvc
from tests.conftest import ROOT, noisy_pairs

OUTPUTS = {
    "train_task0": ("models/task0.safetensors", "plots/loss/task0.csv"),
    "sc_mask 0": ("masks/task0.safetensors",),
    "kd_task 1": ("models/task1.safetensors", "plots/loss/task1.csv"),
    "sc_mask 1": ("masks/task1.safetensors",),
    "eval heavy": ("results/heavy/scores.json", "results/heavy/1-task1.png"),
}
TWO = "torchrun --standalone --nproc-per-node 2"


class Folder:
    """A project without DVC: parameters, packs, and what the stages make of them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def made(cls, path: Path) -> Folder:
        """8 places in batches of 7: shares of 3 and 4, and a last batch of one, in which a process has none."""
        content = yaml.safe_load((ROOT / "params.yaml").read_text())
        content |= {"device": "cpu", "precision": "fp32", "threads": 1}
        content |= {"stream": {"1": {"dataset": "light", "after": "0"}}, "tests": {"heavy": "learned"}}
        content |= {"prenet": {"channels": 8, "stages": 2, "blocks": 1}}
        content["train"] |= {"epochs": 3, "steps_per_epoch": None, "batch": 7, "patch": 16}
        content["nr"]["samples"] = 5
        path.mkdir()
        (path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        for number, name in enumerate(("heavy", "light")):
            write_pack(path / "data" / name, "train", noisy_pairs(number, 60))
            write_pack(path / "data" / name, "test", noisy_pairs(number + 9, 60, count=5))
        return cls(path)

    def copy(self, path: Path) -> Folder:
        shutil.copytree(self.path, path)
        return Folder(path)

    def run(self, stage: str, launch: str = "python", save_every: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs a stage (its name and key, or a script) as dvc.yaml does, which keeps a state every so many seconds."""
        module = stage if stage.endswith(".py") else f"-m stages.{stage}"
        return subprocess.run(
            f"{launch} {module}",
            shell=True,
            cwd=self.path,
            env={**self.environment(), "DERAIN_SAVE_EVERY": str(save_every)},
            text=True,
            capture_output=True,
            timeout=120,
        )

    def environment(self) -> Mapping[str, str]:
        found = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
        return found | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "DERAIN_CACHE": str(self.path / "cache"),
        }

    def script(self, patch: str) -> str:
        """A script that runs kd_task@1, changed by `patch` in process 1 alone."""
        (self.path / "patched.py").write_text(f"""
import os, signal, sys, time
from stages import kd_task
from derain.compute import distributed
from derain.console import run
from derain.data.pack import Pack
from derain.training import learn
from derain.training import resume
from derain.types import DataError

def after(steps, what, module=learn, name="training_step"):
    original, taken = getattr(module, name), []
    def patched(*arguments):
        taken.append(1)
        return what(original, *arguments) if len(taken) == steps else original(*arguments)
    setattr(module, name, patched)

def fail(*_):
    raise DataError("a rotten crop")

def end(process, number):
    def step(original, *arguments):
        os.kill(process, number)
        time.sleep(1)  # torchrun needs some of it to tell the others
        return original(*arguments)
    return step

def spoil(original, network, batch, *rest):
    batch.rainy.fill_(float("nan"))
    return original(network, batch, *rest)

if os.environ.get("RANK") == "1":
    {patch}
run(distributed.together(lambda: kd_task.main("1")))
""")
        return "patched.py"

    def tensors(self, file: str) -> dict[str, torch.Tensor]:
        return artifacts.load(self.path / file)[0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """All stages, by one process; tests copy it."""
    folder = Folder.made(tmp_path_factory.mktemp("alone") / "project")
    for stage in OUTPUTS:
        assert folder.run(stage).returncode == 0
    return folder


@pytest.fixture(scope="module")
def both(alone: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Each stage by two processes, from what the single one has made of the stages before."""
    made = Folder(tmp_path_factory.mktemp("both"))
    for stage, outputs in OUTPUTS.items():
        folder = alone.copy(made.path / "one stage")
        for file in outputs:
            (folder.path / file).unlink()
        done = folder.run(stage, TWO)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("3/3") == 1, "one of them prints"
        for file in outputs:
            (made.path / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(folder.path / file, made.path / file)
        shutil.rmtree(folder.path)
    return made


@pytest.mark.parametrize("task", ["task0", "task1"])
def test_weights_of_two_are_those_of_one(alone: Folder, both: Folder, task: str) -> None:
    ours, theirs = (folder.tensors(f"models/{task}.safetensors") for folder in (both, alone))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=0, atol=1e-5)
    assert artifacts.load(both.path / f"models/{task}.safetensors")[1]["processes"] == 2
    assert "processes" not in artifacts.load(alone.path / f"models/{task}.safetensors")[1]


def test_losses_that_are_shown_are_those_of_whole_batches(alone: Folder, both: Folder) -> None:
    ours, theirs = (list(csv.DictReader((folder.path / "plots/loss/task1.csv").open())) for folder in (both, alone))
    for one, other in zip(ours, theirs, strict=True):
        for name, value in other.items():
            assert float(one[name]) == pytest.approx(float(value), abs=1e-6)


@pytest.mark.parametrize("task", ["task0", "task1"])
def test_masks_of_two_are_those_of_one_bit_for_bit(alone: Folder, both: Folder, task: str) -> None:
    ours, theirs = (folder.tensors(f"masks/{task}.safetensors") for folder in (both, alone))
    assert all(torch.equal(ours[name], part) for name, part in theirs.items())


def test_each_picture_is_scored_once_and_alike(alone: Folder, both: Folder) -> None:
    for file in OUTPUTS["eval heavy"]:
        assert (both.path / file).read_bytes() == (alone.path / file).read_bytes()


def test_two_equal_one_with_parts_of_the_same_size_bit_for_bit(alone: Folder, tmp_path: Path) -> None:
    made = []  # type: ignore[var-annotated]
    for launch, batch in ((TWO, {"batch": 4}), ("python", {"batch": 4, "micro_batch": 2})):
        folder = alone.copy(tmp_path / str(len(made)))
        content = yaml.safe_load((folder.path / "params.yaml").read_text())
        content["train"] |= batch
        (folder.path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        assert folder.run("kd_task 1", launch).returncode == 0
        made.append(folder.tensors("models/task1.safetensors"))
    assert all(torch.equal(weight, made[1][name]) for name, weight in made[0].items())


@pytest.mark.parametrize(
    ("patch", "told", "code"),
    [
        ("after(3, fail, Pack, 'crops')", "error: a rotten crop", "exitcode  : 5"),
        ("after(2, spoil)", "error: task1, epoch 1: a loss or gradient is not finite", "exitcode  : 4"),
        ("after(3, lambda *_: 1 / 0)", "ZeroDivisionError: division by zero", "exitcode  : 1"),
        ("after(3, end(os.getpid(), signal.SIGKILL))", "error: another process of this run has ended", "exitcode  : "),
        ("resume._code = lambda: {}", "error: task1: process 1 differs from process 0", "exitcode  : 5"),
    ],
)
def test_one_that_fails_ends_all_and_says_why_once(
    alone: Folder, tmp_path: Path, patch: str, told: str, code: str
) -> None:
    folder = alone.copy(tmp_path / "project")
    before = (folder.path / "models/task1.safetensors").read_bytes()
    done = folder.run(folder.script(patch), TWO)
    assert done.returncode == 1
    assert done.stderr.count(told) == 1, done.stderr
    assert done.stderr.count("error: ") + done.stderr.count("division by zero") == 1, "the others are silent"
    assert code in done.stderr
    assert (folder.path / "models/task1.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("patch", "save_every", "told", "done"),
    [
        ("after(4, end(os.getpid(), signal.SIGTERM))", 1000, "terminated; run the same", "2 epochs and 0 steps"),
        ("after(4, end(os.getppid(), signal.SIGTERM))", 1000, "terminated; run the same", "2 epochs and 0 steps"),
        ("after(4, end(os.getpid(), signal.SIGKILL))", 0, "another process of this run", ""),
    ],
    ids=["SIGTERM to one", "SIGTERM to torchrun", "SIGKILL to one"],
)
def test_interrupted_and_run_again_is_as_if_undisturbed(
    alone: Folder, both: Folder, tmp_path: Path, patch: str, save_every: int, told: str, done: str
) -> None:
    """A signal to one stops both after the step that it came in; process 0 alone keeps the state, and the artifacts."""
    folder = alone.copy(tmp_path / "project")
    stopped = folder.run(folder.script(patch), TWO, save_every)
    assert stopped.returncode == 1
    assert stopped.stderr.count(told) == 1, stopped.stderr
    writes_nothing = "kd_task._task.networks.save_network = kd_task.atomic.new_file = fail"
    again = folder.run(folder.script(writes_nothing), TWO)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count(f"goes on where it was interrupted: after {done}") == 1
    model = "models/task1.safetensors"
    assert (folder.path / model).read_bytes() == (both.path / model).read_bytes()


def test_all_end_with_dvc(alone: Folder, tmp_path: Path) -> None:
    """A shell stands for DVC: the group of processes that it leads is the one that torchrun is in."""
    folder = alone.copy(tmp_path / "project")
    folder.script("""
    def wait(original, *arguments):
        open("waits", "w").close()
        time.sleep(5)
        return original(*arguments)
    after(2, wait)""")
    model = folder.path / "models/task1.safetensors"
    model.unlink()
    command = f"{TWO} patched.py & wait"
    environment = {**folder.environment(), "DVC_STAGE": "kd_task@1"}
    dvc = subprocess.Popen(
        command, shell=True, cwd=folder.path, env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:
        _until(lambda: (folder.path / "waits").exists())
        assert len(_at_work_in(folder.path)) == 4, "the shell, torchrun, and two processes"
    finally:
        dvc.kill()
        dvc.wait()
    _until(lambda: not _at_work_in(folder.path))
    assert not model.exists(), "they have not gone on to the end"


def _at_work_in(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder and " Z " not in (process / "stat").read_text():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def _until(condition: Callable[[], bool], seconds: float = 45) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [1, 2, 5, 7, 18])
def test_every_sample_counts_once(monkeypatch: pytest.MonkeyPatch, size: int, count: int) -> None:
    monkeypatch.setattr(distributed, "size", lambda: size)
    taken: list[int] = []
    total = 0.0
    hands = []
    for number in range(size):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        numbers = torch.arange(count)
        own = distributed.own(Batch(numbers, -numbers))
        samples, share = own.rainy.tolist(), own.share
        assert samples, "a process without a sample would have no losses to add"
        assert torch.equal(own.clean, -own.rainy)
        assert share == pytest.approx(len(samples) / count if share else 0)
        taken += samples if share else []
        total += share
        hands.append(list(distributed.dealt(count)))
    assert taken == list(range(count))
    assert total == pytest.approx(1)
    assert sorted(itertools.chain.from_iterable(hands)) == list(range(count))
    monkeypatch.setattr(distributed, "_objects", lambda own: hands)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    assert distributed.in_order(hands[0]) == list(range(count))


@pytest.mark.parametrize(
    ("device", "gpu", "told"), [("cuda:0", 0, "each of several processes"), ("auto", 2, "more processes than GPUs")]
)
def test_each_process_needs_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, device: str, gpu: int, told: str) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", str(gpu))
    with pytest.raises(ParamsError, match=told):
        hardware.choose(device, "fp32")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert hardware.choose("auto", "fp32").device == torch.device("cuda:1")


def test_the_commands_of_one_process_are_plain() -> None:
    assert {stage.cmd.partition(" -m ")[0] for stage in test_dvc.stages(ROOT).values()} == {"python"}


def test_dvc_starts_several_processes_by_one_parameter(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    project = test_dvc.copy_of_the_project(tmp_path / "project", without=("tests/", "dvc.lock"))
    content = yaml.safe_load((ROOT / "params.yaml").read_text()) | test_dvc.TINY
    content["train"] |= test_dvc.TINY_TRAIN
    content["nr"]["samples"] = 3
    content |= {"datasets": {name: content["datasets"][name] for name in ("heavy", "light")}}
    content |= {"tests": {"heavy": "learned"}}
    (project.folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    project.commit("A tiny profile")
    output = project.dvc("exp", "run", "--set-param", f"launch={TWO}", "sc_mask0")
    assert f"> {TWO} -m stages.train_task0" in output
    for file in ("models/task0.safetensors", "masks/task0.safetensors"):
        assert project.metadata(file)["processes"] == 2
    assert "up to date" in project.dvc("repro", "sc_mask0")


def _shares_its_buffers(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    layer = torch.nn.BatchNorm2d(3)
    layer(torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(rank)))
    torch.save(layer.state_dict(), folder / f"before{rank}")
    distributed.share_buffers([layer])
    torch.save(layer.state_dict(), folder / f"after{rank}")
    dist.destroy_process_group()


def test_all_processes_have_the_main_ones_running_statistics(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_shares_its_buffers, (tmp_path,), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    kept = {name: torch.load(tmp_path / name) for name in ("before0", "before1", "after0", "after1")}
    mean = {name: tensors["running_mean"] for name, tensors in kept.items()}
    assert not torch.equal(mean["before0"], mean["before1"])
    assert torch.equal(mean["after0"], mean["before0"])
    assert torch.equal(mean["after1"], mean["before0"])
    assert kept["after1"]["num_batches_tracked"] == 1
