"""The runs of tables among this clone's DVC experiments, read from git: an experiment is a commit under refs/exps."""

from __future__ import annotations

import re
import subprocess
from datetime import date
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import yaml

from derain import params as parameters
from derain.disk import paths
from derain.evaluation import summary
from derain.params import Params
from derain.studies import variants
from derain.studies.recorded import RecordedRun, run_of
from derain.studies.variants import Variant
from derain.types import DataError, DerainError


class Experiments(NamedTuple):
    """The runs that are there, and a line for each experiment that bears a run's name but is none of it."""

    runs: list[RecordedRun]
    left_out: list[str]


def of_this_clone(root: Path, params: Params) -> Experiments:
    """The experiments NAME-seedN that are the variant NAME of `params`, by the code as it is.

    Raises:
        DataError: the folder is no git repository.
    """
    catalogue = variants.catalogue(params)
    runs, left_out = [], []
    for commit, day, name in _commits(root):
        variant = catalogue.get(name.rpartition("-seed")[0])
        seed = re.search(r"-seed(\d+)$", name)
        if variant is None or seed is None:
            continue
        try:
            runs.append(_run(root, params, commit, day, variant, int(seed[1])))
        except DerainError as error:
            left_out.append(f"the experiment {name} is left out: {error}")
    return Experiments(runs, left_out)


def head(root: Path) -> str:
    """The commit that is checked out, shortened."""
    return _git(root, "rev-parse", "--short", "HEAD").strip()


def named(root: Path, name: str) -> str | None:
    """The commit of the experiment of that name that starts from what is checked out; None without one."""
    baseline = _git(root, "rev-parse", "HEAD").strip()
    ref = f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"
    return _git(root, "for-each-ref", "--format=%(objectname)", ref).strip() or None


def code_of(root: Path, params: Params) -> list[str]:
    """The files whose code makes a run's numbers: what the stages of dvc.yaml depend on, and its sets' sources."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    making = [stage.get("do", stage) for name, stage in stages.items() if name not in ("validate", "report")]
    filled = [Template(path).safe_substitute(params.content) for stage in making for path in stage["deps"]]
    code = [path for path in filled if path.startswith(("src/", "stages/"))]
    names = set().union(*(parameters.sources(entry) for entry in params.datasets.values()))
    return sorted({*code, *(f"src/derain/sources/{name}.py" for name in names)})


def _run(root: Path, params: Params, commit: str, day: str, variant: Variant, seed: int) -> RecordedRun:
    def file(path: Path) -> str:
        return _git(root, "show", f"{commit}:./{path}")

    its = parameters.of(parameters.parse(file(parameters.PARAMS_FILE), "its params.yaml"))
    today = variant.seeded(seed)
    if key := _difference(today, its):
        raise DataError(f"it was made with another {key} than params.yaml has now.")
    if changed := _git(root, "diff", "--name-only", commit, "--", *code_of(root, today)).split():
        raise DataError(f"it was made by other code ({changed[0]}).")
    baseline = _git(root, "rev-parse", "--short", f"{commit}^").strip()
    summed_up = summary.of_json(file(paths.SUMMARY), str(paths.SUMMARY))
    return run_of(params, variant, seed, baseline, day, summed_up, summary.after_of_csv(file(paths.FORGETTING)))


def _difference(today: Params, its: Params) -> str | None:
    """The first key that decides a result and differs."""
    one, other = _decisive(today), _decisive(its)
    return next((key for key in one if one[key] != other.get(key)), None)


def _decisive(params: Params) -> dict[str, Any]:
    own = {"seed": params.seed, "strategy": params.strategy, params.strategy: params.sections.get(params.strategy)}
    return summary.profile(params) | own


def _commits(root: Path) -> list[tuple[str, str, str]]:
    """Commit, day and name of each experiment; the order is git's, oldest commit first."""
    form = "--format=%(objectname) %(committerdate:unix) %(refname)"
    listed = _git(root, "for-each-ref", "refs/exps", "--sort=committerdate", form)
    commits = []
    for line in listed.splitlines():
        commit, seconds, ref = line.split(" ", 2)
        if re.fullmatch(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/[^/]+", ref):
            commits.append((commit, date.fromtimestamp(int(seconds)).isoformat(), ref.rpartition("/")[2]))
    return commits


def _git(root: Path, *words: str) -> str:
    try:
        command = ["git", *words]
        return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout  # noqa: S603
    except FileNotFoundError:
        raise DataError("git is not installed.") from None
    except subprocess.CalledProcessError as error:
        raise DataError(f"git {words[0]}: {error.stderr.strip().splitlines()[-1]}") from None
