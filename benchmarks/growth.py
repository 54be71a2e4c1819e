"""What grows with the stream and the sets, and what does not.

A task's time and memory by its place, evaluation's memory by the number of pictures, DVC's own time by the number of
tasks, and a pack's index by the pair.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks import _measure
from benchmarks._measure import Result
from benchmarks.data import packed
from derain import console, params, plugins
from derain.compute.hardware import choose
from derain.evaluation.evaluate import evaluate
from derain.params import FirstTask, LaterTask, Params
from derain.stream import learn_stream

ROOT = Path(__file__).resolve().parent.parent
PICTURES = (20, 200)
SIDE = 96


def main() -> None:
    chosen = _measure.arguments("growth", __doc__, tasks=20)
    result = Result("growth", vars(chosen) | {"json": None})
    places = _in_a_process(_by_place, chosen.tasks, chosen.threads)
    if chosen.ours_only:
        _measure.ours_only(chosen, [seconds for seconds, _ in places])
        return
    quarter = max(1, chosen.tasks // 4)
    # The first task has no teacher.
    for name, part in (("first", places[1 : quarter + 1]), ("last", places[-quarter:])):
        what = f"{name} {len(part)} later tasks"
        result.facts[f"{what}, seconds each"] = statistics.median(seconds for seconds, _ in part)
        result.facts[f"{what}, peak MB"] = max(peak for _, peak in part)
    for count in PICTURES:
        peak, own = _in_a_process(_evaluation, count, chosen.threads)
        result.facts[f"evaluation of {count} pictures, peak MB"] = peak
        # The pack's pixels count in the peak once they are read, though the system may take them back at any time.
        result.facts[f"evaluation of {count} pictures, MB without mapped files"] = own
    with packed(1000, 8, 8) as pack:
        index = pack.path.stat().st_size - 1000 * 2 * 8 * 8 * 3
    result.facts["index of a pack, bytes a pair"] = index / 1000
    for tasks in (4, chosen.tasks):
        for command, seconds in _dvc(tasks).items():
            result.facts[f"dvc {command} with {tasks} tasks, seconds"] = seconds
    _measure.finish(chosen, result)


def _in_a_process(work: Callable[..., Any], *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _by_place(tasks: int, threads: int) -> list[tuple[float, float]]:
    """Seconds and peak memory (MB) of each task of a stream, in its order."""
    measured = []
    hardware = choose("cpu", "fp32")
    hardware.set_up_process(threads)
    with packed(8, SIDE, SIDE) as pack:
        settings = _stream_of(tasks)
        console.out.quiet = True
        start = time.perf_counter()
        _forget_peak()
        for _ in learn_stream(settings, lambda _: {"train": pack}, hardware):
            measured.append((time.perf_counter() - start, _memory("VmHWM")))
            start = time.perf_counter()
            _forget_peak()
    return measured


def _stream_of(tasks: int) -> Params:
    demo = params.load(ROOT / "params.yaml")
    train = demo.train.model_copy(update={"epochs": 2, "steps_per_epoch": 5, "patch": 32})
    return demo.model_copy(
        update={
            "train": train,
            "datasets": {"noise": {"source": "rendered", "kind": "heavy"}},
            "task0": FirstTask(dataset="noise"),
            "stream": {str(key): LaterTask(dataset="noise", after=str(key - 1)) for key in range(1, tasks)},
            "sections": demo.sections
            | {"nr": demo.sections["nr"] | {"samples": 8}, "prenet": {"channels": 8, "stages": 2, "blocks": 2}},
        }
    )


def _evaluation(pictures: int, threads: int) -> tuple[float, float]:
    """Peak memory (MB) of a process that evaluates a set of that many pictures, and what is its own at the end."""
    hardware = choose("cpu", "fp32")
    hardware.set_up_process(threads)
    settings = _stream_of(1)
    network = plugins.load("backbones", settings.backbone).build(settings.section("backbones"))
    with packed(pictures, SIDE, SIDE) as pack:
        console.out.quiet = True
        _forget_peak()
        evaluate(pack, {"task0": network}, hardware, 2)
    return _memory("VmHWM"), _memory("RssAnon")


def _memory(kind: str) -> float:
    """A size of this process in MB, by its name in proc(5) (Linux)."""
    line = re.search(rf"{kind}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert line
    return int(line[1]) / 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _dvc(tasks: int) -> dict[str, float]:
    """Seconds that DVC takes for itself in a copy of the project with a stream of that many tasks."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True)  # noqa: S607
    with tempfile.TemporaryDirectory() as folder:
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file() and name != "dvc.lock":
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, Path(folder) / name)
        file = Path(folder, "params.yaml")
        content = yaml.safe_load(file.read_text())
        content["stream"] = {str(key): {"dataset": "medium", "after": str(key - 1)} for key in range(1, tasks)}
        file.write_text(yaml.safe_dump(content))
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)  # noqa: S607
        environment = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": f"{folder}/site"}
        seconds = {}
        for command in ("stage list", "status"):
            start = time.perf_counter()
            subprocess.run(  # noqa: S603 - our own words
                [sys.executable, "-m", "dvc", *command.split()],
                cwd=folder,
                env=environment,
                check=True,
                capture_output=True,
            )
            seconds[command] = time.perf_counter() - start
        return seconds


if __name__ == "__main__":
    main()
