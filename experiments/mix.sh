#!/usr/bin/env bash
# Mix, all sets at once: experiments/mix.sh [SEED] [-S KEY=VALUE ...]
set -euo pipefail
kinds="{source: rendered, kind: heavy}, {source: rendered, kind: medium}, {source: rendered, kind: varied}, {source: rendered, kind: light}"
dvc exp remove --quiet "mix-seed${1:-0}" 2>/dev/null || true  # an older one of that name
dvc exp run --temp --name "mix-seed${1:-0}" -S strategy=si -S seed="${1:-0}" \
  -S "+datasets.mixed={source: mix, of: [$kinds]}" -S task0.dataset=mixed -S "~stream.1" -S "~stream.2" -S "~stream.3" \
  -S train.epochs=400 -S "train.milestones=[120,200,320]" "${@:2}"
