#!/usr/bin/env bash
# Neural Reorganization: experiments/nr.sh [SEED] [-S KEY=VALUE ...]
set -euo pipefail
dvc exp remove --quiet "nr-seed${1:-0}" 2>/dev/null || true  # an older one of that name
dvc exp run --temp --name "nr-seed${1:-0}" -S strategy=nr -S seed="${1:-0}" "${@:2}"
