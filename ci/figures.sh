#!/usr/bin/env bash
# Measures ours beside every other allocator, on the usual workloads, and writes
# docs/figures.md. Takes more than three hours at the defaults; leave the machine alone meanwhile.
#
#   ci/figures.sh                     9 rounds of about a second
#   RUNS=3 LENGTH=100ms ci/figures.sh  a quick look: wide intervals, small differences mean nothing
#
# In the patterns of one size an allocator may take two hundred times as long as another for the same
# work, and needs no more memory for more of it: there each does as much as takes it LENGTH. In all other
# workloads all do the same work, as much as takes ours LENGTH.
#
# An interrupted run goes on where it was: the same command again. A finished one is measured anew.
# The folder of results is $FIGURES (default: target/figures), with one folder for each part.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${FIGURES:-target/figures} runs=${RUNS:-9} length=${LENGTH:-1s}

echo "building the others" >&2
cargo run --quiet --release --manifest-path ci/peers/Cargo.toml >&2
echo "building ours" >&2
cargo build --quiet --release --package bench-cli

allocators=ours,system
for library in ci/peers/target/lib/lib*.so; do allocators+=,$library; done
patterns=()
for pattern in pair lifo100 rand10k churn10k xthread; do
  for bytes in 16 64 256 1024 8192 65536 524288 4194304; do patterns+=("$pattern-$bytes"); done
done
others=(larson larson-sized mstress rptest alloc-test xmalloc sh6bench sh8bench cache-scratch
  cache-thrash glibc-simple glibc-thread threadtest malloc-large mleak cfrac-like espresso-like
  compiler-like interpreter-like gui-like profile server)

# The loads of several threads, on other numbers of them than those that `others` have.
loads=(larson mstress rptest xmalloc sh8bench cache-scratch glibc-thread)
singles=(alloc-test sh6bench)
parts=(patterns others threads-1 threads-2 threads-4 threads-8)

completed() { grep -qs '"state": "completed"' "$folder/$1/manifest.json"; }
all_completed() {
  local part
  for part in "${parts[@]}"; do completed "$part" || return 1; done
}
if all_completed; then rm -rf "$folder"; fi

# measure PART WHOM [--threads N] WORKLOAD...: of a part that is done already nothing is run again. An allocator that
# failed (exit code 6) has no figure.
measure() {
  local out=$folder/$1 whom=$2 resume=() code=0
  if completed "$1"; then return; fi
  shift 2
  if [[ -e $out/manifest.json ]]; then resume=(--resume); fi
  target/release/bench-cli run "$@" -a "$allocators" --pass throughput --runs "$runs" \
    --duration "$length" --duration-for "$whom" --out "$out" "${resume[@]}" >&2 || code=$?
  if [[ $code != 0 && $code != 6 ]]; then exit "$code"; fi
}
measure patterns each "${patterns[@]}"
measure others first "${others[@]}"
measure threads-1 first --threads 1 "${loads[@]}"
measure threads-2 first --threads 2 "${singles[@]}"
measure threads-4 first --threads 4 "${loads[@]}" "${singles[@]}"
measure threads-8 first --threads 8 "${loads[@]}" "${singles[@]}"
cargo ci figures "${parts[@]/#/$folder/}" ci/peers/target/lib/peers.json \
  "RUNS=$runs LENGTH=$length ci/figures.sh" > "$folder/figures.md"
mv "$folder/figures.md" docs/figures.md
echo "written: docs/figures.md" >&2
