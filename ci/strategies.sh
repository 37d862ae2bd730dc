#!/usr/bin/env bash
# Measures the placement strategies and the locks of classic mode, and writes docs/strategies.md.
# Takes a quarter of an hour; leave the machine alone meanwhile.
#
#   ci/strategies.sh                         everything
#   WORKLOADS=small LOCKS= ci/strategies.sh  one workload, no study of locks
#   WORKLOADS=trace THREADS=8 LOCKS= ci/strategies.sh  on eight threads only
#   MEASURE='taskset -c 0,1' ci/strategies.sh  puts a command in front of each measurement
#
# ALLOCATOR_TEST_DATA names the folder of the production profile and of the recorded trace; without
# it the profile is a built-in shape, and the trace is left out.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=target/strategies
workloads=${WORKLOADS-small profile adversarial mixed trace} locks=${LOCKS-larson xmalloc}
read -ra measure <<< "${MEASURE-}"

echo "building" >&2
cargo build --quiet --release --package bench-cli >&2
cargo build --quiet --release --package allocator --example placement_study >&2
mkdir -p "$folder"
page=$folder/strategies.md
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
cat > "$page" <<END
# Placement strategies and locks, measured

Written by \`ci/strategies.sh\` on $(date -u +%F): $(nproc) processors (${processor:-unknown}), $(
  awk '/^MemTotal/ {printf "%d", $2 / 1048576}' /proc/meminfo) GiB, Linux $(uname -r | grep -oE '^[0-9.]*[0-9]').

- malloc, free: nanoseconds per call. One thread: the median batch of 64 calls, median of five rounds,
  the strategies' rounds interleaved; for the trace, whose calls come one by one, time of the whole,
  split between malloc and free in the proportion found by timing single calls. Eight threads: time of the wall over the calls of all threads, which
  share one heap behind one lock, each with an eighth of the objects (of the trace, each with all).
- searched: free blocks looked at per allocation.
- internal = (usable − requested) / usable. The header of 8 bytes counts as external.
- external = (committed − usable in use) / committed. The side index counts as external.
- holes = free bytes / committed: what the strategy is to blame for. Read at the end, before the rest is
  freed; for the trace also when most is live.
- peak: highest committed, in MB and over the highest sum of requested bytes.
- kept: committed after the last free / highest committed.
- waits: share of lock acquisitions that had to wait; waited: nanoseconds of that per pair of calls.

Heaps grow by 64 KiB and give a free end of 256 KiB back but for 128 KiB. Objects are not touched.

END
for workload in $workloads; do
  echo "measuring $workload" >&2
  what=$workload
  if [[ $workload == trace ]]; then
    zip=${ALLOCATOR_TEST_DATA:-/nonexistent}/systemui.zip what=$folder/systemui.csv
    if [[ ! -e $zip ]]; then
      echo "no trace: ALLOCATOR_TEST_DATA names no folder with systemui.zip" >&2
      continue
    fi
    target/release/bench-cli trace export "$zip" -o "$what" --quiet
  fi
  for threads in ${THREADS-1 8}; do
    "${measure[@]}" target/release/examples/placement_study "$what" threads=$threads >> "$page"
  done
done
if [[ -n $locks ]]; then
  echo "measuring locks" >&2
  read -ra names <<< "$locks"
  command=(run "${names[@]}" -a ours -a 'ours?mode=classic&lock=global'
    -a 'ours?mode=classic&lock=arena' -a 'ours?mode=classic&lock=global&cache=on'
    -a 'ours?mode=classic&lock=arena&cache=on' --pass throughput --runs 3 --scale 0.1 --quiet)
  {
    printf '### Locks\n\n    bench-cli'
    printf ' %q' "${command[@]}"
    printf '\n\n```text\n'
    "${measure[@]}" target/release/bench-cli "${command[@]}" --out "$folder/locks-$$"
    printf '```\n\n`ours` was counted on the date above, in [locks.md](locks.md) on the one given there.\n'
  } >> "$page"
  rm -rf "$folder/locks-$$"
fi
mv "$page" docs/strategies.md
echo "written: docs/strategies.md" >&2
