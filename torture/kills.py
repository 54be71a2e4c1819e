"""SIGKILL at random moments of the whole pipeline, again and again until it is done: the results are the same bytes.

The pipeline runs under `dvc repro`, every third time under `dvc exp run --temp`. What is killed is DVC alone, the stage
alone, or all of them at once, as by a power failure. Two seconds later no process may be left. The seed gives the
delays; where in its work they meet a process is up to the machine.

DVC itself, killed while it writes, may leave dvc.lock or its lock file half written, and says so from then on. The way
out of docs/reliability.md is taken then, and counted.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from torture._figures import Figures
from torture._project import Project

COUNT = 100
ORPHANS = 2.0
"""Seconds after which no process of a killed DVC may be left."""


def run(seed: int, count: int) -> Figures:
    rng = random.Random(seed)  # noqa: S311 - no secret
    torture = _Kills(rng, count)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Project.made(Path(folder) / "fresh" / "project")
        undisturbed = fresh.copy(Path(folder) / "undisturbed")
        start = time.monotonic()
        ran = stages_of(undisturbed.run("dvc", "repro"))
        # As often as not a stage ends before it is killed.
        torture.longest = 3 * (time.monotonic() - start) / len(ran)
        expected = undisturbed.results()
        number = 0
        while torture.counts["SIGKILLs"] < count:
            number += 1
            project = fresh.copy(Path(folder) / f"killed{number}")
            torture.kill_until_done(project, temp=number % 3 == 0)
            torture.faults += differences(expected, project.results(), f"pipeline {number}")
    return Figures({**torture.counts, "pipelines": number, "results compared": number * len(expected)}, torture.faults)


class _Kills:
    """Kills, and what they gave so far."""

    def __init__(self, rng: random.Random, count: int) -> None:
        self.counts: Counter[str] = Counter({"SIGKILLs": 0, "orphans after 2 s": 0})
        self.faults: list[str] = []
        self.longest = 10.0
        self._rng = rng
        self._count = count
        self._mended = 0
        """How often in a row a file of DVC's was found half written."""

    def kill_until_done(self, project: Project, temp: bool) -> None:
        """Runs the pipeline again and again; the last time it is left alone, or has been faster than the kill."""
        command = ("dvc", "exp", "run", "--temp") if temp else ("dvc", "repro")
        longest = self.longest
        said = None
        while said is None and self.counts["SIGKILLs"] < self._count:
            said, ran = self._attempt(project, command, self._rng.uniform(0, longest))
            # --temp has more to do before its first stage: it must get somewhere in the end.
            longest = self.longest if ran > 1 else longest * 1.2
        while said is None:
            said, _ = self._attempt(project, command, None)
        names = re.findall(r"Ran experiment\(s\): (\S+)", said)
        if temp and names:
            project.run("dvc", "exp", "apply", names[-1])

    def _attempt(self, project: Project, command: tuple[str, ...], delay: float | None) -> tuple[str | None, int]:
        """What the command said if it ended by itself, None if it was killed; and how many stages it started."""
        process = project.start(*command)
        try:
            said = process.communicate(timeout=delay)[0]
        except subprocess.TimeoutExpired:
            pass
        else:
            if project.mended(said):
                self.counts["files of DVC left half written"] += 1
                self._mended += 1
                if self._mended > 3:
                    raise RuntimeError(f"the way out of docs/reliability.md leads nowhere: {said}")
                return None, 0
            self._mended = 0
            self._note(said)
            if process.returncode:
                self.faults.append(f"{' '.join(command)} failed with {process.returncode}: {said[-500:]}")
            return said, len(stages_of(said))
        victim = self._rng.choice(("DVC", "stage", "all"))
        self._kill(project, process, victim)
        try:
            said = process.communicate(timeout=ORPHANS if victim != "stage" else 60)[0]
        except subprocess.TimeoutExpired:
            said = ""
        left = project.processes()
        if left:
            self.counts["orphans after 2 s"] += 1
            self.faults.append(f"{ORPHANS} s after {victim} was killed there was still {'; '.join(left.values())}")
            said = process.communicate()[0]
        self._note(said)
        stage = (stages_of(said) or ["before any stage"])[-1]
        self.counts["SIGKILLs"] += 1
        self.counts[f"of {victim}"] += 1
        self.counts[f"in {re.sub('[@0-9].*', '', stage)}"] += 1
        return None, len(stages_of(said))

    def _kill(self, project: Project, process: subprocess.Popen[str], victim: str) -> None:
        if victim == "all":
            os.killpg(process.pid, signal.SIGKILL)
            return
        stages = [number for number, command in project.processes().items() if " -m stages." in command]
        os.kill(stages[0] if stages and victim == "stage" else process.pid, signal.SIGKILL)

    def _note(self, said: str) -> None:
        self.counts["stages that went on"] += said.count("goes on where it was interrupted")


def stages_of(said: str) -> list[str]:
    """The stages that DVC says it ran."""
    return re.findall(r"Running stage '([^']+)'", said)


def differences(expected: dict[str, str], left: dict[str, str], where: str) -> list[str]:
    """One line for each result that is not the one expected."""
    names = sorted(expected.keys() | left.keys())
    return [f"{where}: {name} is not the same" for name in names if expected.get(name) != left.get(name)]
