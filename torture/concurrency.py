"""DVC started many times at once on one project: each ends well or says who is in its way, and no lock is corrupted.

`dvc repro`, `dvc status` and `dvc exp run --temp` start at random moments, several at work at any time. In the end
dvc.lock is whole, and `dvc repro` finds the same bytes as if it had been alone.
"""

from __future__ import annotations

import random
import re
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml

from torture._figures import Figures
from torture._project import HALF_WRITTEN, Project
from torture.kills import differences

COUNT = 20
AT_ONCE = 4
"""So many are started close together; then all of them end."""

_COMMANDS = (
    ("dvc", "repro"),
    ("dvc", "repro", "sc_mask@1"),
    ("dvc", "status"),
    ("dvc", "exp", "run", "--temp"),
    ("dvc", "exp", "run", "--temp", "-S", "nr.alpha_l=0.01"),
)
_IN_THE_WAY = re.compile(
    r"[Uu]nable to acquire lock|is busy|[Ll]ock.*(held|timeout)|is at work on it|was modified during run"
)


def run(seed: int, count: int) -> Figures:
    rng = random.Random(seed)  # noqa: S311 - no secret
    counts: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        alone = Project.made(Path(folder) / "alone/project", epochs=5, steps=20, samples=20)
        project = alone.copy(Path(folder) / "shared")
        alone.run("dvc", "repro")
        for start in range(0, count, AT_ONCE):
            started = []
            for _ in range(min(AT_ONCE, count - start)):
                command = rng.choice(_COMMANDS)
                started.append((command, project.start(*command)))
                time.sleep(rng.uniform(0, 2))
            for command, process in started:
                _note(command, process, counts, faults)
            faults += _corrupted(project)
        project.run("dvc", "repro")
        faults += differences(alone.results(), project.results(), "in the end")
    return Figures(counts, faults)


def _note(command: tuple[str, ...], process: subprocess.Popen[str], counts: Counter[str], faults: list[str]) -> None:
    said = process.communicate()[0]
    counts[" ".join(command[:3]).removesuffix(" sc_mask@1")] += 1
    if process.returncode == 0:
        counts["ended well"] += 1
    elif HALF_WRITTEN.search(said):
        counts["met a file that DVC was just writing"] += 1
    elif _IN_THE_WAY.search(said):
        counts["said who was in its way"] += 1
    else:
        faults.append(f"{' '.join(command)} ended with {process.returncode}: {said[-600:]}")


def _corrupted(project: Project) -> list[str]:
    """What of DVC's own files is not whole while nobody writes them."""
    lock = project.folder / "dvc.lock"
    try:
        if lock.exists() and "stages" not in yaml.safe_load(lock.read_text()):
            return ["dvc.lock holds no stages"]
    except yaml.YAMLError as error:
        return [f"dvc.lock is no YAML: {error}"]
    return []
