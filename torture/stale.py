"""Every parameter of a training changed in turn, and random cases: no state is met by what it does not belong to.

The stages themselves run, down to the computation, which is replaced by one that writes into its state what decides
it, and compares that with what it finds there. Values come from small sets, so that states are met again: then they
must be used.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from unittest import mock

from derain.training import resume
from stages import kd_task, sc_mask
from torture._figures import Figures
from torture._folder import Folder, small_folder

COUNT = 200

# Values of each parameter: the first is the base, each of the others is another training.
_CHANGES: Mapping[str, list[Any]] = {
    "seed": [0, 1],
    "precision": ["fp32", "bf16"],
    "threads": [1, 2],
    "train.lr": [0.002, 0.001, 1e-5],
    "train.epochs": [5, 6],
    "train.steps_per_epoch": [2, None, 3],
    "train.batch": [2, 3],
    "train.micro_batch": [None, 1],
    "train.patch": [16, 12],
    "adam_multistep.milestones": [[0.3], [], [0.3, 0.7]],
    "adam_multistep.gamma": [0.2, 0.5],
    "prenet.channels": [4, 8],
    "prenet.stages": [2, 3],
    "prenet.blocks": [1, 2],
    "task0.dataset": ["heavy", "light"],
    "stream.1.dataset": ["light", "heavy"],
    "strategy": ["nr", "si"],
    "nr.alpha_l": [0.008, 0.01],
    "nr.tau_s": [1, 2],
    "nr.tau_l": [10, 9],
    "nr.lambda_kd": [0.8, 0, 0.5],
    "nr.consolidate": [True, False],
    "nr.rank": ["all", "free"],
    "nr.gradient": ["sample", "batch"],
    "nr.samples": [4, None, 5],
}
# What decides no training, with another value.
_IRRELEVANT: Mapping[str, list[Any]] = {
    "data.photos": ["builtin", "elsewhere"],
    "data.test_share": [0.2, 0.3],
    "data.rains_per_photo": [2, 3],
    "datasets.unseen.kind": ["unseen", "medium"],
    "datasets.medium.kind": ["medium", "varied"],
    "tests.unseen": ["unseen", "learned"],
    "tests.light": ["learned", "unseen"],
    "stream.2.dataset": ["varied", "light"],
    "si": [{}, None],
    "launch": ["python", "torchrun"],
}
_STAGES: Mapping[str, tuple[Callable[[str], None], str]] = {
    "train_task0": (kd_task.main, "0"),
    "sc_mask0": (sc_mask.main, "0"),
    "kd_task": (kd_task.main, "1"),
    "sc_mask": (sc_mask.main, "1"),
}


class _StoppedError(Exception):
    """The computation ends here, its state kept."""


def run(seed: int, count: int) -> Figures:
    rng = random.Random(seed)  # noqa: S311 - no secret
    leaves = {**_CHANGES, **_IRRELEVANT}
    base = {key: values[0] for key, values in leaves.items()}
    in_turn = [base | {key: value} for key, values in leaves.items() for value in values[1:]]
    at_random = []
    for _ in range(count):
        changed = rng.sample(sorted(leaves), rng.randint(0, 4))
        at_random.append(base | {key: rng.choice(leaves[key]) for key in changed})
    seen: dict[str, set[str]] = {stage: set() for stage in _STAGES}
    counts: Counter[str] = Counter({"parameters changed in turn": len(in_turn), "random cases": count})
    faults: list[str] = []
    with mock.patch.object(resume, "KEPT_STATES", 10**6), small_folder() as folder:
        for values in [base, *in_turn, *at_random]:
            for stage in _STAGES:
                own = _what_decides(stage, values)
                met = _met(folder, stage, values, own)
                counts["states met again and used"] += met == own
                counts["stale states used"] += met not in (None, own)
                if met != (own if own in seen[stage] else None):
                    faults.append(f"{stage}: met {met} for {own}")
                seen[stage].add(own)
    return Figures(counts, faults)


def _what_decides(stage: str, values: Mapping[str, Any]) -> str:
    """What a stage's state must belong to, by an account of its own: the values that decide it."""
    decides = {key for key in _CHANGES if not key.startswith(("nr.", "strategy", "task0", "stream"))}
    if stage.startswith("sc_mask"):  # it measures a network that is learned
        decides -= {key for key in decides if key.startswith("adam_multistep.")}
    decides.add("task0.dataset" if stage.endswith("0") else "stream.1.dataset")
    if stage != "train_task0":
        decides.add("strategy")
        if values["strategy"] == "nr":
            decides |= {key for key in _CHANGES if key.startswith("nr.")}
    return json.dumps({key: values[key] for key in sorted(decides)})


def _met(folder: Folder, stage: str, values: Mapping[str, Any], own: str) -> str | None:
    """Starts a stage whose computation writes `own` into its state and stops; returns what was there before."""
    folder.write_params(values)
    folder.write_artifacts()
    states: list[str | None] = []

    def computation(*arguments: Any) -> None:
        state = arguments[-1]
        before = state.load()
        states.append(before and before.decode())
        state.save(own.encode())
        raise _StoppedError

    main, key = _STAGES[stage]
    with (
        mock.patch.object(kd_task, "learn_task", computation),
        mock.patch.object(sc_mask, "consolidate_task", computation),
        suppress(_StoppedError),
    ):
        main(key)
    return states[0]
