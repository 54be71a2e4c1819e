"""Runs of the paper's tables as DVC experiments: one `dvc exp run` line each, which is printed before it runs.

    python -m experiments.run NAME [NAME ...] [--seeds 0 1 2] [--queue | --print]

NAME is a variant, as nr, mix or alone-heavy, or a group: table1 to table5, strategies, orders, values, widths,
capacity. They start from params.yaml as it is, run in folders of their own (--temp), and change nothing in the
workspace. One that is there already, with the same parameters, is not run again: interrupted, the same command goes on
with the first that is missing. With --queue they wait for `dvc queue start`.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from derain import console
from derain.params import Params, check
from derain.studies import experiments, variants
from derain.studies.recorded import Recorded
from derain.studies.variants import Variant
from derain.types import ParamsError


def main() -> int:
    chosen = arguments()
    params = check()
    for line in experiments.of_this_clone(Path(), params).left_out:
        console.warn(line)
    for seed in chosen.seeds:
        for variant in named(params, chosen.names):
            name = f"{variant.name}-seed{seed}"
            # Looked at anew each time: several of these commands may be at work.
            if Recorded(runs=experiments.of_this_clone(Path(), params).runs).has(variant.name, seed):
                console.say(f"{name}: done before")
                continue
            command = command_of(params, variant, seed, chosen.queue)
            if not chosen.print:
                make_way(name)
            console.say(f"$ {shlex.join(command)}")
            if not chosen.print and (code := subprocess.run(command, check=False).returncode):  # noqa: S603
                console.warn(f"{name} failed; the same command goes on with it.")
                return code
    return 0


def named(params: Params, names: list[str]) -> list[Variant]:
    """The variants and groups of these names, each variant once.

    Raises:
        ParamsError: there is none of that name.
    """
    groups, catalogue = variants.groups(params), variants.catalogue(params)
    chosen: dict[str, Variant] = {}
    for name in names:
        if name not in groups and name not in catalogue:
            raise ParamsError(f"{name!r} is no run of this params.yaml. Allowed: {', '.join([*groups, *catalogue])}.")
        chosen |= {variant.name: variant for variant in groups.get(name) or [catalogue[name]]}
    return list(chosen.values())


def command_of(params: Params, variant: Variant, seed: int, queue: bool) -> list[str]:
    """The `dvc exp run` of a variant with a seed."""
    name, how = f"{variant.name}-seed{seed}", "--queue" if queue else "--temp"
    changed = variants.overrides(params.content, variant.seeded(seed).content)
    changes = [word for change in changed for word in ("-S", change)]
    return ["dvc", "exp", "run", how, "--name", name, *changes]


def make_way(name: str) -> None:
    """Renames an experiment of that name that starts from the same commit, with other parameters or code."""
    if commit := experiments.named(Path(), name):
        rename = ["dvc", "exp", "rename", name, f"{name}-{commit[:7]}"]
        console.say(f"$ {shlex.join(rename)}")
        subprocess.run(rename, check=True)  # noqa: S603


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.run", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--queue", action="store_true", help="queue them; `dvc queue start` runs them")
    how.add_argument("--print", action="store_true", help="print the lines alone")
    return parser.parse_args()


if __name__ == "__main__":
    console.run(main)
