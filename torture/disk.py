"""A disk that is full, at sizes from too small to almost enough: the pipeline says so, and goes on when there is space.

Each size is a file system in memory of its own (Linux: `unshare` and tmpfs), with the project, DVC's cache and our
states on it. `dvc repro` must end there by itself, and with more space come to the same bytes as where there was space
from the beginning. DVC's own writes run out of space too.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from torture._figures import Figures
from torture._project import Project
from torture.kills import differences, stages_of

COUNT = 10

_ENOUGH = 2**31
# In a name space of its own: what is mounted is gone when the shell ends.
_SCRIPT = """
set -e
mount -t tmpfs -o size=$SIZE tmpfs $DISK
cp -a $FROM/. $DISK/
cd $DISK/project
set +e
dvc repro > $SAID.1 2>&1; echo $? > $SAID.code
mount -o remount,size=$ENOUGH tmpfs $DISK
dvc repro > $SAID.2 2>&1 || { rm -f dvc.lock .dvc/tmp/rwlock; dvc repro > $SAID.2 2>&1; } || exit 1
cp -a $DISK/project $SAID.project
"""


def run(seed: int, count: int) -> Figures:
    rng = random.Random(seed)  # noqa: S311 - no secret
    counts: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "disk").mkdir()
        project = Project.made(folder / "given/project", epochs=5, steps=20, samples=20)
        before = _size(project.folder)
        done = project.copy(folder / "done")
        done.run("dvc", "repro")
        needed, expected = _size(done.folder) - before, done.results()
        for number in range(count):
            size = before + int(needed * (number + rng.random()) / count)
            tried = _Tried(project, folder, size, number)
            faults += [f"{size:,} bytes: {fault}" for fault in tried.faults(expected)]
            counts["sizes"] += 1
            counts["ended for want of space"] += tried.code != 0
            counts["of them with our message"] += " are free" in tried.first
            counts["of them in DVC's own writes"] += tried.code != 0 and " are free" not in tried.first
            shutil.rmtree(tried.project, ignore_errors=True)
    return Figures(counts, faults)


class _Tried:
    """The pipeline on a disk of that size, and again with enough space."""

    def __init__(self, project: Project, folder: Path, size: int, number: int) -> None:
        said = folder / str(number)
        environment = project.environment() | {
            "DERAIN_CACHE": str(folder / "disk/cache"),
            "SIZE": str(size),
            "ENOUGH": str(_ENOUGH),
            "DISK": str(folder / "disk"),
            "FROM": str(project.folder.parent),
            "SAID": str(said),
        }
        shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", _SCRIPT]
        ended = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        self.problem = ended.stderr if ended.returncode else ""
        self.project = Path(f"{said}.project")
        self.first, self.second = (_text(Path(f"{said}.{part}")) for part in (1, 2))
        self.code = int(_text(Path(f"{said}.code")) or -1)

    def faults(self, expected: dict[str, str]) -> Iterator[str]:
        if not self.project.exists():
            yield f"did not work with more space: {self.problem[-300:]} {self.second[-500:]}"
            return
        yield from differences(expected, Project(self.project).results(), "with more space")
        if self.code == 0:
            return
        if not re.search(r"No space left|are free|disk I/O error|database or disk is full", self.first):
            yield f"ended with {self.code} and does not say why: {self.first[-300:]}"
        stage = (stages_of(self.first) or [""])[-1]
        if "Traceback" in self.first.rpartition("Running stage")[2] and "No space" not in self.first:
            yield f"a traceback in {stage}: {self.first[-500:]}"


def _size(folder: Path) -> int:
    """The bytes on a disk of the folder that holds a project."""
    return int(subprocess.check_output(["du", "-s", "-B1", folder.parent], text=True).split()[0])  # noqa: S603, S607


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""
