#!/usr/bin/env bash
# NR without knowledge distillation: experiments/nr-without-kd.sh [SEED] [-S KEY=VALUE ...]
set -euo pipefail
dvc exp remove --quiet "nr-without-kd-seed${1:-0}" 2>/dev/null || true  # an older one of that name
dvc exp run --temp --name "nr-without-kd-seed${1:-0}" -S strategy=nr -S nr.lambda_kd=0 -S seed="${1:-0}" "${@:2}"
