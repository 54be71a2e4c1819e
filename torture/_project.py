"""A copy of the project at a size that runs in a minute, under git and DVC, in a folder of its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent

_TINY: dict[str, Any] = {
    "threads": 1,
    "precision": "fp32",
    "data": {"photos": "builtin", "test_share": 0.2, "rains_per_photo": 1},
    "stream": {"1": {"dataset": "light", "after": "0"}},
    "tests": {"heavy": "learned", "light": "learned", "unseen": "unseen"},
    "prenet": {"channels": 4, "stages": 2, "blocks": 1},
}
_TINY_TRAIN = {"batch": 2, "patch": 32}

HALF_WRITTEN = re.compile(r"RWLock-file .* corrupted|dvc\.lock' (validation failed|is invalid)|YAML file structure")


class Project:
    """The project in a folder; `cache` is its $DERAIN_CACHE, which tells its processes from all others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder.parent / "cache"

    @classmethod
    def made(cls, folder: Path, epochs: int = 5, steps: int = 100, samples: int = 100) -> Project:
        """A new one, committed, its parameters tiny: `epochs` of `steps` a task, importance of `samples` crops."""
        listed = _output("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT)
        for name in listed.splitlines():
            if (ROOT / name).is_file() and not name.startswith(("tests/", "torture/", "dvc.lock")):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        project = cls(folder)
        content = project.params() | _TINY
        content["train"] |= _TINY_TRAIN | {"epochs": epochs, "steps_per_epoch": steps}
        content["nr"]["samples"] = samples
        content["datasets"] = {name: content["datasets"][name] for name in ("heavy", "light", "unseen")}
        project.write_params(content)
        for command in (
            ("git", "init", "--quiet", "--initial-branch=main"),
            ("git", "config", "user.email", "torture@example.org"),
            ("git", "config", "user.name", "Torture"),
            ("git", "add", "--all"),
            ("git", "commit", "--quiet", "--message", "The project at a tiny size"),
        ):
            project.run(*command)
        return project

    def copy(self, folder: Path) -> Project:
        """A copy in that new folder, with a cache of its own."""
        shutil.copytree(self.folder, folder / "project", symlinks=True)
        return Project(folder / "project")

    def params(self) -> dict[str, Any]:
        content: dict[str, Any] = yaml.safe_load((self.folder / "params.yaml").read_text())
        return content

    def write_params(self, content: dict[str, Any]) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_", "PYTHON"))}
        return kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DERAIN_CACHE": str(self.cache),
            "DERAIN_SAVE_EVERY": "0.2",
            "DVC_NO_ANALYTICS": "1",
            "DVC_GLOBAL_CONFIG_DIR": str(self.folder.parent / "global"),
            "DVC_SYSTEM_CONFIG_DIR": str(self.folder.parent / "system"),
            "DVC_SITE_CACHE_DIR": str(self.folder.parent / "site"),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Starts a command there, in a group of processes of its own; its words come from one pipe."""
        return subprocess.Popen(  # noqa: S603 - our own words
            command,
            cwd=self.folder,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *command: str) -> str:
        """Runs a command there to its end; RuntimeError where it fails."""
        process = self.start(*command)
        said = process.communicate()[0]
        if process.returncode and self.mended(said):
            return self.run(*command)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}:\n{said}")
        return said

    def mended(self, said: str) -> bool:
        """Takes the way out of docs/reliability.md where DVC says that a file of its own is half written."""
        half_written = HALF_WRITTEN.search(said)
        if half_written:
            (self.folder / "dvc.lock").unlink(missing_ok=True)
            (self.folder / ".dvc/tmp/rwlock").unlink(missing_ok=True)
        return half_written is not None

    def processes(self) -> dict[int, str]:
        """The command lines of all processes at work on this project, by their numbers; Linux only."""
        mark = f"DERAIN_CACHE={self.cache}".encode()
        commands = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes()
                if command and mark in (entry / "environ").read_bytes().split(b"\0"):
                    commands[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:  # ended meanwhile, or another user's
                continue
        return commands

    def results(self) -> dict[str, str]:
        """SHA-256 of every result by its path (packs, weights, masks, scores, report ...), and what dvc.lock says."""
        folders = ("data", "models", "traces", "masks", "memory", "results", "plots", "metrics", "report")
        files = [file for folder in folders for file in (self.folder / folder).rglob("*") if file.is_file()]
        return {str(file.relative_to(self.folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files} | {
            "dvc.lock": json.dumps(yaml.safe_load((self.folder / "dvc.lock").read_text()), sort_keys=True)
        }


def _output(*command: str, cwd: Path) -> str:
    return subprocess.run(command, cwd=cwd, text=True, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603 - our own words
