#!/usr/bin/env bash
# The performance gate of a change: builds the base from a git revision and the head from the work
# tree, and lets `bench-cli gate` judge. Passes on its exit status: 0 pass, 3 regression,
# 4 inconclusive, 6 an allocator failed, 2 usage.
#
#   ci/gate.sh [BASE_REVISION] [ARGUMENTS OF bench-cli gate...]
#
# BASE_REVISION is `origin/main` unless given. Built bases are kept in $GATE_CACHE (default:
# target/gate-base), one file per commit: a base is built once.
set -euo pipefail
cd "$(dirname "$0")/.."

revision=origin/main
if (($# > 0)) && [[ $1 != -* ]]; then revision=$1; shift; fi
commit=$(git rev-parse --verify --quiet "$revision^{commit}") || {
  echo "error: there is no revision \`$revision\` here" >&2
  echo "  help: fetch it first (\`git fetch origin main\`), or name another: ci/gate.sh HEAD~1" >&2
  exit 2
}
cache=${GATE_CACHE:-target/gate-base}
base=$cache/$commit.so
mkdir -p "$cache"

if [[ ! -s $base ]]; then
  echo "building the base: $commit" >&2
  tree=$(mktemp -d)
  # The work tree goes away whatever happens; what was built before stays in the cache.
  trap 'git worktree remove --force "$tree" 2>/dev/null || rm -rf "$tree"' EXIT
  git worktree add --quiet --detach "$tree" "$commit"
  cargo build --quiet --manifest-path "$tree/Cargo.toml" --package allocator-capi \
    --profile preload --features preload --target-dir "$cache/build"
  # Whole or not at all: an interrupted build leaves no half library behind.
  cp "$cache/build/preload/liballocator.so" "$base.part"
  mv "$base.part" "$base"
fi

echo "building the head" >&2
cargo build --quiet --release --package bench-cli
exec_status=0
target/release/bench-cli gate --base "$base" --head ours "$@" || exec_status=$?
exit "$exec_status"
