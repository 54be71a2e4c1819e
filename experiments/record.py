"""Records the metrics of DVC experiments in metrics/recorded.json, which travels with the project; the report shows it.

    python -m experiments.record nr=NR si=SI ...

Each argument is an experiment's name without its seed, and the label of its row: nr-seed0, nr-seed1, ... become NR.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from derain import params, paths
from derain.console import run, say
from derain.evaluation.quality import PROTOCOLS
from derain.report.summary import MAIN, profile
from derain.types import DataError


def main() -> None:
    labels = dict(argument.split("=", 1) for argument in sys.argv[1:])
    runs = [found for name, label in labels.items() for found in recorded(name, label)]
    content = {
        "protocol": f"{MAIN}: {PROTOCOLS[MAIN].description}",
        "machine": machine(),
        "date": date.today().isoformat(),
        "profile": profile(params.load()),
        "runs": runs,
    }
    paths.write_json(paths.RECORDED, content)
    say(f"wrote {paths.RECORDED}: {len(runs)} runs")


def recorded(name: str, label: str) -> list[dict[str, Any]]:
    """The runs of one strategy: an experiment's metrics for each seed it has in this clone."""
    revisions = git("for-each-ref", "--format=%(refname)", "refs/exps").split()
    seeds = {int(found[1]): ref for ref in revisions if (found := re.search(rf"/{re.escape(name)}-seed(\d+)$", ref))}
    if not seeds:
        raise DataError(f"no experiment {name}-seed0 in this clone. Run experiments/{name}.sh first.")
    summaries = {seed: json.loads(git("show", f"{ref}:{paths.SUMMARY}")) for seed, ref in sorted(seeds.items())}
    return [
        {"label": label, "strategy": summary["strategy"], "seed": seed, "summary": summary}
        for seed, summary in summaries.items()
    ]


def machine() -> str:
    """The processor and the number of threads that params.yaml asks for."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    return f"{found[1] if found else platform.processor()}, {params.load().threads} threads"


def git(*command: str) -> str:
    return subprocess.run(["git", *command], capture_output=True, text=True, check=True).stdout  # noqa: S603, S607


if __name__ == "__main__":
    run(main)
