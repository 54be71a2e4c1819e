#!/usr/bin/env bash
# SI, sequential and independent: experiments/si.sh [SEED] [-S KEY=VALUE ...]
set -euo pipefail
dvc exp remove --quiet "si-seed${1:-0}" 2>/dev/null || true  # an older one of that name
dvc exp run --temp --name "si-seed${1:-0}" -S strategy=si -S seed="${1:-0}" "${@:2}"
