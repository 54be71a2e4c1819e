"""Short versions of the torture; `python -m torture` runs the long ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages import kd_task
from torture import checkpoints, downloads, memory, numbers, overrides, rot, stale, writes
from torture._folder import Folder, small_folder

ROOT = Path(__file__).resolve().parent.parent
TRAINING = (sys.executable, "-m", "stages.kd_task", "1")


def test_no_stale_state_is_used() -> None:
    figures = stale.run(seed=1, count=5)
    assert figures.faults == []
    assert figures.counts["states met again and used"] > 50


def test_numbers_that_are_none_stop_a_stage() -> None:
    figures = numbers.run(seed=1, count=8)
    assert figures.faults == []
    assert len(figures.counts) == 8


def test_flipped_bits_are_noticed() -> None:
    figures = rot.run(seed=1, count=50)
    assert figures.faults == []
    assert figures.counts["noticed"] == 50


def test_no_output_is_half_written() -> None:
    assert writes.run(seed=1, count=12).faults == []


def test_hostile_checkpoints_are_refused() -> None:
    assert checkpoints.run(seed=1, count=8).faults == []


def test_memory_that_runs_out_halves_the_micro_batch() -> None:
    assert memory.run(seed=1, count=4).faults == []


def test_faulty_downloads_end_with_the_file_or_a_message() -> None:
    assert downloads.run(seed=1, count=10).faults == []


def test_overrides_are_taken_or_refused() -> None:
    assert overrides.run(seed=1, count=9).faults == []


@pytest.fixture
def folder() -> Iterator[Folder]:
    """One in which a training takes a few seconds, most of them the start of Python."""
    with small_folder() as made:
        made.write_params(numbers.SMALL | {"train.steps_per_epoch": 300})
        made.write_artifacts()
        yield made


def started(*command: str, **environment: str) -> subprocess.Popen[str]:
    """Starts a command in the current folder, with a save after every few steps."""
    # A shell starts what runs in its background with SIGINT ignored, and so would be what is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DERAIN_SAVE_EVERY": "0.05"} | environment
    return subprocess.Popen(
        command, env=os.environ | settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def a_state(process: subprocess.Popen[str], newer_than: float) -> Path:
    """The state that a stage has kept since then; waits for it."""
    while process.poll() is None:
        for file in Path("cache/states").glob("*/state"):
            if file.stat().st_mtime_ns > newer_than:
                return file
        time.sleep(0.01)
    raise AssertionError(f"ended with {process.returncode}: {process.communicate()[0]}")


def test_a_training_that_is_killed_terminated_and_interrupted_gives_the_same_bytes(folder: Folder) -> None:
    kd_task.main("1")
    shutil.rmtree("cache/states")
    results = [Path("models/task1.safetensors"), Path("plots/loss/task1.csv")]
    expected = [file.read_bytes() for file in results]
    for file in results:
        file.unlink()
    since = 0
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = started(*TRAINING)
        state = a_state(process, since)
        process.send_signal(number)
        said = process.communicate(timeout=30)[0]
        assert process.returncode == code, said
        assert "Traceback" not in said
        assert ("goes on" in said) == (since > 0)
        assert not any(file.exists() for file in results)
        since = state.stat().st_mtime_ns
    process = started(*TRAINING)
    assert "goes on where it was interrupted" in process.communicate()[0]
    assert [file.read_bytes() for file in results] == expected
    assert [file.name for file in Path("cache/states").glob("*/finished")] == ["finished"]


def test_a_second_training_of_the_same_says_so_and_may_be_tried_again(folder: Folder) -> None:
    folder.write_params(numbers.SMALL | {"train.steps_per_epoch": 100_000})
    first = started(*TRAINING)
    try:
        a_state(first, 0)
        second = started(*TRAINING)
        said = second.communicate()[0]
        assert second.returncode == 75
        assert f"task1: another process (PID {first.pid})" in said
        assert "Traceback" not in said
    finally:
        first.kill()
        first.communicate()


def runs(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except OSError:  # it has ended, perhaps while its status was read
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a process of its parent's end on Linux only")
def test_a_stage_ends_and_keeps_its_state_when_its_dvc_is_killed(folder: Folder) -> None:
    folder.write_params(numbers.SMALL | {"train.steps_per_epoch": 100_000})
    # In DVC's place: starts the stage as DVC does, and waits for it.
    dvc = "import subprocess, sys; stage = subprocess.Popen(sys.argv[1:]); print(stage.pid, flush=True); stage.wait()"
    process = started(sys.executable, "-c", dvc, *TRAINING, DVC_STAGE="kd_task@1")
    assert process.stdout is not None
    stage = int(process.stdout.readline())
    state = a_state(process, 0)
    before = state.stat().st_mtime_ns
    process.kill()
    process.communicate()  # until the stage, too, has closed the pipe
    deadline = time.monotonic() + 60
    while runs(stage):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert state.stat().st_mtime_ns > before
