#!/usr/bin/env bash
# NR without synaptic consolidation: experiments/nr-without-sc.sh [SEED] [-S KEY=VALUE ...]
set -euo pipefail
dvc exp remove --quiet "nr-without-sc-seed${1:-0}" 2>/dev/null || true  # an older one of that name
dvc exp run --temp --name "nr-without-sc-seed${1:-0}" -S strategy=nr -S nr.consolidate=false -S seed="${1:-0}" "${@:2}"
