#!/usr/bin/env bash
# NR without synaptic consolidation: experiments/nr-without-sc.sh [SEED] [-S KEY=VALUE ...]
set -euo pipefail
dvc exp run --force --name "nr-without-sc-seed${1:-0}" -S strategy=nr -S nr.consolidate=false -S seed="${1:-0}" "${@:2}"
