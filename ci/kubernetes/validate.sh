#!/usr/bin/env bash
# The Job template against the schema of Kubernetes itself, unknown fields refused: 1.29 is the first
# version in which `backoffLimitPerIndex` is on by default. And a template with a misspelt field, to
# see that the check can fail.
#
#   ci/kubernetes/validate.sh
#
# Needs python3 with venv; installs PyPI's `kubernetes-validate`, which carries the schemas, into a
# temporary folder. No cluster is needed or contacted.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" --quiet --disable-pip-version-check install 'kubernetes-validate>=1.29'
for version in 1.29 1.31; do
  "$work/venv/bin/kubernetes-validate" --strict -k "$version" "$here/gate.yaml"
done
sed 's/completionMode:/completionMod:/' "$here/gate.yaml" >"$work/misspelt.yaml"
if "$work/venv/bin/kubernetes-validate" --strict --quiet -k 1.29 "$work/misspelt.yaml" >/dev/null 2>&1; then
  echo "error: a misspelt field was not refused" >&2
  exit 1
fi
echo "ok: gate.yaml is a valid Job, and a misspelt field is refused"
