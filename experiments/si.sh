#!/usr/bin/env bash
# SI, sequential and independent: experiments/si.sh [SEED] [-S KEY=VALUE ...]
set -euo pipefail
dvc exp run --force --name "si-seed${1:-0}" -S strategy=si -S seed="${1:-0}" "${@:2}"
