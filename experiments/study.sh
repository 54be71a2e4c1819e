#!/usr/bin/env bash
# Every strategy with three seeds, recorded in metrics/recorded.json: experiments/study.sh. Interrupted, it goes on where it was.
set -euo pipefail
for seed in 0 1 2; do
  for strategy in nr si nr-without-sc nr-without-kd mix; do
    name="$strategy-seed$seed"
    git for-each-ref "refs/exps/**/$name" | grep -q . || "experiments/$strategy.sh" "$seed" --temp
  done
done
python -m experiments.record nr=NR si=SI nr-without-sc="NR without SC" nr-without-kd="NR without KD" mix=Mix
