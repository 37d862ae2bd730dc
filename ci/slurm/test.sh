#!/usr/bin/env bash
# The Slurm templates for real, on a Slurm of one node that this script starts and stops: a gate of
# three cells whose first cell is requeued in the middle, merged, and compared with the same cells
# run here without Slurm: the same work, process by process, nothing lost, nothing counted twice.
#
#   BENCH_CLI=target/release/bench-cli ci/slurm/test.sh
#
# Needs root and Debian's slurmctld, slurmd and slurm-client.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
BENCH_CLI=$(realpath "${BENCH_CLI:-$(command -v bench-cli)}")
export BENCH_CLI
work=$(mktemp -d)
fail() { echo "error: $1 (left for you: $work)" >&2; exit 1; }
trap '[[ ! -d $work/slurm ]] || "$here/local.sh" stop "$work/slurm" || true' EXIT
export "$("$here/local.sh" start "$work/slurm" | tail -1)"

cells=(small-churn larson xmalloc)
# A slowdown that nobody can miss makes every cell run both stages: 12 + 24 blocks, wherever it runs.
plan() { "$BENCH_CLI" --quiet plan "${cells[@]}" --base system --head system --seed 7 \
  --inject-slowdown 100% --budget 10m --out "$1" >/dev/null; }
plan "$work/slurm-run"
plan "$work/local-run"

read -r array merge < <("$here/submit.sh" "$work/slurm-run")
echo "submitted: cells $array, merge $merge"
for _ in $(seq 120); do
  squeue -h -j "${array}_0" -t RUNNING 2>/dev/null | grep -q . && break
  sleep 0.5
done
measuring() { grep -c ' against ' "$work/slurm-run/cell-0.log" 2>/dev/null || true; }
for _ in $(seq 120); do
  [[ $(measuring) == 1 ]] && break
  sleep 0.5
done
sleep 2
[[ ! -e $work/slurm-run/cells/0.json ]] || fail "cell 0 had its record before it could be killed"
scontrol requeue "${array}_0"
echo "cell 0 was killed and requeued in the middle"
for _ in $(seq 600); do
  state=$(scontrol show job "$merge" -o | grep -o 'JobState=[A-Z_]*' | cut -d= -f2)
  case $state in COMPLETED | FAILED) break ;; esac
  sleep 1
done
cat "$work/slurm-run/merge.log"
scontrol show job "$merge" -o | grep -q 'ExitCode=3:0' || fail "the merge ended as $state, not with 3"
scontrol show job "${array}_0" -o | grep -q 'Restarts=1' || fail "cell 0 was not requeued once"
[[ $(measuring) == 2 ]] || fail "cell 0 began $(measuring) times, not twice"

for index in "${!cells[@]}"; do
  "$BENCH_CLI" --quiet cell --plan "$work/local-run/plan.json" --index "$index"
done
"$BENCH_CLI" --quiet merge "$work/local-run" >/dev/null || [[ $? == 3 ]]

# Everything but the times has to be equal: cells, stages, blocks, orders, sides, seeds.
untimed() { cut -d, -f1-7 "$1/blocks.csv" | sort; }
diff <(untimed "$work/slurm-run") <(untimed "$work/local-run")
# So have the histograms of single calls, added over the cells: the same calls, each counted once.
calls() { cut -d, -f1,2,7 "$1/latency.csv" | sort -u; }
diff <(calls "$work/slurm-run") <(calls "$work/local-run")
echo "equal: $(calls "$work/local-run" | grep -c all-cells) added histograms, the same counts in both"
# Times are equal only statistically: the medians of both, to look at.
median() { grep "^$2," "$1/blocks.csv" | grep ",$3," | cut -d, -f8 | sort -n |
  awk '{v[NR] = $1} END {printf "%.1f ms", v[int((NR + 1) / 2)] / 1e6}'; }
for cell in $(tail -n +2 "$work/local-run/blocks.csv" | cut -d, -f1 | sort -u); do
  echo "$cell base: $(median "$work/slurm-run" "$cell" base) by Slurm," \
    "$(median "$work/local-run" "$cell" base) here"
done
echo "equal: $(($(wc -l <"$work/local-run/blocks.csv") - 1)) processes, the same in both"
"$here/local.sh" stop "$work/slurm"
rm -rf "$work"
