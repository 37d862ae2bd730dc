#!/usr/bin/env bash
# Measures ours beside every other allocator, on the usual workloads, and writes
# docs/figures.md. Takes hours at the defaults; leave the machine alone meanwhile.
#
#   ci/figures.sh                     9 rounds, each as much work as ours does in a second
#   RUNS=3 LENGTH=100ms ci/figures.sh  a quick look: wide intervals, small differences mean nothing
#
# An interrupted run goes on where it was: the same command again. A finished one is measured anew.
# The folder of results is $FIGURES (default: target/figures).
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${FIGURES:-target/figures} runs=${RUNS:-9} length=${LENGTH:-1s}

echo "building the others" >&2
cargo run --quiet --release --manifest-path ci/peers/Cargo.toml >&2
echo "building ours" >&2
cargo build --quiet --release --package bench-cli

allocators=ours,system
for library in ci/peers/target/lib/lib*.so; do allocators+=,$library; done
workloads=()
for pattern in pair lifo100 rand10k churn10k xthread; do
  for bytes in 16 64 256 1024 8192 65536 524288 4194304; do workloads+=("$pattern-$bytes"); done
done
workloads+=(larson larson-sized mstress rptest alloc-test xmalloc sh6bench sh8bench cache-scratch
  cache-thrash glibc-simple glibc-thread threadtest malloc-large mleak cfrac-like espresso-like
  compiler-like interpreter-like gui-like profile server)

resume=()
if grep -q '"state": "completed"' "$folder/manifest.json" 2>/dev/null; then rm -rf "$folder"; fi
if [[ -e $folder/manifest.json ]]; then resume=(--resume); fi
target/release/bench-cli run "${workloads[@]}" -a "$allocators" --pass throughput \
  --runs "$runs" --duration "$length" --out "$folder" "${resume[@]}" >&2
cargo ci figures "$folder" ci/peers/target/lib/peers.json "RUNS=$runs LENGTH=$length ci/figures.sh" \
  > "$folder/figures.md"
mv "$folder/figures.md" docs/figures.md
echo "written: docs/figures.md" >&2
