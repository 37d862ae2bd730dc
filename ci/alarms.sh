#!/usr/bin/env bash
# How often the gate cries wolf on this machine, and how often it sees a slowdown. Three series of gates:
# between two copies of one library; with a slowdown put in by the gate; with a library whose malloc
# really does more. Leave the machine alone meanwhile; a gate of the short cell takes 3 to 4 seconds.
#
#   ci/alarms.sh [EQUAL [SLOWED [REAL]]]                  300, 20 and 20 gates of one short cell
#   SUITE= BUDGET=210s ci/alarms.sh 20 0 0                20 of the standard suite, 70 minutes
#
# SUITE: the workloads (default small-churn). BUDGET: of each gate (20s). SLOWDOWN: what is put in (5%).
# STEPS: to what the slower malloc counts before it allocates (2). FIRST: the first gate's seed (1).
set -euo pipefail
cd "$(dirname "$0")/.."
equal=${1:-300} slowed=${2:-20} real=${3:-20}
gate=${BENCH_CLI:-target/release/bench-cli}
read -ra suite <<< "${SUITE-small-churn}"
[[ -x $gate ]] || {
  echo "error: there is no $gate" >&2
  echo "  help: build it first: cargo build --release --package bench-cli" >&2
  exit 2
}

folder=$(mktemp -d)
remove() {
  git worktree remove --force "$folder/tree" 2> /dev/null || true
  rm -rf "$folder"
}
trap remove EXIT
cp "$("$gate" preload --print)" "$folder/a.so"
cp "$folder/a.so" "$folder/b.so"

# slower FILE: a library like ours whose malloc counts to STEPS first
slower() {
  local source=allocator/capi/src/standard.rs
  git worktree add --quiet --detach "$folder/tree"
  sed -i '/pub(crate) extern "C" fn malloc(/a for step in 0..'"${STEPS:-2}"' { core::hint::black_box(step); }' \
    "$folder/tree/$source"
  if git -C "$folder/tree" diff --quiet; then
    echo "error: no malloc to slow down in $source" >&2
    exit 1
  fi
  (cd "$folder/tree" && cargo build --quiet --package allocator-capi --profile preload --features preload \
    --target-dir "$folder/target")
  cp "$folder/target/preload/liballocator.so" "$1"
}

# series COUNT HEAD ARGUMENTS...: how many gates ended with each exit status, and how many of their cells
# with each verdict
series() {
  local count=$1 head=$2 status
  shift 2
  for ((i = ${FIRST:-1}; i < ${FIRST:-1} + count; i++)); do
    status=0
    "$gate" gate --base "$folder/a.so" --head "$head" "${suite[@]}" --budget "${BUDGET:-20s}" \
      --seed "$i" --quiet --out "$folder/out" "$@" > "$folder/log" 2>&1 || status=$?
    rm -rf "$folder/out"
    # Interrupted, and so are we.
    if ((status > 128)); then exit "$status"; fi
    echo "gate $i: status $status" >&2
    echo "status $status"
    # The verdict on each cell ends its line.
    grep -oE '[A-Z]{4,}$' "$folder/log" | sed 's/^/cell /' || true
  done | sort | uniq -c | while read -r number kind what; do echo "  $number $kind $what"; done
}

echo "$equal gates between equal libraries (status 0 pass, 3 regression, 4 inconclusive):"
series "$equal" "$folder/b.so"
if ((slowed)); then
  echo "$slowed gates with ${SLOWDOWN:-5%} put in:"
  series "$slowed" "$folder/b.so" --inject-slowdown "${SLOWDOWN:-5%}"
fi
if ((real)); then
  slower "$folder/slower.so"
  echo "$real gates with a malloc that counts to ${STEPS:-2}:"
  series "$real" "$folder/slower.so"
fi
