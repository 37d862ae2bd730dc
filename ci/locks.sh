#!/usr/bin/env bash
# Counts how often the locks of ours are taken and waited for with 2, 8 and 32 threads, and writes
# docs/locks.md. Takes about two minutes. What is taken does not depend on the machine, what waits does.
#
#   ci/locks.sh
#   WORKLOADS=larson THREADS=2 ci/locks.sh      a part, to look at: then docs/locks.md holds only that
set -euo pipefail
cd "$(dirname "$0")/.."
read -ra workloads <<< "${WORKLOADS-larson mstress rptest xmalloc sh8bench glibc-thread threadtest server}"
read -ra threads <<< "${THREADS-2 8 32}"
cargo build --quiet --release --package bench-cli
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

command=(run "${workloads[@]}" -a ours --pass throughput --runs 1 --scale 0.1)
for count in "${threads[@]}"; do
  echo "counting with $count threads" >&2
  target/release/bench-cli "${command[@]}" --threads "$count" --out "$folder/$count" --quiet > /dev/null
done

# figures WORKLOAD: taken and waits per thousand calls, for each count of threads
figures() {
  for count in "${threads[@]}"; do
    awk -F, -v "run=$1-${count}t--0-ours--throughput--0" '
      FNR == 1 { for (i = 1; i <= NF; i++) if ($i == "operations") column = i }
      $1 == run && FILENAME ~ /runs.csv$/ { calls = $column / 1000 }
      $1 == run && FILENAME ~ /internals.csv$/ { value[$2] = $3 }
      END {
        if (!calls || !("lock_acquisitions" in value)) exit 1
        printf " %.2f | %.3f |", value["lock_acquisitions"] / calls, value["lock_waits"] / calls
      }' "$folder/$count/runs.csv" "$folder/$count/internals.csv" || {
      echo "error: bench-cli counted no locks of $1 with $count threads" >&2
      return 1
    }
  done
}

{
  cat << 'END'
# The locks of production mode, counted

The locks counted are those of the two pools of a node, of the huge objects and of the heaps of ended threads. Not counted
are the ones that settings and profiles have, and a heap's door, for which its own thread takes no lock and waits
only while another one visits. No path that runs per operation takes a lock; what is counted here are refills and
returns of whole slices, objects above 1 MiB, and threads that come and go. Per thousand calls of `malloc` and `free`:
how often a lock was taken, and how often a thread had to wait for one.

END
  echo "Written by \`ci/locks.sh\` on $(date -u +%F), $(nproc) processors. With more threads than processors a thread"
  echo "waits also for a holder that is not running."
  echo
  echo "    bench-cli ${command[*]} --threads N"
  echo
  header='| workload |' rule='|---|'
  for count in "${threads[@]}"; do
    header+=" $count threads: taken | waits |" rule+='---|---|'
  done
  echo "$header"
  echo "$rule"
  for workload in "${workloads[@]}"; do
    row=$(figures "$workload")
    echo "| $workload |$row"
  done
} > "$folder/page"
mv "$folder/page" docs/locks.md
echo "written: docs/locks.md" >&2
