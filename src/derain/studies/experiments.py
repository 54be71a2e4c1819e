"""The runs of tables among this clone's DVC experiments, read from git: an experiment is a commit under refs/exps."""

from __future__ import annotations

import re
import subprocess
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from derain import params
from derain.disk import paths
from derain.evaluation import summary
from derain.params import Params
from derain.plugins import SELECTED
from derain.studies import variants
from derain.studies.comparison import RecordedRun, run_of
from derain.studies.variants import Variant
from derain.types import DataError, DerainError

_HARDWARE = {"device", "precision", "threads", "launch"}
_CODE = (
    "stages",
    "src/derain/stream.py",
    *(f"src/derain/{part}" for part in ("training", "compute", "data", "disk", "evaluation")),
)


class Experiments(NamedTuple):
    """The runs that were found, and a line for each that bears a run's name but is none of it."""

    runs: list[RecordedRun]
    left_out: list[str]


def of_this_clone(root: Path, base: variants.Content) -> Experiments:
    """The experiments NAME-seedN that are the variant NAME of `base`, a params.yaml's content, by the code as it is.

    Raises:
        DataError: the folder is no git repository.
    """
    catalogue = variants.catalogue(base)
    runs, left_out = [], []
    for commit, day, name in _commits(root):
        variant = catalogue.get(name.rpartition("-seed")[0])
        seed = re.search(r"-seed(\d+)$", name)
        if variant is None or seed is None:
            continue
        try:
            runs.append(_run(root, base, commit, day, variant, int(seed[1])))
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


def code_of(settings: Params) -> list[str]:
    """The files and folders whose code makes a run's numbers, as dvc.yaml has them."""
    return [*_CODE, *(f"src/derain/{kind}/{settings.selected(kind)}.py" for kind in SELECTED)]


def _run(root: Path, base: variants.Content, commit: str, day: str, variant: Variant, seed: int) -> RecordedRun:
    def file(path: Path) -> str:
        return _git(root, "show", f"{commit}:./{path}")

    ran = params.of(params.parse(file(params.PARAMS_FILE), "its params.yaml"))
    asked = params.of(variant.seeded(seed))
    if key := _difference(asked, ran):
        raise DataError(f"it was made with another {key} than params.yaml has now.")
    if changed := _git(root, "diff", "--name-only", commit, "--", *code_of(asked)).split():
        raise DataError(f"it was made by other code ({changed[0]}).")
    baseline = _git(root, "rev-parse", "--short", f"{commit}^").strip()
    found = summary.of_json(file(paths.SUMMARY), str(paths.SUMMARY))
    return run_of(base, variant, seed, baseline, day, found, summary.after_of_csv(file(paths.FORGETTING)))


def _difference(asked: Params, ran: Params) -> str | None:
    """The first key that decides a result and differs."""
    one, other = (_decisive(settings) for settings in (asked, ran))
    return next((key for key in one if one[key] != other.get(key)), None)


def _decisive(settings: Params) -> dict[str, Any]:
    sections = {key: settings.sections.get(key) for key in (settings.backbone, settings.strategy)}
    return settings.model_dump(exclude={"sections", *_HARDWARE}) | sections


def _commits(root: Path) -> list[tuple[str, str, str]]:
    """Commit, day and name of each experiment; the order is git's, oldest commit first."""
    form = "--format=%(objectname) %(committerdate:unix) %(refname)"
    listed = _git(root, "for-each-ref", "refs/exps", "--sort=committerdate", form)
    found = []
    for line in listed.splitlines():
        commit, seconds, ref = line.split(" ", 2)
        if re.fullmatch(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/[^/]+", ref):
            found.append((commit, date.fromtimestamp(int(seconds)).isoformat(), ref.rpartition("/")[2]))
    return found


def _git(root: Path, *words: str) -> str:
    try:
        command = ["git", *words]
        return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout  # noqa: S603
    except FileNotFoundError:
        raise DataError("git is not installed.") from None
    except subprocess.CalledProcessError as error:
        raise DataError(f"git {words[0]}: {error.stderr.strip().splitlines()[-1]}") from None
