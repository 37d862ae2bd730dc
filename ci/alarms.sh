#!/usr/bin/env bash
# How often the gate cries wolf on this machine, and how often it sees a slowdown: gates of one short
# cell between two copies of one library, then gates with a slowdown put in. Leave the machine alone
# meanwhile; a gate takes 3 to 7 seconds.
#
#   ci/alarms.sh [EQUAL [SLOWED [SLOWDOWN]]]     300 equal ones, then 20 slowed by 5 %
set -euo pipefail
cd "$(dirname "$0")/.."
equal=${1:-300} slowed=${2:-20} slowdown=${3:-5%}
gate=${BENCH_CLI:-target/release/bench-cli}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp "$("$gate" preload --print)" "$folder/a.so"
cp "$folder/a.so" "$folder/b.so"

# series COUNT ARGUMENTS...: how many gates ended with each exit status
series() {
  local count=$1 status
  shift
  for ((i = 1; i <= count; i++)); do
    status=0
    "$gate" gate --base "$folder/a.so" --head "$folder/b.so" small-churn --budget 20s --seed "$i" \
      --quiet --out "$folder/out" "$@" > "$folder/log" 2>&1 || status=$?
    rm -rf "$folder/out"
    echo "$status"
  done | sort -n | uniq -c | while read -r number status; do echo "  $number ended with $status"; done
}

echo "$equal gates between equal libraries (0 pass, 3 regression, 4 inconclusive):"
series "$equal"
echo "$slowed gates with $slowdown put in:"
series "$slowed" --inject-slowdown "$slowdown"
