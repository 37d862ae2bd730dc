#!/usr/bin/env bash
# The performance gate of a change: the base is built from a git revision, the head from the work
# tree, and `bench-cli gate` judges. Passes on its exit status: 0 pass, 3 regression,
# 4 inconclusive, 6 an allocator failed, 2 usage.
#
#   ci/gate.sh [BASE_REVISION] [ARGUMENTS OF bench-cli gate...]
#
# BASE_REVISION is `origin/main` unless given. Built bases are kept in $GATE_CACHE (default:
# target/gate-base), one file per commit and compiler: a base is built once.
set -euo pipefail
cd "$(dirname "$0")/.."

revision=origin/main
if (($# > 0)) && [[ $1 != -* ]]; then revision=$1; shift; fi
# Asked before the head is built, which takes minutes.
git rev-parse --verify --quiet "$revision^{commit}" >/dev/null || {
  echo "error: there is no revision \`$revision\` here" >&2
  echo "  help: fetch it first (\`git fetch origin main\`), or name another: ci/gate.sh HEAD~1" >&2
  exit 2
}

echo "building the head" >&2
cargo build --quiet --release --package bench-cli
exec target/release/bench-cli gate --base-rev "$revision" \
  --base-cache "${GATE_CACHE:-target/gate-base}" --head ours "$@"
