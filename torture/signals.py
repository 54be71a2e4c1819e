"""SIGTERM and SIGINT at random moments of a training and of a mask: the state is kept, and the exit code tells.

To the stage alone, and to DVC's whole group of processes, as Ctrl-C and a cluster's scheduler send them. All must have
ended after ten seconds. The next run goes on from the very step; the results are the same bytes.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from torture._figures import Figures
from torture._project import Project
from torture.kills import differences

COUNT = 40
_INTERVAL = 1.0
"""Seconds: more than lie between two saves and the end of a step on a busy machine."""
LONGEST = 10.0
"""Seconds from a signal to the end of all that it reached."""

_STAGES = {"kd_task@1": ("stages.kd_task", "1"), "sc_mask@1": ("stages.sc_mask", "1")}
_ENDINGS = {signal.SIGTERM: 143, signal.SIGINT: 130}


def run(seed: int, count: int) -> Figures:
    # A shell starts what runs in its background with SIGINT ignored, and so would be all that is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = random.Random(seed)  # noqa: S311 - no secret
    cases = itertools.cycle(itertools.product(_ENDINGS, (False, True)))
    with tempfile.TemporaryDirectory() as folder:
        project = Project.made(Path(folder) / "project")
        project.run("dvc", "repro", "sc_mask@1")
        expected = project.results()
        torture = _Signals(project, rng)
        for stage, share in zip(_STAGES, (count - count // 2, count // 2), strict=True):
            while torture.interrupted < share:
                torture.interrupt(stage, *next(cases))
            torture.interrupted = 0
            torture.note(project.run("dvc", "repro", "--force", "--single-item", stage))
        project.run("dvc", "repro", "sc_mask@1")  # where dvc.lock was half written, it has lost the other stages
        torture.faults += differences(expected, project.results(), "in the end")
    return Figures(torture.counts, torture.faults)


class _Signals:
    """Signals sent to a project's stages, and what they gave so far."""

    def __init__(self, project: Project, rng: random.Random) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.interrupted = 0
        """Runs of this stage that a signal has ended."""
        self._project = project
        self._rng = rng

    def interrupt(self, stage: str, number: signal.Signals, group: bool) -> None:
        """Starts a stage, under DVC where its whole group is meant, and sends it the signal."""
        module, key = _STAGES[stage]
        dvc = ("dvc", "repro", "--force", "--single-item", stage)
        process = self._project.start(*(dvc if group else (sys.executable, "-m", module, key)))
        # Every fifth signal comes while the stage starts, the others while it computes.
        computes = self._rng.random() > 0.2 and self._wait_for_its_state(process)
        time.sleep(self._rng.uniform(0, 1.5))
        sent = time.time()
        with suppress(ProcessLookupError):  # it may have ended before
            (os.killpg if group else os.kill)(process.pid, number)
        try:
            said = process.communicate(timeout=LONGEST)[0]
        except subprocess.TimeoutExpired:
            self.faults.append(f"{stage}: still there {LONGEST} s after {number.name}")
            said = process.communicate()[0]
        self.note(said)
        if self._project.mended(said):
            self.counts["files of DVC left half written"] += 1
            self.interrupt(stage, number, group)
            return
        case = f"{stage}, {number.name} to {'the group' if group else 'the stage'}"
        self._judge(case, process.returncode, number, group, said, sent, computes)

    def _wait_for_its_state(self, process: subprocess.Popen[str]) -> bool:
        """Waits until a process has taken its state; False where it has ended before."""
        while process.poll() is None:
            owners = {lock.read_text() for lock in self._project.cache.glob("states/*/lock")}
            if owners & {str(pid) for pid in self._project.processes()}:
                return True
            time.sleep(0.02)
        return False

    def _judge(
        self, case: str, code: int, number: signal.Signals, group: bool, said: str, sent: float, computes: bool
    ) -> None:
        if "Traceback" in said and re.search(r'File ".*/(stages|derain)/', said):
            self.faults.append(f"{case}: {said[-500:]}")
        elif "Traceback" in said:
            self.counts["tracebacks of DVC itself"] += 1
        if code == 0 or "wrote " in said:  # DVC itself may have been interrupted after it
            self.counts["stages that were done before"] += 1
            shutil.rmtree(self._project.cache / "states", ignore_errors=True)  # for a new start
            return
        self.interrupted += 1
        self.counts[f"{number.name} to {'the group' if group else 'the stage'}"] += 1
        # A process that dies of the signal itself, while it starts, is to a shell one that exits with 128 + number.
        # DVC dies of SIGTERM; while a stage runs it outlives SIGINT, and says how the stage ended.
        codes = {-number, 252, 255} if group else {_ENDINGS[number], -number}
        if code not in codes or (code == 255 and f"exited with {_ENDINGS[number]}" not in said and computes):
            self.faults.append(f"{case}: ended with {code}: {said[-500:]}")
        if computes:
            kept = [file.stat().st_mtime for file in self._project.cache.glob("states/*/state")]
            self.counts["while it computed"] += 1
            # Whatever has done its last step keeps no further state; then it says "epoch: 5/5".
            if max(kept, default=0) < sent - _INTERVAL and not re.search(r": (\d+)/\1$", said, re.MULTILINE):
                self.faults.append(f"{case}: no state was kept: {said[-500:]}")

    def note(self, said: str) -> None:
        """Counts the runs that went on from a state."""
        self.counts["stages that went on"] += said.count("goes on where it was interrupted")
