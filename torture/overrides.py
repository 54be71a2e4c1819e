"""Random values for random keys of params.yaml, as `dvc exp run -S` sets them: taken as what was meant, or refused.

DVC's own function behind -S writes each into params.yaml, which is then read as every stage reads it; every tenth goes
through the whole `dvc exp run -S ... validate`. A value that is refused is named with its key; nothing else changes.
"""

from __future__ import annotations

import itertools
import math
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides

from derain import params
from derain.data.sets import check_sets
from derain.types import ParamsError
from torture._figures import Figures
from torture._project import Project

COUNT = 300
WHOLE = 10
"""Every how many-th goes through the whole command."""


class Case(NamedTuple):
    """An override as it is typed; `meant` is the value it must have, REFUSED where there is none."""

    key: str
    typed: str
    meant: Any


REFUSED = object()

_NO_NUMBERS = ("nan", ".nan", "inf", "-.inf", "lots", "''", "[1]", "{a: 1}", "true", "0x10", "1e400", "null")
_POSITIVE = (("1e-5", 1e-5), ("1E-05", 1e-5), ("0.00001", 1e-5), ("1e-05", 1e-5), (".5", 0.5), ("2", 2.0), ("3.0", 3.0))
_NO_COUNTS = (*_NO_NUMBERS[:-1], "0", "-1", "1.5", "1e3", "'3'", "3.0")
_COUNTS = (("1", 1), ("7", 7), ("+3", 3), ("3_0", 30))

_NUMBERS: Mapping[str, tuple[str, ...]] = {
    # Keys of positive numbers, and what else is out of their range.
    "train.lr": ("0", "-1e-3"),
    "nr.tau_s": ("0", "-1", "10", "11"),
    "nr.lambda_kd": ("-0.1",),
}
_INTEGERS = ("train.epochs", "train.batch", "prenet.channels", "prenet.stages", "prenet.blocks", "data.rains_per_photo")
_WORDS: Mapping[str, tuple[tuple[tuple[str, Any], ...], tuple[str, ...]]] = {
    "device": ((("cpu", "cpu"), ("cuda:1", "cuda:1"), ("auto", "auto")), ("gpu", "cuda:x", "0", "null", "[cpu]")),
    "precision": ((("fp32", "fp32"), ("bf16", "bf16")), ("fp16", "32", "null", "FP32")),
    "strategy": ((("si", "si"), ("nr", "nr")), ("NR", "../nr", "_base", "null", "1")),
    "backbone": ((("prenet", "prenet"),), ("resnet", "prenet.py", "__init__", "null")),
    "nr.rank": ((("free", "free"),), ("none", "1", "null")),
    "nr.gradient": ((("batch", "batch"),), ("pixel", "true")),
    "nr.consolidate": ((("false", False), ("False", False), ("true", True)), ("no", "0", "'false'", "null", "2")),
    "nr.samples": ((("null", None), ("64", 64)), ("0", "-1", "some", "1.5")),
    "nr.alpha_l": ((("0.01", 0.01), ("1e-2", 0.01), ("0", 0.0)), ("0.2", "-0.01", "nan", "inf", "text")),
    "nr.tau_l": ((("9", 9.0), ("1e1", 10.0)), ("0.5", "1", "nan")),
    "seed": ((("3", 3), ("0", 0)), ("-1", "1.5", "9223372036854775808", "text", "null")),
    "threads": ((("1", 1), ("4", 4)), ("0", "257", "two", "null")),
    "adam_multistep.milestones": (
        (("[0.2,0.3]", [0.2, 0.3]), ("[]", [])),
        ("[0.3,0.2]", "[0.2,0.2]", "[0]", "[900]", "3", "[a]", "[1.5]"),
    ),
    "adam_multistep.gamma": ((("1", 1.0), ("5e-1", 0.5)), ("0", "1.01", "nan", "-0.2")),
    "train.steps_per_epoch": ((("null", None), ("12", 12)), ("0", "-3", "all")),
    "train.micro_batch": ((("null", None), ("2", 2)), ("0", "1.5", "half")),
    "train.patch": ((("64", 64), ("11", 11)), ("10", "0", "64.5")),
    "data.test_share": ((("0.5", 0.5), ("1e-1", 0.1)), ("0", "1", "2", "nan")),
    "task0.dataset": ((("light", "light"),), ("snow", "null", "1")),
    "stream.1.dataset": ((("heavy", "heavy"),), ("snow", "null")),
    "stream.1.after": ((("0", "0"), ("'0'", "0")), ("7", "null")),
    "datasets.light.kind": ((("varied", "varied"),), ("snow", "null", "[light]")),
    "datasets.light.source": ((), ("painted", "null")),
    "tests.unseen": ((("learned", "learned"),), ("seen", "true")),
}
_MISSPELT = ("train.learning_rate", "nr.alfa_l", "sead", "tests.snow", "stream.one.dataset", "datasets.light.knid")


def cases() -> list[Case]:
    """All of them, in the order of this file."""
    listed = []
    for key, out_of_range in _NUMBERS.items():
        listed += [Case(key, typed, value) for typed, value in _POSITIVE]
        listed += [Case(key, typed, REFUSED) for typed in (*_NO_NUMBERS, *out_of_range)]
    for key in _INTEGERS:
        listed += [Case(key, typed, value) for typed, value in _COUNTS if key != "train.epochs" or value > 4]
        listed += [Case(key, typed, REFUSED) for typed in _NO_COUNTS]
    for key, (allowed, refused) in _WORDS.items():
        listed += [Case(key, typed, value) for typed, value in allowed]
        listed += [Case(key, typed, REFUSED) for typed in refused]
    return listed + [Case(f"+{key}", "1", REFUSED) for key in _MISSPELT]


def run(seed: int, count: int) -> Figures:
    rng = random.Random(seed)  # noqa: S311 - no secret
    counts: Counter[str] = Counter()
    faults: list[str] = []
    every = cases()
    rng.shuffle(every)
    with tempfile.TemporaryDirectory() as folder:
        project = Project.made(Path(folder) / "project")
        file = project.folder / "params.yaml"
        before = file.read_text()
        for number, case in enumerate(itertools.islice(itertools.cycle(every), count)):
            whole = number % WHOLE == 0
            counts["refused" if case.meant is REFUSED else "taken"] += 1
            counts["through the whole command"] += whole
            wrong = _through_dvc(project, case) if whole else _through_its_function(file, case)
            faults += [f"-S {case.key}={case.typed}: {fault}" for fault in wrong]
            file.write_text(before)
    return Figures(counts, faults)


def _through_its_function(file: Path, case: Case) -> Iterator[str]:
    unchanged = _leaves(params.check(file))
    try:
        apply_overrides(file, [f"{case.key}={case.typed}"])
        settings = params.check(file)
        check_sets(settings)
    except (ParamsError, DvcException) as error:
        yield from _wrong_refusal(case, str(error))
        return
    if case.meant is REFUSED:
        yield "was taken"
        return
    for key, value in _leaves(settings).items():
        expected = case.meant if key == case.key else unchanged.get(key)
        if value != expected or isinstance(value, bool) != isinstance(expected, bool):
            yield f"{key} is {value!r} and not {expected!r}"


def _through_dvc(project: Project, case: Case) -> Iterator[str]:
    process = project.start("dvc", "exp", "run", "-S", f"{case.key}={case.typed}", "validate")
    said = process.communicate()[0]
    if case.meant is REFUSED:
        if process.returncode == 0:
            yield "was taken"
        else:
            yield from _wrong_refusal(case, said)
    elif process.returncode:
        yield f"was refused: {said[-300:]}"


def _wrong_refusal(case: Case, said: str) -> Iterator[str]:
    if case.meant is not REFUSED:
        yield f"was refused: {said}"
    last = case.key.lstrip("+").split(".")
    # Of a number that leaves its range together with another one, the message may name the other one.
    if not any(word in said for word in (last[-1], last[0])):
        yield f"does not name the key: {said}"
    if "Traceback" in said:
        yield f"is a traceback: {said[-300:]}"


def _leaves(settings: params.Params) -> dict[str, Any]:
    """Every value of the parameters by its key, as in params.yaml; lists are values."""
    content = settings.model_dump()
    content |= content.pop("sections")
    return dict(_flat("", content))


def _flat(prefix: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}{key}.", value)
        elif not (isinstance(value, float) and math.isnan(value)):
            yield f"{prefix}{key}", value
