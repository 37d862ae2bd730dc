#!/usr/bin/env bash
# Submits the cells of a plan as a job array, and after them, however they ended, the merge.
#
#   ci/slurm/submit.sh FOLDER [ARGUMENTS OF sbatch...]
#
# FOLDER holds plan.json and is visible from every node. Prints the two job numbers.
set -euo pipefail
if (($# < 1)); then echo "usage: $0 FOLDER [sbatch arguments]" >&2; exit 2; fi
folder=$(realpath "$1"); shift
here=$(dirname "$(realpath "$0")")
bench=${BENCH_CLI:-$(command -v bench-cli)}
last=$(($("$bench" plan --count "$folder/plan.json") - 1))
cells=$(GATE_FOLDER=$folder BENCH_CLI=$bench sbatch --parsable --export=ALL --array="0-$last" \
  --output="$folder/cell-%a.log" "$@" "$here/gate.sbatch")
merge=$(sbatch --parsable --dependency="afterany:$cells" --output="$folder/merge.log" "$@" \
  --wrap="exec '$bench' merge '$folder'")
echo "$cells $merge"
