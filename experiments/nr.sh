#!/usr/bin/env bash
# Neural Reorganization: experiments/nr.sh [SEED] [-S KEY=VALUE ...]
set -euo pipefail
dvc exp run --force --name "nr-seed${1:-0}" -S strategy=nr -S seed="${1:-0}" "${@:2}"
