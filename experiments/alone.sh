#!/usr/bin/env bash
# One set alone: experiments/alone.sh SET [SEED] [-S KEY=VALUE ...]
set -euo pipefail
dvc exp remove --quiet "alone-$1-seed${2:-0}" 2>/dev/null || true  # an older one of that name
dvc exp run --temp --name "alone-$1-seed${2:-0}" -S strategy=si -S seed="${2:-0}" \
  -S task0.dataset="$1" -S "~stream.1" -S "~stream.2" -S "~stream.3" \
  -S train.epochs=400 -S "train.milestones=[120,200,320]" "${@:3}"
